package lint

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"healthgate/filter/config"
)

// gatewayRoute is the name of a cluster that Envoy Gateway makes of a route's rule, by the rule's place in the route.
var gatewayRoute = regexp.MustCompile(`^(httproute|grpcroute|tlsroute|tcproute|udproute)/([^/]+)/([^/]+)/rule/(-?\d+)(/.*)?$`)

// gatewayKinds are the kinds of routes, as Envoy Gateway writes them in a cluster's name.
var gatewayKinds = map[string]string{"HTTPRoute": "httproute", "GRPCRoute": "grpcroute", "TLSRoute": "tlsroute", "TCPRoute": "tcproute",
	"UDPRoute": "udproute"}

// gatewayReads says whether a kind of object is one that checkGateway reads.
func gatewayReads(kind string) bool {
	return gatewayKinds[kind] != "" || kind == "EnvoyExtensionPolicy" || kind == "EnvoyProxy" || kind == "EnvoyPatchPolicy"
}

// envoyGateway holds the objects of an Envoy Gateway.
type envoyGateway struct {
	found   *findings
	routes  map[string]*Node // by kind/namespace/name
	proxies []*Node
	others  []*Node // policies that put filters before the gate, or rewrite replies
	merges  bool    // clusters have the names of services
}

// checkGateway reads the objects by which Envoy Gateway runs the module, and returns the number of its gates.
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
				if e.isOwn(entry) {
					own++
					e.checkPolicy(object, entry)
				}
			}
			if gates += own; own == 0 && len(entries) > 0 {
				l.hold(object)
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

// route returns a route by its kind, namespace and name. One without a namespace may be meant for any.
func (e *envoyGateway) route(kind, namespace, name string) *Node {
	if route := e.routes[kind+"/"+namespace+"/"+name]; route != nil {
		return route
	}
	return e.routes[kind+"//"+name]
}

// module returns the entry of a name among the modules that an EnvoyProxy registers.
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

// isOwn says whether an entry of a policy is Healthgate's.
func (e *envoyGateway) isOwn(entry *Node) bool {
	return isNear(entry.text("name"), pluginName) || isNear(entry.text("filterName"), pluginName) ||
		path.Base(modulePath(e.module(entry.text("name"))).text()) == "libhealthgate.so"
}

// checkPolicy checks a gate as an EnvoyExtensionPolicy has it. Envoy Gateway accepts any configuration of a module.
func (e *envoyGateway) checkPolicy(policy, entry *Node) {
	own := &layer{at: entry, value: entry.get("config")}
	switch {
	case own.value == nil:
		own.err = fmt.Errorf("config: is required, with at least clusters: [httproute/<namespace>/<name>/rule/0]")
	case own.value.kind != mapping:
		own.err = fmt.Errorf("config: it is no object; write clusters: [httproute/<namespace>/<name>/rule/0] below it")
	}
	err := own.err
	var config *config.Config
	if err == nil {
		config, err = module.read(own.value.structure())
	}
	report(e.found, []*layer{own}, err, "Envoy Gateway accepts it all the same, a running Envoy keeps the listener that it has, and a "+
		"new one gets none")
	if len(e.proxies) > 0 && e.module(entry.text("name")) == nil && !isPlaceholder(entry.text("name")) {
		var known []string
		for _, proxy := range e.proxies {
			for _, registered := range proxy.list("spec", "dynamicModules") {
				known = append(known, registered.text("name"))
			}
		}
		e.found.add(entry.at("name"), Error, "no-gate", "no EnvoyProxy registers a module called %q, so Envoy Gateway refuses the policy%s",
			entry.text("name"), meantOf(entry.text("name"), known))
	}
	if config == nil || err != nil {
		return
	}
	e.checkTargets(policy, config)
	e.checkOthers(policy)
	asked := map[string]bool{}
	for _, cluster := range config.Clusters {
		asked[cluster.Name] = true
	}
	for i, cluster := range config.Clusters {
		at := find([]*layer{own}, "clusters["+strconv.Itoa(i)+"].name")
		if config.Admin == nil && cluster.StatName != cluster.Name {
			continue
		}
		if route := e.cluster(&Node{file: at.file, line: at.line, column: at.column, kind: text, scalar: cluster.Name},
			"the gate asks"); route != nil {
			e.checkOtherRules(at, route, cluster.Name, asked)
		}
	}
}

// cluster checks the name of a cluster, and returns the route of whose rule it is made if that is in the files.
func (e *envoyGateway) cluster(name *Node, who string) (route *Node) {
	const rule = "unknown-cluster"
	if e.merges || isPlaceholder(name.scalar) {
		return nil
	}
	parts := gatewayRoute.FindStringSubmatch(name.scalar)
	if parts == nil {
		if who == "the gate asks" {
			e.found.add(name, Warning, rule, "Envoy Gateway makes no cluster called %q: it calls them "+
				"httproute/<namespace>/<name>/rule/<index>, or grpcroute/… if a GRPCRoute has the rule", name.scalar)
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
		} else if len(known) > 0 && who == "the gate asks" {
			e.found.add(name, Warning, rule, "%s the cluster %q, and no route in these files has that name", who, name.scalar)
		}
		return nil
	}
	index, _ := strconv.Atoi(parts[4])
	rules := route.list("spec", "rules")
	switch {
	case index >= len(rules) && len(rules) > 0:
		e.found.add(name, Error, rule, "%s the cluster %q, and %s %s (line %d) has %d rules, of which the first is rule/0", who, name.scalar,
			route.text("kind"), parts[3], route.line, len(rules))
		return nil
	case index >= 0 && index < len(rules) && len(rules[index].list("backendRefs")) == 0:
		e.found.add(name, Error, rule, "%s the cluster %q, and that rule (line %d) has no backendRefs, so there is no such cluster", who,
			name.scalar, rules[index].line)
		return nil
	}
	return route
}

// checkOtherRules finds rules of the same route that no cluster of the gate is made of: a rule that is put before another moves it.
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

// otherRules says that a gate asks some rules of a route and not others.
func otherRules(route string, left []string) string {
	return fmt.Sprintf("the gate does not ask %s of %s: Envoy Gateway numbers rules by their order, so a rule that is put before "+
		"another moves the service to another cluster, and the gate goes on asking the old one: "+
		"give the service a separate route with one rule, or ask the cluster of each rule", clip(strings.Join(left, ", ")), route)
}

// checkTargets finds a policy whose routes do not match the gate's path, or let probes pass by themselves.
func (e *envoyGateway) checkTargets(policy *Node, config *config.Config) {
	targets := policy.list("spec", "targetRefs")
	if one := policy.get("spec", "targetRef"); one != nil {
		targets = append(targets, one)
	}
	for _, target := range targets {
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
					matched = matched || value == config.Path
				case "RegularExpression":
					matched = matched || matchesRegex(value, config.Path) != no
				default:
					prefix := strings.TrimSuffix(value, "/")
					matched = matched || prefix == "" || config.Path == prefix || strings.HasPrefix(config.Path, prefix+"/")
				}
			}
			if len(rule.list("backendRefs")) > 0 {
				e.found.add(rule.get("backendRefs"), Warning, "leaks", "if the filter is absent or refused, this rule sends probes to its "+
					"backends, and a backend's reply passes for Envoy's: "+
					"give the probe a separate route whose filter is an HTTPRouteFilter with directResponse: {statusCode: 503}")
			}
		}
		if !matched && len(route.list("spec", "rules")) > 0 {
			e.found.add(target, Error, "not-enabled", "the gate answers %q, which no rule of HTTPRoute %s (line %d) matches, so it never "+
				"answers: match {path: {type: Exact, value: %q}}, or set the gate's path", config.Path, target.text("name"), route.line, config.Path)
		}
	}
}

