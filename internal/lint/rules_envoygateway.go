package lint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// gatewayRoute matches the name that Envoy Gateway gives the cluster of a route's rule.
var gatewayRoute = regexp.MustCompile(`^(httproute|grpcroute|tlsroute|tcproute|udproute)/([^/]+)/([^/]+)/rule/(-?\d+)(/.*)?$`)

// gatewayKinds has the kinds of routes, as they are in a cluster's name.
var gatewayKinds = map[string]string{"HTTPRoute": "httproute", "GRPCRoute": "grpcroute", "TLSRoute": "tlsroute", "TCPRoute": "tcproute",
	"UDPRoute": "udproute"}

// gatewayReads reports whether checkGateway reads a kind of object.
func gatewayReads(kind string) bool {
	return gatewayKinds[kind] != "" ||
		slices.Contains([]string{"EnvoyExtensionPolicy", "EnvoyProxy", "EnvoyPatchPolicy", "HTTPRouteFilter"}, kind)
}

// envoyGateway has the objects of an Envoy Gateway.
type envoyGateway struct {
	found   findings
	routes  map[string]*Node // by kind/namespace/name
	filters map[string]*Node // each HTTPRouteFilter, by its name
	proxies []*Node
	modules []*Node // that the proxies register
	others  []*Node // policies that add filters before the gate, or rewrite replies
	merges  bool    // clusters are named after services
	patched bool    // a patch sets how often Envoy checks a cluster without traffic
}

