package explain

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"healthgate/filter/policy"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// Probe is a GET of a gate, as a balancer would send it.
type Probe struct {
	URL      string `json:"url"`
	Protocol string `json:"protocol,omitempty"`
	Status   int    `json:"status,omitempty"`
	Took     string `json:"took,omitempty"`
	Counted  bool   `json:"counted"`         // the gate's own counters have grown by it, so the gate answered it
	Error    string `json:"error,omitempty"` // the reason if there is no answer

	target string // the address
	since  string // in the gate's report
	err    error
}

const (
	probeTimeout = 3 * time.Second
	// burst is the number of probes for a gate, so that they differ from the probes of other clients.
	burst = 10
	// countedWithin is the time in which the gate's counters must grow by them.
	countedWithin = time.Second
	// pause is the shortest time for which the counters are watched without a probe.
	pause = 100 * time.Millisecond
)

// prober probes the gates of one Envoy.
type prober struct {
	*seen
	admin   *envoyadmin.Client
	pattern string // of the stats that show who answered
}

// probe probes each gate. An answer counts only if the gate's own counters have grown by it: another server on this machine or another
// filter may answer at the listener's address. Then the numbers decide.
func (s *seen) probe(ctx context.Context, admin *envoyadmin.Client, gates []Gate) {
	p := &prober{s, admin, `^(http\..*\.(downstream_rq_total|downstream_cx_drain_close)|` +
		`listener_manager\.(listener_stopped|total_listeners_draining|total_filter_chains_draining)` + gateCounters(s.served) + `)$`}
	for i := range gates {
		p.probe(ctx, s.served[i], &gates[i])
	}
}

func (p *prober) probe(ctx context.Context, served lint.Served, g *Gate) {
	targets, why := reachable(p.admin.Address(), g.Address)
	switch {
	case g.Address == "" && served.Listener != "":
		why = "Envoy has not bound its listener (/listeners lacks it)"
	case served.UDP:
		targets, why = nil, "its listener speaks HTTP/3, which explain does not"
	}
	if len(targets) == 0 {
		g.Unknown = append(g.Unknown, "a probe: "+why)
		return
	}
	before, err := p.admin.Stats(ctx, p.pattern)
	if err != nil {
		return
	}
	for _, target := range targets {
		if g.Probe = sendProbe(ctx, served, target); g.Probe.err == nil {
			p.answered(ctx, served, g, before)
			return
		}
	}
	unanswered(g, before)
}

// answered decides whether the gate answered a probe.
func (p *prober) answered(ctx context.Context, served lint.Served, g *Gate, before map[string]uint64) {
	scopes := scopesOf(before, served.Prefixes)
	if len(scopes) == 0 {
		if served.Config != nil {
			g.Unknown = append(g.Unknown, "whether the gate answered the probe: it has no counters (a stats matcher?), so the numbers decide")
		}
		return
	}
	t := p.try(ctx, served, g.Probe, scopes, before)
	gate := t.by(func(stats map[string]uint64) uint64 { return answered(stats, scopes) })
	envoy := t.by(func(stats map[string]uint64) uint64 { return requests(stats, "downstream_rq_total") })
	g.Probe.Counted = gate == ours && t.details != ""
	switch {
	case g.Probe.Counted:
		p.counted(served, g, t.details)
	case gate != others:
		g.Unknown = append(g.Unknown, "whether the gate answered the probe: other clients probe it too often to see that in its counters, "+
			"so the numbers decide")
		return
	case envoy == ours:
		g.Problems = append(g.Problems, fmt.Sprintf("this Envoy answered the probe with %d, but not by the gate", g.Probe.Status))
		g.Next = "find the route, redirect or filter that answers in the gate's place: the findings below, " +
			"or the access log's %RESPONSE_CODE_DETAILS%"
	default:
		g.Unknown = append(g.Unknown, fmt.Sprintf("a probe: another server answered at %s with %d, because the gate's counters have not "+
			"grown by it; the numbers decide (if admin is reached by a port-forward, run explain beside Envoy, or with --probe=false)",
			g.Probe.target, g.Probe.Status))
		return
	}
	if p.closes(t) {
		g.Problems = append(g.Problems, "the listener drains: Envoy closes each connection after its reply "+
			"(http.….downstream_cx_drain_close grows)")
		g.Next = "restart Envoy: nothing else ends `healthgate drain` or /drain_listeners, not even /healthcheck/ok"
	}
}