// gatewayFilters are the fields of policies that act on a probe, if they are for the whole Gateway: with the rule, and the effect.
var gatewayFilters = map[string][]struct{ field, rule, does string }{
	"SecurityPolicy": {
		{"jwt", "order", "asks a probe for a token (401)"},
		{"basicAuth", "order", "asks a probe for a password (401)"},
		{"apiKeyAuth", "order", "asks a probe for a key (401)"},
		{"oidc", "order", "sends a probe to log in (302)"},
		{"extAuth", "order", "asks an authorization service about a probe (403)"},
	},
	"EnvoyExtensionPolicy": {
		{"lua", "order", "runs a script on a probe and on the gate's reply"},
		{"wasm", "order", "runs a program on a probe"},
		{"extProc", "order", "asks a processor about a probe and the gate's reply (500)"},
	},
	"BackendTrafficPolicy": {
		{"responseOverride", "local-reply", "rewrites the gate's replies"},
		{"faultInjection", "order", "answers some probes with an error, or late"},
	},
}

// checkOthers finds policies for a Gateway whose filters act on probes. One of the same kind for the probe's route replaces it there.
func (e *envoyGateway) checkOthers(policy *Node) {
	refs := func(object *Node) []*Node {
		all := object.list("spec", "targetRefs")
		if one := object.get("spec", "targetRef"); one != nil {
			all = append(slices.Clone(all), one)
		}
		return all
	}
	isGateway := func(ref *Node) bool { return ref.text("kind") == "Gateway" }
	for _, other := range e.others {
		kind := other.text("kind")
		if other == policy || !slices.ContainsFunc(refs(other), isGateway) {
			continue
		}
		if kind == "EnvoyExtensionPolicy" && !slices.ContainsFunc(refs(policy), isGateway) {
			continue // the gate's policy replaces it on the probe's route
		}
		if slices.ContainsFunc(e.others, func(o *Node) bool {
			return o.text("kind") == kind && slices.ContainsFunc(refs(o), func(ref *Node) bool {
				return slices.ContainsFunc(refs(policy), func(own *Node) bool {
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

// orders says whether an EnvoyProxy gives filters another order, which may have the gate first.
func (e *envoyGateway) orders() bool {
	return slices.ContainsFunc(e.proxies, func(proxy *Node) bool {
		return slices.ContainsFunc(proxy.list("spec", "filterOrder"), func(o *Node) bool {
			return o.text("name") == "envoy.filters.http.dynamic_modules" && o.get("before") != nil
		})
	})
}

// checkBootstrap checks the part of the bootstrap that an EnvoyProxy has: the extension that reads the gauges, from the same file as
// the filter.
func (e *envoyGateway) checkBootstrap(proxy *Node) {
	var own *Node
	for _, entry := range proxy.list("spec", "dynamicModules") {
		if isNear(entry.text("name"), pluginName) || path.Base(modulePath(entry).text()) == "libhealthgate.so" {
			own = entry
		}
	}
	bootstrap := proxy.get("spec", "bootstrap")
	value := bootstrap.get("value")
	var documents []*Node
	if value != nil && value.kind == text {
		var err error
		if documents, err = parse([]byte(value.scalar), embeddedAt(value)); err != nil {
			e.found.add(value, Error, "api", "the bootstrap is no YAML (%s), so Envoy Gateway refuses it", err)
			return
		}
	}
	extensions := 0
	for _, document := range documents {
		e.found.checkPart(document, typeBootstrap)
		for _, extension := range document.list("bootstrap_extensions") {
			contents, typeName := typed(extension.get("typed_config"))
			if typeName != typeModuleStartup || !isStartup(contents) {
				continue
			}
			extensions++
			checkModuleName(e.found, contents)
			l, file := moduleLibrary(contents.get("dynamic_module_config")), modulePath(own)
			if l != nil && file != nil && l.file != file.scalar && (l.byPath || path.Base(file.scalar) != "lib"+l.file+".so") && !l.isMisspelt() {
				e.found.add(l.at, Error, "two-libraries", "the module is loaded by %s here, and by the path %s in line %d: two copies of it know "+
					"nothing of each other, so the filter is refused: write the same in both places", l, file.scalar, file.line)
			}
		}
	}
	if own != nil && extensions == 0 && (bootstrap == nil || value != nil) {
		e.found.add(own, Error, "config", "a dynamic module reads Envoy's gauges by a bootstrap extension, which is not in this "+
			"EnvoyProxy, so the filter refuses its configuration: put it into spec.bootstrap, type: Merge, as bootstrap_extensions: "+
			"[{name: healthgate, typed_config: {\"@type\": type.googleapis.com/%s, dynamic_module_config: {module: {local: {filename: %s}}, "+
			"metrics_namespace: healthgate}, extension_name: healthgate}}]", typeModuleStartup, modulePath(own).text())
	}
}
