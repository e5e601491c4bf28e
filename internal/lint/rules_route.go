package lint

import (
	"slices"
	"strings"
)

// check runs each rule over a scope, and returns its gates.
func (s *scope) check(f *findings) []*gate {
	gates := s.gates()
	for _, g := range gates {
		g.checkNames(f)
		s.checkConfig(f, g)
		g.checkEnabled(f)
		g.checkActions(f)
		for _, routes := range g.routing.configurations {
			if g.in.patch == nil {
				g.checkShadows(f, routes)
			}
			if !g.routing.partial && !g.routing.scoped { // the probe may be for another virtual host, or another scope
				g.checkDomains(f, routes)
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
	return gates
}

const enablingLines = "typed_per_filter_config: {%s: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}"

// enabling are the lines that enable the gate on a route.
func (g *gate) enabling() string {
	return strings.ReplaceAll(enablingLines, "%s", g.filter.text("name"))
}

// checkEnabled finds a gate that no route enables.
func (g *gate) checkEnabled(f *findings) {
	const rule = "not-enabled"
	if g.filter.isTrue("disabled") {
		if len(g.probes) == 0 && !g.routing.partial {
			f.add(g.filter.at("disabled"), Error, rule, "the filter is disabled and no route enables it, so a probe goes where its route sends it: "+
				"put into the probe's route: %s", g.enabling())
		}
		for _, p := range g.probes {
			if path := p.path(); path != "" && matches(p.route, g.request(path)) == no && !(inherits(p, g) && len(g.answers) > 0) &&
				!g.answersHealth(p) {
				f.add(p.route.at("match"), Error, rule, "the gate answers %q here, which this route does not match, so it never answers: "+
					"match {path: %q}, or set the gate's path to the route's", path, path)
			}
		}
		return
	}
	config := g.decode([]*layer{g.layer}).config
	if config == nil {
		return
	}
	for _, routes := range g.routing.configurations {
		g.checkSwitchedOff(f, routes, config.Path)
	}
}

// checkSwitchedOff finds a probe's route that switches off a filter which is on by default.
func (g *gate) checkSwitchedOff(f *findings, routes *Node, path string) {
	for _, virtualHost := range routes.list("virtual_hosts") {
		for _, route := range virtualHost.list("routes") {
			if matches(route, g.request(path)) != yes {
				continue
			}
			if !slices.ContainsFunc(g.probes, func(p probe) bool { return p.route == route }) {
				f.add(route.at("typed_per_filter_config", g.filter.text("name")), Error, "not-enabled",
					"the route of %q disables the filter, so a probe goes where this route sends it: enable it here, and disable it elsewhere", path)
			}
			break
		}
	}
}

// inherits says whether a wider level enables the gate on a route, which may be meant for another route.
func inherits(p probe, g *gate) bool {
	return p.route.get("typed_per_filter_config", g.filter.text("name")) == nil
}

// answersHealth says whether a route is there for grpc.health.v1.Health, which the dynamic module answers if grpc_services is set.
func (g *gate) answersHealth(p probe) bool {
	asked := slices.ContainsFunc(p.layers, func(l *layer) bool { return len(l.value.list("grpc_services")) > 0 })
	return g.variant == module && asked && matchesPath(p.route.get("match"), healthPath) != no
}

// healthPath is the path of a gRPC health check.
const healthPath = "/grpc.health.v1.Health/Check"

// checkActions finds routes that let a probe pass if the filter is absent: after a slip, in an Envoy without it, for another method.
func (g *gate) checkActions(f *findings) {
	const rule = "leaks"
	for _, p := range g.answers {
		if !g.filter.isTrue("disabled") && g.takenBefore(p) != nil {
			continue
		}
		switch direct := p.route.get("direct_response"); {
		case direct == nil && p.route.get("route") != nil:
			f.add(p.route.get("route"), Warning, rule, "where the filter is absent or switched off, this route sends probes of %q upstream, "+
				"and a backend's answer passes for Envoy's: "+
				"give the probe a separate route, {match: {path: %q}, direct_response: {status: 503}}", p.path(), p.path())
		case direct == nil && p.route.get("redirect") != nil:
			f.add(p.route.get("redirect"), Warning, rule, "where the filter is absent or switched off, this route redirects probes of %q, "+
				"which some balancers take for healthy: write direct_response: {status: 503} in its place", p.path())
		case direct != nil && direct.number(0, "status") < 400:
			f.add(direct.at("status"), Error, rule, "where the filter is absent or switched off, this route itself answers probes with %s, so "+
				"that they pass whatever the clusters are: write status: 503", direct.text("status"))
		}
	}
}

// takenBefore returns the route before a probe's that takes it, or nil.
func (g *gate) takenBefore(p probe) *Node {
	key := firstKey{p.virtualHost, p.path()}
	first, known := g.first[key]
	if !known {
		for _, route := range p.virtualHost.list("routes") {
			if matches(route, g.request(key.path)) == yes {
				first = route
				break
			}
		}
		if g.first == nil {
			g.first = map[firstKey]*Node{}
		}
		g.first[key] = first
	}
	if first == nil || first == p.route || first.line > p.route.line || first.line == p.route.line && first.column > p.route.column {
		return nil
	}
	return first
}

// probed returns the routes that a probe by IP address gets to: in the virtual host that takes IP addresses, if it has the
// path. A probe by name may get to another.
func (g *gate) probed(routes *Node) []probe {
	byIP := virtualHostByIP(routes)
	has := map[string]bool{}
	for _, p := range g.answers {
		has[p.path()] = has[p.path()] || p.virtualHost == byIP && byIP != nil
	}
	var probed []probe
	for _, p := range g.answers {
		if p.routes == routes && (p.virtualHost == byIP || !has[p.path()]) {
			probed = append(probed, p)
		}
	}
	return probed
}

// checkShadows finds probes that do not get to their route. A filter that is on by default answers on every route.
func (g *gate) checkShadows(f *findings, routes *Node) {
	const rule = "shadowed"
	if !g.filter.isTrue("disabled") {
		return
	}
	answered := map[*Node]string{}
	for _, p := range g.answers {
		answered[p.route] = p.path()
	}
	for _, p := range g.probed(routes) {
		if before := g.takenBefore(p); before != nil && answered[before] != p.path() {
			f.add(p.route, Error, rule, "the route before it, in line %d, takes GET %s first and %s: put the probe's route before that one",
				before.line, p.path(), does(before))
		}
		tls := p.virtualHost.text("require_tls")
		if g.in.chain == nil || hasTLS(g.in.chain) || tls == "" || tls == "NONE" {
			continue
		}
		severity, whose := Error, "every probe"
		if tls == "EXTERNAL_ONLY" {
			severity, whose = Warning, "a probe from outside"
		}
		f.add(p.virtualHost.get("require_tls"), severity, rule, "the listener has no TLS, so require_tls redirects %s with 301 before its "+
			"route is looked for: give the probe a separate virtual host without require_tls, with domains: [\"*\"]", whose)
	}
}

// does names the action of a route.
func does(route *Node) string {
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

// secure returns the transport socket of a filter chain that encrypts, with its type, without the sockets around it.
func secure(chain *Node) (contents *Node, typeName string) {
	socket := chain.get("transport_socket")
	for {
		contents, typeName = typed(socket.get("typed_config"))
		if strings.HasSuffix(typeName, ".QuicDownstreamTransport") {
			return contents.get("downstream_tls_context"), typeTLS
		}
		inner := contents.get("transport_socket")
		if inner == nil {
			break
		}
		socket = inner
	}
	if socket == nil || strings.HasSuffix(typeName, ".RawBuffer") || strings.HasSuffix(socket.text("name"), "raw_buffer") {
		return nil, ""
	}
	return contents, typeName
}

// hasTLS says whether a filter chain takes TLS.
func hasTLS(chain *Node) bool {
	if chain.get("transport_socket") == nil {
		return false
	}
	contents, typeName := secure(chain)
	return contents != nil || typeName != "" || chain.get("transport_socket", "typed_config") == nil &&
		!strings.HasSuffix(chain.text("transport_socket", "name"), "raw_buffer")
}

// tlsContext returns a filter chain's DownstreamTlsContext, or nil.
func tlsContext(chain *Node) *Node {
	if contents, typeName := secure(chain); typeName == typeTLS {
		return contents
	}
	return nil
}

// request is a plain probe of a path as it comes to the gate's connection manager.
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

// checkDomains finds probes by IP address that no virtual host with the gate takes.
func (g *gate) checkDomains(f *findings, routes *Node) {
	const rule = "domains"
	if !g.filter.isTrue("disabled") {
		return
	}
	byIP := virtualHostByIP(routes)
	done := map[string]bool{} // paths that are answered by IP address, or reported
	for _, p := range g.answers {
		done[p.path()] = done[p.path()] || p.virtualHost == byIP
	}
	for _, p := range g.answers {
		path := p.path()
		if done[path] {
			continue
		}
		done[path] = true
		at := p.virtualHost.at("domains")
		if byIP == nil {
			f.add(at, Error, rule, "balancers and kubelets probe by IP address, which no virtual host takes, so GET %s gets 404: "+
				"give the probe's route a separate virtual host with domains: [\"*\"]", path)
			continue
		}
		f.add(at, Error, rule, "balancers and kubelets probe by IP address, which goes to the virtual host %s in line %d, where no route "+
			"asks the gate for %s: put the probe's route there too", quoteKey(byIP.text("name")), byIP.line, path)
	}
}

// virtualHostByIP returns the virtual host that takes a request to an IP address, or nil.
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
