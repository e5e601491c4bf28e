package lint

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"healthgate/filter/config"
)

// gatewayRoute matches the name that Envoy Gateway gives the cluster of a route's rule.
var gatewayRoute = regexp.MustCompile(`^(httproute|grpcroute|tlsroute|tcproute|udproute)/([^/]+)/([^/]+)/rule/(-?\d+)(/.*)?$`)

// gatewayKinds has the kinds of routes, as they are in a cluster's name.
var gatewayKinds = map[string]string{"HTTPRoute": "httproute", "GRPCRoute": "grpcroute", "TLSRoute": "tlsroute", "TCPRoute": "tcproute",
	"UDPRoute": "udproute"}

// gatewayReads reports whether checkGateway reads a kind of object.
func gatewayReads(kind string) bool {
	return gatewayKinds[kind] != "" || kind == "EnvoyExtensionPolicy" || kind == "EnvoyProxy" || kind == "EnvoyPatchPolicy"
}

// envoyGateway has the objects of an Envoy Gateway.
type envoyGateway struct {
	found   *findings
	routes  map[string]*Node // by kind/namespace/name
	proxies []*Node
	others  []*Node // policies that add filters before the gate, or rewrite replies
	merges  bool    // clusters are named after services
}

// checkGateway checks the objects by which Envoy Gateway runs the module, and returns the number of their gates.
func (l *linter) checkGateway() (gates int) {
	e := &envoyGateway{found: &l.found, routes: map[string]*Node{}}
	for _, object := range l.objects {
		kind := object.text("kind")
		if kind == "EnvoyProxy" {
			e.proxies = append(e.proxies, object)
			e.merges = e.merges || object.get("spec", "mergeBackends") != nil
		} else if gatewayFilters[kind] != nil {
			e.others = append(e.others, object)
		} else if short := gatewayKinds[kind]; short != "" {
			e.routes[short+"/"+object.text("metadata", "namespace")+"/"+object.text("metadata", "name")] = object
		}
	}
	for _, proxy := range e.proxies {
		e.checkBootstrap(proxy)
	}
	for _, object := range l.objects {
		switch object.text("kind") {
		case "EnvoyExtensionPolicy":
			entries := object.list("spec", "dynamicModule")
			own := 0
			for _, entry := range entries {
				if e.isGate(entry) {
					own++
					e.checkPolicy(object, entry)
				}
			}
			if gates += own; own == 0 && len(entries) > 0 {
				l.noteGatePlace(object)
			}
		case "EnvoyPatchPolicy":
			for _, patch := range object.list("spec", "jsonPatches") {
				if strings.HasSuffix(patch.text("type"), ".Cluster") && patch.get("name") != nil {
					e.cluster(patch.get("name"), "this patches")
				}
			}
		}
	}
	return gates
}

// route returns a route by its kind, namespace and name. A route without a namespace may be in any.
func (e *envoyGateway) route(kind, namespace, name string) *Node {
	if route := e.routes[kind+"/"+namespace+"/"+name]; route != nil {
		return route
	}
	return e.routes[kind+"//"+name]
}

// module returns the module of a name that an EnvoyProxy registers, or nil.
func (e *envoyGateway) module(name string) *Node {
	for _, proxy := range e.proxies {
		for _, entry := range proxy.list("spec", "dynamicModules") {
			if entry.text("name") == name {
				return entry
			}
		}
	}
	return nil
}

func modulePath(entry *Node) *Node { return entry.get("source", "local", "path") }

// isGate reports whether an entry of a policy is Healthgate.
func (e *envoyGateway) isGate(entry *Node) bool {
	return isNear(entry.text("name")) || isNear(entry.text("filterName")) ||
		path.Base(modulePath(e.module(entry.text("name"))).text()) == "libhealthgate.so"
}

