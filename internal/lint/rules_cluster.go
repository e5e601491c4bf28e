package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// checkClusters checks each cluster that a gate asks.
func (s *scope) checkClusters(f *findings, g *gate) {
	for _, p := range g.configurations() {
		if p.config == nil {
			continue
		}
		for i, asked := range p.config.Clusters {
			at := find(p.layers, "clusters["+strconv.Itoa(i)+"].name")
			cluster := s.clusters[asked.Name]
			if cluster == nil {
				if g.in.patch == nil { // Istio has clusters that no file has
					s.checkUnknown(f, at, asked)
				}
				continue
			}
			if hasNoHosts(f, cluster) {
				continue
			}
			if p.config.Admin == nil {
				checkStatName(f, find(p.layers, "clusters["+strconv.Itoa(i)+"].stat_name"), at, cluster, asked)
			}
			checkUnchecked(f, g, cluster, p.config, asked)
			checkIdle(f, g, cluster, p)
			checkPanic(f, find(p.layers, "clusters["+strconv.Itoa(i)+"].min_healthy_percent"), cluster, asked)
		}
	}
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// speaksHTTP2 says whether a cluster speaks HTTP/2, as a health check by gRPC needs: useHttp2 in
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

// checkHTTP2 finds clusters that are checked by gRPC and can't be.
func (s *scope) checkHTTP2(f *findings) {
	for _, cluster := range s.clusters {
		for _, check := range cluster.list("health_checks") {
			if at := check.get("grpc_health_check"); at != nil && !s.dumped && !speaksHTTP2(cluster) {
				f.add(at, Error, "api", "a cluster that is checked by gRPC has to speak HTTP/2, and Envoy refuses one that does not: write "+
					"typed_extension_protocol_options: {"+httpOptions+": "+
					`{"@type": type.googleapis.com/`+httpOptions+`, explicit_http_config: {http2_protocol_options: {}}}} into it`)
			}
		}
	}
}

// checkRouteClusters finds a route to a cluster that is not there: of routes that stand in a connection manager, Envoy asks that at start.
func (s *scope) checkRouteClusters(f *findings) {
	if s.bootstrap == nil || s.dumped || s.discovers() {
		return
	}
	names := s.clusterNames()
	unknown := func(at *Node) {
		if at == nil || at.kind != text || s.clusters[at.scalar] != nil || isPlaceholder(at.scalar) {
			return
		}
		f.add(at, Error, "api", "this route goes to the cluster %q, which is not there%s%s", at.scalar, refuses, meantOf(at.scalar, names))
	}
	mirrors := func(level *Node) {
		for _, mirror := range level.list("request_mirror_policies") {
			unknown(mirror.get("cluster"))
		}
	}
	for _, m := range s.connectionManagers() {
		routes := m.get("route_config")
		if routes == nil || routes.get("validate_clusters") != nil && !routes.isTrue("validate_clusters") || m.patch != nil {
			continue
		}
		mirrors(routes)
		for _, virtualHost := range routes.list("virtual_hosts") {
			mirrors(virtualHost)
			for _, route := range routesOf(virtualHost) {
				action := route.get("route")
				unknown(action.get("cluster"))
				for _, cluster := range action.list("weighted_clusters", "clusters") {
					unknown(cluster.get("name"))
				}
				mirrors(action)
			}
		}
	}
}

func (s *scope) clusterNames() []string {
	names := make([]string, 0, len(s.clusters))
	for name := range s.clusters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// meantOf is what follows a name that is not there.
func meantOf(name string, known []string) string {
	if near := config.Nearest(name, known); near != "" {
		return ": did you mean " + quoteKey(near) + "?"
	}
	if len(known) > 0 {
		return ": there are " + clip(strings.Join(known, ", "))
	}
	return ""
}

// checkUnknown finds a cluster that is not there, if the files would have it.
func (s *scope) checkUnknown(f *findings, at *Node, asked policy.Cluster) {
	const rule = "unknown-cluster"
	meant := meantOf(asked.Name, s.clusterNames())
	switch {
	case s.dumped && !s.allClusters, s.bootstrap == nil && len(s.clusters) == 0: // the files have no clusters
	case s.discovers() && !s.dumped:
		f.add(at, Warning, rule, "no cluster in these files is called %q, and the probe is 503 until CDS brings it%s", asked.Name, meant)
	case s.bootstrap == nil:
		f.add(at, Warning, rule, "no cluster in these files is called %q, and without it the probe is 503 for ever%s", asked.Name, meant)
	default:
		f.add(at, Error, rule, "Envoy has no cluster %q, so the probe is 503 for ever%s", asked.Name, meant)
	}
}

// checkStatName finds a cluster whose stats have another name than the gate reads.
func checkStatName(f *findings, given, at, cluster *Node, asked policy.Cluster) {
	statName := cluster.text("alt_stat_name")
	if statName == "" {
		statName = asked.Name
	}
	if envoystats.ClusterScope(asked.StatName) == envoystats.ClusterScope(statName) {
		return
	}
	if given == nil || given.scalar != asked.StatName {
		given = at
	}
	right := "write stat_name: " + statName
	if cluster.text("alt_stat_name") == "" {
		right = "leave stat_name out"
	}
	f.add(given, Error, "stat-name", "the gate reads the stats %s…, and Envoy keeps the stats of %q as %s…, so the probe is 503 for ever: %s",
		envoystats.ClusterScope(asked.StatName), asked.Name, envoystats.ClusterScope(statName), right)
}

// checkNotAsked finds a gate whose cluster no route goes to, and rules of Envoy Gateway's that no gate asks beside one that is asked.
func (s *scope) checkNotAsked(f *findings, gates []*gate) {
	const rule = "not-asked"
	type named struct {
		at   *Node
		name string
	}
	var all []named
	var of [][]named // by configuration
	asked := map[string]bool{}
	for _, g := range gates {
		for _, p := range g.configurations() {
			if p.config == nil || g.in.patch != nil {
				continue
			}
			var some []named
			for i, cluster := range p.config.Clusters {
				if s.clusters[cluster.Name] != nil {
					some = append(some, named{find(p.layers, "clusters["+strconv.Itoa(i)+"].name"), cluster.Name})
				}
				asked[cluster.Name] = true
			}
			all, of = append(all, some...), append(of, some)
		}
	}
	if len(all) == 0 {
		return
	}
	used, whole := s.usedNames()
	for _, some := range of {
		if whole && len(some) > 0 && !slices.ContainsFunc(some, func(one named) bool { return used[one.name] }) {
			f.add(some[0].at, Warning, rule, "no route goes to the cluster %q, which the gate asks, so its reply says nothing about the "+
				"traffic: ask the cluster that the routes go to", some[0].name)
		}
	}
	notAsked := map[string][]string{} // rules, by their route
	for name := range s.clusters {
		if route, index, found := strings.Cut(name, "/rule/"); found && !asked[name] && used[name] {
			notAsked[route] = append(notAsked[route], "rule/"+index)
		}
	}
	for _, one := range all {
		if route, _, _ := strings.Cut(one.name, "/rule/"); len(notAsked[route]) > 0 && gatewayRoute.MatchString(one.name) {
			slices.Sort(notAsked[route])
			f.add(one.at, Warning, rule, "%s", otherRules(route, notAsked[route]))
		}
	}
}

// usedNames returns each name that stands in listeners and routes beside the gates' own configurations, and whether these are all routes
// that there are.
func (s *scope) usedNames() (used map[string]bool, whole bool) {
	used = map[string]bool{}
	forwards := false
	whole = s.dumped || s.bootstrap != nil && s.bootstrap.get("dynamic_resources", "lds_config") == nil &&
		s.bootstrap.get("dynamic_resources", "lds_resources_locator") == nil
	var walk func(n *Node, ofClusters bool)
	walk = func(n *Node, ofClusters bool) {
		if n.kind == text {
			used[n.scalar] = true
		}
		if contents, typeName := typed(n); n.kind == mapping && isOwn(contents, typeName) {
			return
		}
		for _, e := range n.entries {
			switch e.key {
			case "cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin":
				whole = false
			}
			used[e.key] = true // as in a map of weights
			forwards = forwards || e.key == "cluster" || e.key == "weighted_clusters"
			if e.key == "stat_prefix" || e.key == "name" && !ofClusters { // of a route, a virtual host, a filter
				continue
			}
			walk(e.value, e.key == "clusters")
		}
		for _, item := range n.items {
			walk(item, ofClusters)
		}
	}
	for _, n := range slices.Concat(s.listeners, s.hcms) {
		walk(n, false)
	}
	for _, routes := range s.routes {
		walk(routes, false)
	}
	for _, of := range s.scopes {
		for _, n := range of {
			walk(n, false)
		}
	}
	for _, extension := range s.extensions {
		walk(extension, false)
	}
	for _, cluster := range s.clusters {
		if parts := cluster.get("cluster_type"); parts != nil { // made of others
			walk(parts, false)
		}
	}
	for _, m := range s.connectionManagers() {
		whole = whole && !s.routing(m).partial
	}
	return used, whole && forwards
}

// addChecks are the lines that check a cluster.
const addChecks = "add health_checks: [{timeout: 1s, interval: 5s, no_traffic_interval: 5s, no_traffic_healthy_interval: 5s, " +
	"unhealthy_threshold: 1, healthy_threshold: 3, grpc_health_check: {}}]"

// byEDS says whether hosts, and how they are, come by EDS.
func byEDS(cluster *Node) bool {
	return cluster.text("type") == "EDS" || strings.Contains(cluster.text("cluster_type", "name"), ".eds")
}

// hasNoHosts finds a cluster that is made of other clusters or of its requests' addresses, so it has no membership.
func hasNoHosts(f *findings, cluster *Node) bool {
	const rule = "unchecked"
	contents, kind := typed(cluster.get("cluster_type", "typed_config"))
	name := cluster.text("cluster_type", "name")
	switch {
	case strings.HasPrefix(kind, "envoy.extensions.clusters.aggregate."), strings.HasPrefix(kind, "envoy.extensions.clusters.composite."),
		name == "envoy.clusters.aggregate", name == "envoy.clusters.composite":
		var parts []string
		for _, part := range contents.list("clusters") {
			if part.kind == text {
				parts = append(parts, quoteKey(part.scalar))
			} else if part.text("name") != "" {
				parts = append(parts, quoteKey(part.text("name")))
			}
		}
		f.add(cluster.at("name"), Error, rule, "this cluster is made of others and has no hosts, so a gate that asks it is 503 for ever: "+
			"let the gate ask its parts, clusters: [%s] and require: any",
			clip(strings.Join(parts, ", ")))
	case cluster.text("type") == "ORIGINAL_DST", kind == typeDynamicForward,
		strings.HasPrefix(kind, "envoy.extensions.clusters.reverse_connection."):
		f.add(cluster.at("name"), Error, rule, "this cluster has hosts only while there are calls, so a gate that asks it is 503 without "+
			"traffic: ask a cluster that always has hosts")
	default:
		return false
	}
	return true
}

// endpoints are the hosts that stand in a cluster's configuration. Their number is known if no name has to be resolved.
func endpoints(cluster *Node) (all []*Node, known bool) {
	for _, locality := range cluster.list("load_assignment", "endpoints") {
		all = append(all, locality.list("lb_endpoints")...)
	}
	switch cluster.text("type") {
	case "", "STATIC":
		known = cluster.get("cluster_type") == nil
	case "LOGICAL_DNS":
		known = len(all) == 1
	}
	return all, known && len(all) > 0
}

// checkUnchecked finds a cluster whose hosts count as healthy although they are down.
func checkUnchecked(f *findings, g *gate, cluster *Node, c *config.Config, asked policy.Cluster) {
	const rule = "unchecked"
	if byEDS(cluster) {
		return
	}
	at, checks, outliers := cluster.at("name"), cluster.list("health_checks"), cluster.get("outlier_detection")
	all, known := endpoints(cluster)
	switch {
	case len(checks) > 0:
		left := 0
		for _, endpoint := range all {
			if endpoint.isTrue("endpoint", "health_check_config", "disable_active_health_check") {
				left++
			}
		}
		if left > 0 && enough(asked, left, len(all)) {
			f.add(at, Warning, rule, "%d of the %d hosts of this cluster have disable_active_health_check, so each of these counts as healthy "+
				"for ever and the gate passes with all of them down: leave that out",
				left, len(all))
		}
	case g.variant == plugin && c.StaleAfter > 0 && c.Admin == nil && cluster.get("cluster_type") == nil:
		f.add(at, Error, rule, "nothing checks the hosts of this cluster, so after stale_after the gate that asks it is 503 for ever: add "+
			"health_checks to it, or leave stale_after out")
	case outliers == nil:
		f.add(at, Warning, rule, "nothing checks the hosts of this cluster, so each counts as healthy for ever and the gate passes with "+
			"all of them down: %s", addChecks)
	default:
		most := outliers.number(10, "max_ejection_percent") // Envoy's default
		if known {
			ejected := int(float64(len(all)) * most / 100)
			if outliers.isTrue("always_eject_one_host") {
				ejected = max(ejected, 1)
			}
			if enough(asked, len(all)-ejected, len(all)) {
				f.add(at, Warning, rule, "outlier detection ejects at most %d of the %d hosts of this cluster (max_ejection_percent: %v), so the "+
					"gate passes with all of them down: %s", ejected, len(all), most, addChecks)
				return
			}
		} else if most < 100 && asked.Rule.MinHealthy <= 1 && float64(asked.Rule.MinHealthyPercent) <= 100-most {
			f.add(at, Warning, rule, "outlier detection ejects at most %v %% of the hosts of this cluster (max_ejection_percent), so the gate "+
				"passes with all of them down: %s", most, addChecks)
			return
		}
		f.add(at, Warning, rule, "nothing checks the hosts of this cluster: outlier detection brings a host back after base_ejection_time, "+
			"whether it is well or not, and the gate passes again: %s", addChecks)
	}
}

// enough says whether a number of healthy hosts passes.
func enough(asked policy.Cluster, healthy, total int) bool {
	return healthy >= 0 && uint64(healthy) >= asked.Rule.MinHealthy && 100*healthy >= int(asked.Rule.MinHealthyPercent)*total
}

// idleInterval is Envoy's default of no_traffic_interval: HealthCheckerImplBase in
// source/extensions/health_checkers/common of v1.39.1.
const idleInterval = time.Minute

// checkIdle finds health checks that are too seldom: while a cluster is idle, and for stale_after.
func checkIdle(f *findings, g *gate, cluster *Node, p probe) {
	const rule = "idle"
	for _, check := range cluster.list("health_checks") {
		interval := check.duration(0, "interval")
		idle := check.duration(idleInterval, "no_traffic_interval")
		idleHealthy := check.duration(idle, "no_traffic_healthy_interval")
		slowest := max(idle, idleHealthy)
		jitter := check.duration(0, "interval_jitter")
		share := check.number(0, "interval_jitter_percent") / 100
		longest := max(interval, slowest) + jitter + time.Duration(share*float64(max(interval, slowest))) + check.duration(0, "timeout")
		at := check
		if written := check.get("no_traffic_interval"); written != nil {
			at = written
		}
		switch {
		case g.variant == plugin && p.config.StaleAfter > 0 && p.config.Admin == nil && p.config.StaleAfter < longest:
			right := "write a stale_after of more than " + seconds(2*longest)
			if slowest > interval {
				right = fmt.Sprintf("write no_traffic_interval: %[1]s and no_traffic_healthy_interval: %[1]s into the health check, and a "+
					"stale_after of more than twice that", seconds(interval))
			}
			f.add(find(p.layers, "stale_after"), Error, rule, "the hosts of cluster %q may go unchecked for %s (line %d), longer than "+
				"stale_after, so the probe flaps to 503: %s",
				cluster.text("name"), seconds(longest), check.line, right)
		case slowest > interval && slowest >= idleInterval:
			f.add(at, Warning, rule, "while the cluster has had no traffic Envoy checks it once in %s, whatever interval says, so a host that "+
				"fails is noticed that late: "+
				"write no_traffic_interval: %s and no_traffic_healthy_interval: %s", seconds(slowest), seconds(interval), seconds(interval))
		}
	}
}

// seconds renders a duration as Envoy would have it.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// checkPanic finds a gate that passes while Envoy panics: it sends to unhealthy hosts then, or fails each call. A gate that asks for more
// than Envoy's threshold is stricter, by choice; so is one without a percentage, unless each call fails.
func checkPanic(f *findings, at, cluster *Node, asked policy.Cluster) {
	const rule = "panic"
	threshold := 50.0 // Envoy's default
	if given := cluster.get("common_lb_config", "healthy_panic_threshold"); given != nil {
		threshold = given.number(0, "value")
	}
	percent := float64(asked.Rule.MinHealthyPercent)
	if percent >= threshold {
		return
	}
	if failsOnPanic(cluster) {
		severity := Warning
		if all, known := endpoints(cluster); known {
			if severity = Error; !passesInPanic(asked, len(all), threshold) {
				return
			}
		}
		f.add(at, severity, rule, "below %v %% of healthy hosts Envoy fails each call (fail_traffic_on_panic in cluster %q), and the gate "+
			"still passes: write min_healthy_percent: %v", threshold, asked.Name, threshold)
		return
	}
	if percent == 0 {
		return
	}
	f.add(at, Warning, rule, "between %v and %v %% of healthy hosts the gate passes, and Envoy sends to the unhealthy ones too, so "+
		"calls fail: "+
		"write min_healthy_percent: %v, or healthy_panic_threshold: {value: %v} in cluster %q", percent, threshold, threshold, percent,
		asked.Name)
}

// failsOnPanic says whether a cluster fails each call while it panics.
func failsOnPanic(cluster *Node) bool {
	policies := cluster.list("load_balancing_policy", "policies")
	if len(policies) == 0 {
		return cluster.isTrue("common_lb_config", "zone_aware_lb_config", "fail_traffic_on_panic")
	}
	for _, policy := range policies {
		contents, _ := typed(policy.get("typed_extension_config", "typed_config"))
		if contents.isTrue("locality_lb_config", "zone_aware_lb_config", "fail_traffic_on_panic") {
			return true
		}
	}
	return false
}

// passesInPanic says whether the gate passes with some number of healthy hosts, of a total, that is below the threshold.
func passesInPanic(asked policy.Cluster, total int, threshold float64) bool {
	for healthy := range total {
		if enough(asked, healthy, total) && float64(100*healthy/total) < threshold {
			return true
		}
	}
	return false
}