// checkGateway checks the objects by which Envoy Gateway runs the module, and returns the number of their gates.
func (l *linter) checkGateway() (gates int) {
	e := &envoyGateway{found: l.found, routes: map[string]*Node{}, filters: map[string]*Node{}}
	for _, object := range l.objects {
		name := object.text("metadata", "name")
		switch kind := object.text("kind"); {
		case kind == "EnvoyProxy":
			e.proxies = append(e.proxies, object)
			e.modules = append(e.modules, object.list("spec", "dynamicModules")...)
			e.merges = e.merges || object.get("spec", "mergeBackends") != nil
		case kind == "HTTPRouteFilter":
			e.filters[name] = object
		case gatewayFilters[kind] != nil:
			e.others = append(e.others, object)
		case gatewayKinds[kind] != "":
			e.routes[gatewayKinds[kind]+"/"+object.text("metadata", "namespace")+"/"+name] = object
		}
		for _, patch := range object.list("spec", "jsonPatches") {
			e.patched = e.patched || strings.HasSuffix(patch.text("operation", "path"), "/no_traffic_interval")
		}
	}
	for _, proxy := range e.proxies {
		e.checkBootstrap(proxy)
	}
	for _, object := range l.objects {
		switch object.text("kind") {
		case "EnvoyExtensionPolicy":
			own := 0
			for _, entry := range object.list("spec", "dynamicModule") {
				if e.isGate(entry) {
					own++
					e.checkPolicy(object, entry)
				}
			}
			if gates += own; own == 0 && len(object.list("spec", "dynamicModule")) > 0 {
				l.gatePlace = cmp.Or(l.gatePlace, object)
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
	return cmp.Or(e.routes[kind+"/"+namespace+"/"+name], e.routes[kind+"//"+name])
}

// module returns the module of a name that an EnvoyProxy registers, or nil.
func (e *envoyGateway) module(name string) *Node {
	if i := slices.IndexFunc(e.modules, func(module *Node) bool { return module.text("name") == name }); i >= 0 {
		return e.modules[i]
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
	name := entry.text("name")
	if len(e.proxies) > 0 && e.module(name) == nil && !isPlaceholder(name) {
		var known []string
		for _, module := range e.modules {
			known = append(known, module.text("name"))
		}
		e.found.add(entry.at("name"), Error, "no-gate", "no EnvoyProxy registers a module %q, so Envoy Gateway refuses the policy%s", name,
			suggestion(name, known))
	}
	if err != nil {
		return
	}
	e.checkTargets(policy, decoded)
	e.checkOthers(policy)
	for i, cluster := range decoded.Clusters {
		at := probe{layers: []*layer{own}}.cluster(i, "name")
		if decoded.Admin == nil && cluster.StatName != cluster.Name {
			continue
		}
		if route := e.cluster(&Node{position: at.position, kind: text, scalar: cluster.Name}, gateUses); route != nil {
			e.checkIdle(route)
			e.checkOtherRules(at, route, cluster.Name, decoded.Clusters)
		}
	}
}

// gateUses is the subject of a finding about a cluster's name in a gate.
const gateUses = "the gate depends on"

// cluster checks the name of a cluster, and returns the route that it is made from if that is in the files.
func (e *envoyGateway) cluster(name *Node, who string) (route *Node) {
	const rule = "unknown-cluster"
	parts := gatewayRoute.FindStringSubmatch(name.scalar)
	switch {
	case e.merges || isPlaceholder(name.scalar):
		return nil
	case parts == nil && who == gateUses:
		e.found.add(name, Warning, rule, "Envoy Gateway creates no cluster %q: it names them "+
			"httproute/<namespace>/<name>/rule/<index>, or grpcroute/… for a rule of a GRPCRoute", name.scalar)
		return nil
	case parts == nil:
		return nil
	}
	if route = e.route(parts[1], parts[2], parts[3]); route == nil {
		if meant := e.likely(parts); meant != "" {
			e.found.add(name, Error, rule, "%s the cluster %q, and no route in these files has that name: did you mean %s/rule/%s?", who,
				name.scalar, meant, parts[4])
		} else if len(e.routes) > 0 && who == gateUses {
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

// likely returns the route that the parts of a cluster's name may mean: of another kind, or with a similar name; "" if there is none.
func (e *envoyGateway) likely(parts []string) (meant string) {
	var known []string
	for _, other := range slices.Sorted(maps.Keys(e.routes)) {
		kind, rest, _ := strings.Cut(other, "/")
		if strings.HasPrefix(rest, "/") {
			rest = parts[2] + rest
		}
		known = append(known, kind+"/"+rest)
		if rest == parts[2]+"/"+parts[3] {
			meant = kind + "/" + rest
		}
	}
	slices.Sort(known)
	return cmp.Or(meant, config.Nearest(strings.Join(parts[1:4], "/"), known))
}

// checkOtherRules reports rules of the same route that the gate does not depend on: a new rule before another renumbers them.
func (e *envoyGateway) checkOtherRules(at, route *Node, name string, asked []policy.Cluster) {
	prefix := name[:strings.LastIndex(name, "/rule/")+len("/rule/")]
	var left []string
	for i, rule := range route.list("spec", "rules") {
		other := prefix + strconv.Itoa(i)
		isAsked := func(cluster policy.Cluster) bool {
			return cluster.Name == other || strings.HasPrefix(cluster.Name, other+"/")
		}
		if len(rule.list("backendRefs")) > 0 && !slices.ContainsFunc(asked, isAsked) {
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
		kind, name := target.text("kind"), target.text("name")
		route := e.route(gatewayKinds[kind], policy.text("metadata", "namespace"), name)
		isProbe := func(rule *Node) bool { return matchesGate(rule, gate) }
		switch rules := route.list("spec", "rules"); {
		case kind == "Gateway":
			e.found.add(target, Warning, "leaks", "the policy targets the whole Gateway, so without the filter (absent or refused) probes follow "+
				"the other routes, and backends answer in Envoy's place: give the probe a separate HTTPRoute, and target that")
		case gatewayKinds[kind] == "" || len(e.routes) == 0:
		case route == nil:
			e.found.add(target, Warning, "not-enabled", "the policy targets %s %q, which is not in these files", kind, name)
		case len(rules) > 0 && !slices.ContainsFunc(rules, isProbe):
			e.found.add(target, Error, "not-enabled", "the gate answers %q, which no rule of %s %s (line %d) matches, so it never "+
				"answers: target an HTTPRoute that matches {path: {type: Exact, value: %q}}", gate.Path, kind, name, route.line, gate.Path)
		default:
			for _, rule := range rules {
				if isProbe(rule) {
					e.checkLeak(rule)
				}
			}
		}
	}
}

// matchesGate reports whether a rule of a route matches the gate's path.
func matchesGate(rule *Node, gate *config.Config) bool {
	all := rule.list("matches")
	return len(all) == 0 || slices.ContainsFunc(all, func(match *Node) bool {
		if method := match.get("method"); method != nil && method.kind == mapping { // of a GRPCRoute
			return method.text("service") == "grpc.health.v1.Health" && len(gate.GRPCServices) > 0
		}
		value := match.text("path", "value")
		switch match.text("path", "type") {
		case "Exact":
			return value == gate.Path
		case "RegularExpression":
			return matchesRegex(value, gate.Path) != no
		}
		prefix := strings.TrimSuffix(value, "/")
		return prefix == "" || gate.Path == prefix || strings.HasPrefix(gate.Path, prefix+"/")
	})
}

// checkLeak reports a rule of the probe's route that lets probes pass without the filter.
func (e *envoyGateway) checkLeak(rule *Node) {
	if len(rule.list("backendRefs")) > 0 {
		e.found.add(rule.get("backendRefs"), Warning, "leaks", "without the filter (absent or refused) this rule sends probes to its backends, "+
			"which answer in Envoy's place: give the probe a separate route whose filter is an HTTPRouteFilter with "+
			"directResponse: {statusCode: 503}")
	}
	for _, filter := range rule.list("filters") {
		direct := e.filters[filter.text("extensionRef", "name")].get("spec", "directResponse")
		if direct != nil && direct.number(200, "statusCode") < 400 {
			e.found.add(direct, Warning, "leaks", "without the filter each probe gets this reply, and passes: write statusCode: 503")
		}
	}
}

// checkIdle reports health checks that take minutes to find a host healthy.
func (e *envoyGateway) checkIdle(route *Node) {
	for _, other := range e.others {
		active := other.get("spec", "healthCheck", "active")
		isForRoute := func(ref *Node) bool {
			return ref.text("kind") == "Gateway" || ref.text("kind") == route.text("kind") && ref.text("name") == route.text("metadata", "name")
		}
		n := active.number(1, "healthyThreshold")
		if n <= 1 || e.patched || !slices.ContainsFunc(targets(other), isForRoute) {
			continue
		}
		e.found.add(active.at("healthyThreshold"), Warning, "idle", "Envoy checks a cluster without traffic once in 60s, whatever interval "+
			"says, so the gate takes up to %g minutes to recover: write healthyThreshold: 1, or patch no_traffic_interval by an "+
			"EnvoyPatchPolicy", n)
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

func targets(policy *Node) []*Node {
	all := slices.Clone(policy.list("spec", "targetRefs"))
	if one := policy.get("spec", "targetRef"); one != nil {
		all = append(all, one)
	}
	return all
}

// sections returns the names of the listeners to which a policy's routes are attached, "" for all listeners of a Gateway.
func (e *envoyGateway) sections(policy *Node) (names []string) {
	for _, target := range targets(policy) {
		route := e.route(gatewayKinds[target.text("kind")], policy.text("metadata", "namespace"), target.text("name"))
		for _, parent := range route.list("spec", "parentRefs") {
			names = append(names, parent.text("sectionName"))
		}
	}
	return names
}

// checkOthers reports policies for a Gateway whose filters act on probes. A policy of the same kind for the probe's route replaces them.
func (e *envoyGateway) checkOthers(policy *Node) {
	isGateway := func(ref *Node) bool { return ref.text("kind") == "Gateway" }
	sections := e.sections(policy)
	reachesProbe := func(ref *Node) bool {
		section := ref.text("sectionName")
		return isGateway(ref) && (section == "" || len(sections) == 0 || slices.Contains(sections, section) || slices.Contains(sections, ""))
	}
	isForRoute := func(ref *Node) bool {
		return !isGateway(ref) && slices.ContainsFunc(targets(policy), func(own *Node) bool {
			return ref.text("kind") == own.text("kind") && ref.text("name") == own.text("name")
		})
	}
	for _, other := range e.others {
		kind := other.text("kind")
		replaces := func(o *Node) bool { return o.text("kind") == kind && slices.ContainsFunc(targets(o), isForRoute) }
		if other == policy || !slices.ContainsFunc(targets(other), reachesProbe) || slices.ContainsFunc(e.others, replaces) ||
			kind == "EnvoyExtensionPolicy" && !slices.ContainsFunc(targets(policy), isGateway) {
			continue // in the last case the gate's policy replaces it on the probe's route
		}
		for _, filter := range gatewayFilters[kind] {
			if at := other.get("spec", filter.field); at != nil && !(filter.rule == "order" && e.orders()) {
				e.found.add(at, Warning, filter.rule, "this %s is for the probe's listener and %s: give the probe a separate listener, or write "+
					"a %[1]s for the probe's route, which replaces this one there", kind, filter.does)
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
	bootstrap, file := proxy.get("spec", "bootstrap"), modulePath(own)
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
		(&api{found: e.found, part: true}).check(document, typeBootstrap)
		for _, contents := range startups(document) {
			extensions++
			checkModuleName(e.found, contents)
			e.checkSearchPath(proxy, contents)
			l := moduleLibrary(contents)
			if l != nil && file != nil && l.file != file.scalar && !(&library{file: file.scalar, byPath: true}).isNamed(l) && !l.isMisspelt() {
				e.found.add(l.at, Error, "two-libraries", "the module is loaded by %s here, and by the path %s in line %d: two copies share no "+
					"memory, so Envoy refuses the filter: write the same in both places", l, file.scalar, file.line)
			}
		}
	}
	if own != nil && extensions == 0 && (bootstrap == nil || value != nil) {
		e.found.add(own, Error, "config", needsStartup, "spec.bootstrap (type: Merge)",
			"{module: {local: {filename: "+file.text()+"}}, metrics_namespace: healthgate}")
	}
}

// checkSearchPath reports a bootstrap extension whose module Envoy Gateway's own Envoy image cannot find.
func (e *envoyGateway) checkSearchPath(proxy, extension *Node) {
	const variable = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"
	name := extension.get("dynamic_module_config", "name")
	kubernetes := proxy.get("spec", "provider", "kubernetes")
	hasImage := func(workload string) bool { // which may set the variable
		container := kubernetes.get(workload, "container")
		return container.get("image") != nil || container.get("imageRepository") != nil
	}
	hasVariable := false
	kubernetes.each(func(n *Node) { hasVariable = hasVariable || n.scalar == variable })
	if name == nil || kubernetes == nil || hasVariable || hasImage("envoyDeployment") || hasImage("envoyDaemonSet") {
		return
	}
	e.found.add(name, Error, "config", "Envoy searches for this module in the folder that %s names, which Envoy Gateway's own image does not "+
		"set, so Envoy does not start: add it to spec.provider.kubernetes.envoyDeployment.container.env", variable)
}
