package lint

import (
	"cmp"
	"slices"
	"strings"
)

// check applies each rule to a scope, and returns its gates.
func (s *scope) check(f findings) []*gate {
	gates := s.gates()
	for _, g := range gates {
		g.checkNames(f)
		s.checkConfig(f, g)
		g.checkEnabled(f)
		g.checkActions(f)
		for _, routes := range g.routing.configurations {
			if g.filter.isTrue("disabled") { // a filter that is enabled by default answers on every route
				g.checkVirtualHosts(f, routes)
			}
		}
		s.checkOrder(f, g)
		if g.in.patch != nil {
			s.checkPatches(f, g)
		}
		g.checkALPN(f)
		g.checkLocalReplies(f)
		g.checkUnderscores(f)
		g.checkNative(f)
		s.checkClusters(f, g)
	}
	s.checkNotAsked(f, gates)
	s.checkReach(f, gates)
	s.checkStats(f, gates)
	s.checkHTTP2(f)
	s.checkRouteClusters(f)
	s.checkLibraries(f, gates)
	s.checkAdmin(f)
	s.checkMisplaced(f, gates)
	return gates
}

func (g *gate) enablingLines() string {
	return "typed_per_filter_config: {" + g.filter.text("name") + ": {\"@type\": type.googleapis.com/" + typeFilterConfig + ", config: {}}}"
}

// checkEnabled reports a gate that no route enables, or that answers another path than its route matches.
func (g *gate) checkEnabled(f findings) {
	if !g.filter.isTrue("disabled") {
		g.checkSwitchedOff(f)
		return
	}
	if len(g.probes) == 0 && !g.routing.partial {
		f.add(g.filter.at("disabled"), Error, "not-enabled", "the filter is disabled and no route enables it, so probes get the route's own "+
			"action: add to the probe's route: %s", g.enablingLines())
	}
	for _, p := range g.probes {
		path := p.path()
		inherits := p.route.get("typed_per_filter_config", g.filter.text("name")) == nil // a wider level may be meant for another route
		if path != "" && matches(p.route, g.request(path)) == no && !(inherits && len(g.answers) > 0) && !g.answersHealth(p) {
			f.add(p.route.at("match"), Error, "not-enabled", "the gate answers %q here, which this route does not match, so it never answers: "+
				"match {path: %q}, or set the gate's path to the route's", path, path)
		}
	}
}

// checkSwitchedOff reports probes' routes that disable a filter which is enabled by default.
func (g *gate) checkSwitchedOff(f findings) {
	own := g.own()
	if own == nil {
		return
	}
	for _, routes := range g.routing.configurations {
		for _, virtualHost := range routes.list("virtual_hosts") {
			route := g.firstFor(virtualHost, own.Path)
			if route != nil && !slices.ContainsFunc(g.probes, func(p probe) bool { return p.route == route }) {
				f.add(route.at("typed_per_filter_config", g.filter.text("name")), Error, "not-enabled",
					"the route of %q disables the filter, so probes get the route's own action: enable the filter here, and disable it elsewhere",
					own.Path)
			}
		}
	}
}

// healthPath is the path of a gRPC health check.
const healthPath = "/grpc.health.v1.Health/Check"

// answersHealth reports whether a route matches grpc.health.v1.Health, which the dynamic module answers if grpc_services is set.
func (g *gate) answersHealth(p probe) bool {
	asked := slices.ContainsFunc(p.layers, func(l *layer) bool { return len(l.value.list("grpc_services")) > 0 })
	return g.variant == module && asked && matchesPath(p.route.get("match"), healthPath) != no
}

// checkActions reports a route that lets probes pass without the filter: if it is misspelt or absent, or for another method.
func (g *gate) checkActions(f findings) {
	const without = "without the filter (absent or disabled) this route "
	for _, p := range g.answers {
		if !g.filter.isTrue("disabled") && g.takenBefore(p) != nil {
			continue
		}
		switch direct := p.route.get("direct_response"); {
		case direct == nil && p.route.get("route") != nil:
			f.add(p.route.get("route"), Warning, "leaks", without+"sends probes of %q upstream, so a backend answers in Envoy's place: "+
				"give the probe a separate route, {match: {path: %q}, direct_response: {status: 503}}", p.path(), p.path())
		case direct == nil && p.route.get("redirect") != nil:
			f.add(p.route.get("redirect"), Warning, "leaks", without+"redirects probes of %q, and some balancers take a redirect as healthy: "+
				"replace it by direct_response: {status: 503}", p.path())
		case direct != nil && direct.number(0, "status") < 400:
			f.add(direct.at("status"), Error, "leaks", without+"answers probes with %s, so they pass whatever the state of the clusters: write "+
				"status: 503", direct.text("status"))
		}
	}
}

// firstFor returns the first route of a virtual host that takes each probe of a path, or nil.
func (g *gate) firstFor(virtualHost *Node, path string) *Node {
	key := firstKey{virtualHost, path}
	if _, known := g.first[key]; !known {
		routes := virtualHost.list("routes")
		g.first[key] = nil
		if i := slices.IndexFunc(routes, func(route *Node) bool { return matches(route, g.request(path)) == yes }); i >= 0 {
			g.first[key] = routes[i]
		}
	}
	return g.first[key]
}