func requests(stats map[string]uint64, counter string) uint64 {
	sum, _ := envoyadmin.Requests(stats, counter)
	return sum
}

// trial is a burst of probes, and an equal time without any.
type trial struct {
	sent                 uint64
	before, after, later map[string]uint64 // the stats
	details              string            // the reason that the gate's counters show; "" if they have not grown
}

// origin is the sender of the requests that made a counter grow.
type origin uint8

const (
	others  origin = iota // other clients
	ours                  // explain, and perhaps other clients
	unclear               // perhaps explain, among many others
)

// by returns the sender of the requests that made a counter grow.
func (t trial) by(counter func(stats map[string]uint64) uint64) origin {
	during, without := counter(t.after)-counter(t.before), counter(t.later)-counter(t.after)
	switch {
	case during < t.sent/2:
		return others
	case during >= t.sent && without <= t.sent/4:
		return ours
	}
	return unclear
}

// try sends the rest of a burst, waits for the gate's counters to grow by it, and watches them for an equal time.
func (p *prober) try(ctx context.Context, served lint.Served, first *Probe, scopes []string, before map[string]uint64) trial {
	start := time.Now()
	t := trial{sent: 1, before: before, after: before, later: before}
	for t.sent < burst && sendProbe(ctx, served, first.target).err == nil {
		t.sent++
	}
	late := 0 // polls that show the answers without a reason, which is counted later, or never if the verdict is held
	for until := time.Now().Add(countedWithin); ; {
		stats, err := p.admin.Stats(ctx, p.pattern)
		if err != nil {
			return t
		}
		t.after, t.later = stats, stats
		if answered(t.after, scopes) >= answered(before, scopes)+t.sent {
			if t.details = reasonGrown(before, t.after, scopes, first.Status < 400); t.details != policy.Held.Details() || late > 3 {
				break
			}
			late++
		}
		if time.Now().After(until) || !envoyadmin.Wait(ctx, 50*time.Millisecond) {
			break
		}
	}
	if envoyadmin.Wait(ctx, max(pause, time.Since(start))) {
		if stats, err := p.admin.Stats(ctx, p.pattern); err == nil {
			t.later = stats
		}
	}
	return t
}

// closes reports whether Envoy closes connections after their replies, as it does after /drain_listeners until it ends.
func (p *prober) closes(t trial) bool {
	if live, kept := p.stats["server.live"]; kept && live == 0 {
		return false // it fails its health checks, which also closes connections
	}
	const counter = "downstream_cx_drain_close"
	replaced := t.after["listener_manager.total_listeners_draining"]+t.after["listener_manager.total_filter_chains_draining"] > 0
	byOthers := requests(t.later, counter) != requests(t.after, counter)
	return requests(t.after, counter) != requests(t.before, counter) && !(byOthers && replaced)
}

// counted sets the gate's own answer.
func (p *prober) counted(served lint.Served, g *Gate, details string) {
	computed := g.Answer.Details
	g.Answer = Answer{Passing: g.Probe.Status < 400, Status: g.Probe.Status, Details: details, Since: g.Probe.since, By: "probe"}
	switch {
	case details == policy.ClusterEmpty.Details() && computed == policy.ClusterUnknown.Details():
		// The Go plugin can't know that Envoy has no such cluster; one answer has one reason.
		for i := range g.Clusters {
			if g.Clusters[i].Reason == policy.ClusterUnknown.String() {
				g.Clusters[i].Reason = policy.ClusterEmpty.String()
			}
		}
	case details != computed && served.Config != nil:
		reason := policy.OK
		for reason.Details() != details {
			reason++
		}
		g.Next = p.nextStep(served.Config, g, reason)
	}
}