// checkPolicy checks a gate in an EnvoyExtensionPolicy. Envoy Gateway accepts any configuration of a module.
func (e *envoyGateway) checkPolicy(policy, entry *Node) {
	own := &layer{at: entry, value: entry.get("config")}
	var decoded *config.Config
	err := errors.New("config: an object is required, with at least clusters: [httproute/<namespace>/<name>/rule/0]")
	if own.value != nil && own.value.kind == mapping {
		decoded, err = config.Decode(own.value.structure(), module)
	}
	report(e.found, []*layer{own}, err, "Envoy Gateway still accepts it; a running Envoy keeps its listener, and a new one gets none")
	if len(e.proxies) > 0 && e.module(entry.text("name")) == nil && !isPlaceholder(entry.text("name")) {
		var known []string
		for _, proxy := range e.proxies {
			for _, registered := range proxy.list("spec", "dynamicModules") {
				known = append(known, registered.text("name"))
			}
		}
		e.found.add(entry.at("name"), Error, "no-gate", "no EnvoyProxy registers a module %q, so Envoy Gateway refuses the policy%s",
			entry.text("name"), suggestion(entry.text("name"), known))
	}
	if err != nil {
		return
	}
	e.checkTargets(policy, decoded)
	e.checkOthers(policy)
	asked := map[string]bool{}
	for _, cluster := range decoded.Clusters {
		asked[cluster.Name] = true
	}
	for i, cluster := range decoded.Clusters {
		at := find([]*layer{own}, "clusters["+strconv.Itoa(i)+"].name")
		if decoded.Admin == nil && cluster.StatName != cluster.Name {
			continue
		}
		if route := e.cluster(&Node{file: at.file, line: at.line, column: at.column, kind: text, scalar: cluster.Name},
			gateUses); route != nil {
			e.checkOtherRules(at, route, cluster.Name, asked)
		}
	}
}

// gateUses is the subject of a finding about a cluster's name in a gate.
const gateUses = "the gate depends on"

// cluster checks the name of a cluster, and returns the route that it is made from if that is in the files.
func (e *envoyGateway) cluster(name *Node, who string) (route *Node) {
	const rule = "unknown-cluster"
	if e.merges || isPlaceholder(name.scalar) {
		return nil
	}
	parts := gatewayRoute.FindStringSubmatch(name.scalar)
	if parts == nil {
		if who == gateUses {
			e.found.add(name, Warning, rule, "Envoy Gateway creates no cluster %q: it names them "+
				"httproute/<namespace>/<name>/rule/<index>, or grpcroute/… for a rule of a GRPCRoute", name.scalar)
		}
		return nil
	}
	key := strings.Join(parts[1:4], "/")
	if route = e.route(parts[1], parts[2], parts[3]); route == nil {
		var known []string
		meant := ""
		for other := range e.routes {
			kind, rest, _ := strings.Cut(other, "/")
			if strings.HasPrefix(rest, "/") {
				rest = parts[2] + rest
			}
			known = append(known, kind+"/"+rest)
			if rest == parts[2]+"/"+parts[3] { // of another kind
				meant = ": did you mean " + kind + "/" + rest + "/rule/" + parts[4] + "?"
			}
		}
		slices.Sort(known)
		if near := config.Nearest(key, known); meant == "" && near != "" {
			meant = ": did you mean " + near + "/rule/" + parts[4] + "?"
		}
		if meant != "" {
			e.found.add(name, Error, rule, "%s the cluster %q, and no route in these files has that name%s", who, name.scalar, meant)
		} else if len(known) > 0 && who == gateUses {
			e.found.add(name, Warning, rule, "%s the cluster %q, and no route in these files has that name", who, name.scalar)
		}
		return nil
	}
	index, _ := strconv.Atoi(parts[4])
	rules := route.list("spec", "rules")
	switch {
	case index >= len(rules) && len(rules) > 0:
		e.found.add(name, Error, rule, "%s the cluster %q, and %s %s (line %d) has %d rules, numbered from rule/0", who, name.scalar,
			route.text("kind"), parts[3], route.line, len(rules))
		return nil
	case index >= 0 && index < len(rules) && len(rules[index].list("backendRefs")) == 0:
		e.found.add(name, Error, rule, "%s the cluster %q, and that rule (line %d) has no backendRefs, so it has no cluster", who,
			name.scalar, rules[index].line)
		return nil
	}
	return route
}