// takenBefore returns the route before a probe's that takes it, or nil.
func (g *gate) takenBefore(p probe) *Node {
	first := g.firstFor(p.virtualHost, p.path())
	if first == nil || first == p.route || cmp.Or(cmp.Compare(first.line, p.route.line), cmp.Compare(first.column, p.route.column)) > 0 {
		return nil
	}
	return first
}

// checkVirtualHosts reports probes that another route or a redirect takes, and probes by IP address that get to no virtual host with the
// gate.
func (g *gate) checkVirtualHosts(f findings, routes *Node) {
	byIP := virtualHostByIP(routes)
	answered := map[*Node]string{}
	done := map[string]bool{} // paths that are answered by IP address
	for _, p := range g.answers {
		answered[p.route] = p.path()
		done[p.path()] = done[p.path()] || p.virtualHost == byIP
	}
	for _, p := range g.answers {
		if p.routes == routes && g.in.patch == nil && (p.virtualHost == byIP || !done[p.path()]) { // else the path is reached elsewhere
			before := g.takenBefore(p)
			g.checkShadow(f, p, before, before != nil && answered[before] != p.path())
		}
	}
	for _, p := range g.answers {
		path, at := p.path(), p.virtualHost.at("domains")
		switch {
		case done[path], g.routing.partial, g.routing.scoped: // the probe may be for another virtual host or scope
		case byIP == nil:
			f.add(at, Error, "domains", "balancers and kubelets probe by IP address, which no virtual host takes, so GET %s gets 404: "+
				"give the probe's route a separate virtual host with domains: [\"*\"]", path)
		default:
			f.add(at, Error, "domains", "balancers and kubelets probe by IP address, which goes to the virtual host %s in line %d, in which no "+
				"route enables the gate for %s: add the probe's route to it", quoteKey(byIP.text("name")), byIP.line, path)
		}
		done[path] = true
	}
}

func (g *gate) checkShadow(f findings, p probe, before *Node, isShadowed bool) {
	if isShadowed {
		f.add(p.route, Error, "shadowed", "the route in line %d is before this one, takes GET %s and %s: move the probe's route before it",
			before.line, p.path(), action(before))
	}
	requireTLS := p.virtualHost.text("require_tls")
	if g.in.chain == nil || hasTLS(g.in.chain) || requireTLS == "" || requireTLS == "NONE" {
		return
	}
	severity, probes := Error, "every probe"
	if requireTLS == "EXTERNAL_ONLY" {
		severity, probes = Warning, "external probes"
	}
	f.add(p.virtualHost.get("require_tls"), severity, "shadowed", "the listener has no TLS, so require_tls redirects %s with 301 before "+
		"Envoy selects a route: give the probe a separate virtual host without require_tls, with domains: [\"*\"]", probes)
}

// action describes a route's action to a request.
func action(route *Node) string {
	switch {
	case route.get("redirect") != nil:
		return "redirects it"
	case route.get("direct_response") != nil:
		return "answers it with " + route.text("direct_response", "status")
	case route.text("route", "cluster") != "":
		return "sends it to cluster " + route.text("route", "cluster")
	}
	return "sends it upstream"
}

// security returns the transport socket of a filter chain that encrypts, without the sockets around it, and its type; "" if none does.
func security(chain *Node) (contents *Node, typeName string) {
	socket := chain.get("transport_socket")
	for {
		contents, typeName = typed(socket.get("typed_config"))
		if shortName(typeName) == "QuicDownstreamTransport" {
			return contents.get("downstream_tls_context"), typeTLS
		}
		inner := contents.get("transport_socket")
		if inner == nil {
			break
		}
		socket = inner
	}
	switch {
	case socket == nil || shortName(typeName) == "RawBuffer" || strings.HasSuffix(socket.text("name"), "raw_buffer"):
		return nil, ""
	case typeName == "":
		return nil, "unknown"
	}
	return contents, typeName
}

func hasTLS(chain *Node) bool {
	_, typeName := security(chain)
	return typeName != ""
}

// tlsContext returns a filter chain's DownstreamTlsContext, or nil.
func tlsContext(chain *Node) *Node {
	if contents, typeName := security(chain); typeName == typeTLS {
		return contents
	}
	return nil
}

// request returns a plain probe of a path as the gate's connection manager sees it.
func (g *gate) request(path string) request {
	r := request{path: path, tls: maybe}
	if g.in.chain != nil {
		r.tls = answerOf(hasTLS(g.in.chain))
	}
	if scheme := g.in.text("scheme_header_transformation", "scheme_to_overwrite"); scheme != "" {
		r.tls = answerOf(scheme == "https")
	}
	return r
}

// virtualHostByIP returns the virtual host for requests to an IP address, or nil.
func virtualHostByIP(routes *Node) *Node {
	for _, takes := range []func(*Node) bool{func(domain *Node) bool { return domain.scalar == "*" }, takesIP} {
		for _, virtualHost := range routes.list("virtual_hosts") {
			if slices.ContainsFunc(virtualHost.list("domains"), takes) {
				return virtualHost
			}
		}
	}
	return nil
}
