package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

func (s *scope) checkClusters(f findings, g *gate) {
	for _, p := range g.configurations() {
		for i, asked := range p.config.Clusters {
			key := func(name string) *Node { return p.cluster(i, name) }
			cluster := s.clusters[asked.Name]
			switch {
			case cluster == nil && g.in.patch == nil: // Istio has clusters that are not in the files
				s.checkUnknown(f, key("name"), asked)
			case cluster == nil || hasNoHosts(f, cluster):
			default:
				if p.config.Admin == nil {
					checkStatName(f, key("stat_name"), key("name"), cluster, asked)
				}
				checkUnchecked(f, g, cluster, p.config, asked)
				checkIdle(f, g, cluster, p)
				checkPanic(f, key("min_healthy_percent"), cluster, asked)
			}
		}
	}
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// speaksHTTP2 reports whether a cluster speaks HTTP/2, as a gRPC health check needs: useHttp2 in
// source/extensions/upstreams/http/config.cc of v1.39.1, and the older fields of the cluster itself.
func speaksHTTP2(cluster *Node) bool {
	options := cluster.get("typed_extension_protocol_options", httpOptions)
	if options == nil {
		return cluster.get("http2_protocol_options") != nil
	}
	options, kind := typed(options)
	return kind != httpOptions || options.get("explicit_http_config", "http2_protocol_options") != nil || options.get("auto_config") != nil ||
		options.get("use_downstream_protocol_config", "http2_protocol_options") != nil
}

// checkHTTP2 reports gRPC health checks of a cluster without HTTP/2.
func (s *scope) checkHTTP2(f findings) {
	for _, cluster := range s.clusters {
		for _, check := range cluster.list("health_checks") {
			if at := check.get("grpc_health_check"); at != nil && !s.dumped && !speaksHTTP2(cluster) {
				f.add(at, Error, "api", "a gRPC health check needs a cluster that speaks HTTP/2%s: add to the cluster "+
					"typed_extension_protocol_options: {"+httpOptions+": "+
					`{"@type": type.googleapis.com/`+httpOptions+`, explicit_http_config: {http2_protocol_options: {}}}}`, refuses)
			}
		}
	}
}

// checkRouteClusters reports a route to an unknown cluster. Envoy validates the routes in a connection manager when it starts.
func (s *scope) checkRouteClusters(f findings) {
	if s.bootstrap == nil || s.dumped || s.discovers("cds") {
		return
	}
	checkNames := func(items []*Node, key string) {
		for _, item := range items {
			at := item.get(key)
			if at == nil || at.kind != text || s.clusters[at.scalar] != nil || isPlaceholder(at.scalar) {
				continue
			}
			f.add(at, Error, "api", "this route goes to the cluster %q, which does not exist%s%s", at.scalar, refuses,
				suggestion(at.scalar, s.clusterNames()))
		}
	}
	for _, m := range s.connectionManagers() {
		routes := m.get("route_config")
		if routes == nil || routes.get("validate_clusters") != nil && !routes.isTrue("validate_clusters") || m.patch != nil {
			continue
		}
		levels := append([]*Node{routes}, routes.list("virtual_hosts")...)
		for _, route := range routesIn(routes) {
			levels = append(levels, route.get("route"))
			checkNames([]*Node{route.get("route")}, "cluster")
			checkNames(route.list("route", "weighted_clusters", "clusters"), "name")
		}
		for _, level := range levels {
			checkNames(level.list("request_mirror_policies"), "cluster")
		}
	}
}

func (s *scope) clusterNames() []string { return slices.Sorted(maps.Keys(s.clusters)) }

// suggestion is the end of a finding about an unknown name: the likely one, or all.
func suggestion(name string, known []string) string {
	if near := config.Nearest(name, known); near != "" {
		return ": did you mean " + quoteKey(near) + "?"
	}
	if len(known) > 0 {
		return ": there are " + clip(strings.Join(known, ", "))
	}
	return ""
}

// checkUnknown reports an unknown cluster, if the files should have it.
func (s *scope) checkUnknown(f findings, at *Node, asked policy.Cluster) {
	severity, message := Error, "Envoy has no cluster %q, so the gate is always 503%s"
	switch {
	case s.dumped && !s.allClusters, s.bootstrap == nil && len(s.clusters) == 0: // the files have no clusters
		return
	case s.discovers("cds") && !s.dumped:
		severity, message = Warning, "no cluster %q is in these files, and the gate is 503 until CDS adds it%s"
	case s.bootstrap == nil:
		severity, message = Warning, "no cluster %q is in these files, and without it the gate is always 503%s"
	}
	f.add(at, severity, "unknown-cluster", message, asked.Name, suggestion(asked.Name, s.clusterNames()))
}

// checkStatName reports a cluster whose stats have another name than the gate reads.
func checkStatName(f findings, at, name, cluster *Node, asked policy.Cluster) {
	statName, right := asked.Name, "remove stat_name"
	if own := cluster.text("alt_stat_name"); own != "" {
		statName, right = own, "write stat_name: "+own
	}
	scope, read := envoystats.ClusterScope(statName), envoystats.ClusterScope(asked.StatName)
	if scope == read {
		return
	}
	if at == nil || at.scalar != asked.StatName { // it is not written
		at = name
	}
	f.add(at, Error, "stat-name", "the gate reads the stats %s…, and the stats of cluster %q are %s…, so the gate is always 503: %s", read,
		asked.Name, scope, right)
}

// checkNotAsked reports a gate whose clusters get no traffic, and rules of Envoy Gateway that no gate depends on beside one that a gate
// depends on.
func (s *scope) checkNotAsked(f findings, gates []*gate) {
	byConfiguration := map[*config.Config][]*Node{} // the names of clusters that exist
	asked := map[string]bool{}
	for _, g := range gates {
		for _, p := range g.configurations() {
			if g.in.patch != nil {
				continue
			}
			for i, cluster := range p.config.Clusters {
				asked[cluster.Name] = true
				if at := p.cluster(i, "name"); s.clusters[cluster.Name] != nil {
					byConfiguration[p.config] = append(byConfiguration[p.config], &Node{position: at.position, scalar: cluster.Name})
				}
			}
		}
	}
	if len(byConfiguration) == 0 {
		return
	}
	used, whole := s.usedNames()
	notAsked := map[string][]string{} // rules, by their route
	for name := range s.clusters {
		if route, index, found := strings.Cut(name, "/rule/"); found && !asked[name] && used[name] {
			notAsked[route] = append(notAsked[route], "rule/"+index)
		}
	}
	for _, some := range byConfiguration {
		if whole && !slices.ContainsFunc(some, func(name *Node) bool { return used[name.scalar] }) {
			f.add(some[0], Warning, "not-asked", "no route goes to the cluster %q of this gate, so the gate says nothing about the traffic: "+
				"name the cluster that the routes go to", some[0].scalar)
		}
		for _, name := range some {
			if route, _, _ := strings.Cut(name.scalar, "/rule/"); len(notAsked[route]) > 0 && gatewayRoute.MatchString(name.scalar) {
				slices.Sort(notAsked[route])
				f.add(name, Warning, "not-asked", "%s", otherRules(route, notAsked[route]))
			}
		}
	}
}

// usedNames returns all names in listeners and routes outside the gates' own configurations, and whether all of Envoy's routes are known.
func (s *scope) usedNames() (used map[string]bool, whole bool) {
	used = map[string]bool{}
	forwards := false
	whole = s.dumped || s.bootstrap != nil && !s.discovers("lds")
	var walk func(n *Node, inClusters bool)
	walk = func(n *Node, inClusters bool) {
		if contents, typeName := typed(n); n == nil || n.kind == mapping && isGate(contents, typeName) {
			return
		}
		if n.kind == text {
			used[n.scalar] = true
		}
		for _, e := range n.entries {
			whole = whole && !slices.Contains([]string{"cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"}, e.key)
			forwards = forwards || e.key == "cluster" || e.key == "weighted_clusters"
			used[e.key] = true                                             // of a map of weights
			if e.key != "stat_prefix" && (e.key != "name" || inClusters) { // not of a route, a virtual host, a filter
				walk(e.value, e.key == "clusters")
			}
		}
		for _, item := range n.items {
			walk(item, inClusters)
		}
	}
	for _, r := range s.resources {
		if r.typeName == typeCluster {
			walk(r.get("cluster_type"), false) // an aggregate
		} else {
			walk(r.Node, false)
		}
	}
	for _, m := range s.connectionManagers() {
		whole = whole && !s.routing(m).partial
	}
	return used, whole && forwards
}

// hasNoHosts reports a cluster without a membership: it consists of other clusters, or of the addresses of its requests.
func hasNoHosts(f findings, cluster *Node) bool {
	contents, kind := typed(cluster.get("cluster_type", "typed_config"))
	isKind := func(name string) bool { return strings.HasPrefix(kind, "envoy.extensions.clusters."+name+".") }
	name := cluster.text("cluster_type", "name")
	switch {
	case isKind("aggregate"), isKind("composite"), name == "envoy.clusters.aggregate", name == "envoy.clusters.composite":
		var parts []string
		for _, part := range contents.list("clusters") {
			if part.kind == text || part.text("name") != "" {
				parts = append(parts, quoteKey(cmp.Or(part.text("name"), part.scalar)))
			}
		}
		f.add(cluster.at("name"), Error, "unchecked", "this cluster consists of others and has no hosts, so a gate of it is always 503: "+
			"name its parts in the gate, clusters: [%s] and require: any", clip(strings.Join(parts, ", ")))
	case cluster.text("type") == "ORIGINAL_DST", kind == typeDynamicForward, isKind("reverse_connection"):
		f.add(cluster.at("name"), Error, "unchecked", "this cluster has hosts only while there are requests, so a gate of it is 503 without "+
			"traffic: name a cluster that always has hosts")
	default:
		return false
	}
	return true
}

// endpoints returns the hosts in a cluster's configuration, and whether that is all of them: no name has to be resolved.
func endpoints(cluster *Node) (all []*Node, known bool) {
	for _, locality := range cluster.list("load_assignment", "endpoints") {
		all = append(all, locality.list("lb_endpoints")...)
	}
	kind := cluster.text("type")
	known = (kind == "" || kind == "STATIC") && cluster.get("cluster_type") == nil && len(all) > 0 || kind == "LOGICAL_DNS" && len(all) == 1
	return all, known
}

// checkUnchecked reports a cluster whose hosts count as healthy although they are down.
func checkUnchecked(f findings, g *gate, cluster *Node, c *config.Config, asked policy.Cluster) {
	const addChecks = ": add health_checks: [{timeout: 1s, interval: 5s, no_traffic_interval: 5s, no_traffic_healthy_interval: 5s, " +
		"unhealthy_threshold: 1, healthy_threshold: 3, grpc_health_check: {}}]"
	if cluster.text("type") == "EDS" || strings.Contains(cluster.text("cluster_type", "name"), ".eds") {
		return
	}
	warn := func(format string, args ...any) { f.add(cluster.at("name"), Warning, "unchecked", format, args...) }
	outliers := cluster.get("outlier_detection")
	all, known := endpoints(cluster)
	switch {
	case len(cluster.list("health_checks")) > 0:
		unchecked := len(slices.DeleteFunc(slices.Clone(all), func(endpoint *Node) bool {
			return !endpoint.isTrue("endpoint", "health_check_config", "disable_active_health_check")
		}))
		if unchecked > 0 && passes(asked, unchecked, len(all)) {
			warn("%d of the %d hosts of this cluster have disable_active_health_check, so they always count as healthy and the gate passes "+
				"with all hosts down: remove it", unchecked, len(all))
		}
	case g.variant == plugin && c.StaleAfter > 0 && c.Admin == nil && cluster.get("cluster_type") == nil:
		f.add(cluster.at("name"), Error, "unchecked", "this cluster has no health checks, so its gate is 503 from stale_after on: add "+
			"health_checks to it, or remove stale_after")
	case outliers == nil:
		warn("this cluster has no health checks, so its hosts always count as healthy and the gate passes with all hosts down" + addChecks)
	default:
		const message = "outlier detection ejects at most %s of this cluster (max_ejection_percent: %v), so the gate passes with all hosts " +
			"down" + addChecks
		percent := outliers.number(10, "max_ejection_percent") // Envoy's default
		ejected := int(float64(len(all)) * percent / 100)
		if outliers.isTrue("always_eject_one_host") {
			ejected = max(ejected, 1)
		}
		switch {
		case known && passes(asked, len(all)-ejected, len(all)):
			warn(message, fmt.Sprintf("%d of the %d hosts", ejected, len(all)), percent)
		case !known && percent < 100 && asked.Rule.MinHealthy <= 1 && float64(asked.Rule.MinHealthyPercent) <= 100-percent:
			warn(message, fmt.Sprintf("%v %% of the hosts", percent), percent)
		default:
			warn("this cluster has no health checks: outlier detection readmits a host after base_ejection_time even if it is still down, " +
				"and the gate passes again" + addChecks)
		}
	}
}

// passes reports whether a number of healthy hosts is enough.
func passes(asked policy.Cluster, healthy, total int) bool {
	return healthy >= 0 && uint64(healthy) >= asked.Rule.MinHealthy && 100*healthy >= int(asked.Rule.MinHealthyPercent)*total
}

// idleInterval is Envoy's default of no_traffic_interval: HealthCheckerImplBase in
// source/extensions/health_checkers/common of v1.39.1.
const idleInterval = time.Minute

// checkIdle reports health checks that are too rare: while a cluster is idle, and for stale_after.
func checkIdle(f findings, g *gate, cluster *Node, p probe) {
	for _, check := range cluster.list("health_checks") {
		interval := check.duration(0, "interval")
		idle := check.duration(idleInterval, "no_traffic_interval")
		idle = max(idle, check.duration(idle, "no_traffic_healthy_interval"))
		longest := max(interval, idle)
		longest += check.duration(0, "interval_jitter") + check.duration(0, "timeout") +
			time.Duration(check.number(0, "interval_jitter_percent")/100*float64(longest))
		lines := fmt.Sprintf("no_traffic_interval: %[1]s and no_traffic_healthy_interval: %[1]s", config.ShowSeconds(interval))
		switch {
		case g.variant == plugin && p.config.StaleAfter > 0 && p.config.Admin == nil && p.config.StaleAfter < longest:
			right := "write a stale_after of more than " + config.ShowSeconds(2*longest)
			if idle > interval {
				right = fmt.Sprintf("write %s into the health check, and a stale_after of more than twice that", lines)
			}
			f.add(nodeAt(p.layers, "stale_after"), Error, "idle", "the hosts of cluster %q may go unchecked for %s (line %d), longer than "+
				"stale_after, so the gate flaps to 503: %s", cluster.text("name"), config.ShowSeconds(longest), check.line, right)
		case idle > interval && idle >= idleInterval:
			f.add(check.at("no_traffic_interval"), Warning, "idle", "Envoy checks a cluster that has had no traffic yet once in %s, whatever "+
				"interval says, so the gate notices a failed host that late: write %s", config.ShowSeconds(idle), lines)
		}
	}
}

// checkPanic reports a gate that passes while Envoy panics: Envoy then sends to unhealthy hosts, or fails each request. A gate that needs
// more than Envoy's threshold is stricter, by choice; so is one without a percentage, unless each request fails.
func checkPanic(f findings, at, cluster *Node, asked policy.Cluster) {
	threshold := 50.0 // Envoy's default
	if given := cluster.get("common_lb_config", "healthy_panic_threshold"); given != nil {
		threshold = given.number(0, "value")
	}
	percent := float64(asked.Rule.MinHealthyPercent)
	switch all, known := endpoints(cluster); {
	case percent >= threshold:
	case failsOnPanic(cluster):
		severity := Warning
		if known {
			if severity = Error; !passesInPanic(asked, len(all), threshold) {
				return
			}
		}
		f.add(at, severity, "panic", "below %v %% of healthy hosts Envoy fails each request (fail_traffic_on_panic in cluster %q), and the gate "+
			"still passes: write min_healthy_percent: %v", threshold, asked.Name, threshold)
	case percent > 0:
		f.add(at, Warning, "panic", "between %v and %v %% of healthy hosts the gate passes, and Envoy also sends to unhealthy hosts, so "+
			"requests fail: write min_healthy_percent: %v, or healthy_panic_threshold: {value: %v} in cluster %q", percent, threshold,
			threshold, percent, asked.Name)
	}
}

// failsOnPanic reports whether a cluster fails each request while it panics.
func failsOnPanic(cluster *Node) bool {
	policies := cluster.list("load_balancing_policy", "policies")
	if len(policies) == 0 {
		return cluster.isTrue("common_lb_config", "zone_aware_lb_config", "fail_traffic_on_panic")
	}
	return slices.ContainsFunc(policies, func(policy *Node) bool {
		contents, _ := typed(policy.get("typed_extension_config", "typed_config"))
		return contents.isTrue("locality_lb_config", "zone_aware_lb_config", "fail_traffic_on_panic")
	})
}

// passesInPanic reports whether the gate passes with a number of healthy hosts, of a total, that is below the threshold.
func passesInPanic(asked policy.Cluster, total int, threshold float64) bool {
	for healthy := range total {
		if passes(asked, healthy, total) && float64(100*healthy/total) < threshold {
			return true
		}
	}
	return false
}