// checkOtherRules reports rules of the same route that the gate does not depend on: a new rule before another renumbers them.
func (e *envoyGateway) checkOtherRules(at, route *Node, name string, asked map[string]bool) {
	prefix := name[:strings.LastIndex(name, "/rule/")+len("/rule/")]
	var left []string
	for i, rule := range route.list("spec", "rules") {
		other := prefix + strconv.Itoa(i)
		isAsked := func(name string) bool { return name == other || strings.HasPrefix(name, other+"/") }
		if len(rule.list("backendRefs")) > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(asked)), isAsked) {
			left = append(left, "rule/"+strconv.Itoa(i))
		}
	}
	if len(left) > 0 {
		e.found.add(at, Warning, "not-asked", "%s", otherRules(route.text("kind")+" "+route.text("metadata", "name"), left))
	}
}

// otherRules is the finding that a gate depends on some rules of a route and not on others.
func otherRules(route string, left []string) string {
	return fmt.Sprintf("the gate does not depend on %s of %s: Envoy Gateway numbers rules by their order, so a new rule before another "+
		"moves the service to another cluster, and the gate still depends on the old one: "+
		"give the service a separate route with one rule, or name the cluster of each rule", clip(strings.Join(left, ", ")), route)
}

// checkTargets reports a policy whose routes do not match the gate's path, or let probes pass without the filter.
func (e *envoyGateway) checkTargets(policy *Node, gate *config.Config) {
	for _, target := range targets(policy) {
		kind := gatewayKinds[target.text("kind")]
		if kind == "" || len(e.routes) == 0 {
			continue
		}
		route := e.route(kind, policy.text("metadata", "namespace"), target.text("name"))
		if route == nil {
			e.found.add(target, Warning, "not-enabled", "the policy is for %s %q, which is not in these files", target.text("kind"),
				target.text("name"))
			continue
		}
		if kind != "httproute" {
			continue
		}
		matched := false
		for _, rule := range route.list("spec", "rules") {
			if len(rule.list("matches")) == 0 { // every path
				matched = true
			}
			for _, match := range rule.list("matches") {
				value := match.text("path", "value")
				switch match.text("path", "type") {
				case "Exact":
					matched = matched || value == gate.Path
				case "RegularExpression":
					matched = matched || matchesRegex(value, gate.Path) != no
				default:
					prefix := strings.TrimSuffix(value, "/")
					matched = matched || prefix == "" || gate.Path == prefix || strings.HasPrefix(gate.Path, prefix+"/")
				}
			}
			if len(rule.list("backendRefs")) > 0 {
				e.found.add(rule.get("backendRefs"), Warning, "leaks", "without the filter (absent or refused) this rule sends probes to its "+
					"backends, which answer in Envoy's place: give the probe a separate route whose filter is an HTTPRouteFilter with directResponse: {statusCode: 503}")
			}
		}
		if !matched && len(route.list("spec", "rules")) > 0 {
			e.found.add(target, Error, "not-enabled", "the gate answers %q, which no rule of HTTPRoute %s (line %d) matches, so it never "+
				"answers: match {path: {type: Exact, value: %q}}, or set the gate's path", gate.Path, target.text("name"), route.line, gate.Path)
		}
	}
}

// gatewayFilters has the fields of policies for a whole Gateway that act on a probe, with the rule and the effect.
var gatewayFilters = map[string][]struct{ field, rule, does string }{
	"SecurityPolicy": {
		{"jwt", "order", "requires a token of a probe (401)"},
		{"basicAuth", "order", "requires a password of a probe (401)"},
		{"apiKeyAuth", "order", "requires a key of a probe (401)"},
		{"oidc", "order", "redirects a probe to a login (302)"},
		{"extAuth", "order", "asks an authorization service about a probe (403)"},
	},
	"EnvoyExtensionPolicy": {
		{"lua", "order", "runs a script on a probe and on the gate's reply"},
		{"wasm", "order", "runs a program on a probe"},
		{"extProc", "order", "calls a processor for a probe and the gate's reply (500)"},
	},
	"BackendTrafficPolicy": {
		{"responseOverride", "local-reply", "rewrites the gate's replies"},
		{"faultInjection", "order", "answers some probes with an error, or late"},
	},
}