// unanswered describes why a probe has no answer.
func unanswered(g *Gate, stats map[string]uint64) {
	err := g.Probe.err
	g.Probe.Error = err.Error()
	g.Problems = append(g.Problems, "the probe got no answer: "+err.Error())
	const elsewhere = "; if admin is reached by a port-forward, run explain beside Envoy, or with --probe=false"
	alert := tls.AlertError(0)
	record := tls.RecordHeaderError{}
	switch {
	case stats["listener_manager.listener_stopped"] > 0:
		g.Next = "restart Envoy: /drain_listeners has stopped its listeners, and nothing else starts them"
	case errors.Is(err, syscall.ECONNREFUSED):
		g.Next = "nothing listens there: see /listeners on admin" + elsewhere
	case errors.As(err, &alert), errors.As(err, &record), strings.Contains(err.Error(), "tls:"):
		g.Next = "TLS fails, as it does for a balancer: see whether the listener requires a client certificate or a server name (SNI), " +
			"or has no certificate" + elsewhere
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		g.Next = "the listener does not answer in time: see whether a firewall blocks it, Envoy is overloaded, or a filter waits" + elsewhere
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.Contains(err.Error(), "EOF"):
		g.Next = "the connection is closed without an answer: see whether the listener selects filter chains by client, requires a client " +
			"certificate, limits connections, has a network filter or a listener filter, or speaks another protocol" + elsewhere
	default:
		g.Next = "see whether this machine reaches the listener" + elsewhere
	}
}

// reachable returns the addresses of a listener as seen from here, the likeliest first, or the reason why it can't be reached. In a
// container without IPv6, Envoy's [::] listens on IPv4 alone.
func reachable(admin, listener string) (targets []string, why string) {
	if strings.HasPrefix(listener, "@") {
		return []string{listener}, ""
	} else if strings.HasPrefix(listener, "/") {
		if _, err := os.Stat(listener); err != nil {
			return nil, "its listener's socket is not on this machine"
		}
		return []string{listener}, ""
	}
	at, err := netip.ParseAddrPort(listener)
	if err != nil {
		return nil, "its listener has no IP address and port"
	}
	if !at.Addr().IsUnspecified() {
		return []string{listener}, ""
	}
	hosts := []string{"127.0.0.1"}
	if at.Addr().Is6() {
		hosts = []string{"::1", "127.0.0.1"}
	}
	if of, _, err := net.SplitHostPort(admin); err == nil && !strings.HasPrefix(admin, "unix:") {
		if ip, err := netip.ParseAddr(of); err != nil && of != "localhost" || err == nil && !ip.IsLoopback() {
			hosts = []string{of}
		}
	}
	for _, host := range hosts {
		targets = append(targets, net.JoinHostPort(host, fmt.Sprint(at.Port())))
	}
	return targets, ""
}

// sendProbe sends a probe. As balancers do, it does not verify the certificate.
func sendProbe(ctx context.Context, served lint.Served, target string) *Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		if strings.HasPrefix(target, "/") || strings.HasPrefix(target, "@") {
			network = "unix"
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, target)
		if err == nil && served.Proxied {
			_, err = io.WriteString(conn, "PROXY UNKNOWN\r\n")
		}
		return conn, err
	}
	transport := &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: strings.TrimPrefix(served.ServerName, "*")},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	scheme, host := "http://", target
	if served.TLS {
		scheme = "https://"
	} else if served.HTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	if !strings.Contains(target, ":") {
		host = "localhost" // a unix socket
	}
	p := &Probe{target: target, URL: scheme + target + served.Path}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+host+served.Path, nil)
	if err != nil {
		p.err = err
		return p
	}
	request.Header.Set("user-agent", "healthgate-explain")
	request.Header.Set("accept", "application/json")
	if served.Host != "" {
		request.Host = strings.TrimPrefix(served.Host, "*.")
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	start := time.Now()
	answer, err := client.Do(request)
	if err != nil {
		p.err = err
		return p
	}
	defer answer.Body.Close()
	p.Took = time.Since(start).Round(100 * time.Microsecond).String()
	p.Protocol, p.Status = answer.Proto, answer.StatusCode
	var report struct {
		Since string `json:"since"`
	}
	if body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20)); err == nil && json.Unmarshal(body, &report) == nil {
		p.since = report.Since
	}
	return p
}
