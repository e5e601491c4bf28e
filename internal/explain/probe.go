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

// Probe is a real GET of a gate, as a balancer would send it.
type Probe struct {
	URL      string `json:"url"`
	Protocol string `json:"protocol,omitempty"`
	Status   int    `json:"status,omitempty"`
	Took     string `json:"took,omitempty"`
	Counted  bool   `json:"counted"`         // the gate's own counters have grown by it: it is the gate's answer
	Error    string `json:"error,omitempty"` // why there is no answer
}

const (
	probeTimeout = 3 * time.Second
	// burst is how many probes a gate gets: others probe it too, and their probes must not be taken for these.
	burst = 10
	// countedWithin is how long the gate's counters may take to grow by them.
	countedWithin = time.Second
	// pause is the shortest time in which the counters are watched without a probe.
	pause = 100 * time.Millisecond
)

// prober probes the gates of one Envoy.
type prober struct {
	*seen
	admin   *envoyadmin.Client
	pattern string // of the stats that show whose answer it was
}

// probe asks each gate. An answer counts only if the gate's own counters have grown by it: at a listener's address something else
// may answer, on this machine or by another filter. Then the numbers decide.
func (s *seen) probe(ctx context.Context, admin *envoyadmin.Client, served []lint.Served, gates []Gate) {
	p := &prober{seen: s, admin: admin}
	p.pattern = `^(http\..*\.(downstream_rq_total|downstream_cx_drain_close)|` +
		`listener_manager\.(listener_stopped|total_listeners_draining|total_filter_chains_draining)` +
		gateCounters(served) + `)$`
	for i := range gates {
		p.probe(ctx, served[i], &gates[i])
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *prober) probe(ctx context.Context, served lint.Served, g *Gate) {
	targets, why := reachable(p.admin.Address(), g.Address)
	switch {
	case g.Address == "" && served.Listener != "":
		why = "Envoy has not bound its listener (/listeners lacks it)"
	case served.Proxied:
		targets, why = nil, "its listener wants the PROXY protocol"
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
	var r reply
	for _, target := range targets {
		if r = send(ctx, served, target); r.err == nil {
			break
		}
	}
	g.Probe = &r.Probe
	if r.err != nil {
		unanswered(g, r.err, before)
		return
	}
	p.answered(ctx, served, g, r, before)
}

// answered decides whose answer a probe got.
func (p *prober) answered(ctx context.Context, served lint.Served, g *Gate, r reply, before map[string]uint64) {
	scopes := scopesOf(before, served.Prefixes)
	if len(scopes) == 0 {
		if served.Config != nil {
			g.Unknown = append(g.Unknown, "whether the gate gave the probe's answer: its own counters are not kept, so the numbers decide")
		}
		return
	}
	t := p.try(ctx, served, r, scopes, before)
	gate := t.by(func(stats map[string]uint64) uint64 { return answered(stats, scopes) })
	envoy := t.by(func(stats map[string]uint64) uint64 { return sumOf(stats, "downstream_rq_total") })
	g.Probe.Counted = gate == ours && t.details != ""
	switch {
	case g.Probe.Counted:
		p.counted(served, g, r, t.details)
	case gate != others:
		g.Unknown = append(g.Unknown, "whether the gate gave the probe's answer: others probe it so often that its counters don't show; the numbers decide")
		return
	case envoy == ours:
		g.Problems = append(g.Problems, fmt.Sprintf("the probe was answered with %d by this Envoy, but not by the gate", r.Status))
		g.Next = "find the route, redirect or filter that answers in the gate's place: the findings below, " +
			"or the access log's %RESPONSE_CODE_DETAILS%"
	default:
		g.Unknown = append(g.Unknown, fmt.Sprintf("a probe: something else than this gate has answered at %s with %d, "+
			"since the gate's counters have not grown by it; "+
			"the numbers decide (is admin reached by a port-forward? run explain beside Envoy, or with --probe=false)", hostOf(r.URL), r.Status))
		return
	}
	if p.closes(t) {
		g.Problems = append(g.Problems, "the listener drains: Envoy closes each connection after its reply (http.….downstream_cx_drain_close grows)")
		g.Next = "restart Envoy: `healthgate drain` or /drain_listeners can't be taken back, not by /healthcheck/ok either"
	}
}

// trial is a burst of probes, and then as long without any.
type trial struct {
	sent                 uint64
	before, after, later map[string]uint64 // the stats
	details              string            // the reason by which the gate's counters have grown; "" if they have not
}

// origin is whose requests have made a counter grow.
type origin uint8

const (
	others  origin = iota // not ours
	ours                  // ours, and perhaps some of others
	unclear               // perhaps ours: there are too many of others
)

// by decides whose requests have made a counter grow.
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

// try sends the rest of a burst, waits for the gate's counters to grow by it, and watches them for as long again.
func (p *prober) try(ctx context.Context, served lint.Served, first reply, scopes []string, before map[string]uint64) trial {
	start := time.Now()
	t := trial{sent: 1, before: before, after: before, later: before}
	for ; t.sent < burst; t.sent++ {
		if again := send(ctx, served, hostOf(first.URL)); again.err != nil {
			break
		}
	}
	late := 0 // polls that have the answers without a reason, which is counted after them, or never if they are held
	for until := time.Now().Add(countedWithin); ; {
		stats, err := p.admin.Stats(ctx, p.pattern)
		if err != nil {
			return t
		}
		t.after, t.later = stats, stats
		if answered(t.after, scopes) >= answered(before, scopes)+t.sent {
			if t.details = reasonIn(before, t.after, scopes, first.Status < 400); t.details != policy.Held.Details() || late > 3 {
				break
			}
			late++
		}
		if time.Now().After(until) || !wait(ctx, 50*time.Millisecond) {
			break
		}
	}
	if wait(ctx, max(pause, time.Since(start))) {
		if stats, err := p.admin.Stats(ctx, p.pattern); err == nil {
			t.later = stats
		}
	}
	return t
}

// reasonIn is the first reason that has grown in one of some scopes, or "".
func reasonIn(before, after map[string]uint64, scopes []string, passing bool) string {
	for _, scope := range scopes {
		if reason, grown := reasonGrown(before, after, scope, passing); grown {
			return reason
		}
	}
	return ""
}

// closes says whether Envoy closes connections after their replies, which /drain_listeners makes it do for good.
func (p *prober) closes(t trial) bool {
	if live, kept := p.stats["server.live"]; kept && live == 0 {
		return false // it fails its health checks, which closes connections as well
	}
	const counter = "downstream_cx_drain_close"
	replaced := t.after["listener_manager.total_listeners_draining"]+t.after["listener_manager.total_filter_chains_draining"] > 0
	byOthers := sumOf(t.later, counter) != sumOf(t.after, counter)
	return sumOf(t.after, counter) != sumOf(t.before, counter) && !(byOthers && replaced)
}

// counted takes over the gate's own answer.
func (p *prober) counted(served lint.Served, g *Gate, r reply, details string) {
	computed := g.Answer
	g.Answer = Answer{Passing: r.Status < 400, Status: r.Status, Details: details, Since: r.since, By: "probe"}
	if details == policy.ClusterEmpty.Details() && computed.Details == policy.ClusterUnknown.Details() {
		// The gate can't know that Envoy lacks the cluster; one answer has one reason.
		for i := range g.Clusters {
			if g.Clusters[i].Reason == policy.ClusterUnknown.String() {
				g.Clusters[i].Reason = policy.ClusterEmpty.String()
			}
		}
		return
	}
	if details != computed.Details {
		g.Next = p.nextOf(served.Config, g, details)
	}
}

// unanswered says why a probe has no answer.
func unanswered(g *Gate, err error, stats map[string]uint64) {
	g.Probe.Error = err.Error()
	g.Problems = append(g.Problems, "the probe got no answer: "+err.Error())
	const elsewhere = "; if admin is reached by a port-forward, this is another machine: run explain beside Envoy, or with --probe=false"
	alert := tls.AlertError(0)
	record := tls.RecordHeaderError{}
	switch {
	case stats["listener_manager.listener_stopped"] > 0:
		g.Next = "restart Envoy: its listeners were stopped by /drain_listeners, which can't be taken back"
	case errors.Is(err, syscall.ECONNREFUSED):
		g.Next = "nothing listens there: has Envoy bound the listener (/listeners on admin)?" + elsewhere
	case errors.As(err, &alert), errors.As(err, &record), strings.Contains(err.Error(), "tls:"):
		g.Next = "TLS fails, as it does for a balancer: does the listener ask for a client certificate or a server name (SNI), " +
			"or has it no certificate?" + elsewhere
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		g.Next = "the listener does not answer in time: a firewall, an overloaded Envoy, or a filter that waits" + elsewhere
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.Contains(err.Error(), "EOF"):
		g.Next = "the connection is closed without an answer: does the listener ask for a client certificate, has it a connection limit, " +
			"RBAC or a listener filter, or does it speak another protocol?" + elsewhere
	default:
		g.Next = "see whether the listener can be reached from here" + elsewhere
	}
}

// reachable is where a listener can be asked from here, the likeliest first, or why it can't. A container often has no IPv6: there
// Envoy's [::] takes IPv4 alone.
func reachable(admin, listener string) (targets []string, why string) {
	at, err := netip.ParseAddrPort(listener)
	if err != nil {
		return nil, "the listener's address is not an IP address and port"
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

// reply is a probe, with details that are not part of the report.
type reply struct {
	Probe
	since string
	err   error
}

// hostOf is the host:port of a URL.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// send sends a probe. The certificate is not verified, as balancers don't either.
func send(ctx context.Context, served lint.Served, target string) (r reply) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: strings.TrimPrefix(served.ServerName, "*")},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	scheme := "http"
	if served.TLS {
		scheme = "https"
	} else if served.HTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	r.URL = scheme + "://" + target + served.Path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		r.err = err
		return r
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
		r.err = err
		return r
	}
	defer answer.Body.Close()
	r.Took = time.Since(start).Round(100 * time.Microsecond).String()
	r.Protocol, r.Status = answer.Proto, answer.StatusCode
	var report struct {
		Since string `json:"since"`
	}
	if body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20)); err == nil && json.Unmarshal(body, &report) == nil {
		r.since = report.Since
	}
	return r
}