// targets returns the references to the targets of a policy.
func targets(policy *Node) []*Node {
	all := policy.list("spec", "targetRefs")
	if one := policy.get("spec", "targetRef"); one != nil {
		all = append(slices.Clone(all), one)
	}
	return all
}

// checkOthers reports policies for a Gateway whose filters act on probes. A policy of the same kind for the probe's route replaces them.
func (e *envoyGateway) checkOthers(policy *Node) {
	isGateway := func(ref *Node) bool { return ref.text("kind") == "Gateway" }
	for _, other := range e.others {
		kind := other.text("kind")
		if other == policy || !slices.ContainsFunc(targets(other), isGateway) {
			continue
		}
		if kind == "EnvoyExtensionPolicy" && !slices.ContainsFunc(targets(policy), isGateway) {
			continue // the gate's policy replaces it on the probe's route
		}
		if slices.ContainsFunc(e.others, func(o *Node) bool {
			return o.text("kind") == kind && slices.ContainsFunc(targets(o), func(ref *Node) bool {
				return slices.ContainsFunc(targets(policy), func(own *Node) bool {
					return ref.text("kind") == own.text("kind") && ref.text("name") == own.text("name") && !isGateway(ref)
				})
			})
		}) {
			continue
		}
		for _, filter := range gatewayFilters[kind] {
			if at := other.get("spec", filter.field); at != nil && !(filter.rule == "order" && e.orders()) {
				e.found.add(at, Warning, filter.rule, "this %s is for the whole Gateway and %s: write one for the probe's route, which replaces "+
					"it there", kind, filter.does)
			}
		}
	}
}

// orders reports whether an EnvoyProxy moves the module's filter before others.
func (e *envoyGateway) orders() bool {
	return slices.ContainsFunc(e.proxies, func(proxy *Node) bool {
		return slices.ContainsFunc(proxy.list("spec", "filterOrder"), func(o *Node) bool {
			return o.text("name") == "envoy.filters.http.dynamic_modules" && o.get("before") != nil
		})
	})
}

// checkBootstrap checks the bootstrap in an EnvoyProxy: it needs the module's extension, from the same file as the filter.
func (e *envoyGateway) checkBootstrap(proxy *Node) {
	var own *Node
	for _, entry := range proxy.list("spec", "dynamicModules") {
		if isNear(entry.text("name")) || path.Base(modulePath(entry).text()) == "libhealthgate.so" {
			own = entry
		}
	}
	bootstrap := proxy.get("spec", "bootstrap")
	value := bootstrap.get("value")
	var documents []*Node
	if value != nil && value.kind == text {
		var err error
		if documents, err = parse([]byte(value.scalar), embeddedAt(value)); err != nil {
			e.found.add(value, Error, "api", "the bootstrap is not YAML (%s), so Envoy Gateway refuses it", err)
			return
		}
	}
	extensions := 0
	for _, document := range documents {
		e.found.checkPart(document, typeBootstrap)
		for _, contents := range startups(document) {
			extensions++
			checkModuleName(e.found, contents)
			l, file := moduleLibrary(contents.get("dynamic_module_config")), modulePath(own)
			if l != nil && file != nil && l.file != file.scalar && (l.byPath || path.Base(file.scalar) != "lib"+l.file+".so") && !l.isMisspelt() {
				e.found.add(l.at, Error, "two-libraries", "the module is loaded by %s here, and by the path %s in line %d: two copies share no "+
					"memory, so Envoy refuses the filter: write the same in both places", l, file.scalar, file.line)
			}
		}
	}
	if own != nil && extensions == 0 && (bootstrap == nil || value != nil) {
		e.found.add(own, Error, "config", needsStartup, "spec.bootstrap (type: Merge)", fmt.Sprintf("{module: {local: {filename: %s}}, metrics_namespace: healthgate}",
			modulePath(own).text()))
	}
}
