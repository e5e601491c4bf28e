package lint

import (
	"maps"
	"slices"
	"strings"
)

// checkReach reports gates that a balancer's plain probe does not reach, unless it reaches another gate, which may be the one to probe.
func (s *scope) checkReach(f findings, gates []*gate) {
	all := findings{}
	for _, g := range gates {
		obstacles := g.obstacles()
		if g.in.chain != nil && len(obstacles) == 0 {
			return
		}
		maps.Copy(all, obstacles)
	}
	maps.Copy(f, all)
}

// byClient has the parts of a filter_chain_match that depend on the client.
var byClient = []struct{ key, what string }{
	{"server_names", "clients that name a server (SNI)"},
	{"source_prefix_ranges", "clients with some addresses"},
	{"direct_source_prefix_ranges", "clients with some addresses"},
	{"source_ports", "clients with some ports"},
	{"source_type", "local or external clients"},
	{"application_protocols", "clients that offer a protocol (ALPN)"},
}

// obstacles returns the reasons why a plain probe does not reach the gate.
func (g *gate) obstacles() findings {
	all := findings{}
	if g.in.chain == nil {
		return all
	}
	block := func(at *Node, says string) { all.add(at, Warning, "reach", "%s", says) }
	match := g.in.chain.get("filter_chain_match")
	if matcher := g.in.listener.get("filter_chain_matcher"); matcher != nil {
		match = nil // the matcher replaces it
		if (chainMatcher{g.in}).selects(matcher) == no {
			block(matcher, "this matcher selects the gate's filter chain only for some clients, and no other chain that it selects has a gate, so "+
				"a plain probe may not reach it: select it for all others by on_no_match, or give the gate a separate listener")
		}
	}
	for _, part := range byClient {
		at := match.get(part.key)
		if at == nil || at.kind == list && len(at.items) == 0 || at.scalar == "ANY" ||
			part.key == "application_protocols" && (hasTLS(g.in.chain) || g.in.inspectsHTTP()) && at.has("http/1.1", "h2") || at.has("*") ||
			slices.ContainsFunc(at.items, func(n *Node) bool { return n.kind == mapping && n.number(0, "prefix_len") == 0 }) {
			continue // a balancer's probe over TLS offers http/1.1 or h2
		}
		block(at, "this filter chain is for "+part.what+", and no other chain of the listener has a gate, so a plain probe may not reach it: "+
			"give the gate a filter chain without this, or a separate listener")
	}
	if transport := match.get("transport_protocol"); transport != nil && hasTLS(g.in.chain) != (transport.scalar == "tls") {
		block(transport, "this filter chain is for the transport protocol "+transport.scalar+", and its transport_socket expects the other "+
			"one, so no probe reaches the gate: write transport_protocol to match transport_socket")
	}
	if bind := g.in.listener.get("bind_to_port"); bind != nil && !g.in.listener.isTrue("bind_to_port") {
		block(bind, "this listener does not bind to its port, so probes reach it only through a listener with use_original_dst: give the gate "+
			"a separate listener")
	}
	for _, filter := range g.in.chain.list("filters") {
		contents, typeName := typed(filter.get("typed_config"))
		if strings.HasSuffix(typeName, ".network.ext_authz.v3.ExtAuthz") ||
			strings.HasSuffix(typeName, ".network.rbac.v3.RBAC") && rbacRefuses(filterAt{contents: contents, port: g.in.port()}) != no {
			block(filter, "this network filter may refuse a balancer's connection before the gate: give the gate a filter chain without it, or "+
				"a separate listener")
		}
	}
	if tls := tlsContext(g.in.chain); tls.isTrue("require_client_certificate") {
		block(tls.get("require_client_certificate"), "Envoy refuses clients without a certificate here, and balancers and kubelets probe "+
			"without one: give the gate a separate listener")
	}
	if filter := g.in.proxyProtocol(); filter != nil {
		block(filter, "Envoy closes connections without a PROXY protocol header here, and kubelets and many balancers probe without it: "+
			"write allow_requests_without_proxy_protocol: true, or give the gate a separate listener")
	}
	if codec := g.in.get("codec_type"); codec.text() == "HTTP2" && !hasTLS(g.in.chain) {
		block(codec, "this listener speaks only HTTP/2, without TLS, and a plain probe is HTTP/1.1: write codec_type: AUTO")
	}
	return all
}

// listenerFilter returns the first listener filter of a type, by its short name, in which a key is not true, or nil.
func (m connectionManager) listenerFilter(name, key string) *Node {
	for _, filter := range m.listener.list("listener_filters") {
		if contents, typeName := typed(filter.get("typed_config")); shortName(typeName) == name && !contents.isTrue(key) {
			return filter
		}
	}
	return nil
}

// inspectsHTTP returns whether the listener finds out the protocol of connections without TLS.
func (m connectionManager) inspectsHTTP() bool { return m.listenerFilter("HttpInspector", "") != nil }

// proxyProtocol returns the listener filter that requires the PROXY protocol, or nil.
func (m connectionManager) proxyProtocol() *Node {
	return m.listenerFilter("ProxyProtocol", "allow_requests_without_proxy_protocol")
}
