package explain

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"healthgate/filter"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// Probe is a real GET of a gate, as a balancer would send it.
type Probe struct {
	URL      string `json:"url"`
	Protocol string `json:"protocol,omitempty"`
	Status   int    `json:"status,omitempty"`
	Took     string `json:"took,omitempty"`
	Error    string `json:"error,omitempty"` // why there is no answer
}

const probeTimeout = 3 * time.Second

// ask probes a gate, and has its answer win over what was computed. The reason is by the counter that grew.
func (s *seen) ask(ctx context.Context, admin *envoyadmin.Client, served lint.Served, g *Gate) {
	targets, why := reachable(admin.Address(), g.Address)
	if served.Proxied {
		targets, why = nil, "its listener wants the PROXY protocol"
	}
	if len(targets) == 0 {
		g.Unknown = append(g.Unknown, "a probe: "+why)
		return
	}
	scope := `^healthgate\.(` + strings.ReplaceAll(strings.Join(served.Prefixes, "|"), ".", `\.`) + `)\.`
	before, err := admin.Stats(ctx, scope)
	if err != nil {
		return
	}
	var probe Probe
	var since string
	for _, target := range targets {
		if probe, since = get(ctx, served, target); probe.Error == "" {
			break
		}
	}
	g.Probe = &probe
	if probe.Error != "" {
		return
	}
	details, asked, kept := awaitReason(ctx, admin, scope, before, served.Prefixes)
	computed := g.Answer
	g.Answer = Answer{Passing: probe.Status < 400, Status: probe.Status, Details: details, Since: since, By: "probe"}
	switch {
	case !asked && kept:
		g.Answer.Details = ""
		g.Next = fmt.Sprintf("the gate was not asked: another route, filter or redirect has answered with %d (the findings below say which)", probe.Status)
	case !asked: // its stats are not kept
		g.Answer.Details = computed.Details
		g.Unknown = append(g.Unknown, "the reason: the gate's own stats are not kept, and what stands here is computed")
	case details != computed.Details:
		g.Next = s.nextOf(served.Config, g, details)
	}
}

// counted is how long a counter may take to grow after an answer.
const counted = time.Second

// awaitReason tells by which counter a gate has counted an answer, whether it has, and whether its counters are kept.
func awaitReason(ctx context.Context, admin *envoyadmin.Client, scope string, before map[string]uint64, prefixes []string) (details string, asked, kept bool) {
	looks := 0 // that have seen an answer without its reason, which is counted after it, or not at all where it is held
	for until := time.Now().Add(counted); ; {
		after, err := admin.Stats(ctx, scope)
		if err != nil || len(after) == 0 {
			return "", false, false
		}
		for _, prefix := range prefixes {
			if details, asked = reasonGrown(before, after, prefix); asked {
				break
			}
		}
		if details == filter.Held.Details() {
			looks++
		}
		if asked && (details != filter.Held.Details() || looks > 3) || time.Now().After(until) {
			return details, asked, true
		}
		select {
		case <-ctx.Done():
			return "", false, true
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nextOf is next, by the details that the counters tell.
func (s *seen) nextOf(c *filter.Config, g *Gate, details string) string {
	if c == nil {
		return g.Next
	}
	for reason := filter.OK; reason <= filter.Error; reason++ {
		if reason.Details() == details {
			return s.next(c, g, reason)
		}
	}
	return ""
}

// reasonGrown tells the reason of an answer by the counters of a prefix before and after it.
func reasonGrown(before, after map[string]uint64, prefix string) (details string, asked bool) {
	scope := "healthgate." + prefix + "."
	grown := func(counter string) bool { return after[scope+counter] > before[scope+counter] }
	for reason := filter.Draining; reason <= filter.Error; reason++ {
		if grown("failed_" + reason.String()) {
			return reason.Details(), true
		}
	}
	switch {
	case grown("failed"): // an answer that is held counts in failed alone
		return filter.Held.Details(), true
	case grown("ok"):
		return filter.OK.Details(), true
	}
	return "", false
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

// get sends a probe. The certificate is not verified: balancers don't either.
func get(ctx context.Context, served lint.Served, target string) (p Probe, since string) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: strings.TrimPrefix(served.ServerName, "*")}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	scheme := "http"
	if served.TLS {
		scheme = "https"
	} else if served.HTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	p.URL = scheme + "://" + target + served.Path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		p.Error = err.Error()
		return p, ""
	}
	request.Header.Set("user-agent", "healthgate-explain")
	request.Header.Set("accept", "application/json")
	if served.Host != "" {
		request.Host = strings.TrimPrefix(served.Host, "*.")
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	start := time.Now()
	reply, err := client.Do(request)
	if err != nil {
		p.Error = err.Error()
		return p, ""
	}
	defer reply.Body.Close()
	p.Took = time.Since(start).Round(100 * time.Microsecond).String()
	p.Protocol, p.Status = reply.Proto, reply.StatusCode
	var report struct {
		Since string `json:"since"`
	}
	if body, err := io.ReadAll(io.LimitReader(reply.Body, 1<<20)); err == nil && json.Unmarshal(body, &report) == nil {
		since = report.Since
	}
	return p, since
}
