package suite

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// linesUnder returns the YAML that docs/envoy-configuration.md has under a heading.
func linesUnder(t *testing.T, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, filepath.Join(testbed.Root(), "docs", "envoy-configuration.md")), "\n## "+heading+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	_, rest, shown := strings.Cut(rest, "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	if !found || !shown {
		t.Fatalf("docs/envoy-configuration.md has no lines under %q", heading)
	}
	return text
}

// withLocalReplies adds a local_reply_config that replaces every reply by 500 "sorry", with or without the filter of the documentation.
func withLocalReplies(t *testing.T, fixed bool) option {
	t.Helper()
	mapper := testbed.Parse[*hcmv3.ResponseMapper](
		`{filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: yours}}}},
			status_code: 500, body: {inline_string: sorry}}`)
	if fixed {
		mapper.Filter = testbed.Parse[*hcmv3.ResponseMapper](linesUnder(t, "local_reply_config")).Filter
		// The documentation's filter applies to errors only; here it must apply to passing answers, too.
		mapper.Filter.GetAndFilter().Filters[0].GetStatusCodeFilter().Comparison.Value.DefaultValue = 200
	}
	return withConfig(func(c *testbed.Bootstrap) {
		c.HCM().LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{mapper}}
	})
}

// pitfall is a configuration in which a probe may not get the gate's answer.
type pitfall struct {
	options []option
	status  int
	details string // in the access log; "" for any
	rules   string // of lint's findings
}

// Each pitfall of docs/envoy-configuration.md that the answer to a probe shows, and its fix, and other findings of lint. The service is
// healthy. The lint cases have more filters, routes and listeners.
func TestPitfalls(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	with := func(options ...option) []option { return options }
	change := func(change func(*testbed.Bootstrap)) []option { return with(withConfig(change)) }
	gate := func(text string) []option { return with(withGate(text)) }
	probeRoute := func(patch string) []option {
		return change(func(c *testbed.Bootstrap) { c.Patch(c.ProbeRoute(), patch) })
	}
	withoutGate := func(patch string) []option {
		return append(probeRoute(patch), withConfig((*testbed.Bootstrap).RemoveGate))
	}
	byDomain := withConfig(func(c *testbed.Bootstrap) { c.VirtualHost().Domains = []string{"grpc.example.com"} })
	requireTLS := withConfig(func(c *testbed.Bootstrap) { c.VirtualHost().RequireTls = routev3.VirtualHost_ALL })
	host := testbed.Parse[*routev3.VirtualHost](linesUnder(t, "A virtual host for the probe"))
	probesHost := withConfig(func(c *testbed.Bootstrap) {
		c.HCM().GetRouteConfig().VirtualHosts = append(c.HCM().GetRouteConfig().VirtualHosts, host)
	})
	redirect := testbed.Parse[*routev3.Route](`{match: {prefix: /}, redirect: {https_redirect: true}}`)
	limit := `{name: limit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
		stat_prefix: limit, token_bucket: {max_tokens: 1, fill_interval: 3600s},
		filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}`
	unknownCluster := "healthgate_cluster_unknown"
	if variant.Can(testbed.UnnoticedRemovals) == nil {
		unknownCluster = "healthgate_cluster_empty"
	}
	hostless := func(patch string) []option { // a cluster that has hosts only while clients call
		return with(backends(0),
			withCluster(`{type: null, dns_lookup_family: null, load_assignment: null, health_checks: null, common_lb_config: null}`),
			withCluster(patch))
	}
	for name, test := range map[string]pitfall{
		"ORIGINAL_DST": {hostless(`{type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}`), 503, "healthgate_cluster_empty", "unchecked"},
		"dynamic_forward_proxy": {hostless(`{lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.dynamic_forward_proxy,
			typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig,
			allow_insecure_cluster_options: true, dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}}}}`),
			503, "healthgate_cluster_empty", "unchecked"},
		"require_tls":        {with(withoutTLS(), requireTLS), 301, "direct_response", "shadowed"},
		"require_tls, fixed": {with(withoutTLS(), requireTLS, byDomain, probesHost), 200, "", ""},
		"a redirect": {change(func(c *testbed.Bootstrap) { testbed.PrependRoute(c.VirtualHost(), redirect) }),
			301, "direct_response", "shadowed"},
		"a redirect, fixed": {change(func(c *testbed.Bootstrap) { c.VirtualHost().Routes = append(c.VirtualHost().Routes, redirect) }),
			200, "", ""},
		"a rate limit":              {with(withFilter(true, limit)), 429, "local_rate_limited", "order"},
		"virtual hosts by domain":   {with(byDomain), 404, "route_not_found", "domains"},
		"virtual hosts, fixed":      {with(byDomain, probesHost), 200, "", ""},
		"local_reply_config":        {with(withLocalReplies(t, false)), 500, "healthgate_ok", "local-reply"},
		"local_reply_config, fixed": {with(withLocalReplies(t, true)), 200, "", ""},
		"a bootstrap's stats matcher": {with(withStatsMatcher(`exclusion_list: {patterns: [{prefix: cluster.}]}`)),
			503, "healthgate_cluster_empty", "stats"},
		"a cluster's own stats matcher": {with(withClusterStatsMatcher(`inclusion_list: {patterns: [{prefix: cluster.service.upstream_}]}`)),
			503, "healthgate_cluster_empty", "stats"},
		"not-enabled":              {probeRoute(`typed_per_filter_config: null`), 503, "direct_response", "not-enabled"},
		"not-enabled, by its path": {gate(`{clusters: [service], path: /healthz}`), 503, "direct_response", "not-enabled"},
		"unknown-cluster":          {gate(`clusters: [servise]`), 503, unknownCluster, "unknown-cluster"},
		"stat-name":                {with(withCluster(`alt_stat_name: shop`)), 503, "healthgate_cluster_empty", "stat-name"},
		"stat-name, fixed": {with(withCluster(`alt_stat_name: shop`), withGate(`clusters: [{name: service, stat_name: shop}]`)),
			200, "", ""},
		"leaks, with the filter":     {probeRoute(`direct_response: {status: 200}`), 200, "", "leaks"},
		"leaks upstream":             {probeRoute(`route: {cluster: service}`), 200, "", "leaks"},
		"leaks, without the filter":  {withoutGate(`direct_response: {status: 200}`), 200, "direct_response", "no-gate"},
		"leaks upstream, without it": {withoutGate(`route: {cluster: service}`), 0, "via_upstream", "no-gate"},
		"the reference without it":   {withoutGate(`{}`), 503, "direct_response", "no-gate"},
		"native-is-enough":           {gate(`clusters: [{name: service, min_healthy_percent: 50}]`), 200, "", "native-is-enough"},
		"panic": {gate(`clusters: [{name: service, min_healthy_percent: 30, min_healthy: 2}]`),
			503, "healthgate_cluster_unhealthy", "panic"},
		"no finding": {nil, 200, "", ""},
		"no finding for a stricter gate": {gate(`{clusters: [{name: service, min_healthy_percent: 90}], hold: {unhealthy_after: 1s}}`),
			200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(test.options, withConfig(func(c *testbed.Bootstrap) { c.HCM().AccessLog[0].Filter = nil }))...)
			expectLint(t, s.config, test.rules)
			serving := map[*testbed.Backend]bool{}
			for _, backend := range s.backends {
				serving[backend] = true
			}
			s.awaitHosts(serving)
			client := s.client("http/1.1")
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			s.probe(client) // a rate limit lets the first one pass
			if reply := s.probe(client); test.status != 0 && reply.status != test.status {
				t.Errorf("the probe is answered with %d, want %d", reply.status, test.status)
			}
			s.awaitLog(`"details":"`+test.details, settle)
		})
	}
}

// The stats matcher of docs/envoy-configuration.md includes all that the gate and a drain need. With the intervals there Envoy checks an
// idle cluster often enough for a short stale_after.
func TestDocumentedStatsMatcherAndIntervalsAreEnough(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withGate(`{"clusters": ["service"], "stale_after": "1s"}`), withConfig(func(c *testbed.Bootstrap) {
		c.StatsConfig = testbed.Parse[*metricsv3.StatsConfig](linesUnder(t, "Stats matchers"))
		c.Patch(c.HealthCheck(), `{no_traffic_interval: null, no_traffic_healthy_interval: null}`)
		c.Patch(c.HealthCheck(), strings.ReplaceAll(linesUnder(t, "An idle cluster"), "5s", "0.1s"))
	}))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.always("/", 200, 1500*time.Millisecond) // longer than stale_after
	if stats := s.stats("cluster.service.upstream_"); len(stats) > 0 {
		t.Errorf("the matcher includes %v", stats)
	}
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s")
	if err != nil || !strings.Contains(out, "no request is left") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	expect(t, "the probe after the drain", s.probe(client), 503, "unavailable\n",
		map[string]string{"x-envoy-immediate-health-check-fail": "true"})
	s.awaitStat("healthgate.default.failed_draining", 1)
}

// The gauges count all hosts of the cluster, so the gate passes although a subset has no host.
func TestGatePassesWithAnEmptySubset(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) {
		c.Patch(c.Cluster(), `lb_subset_config: {fallback_policy: NO_FALLBACK, subset_selectors: [{keys: [stage]}]}`)
		c.Patch(c.ServiceRoute(), `route: {metadata_match: {filter_metadata: {envoy.lb: {stage: new}}}}`)
		c.Patch(c.Cluster().GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0], `metadata: {filter_metadata: {envoy.lb: {stage: old}}}`)
	}))
	expect(t, "the probe", s.probe(s.client("h2")), 200, "ok\n", nil)
	_, err := router.Recommend(t.Context(), s.dialGRPC(), &router.Point{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a call got %v, want Unavailable", err)
	}
	s.awaitLog(`"details":"no_healthy_upstream"`, settle)
}

// At the connection limit a separate listener for probes still answers.
func TestListenerForProbesAnswersAtTheConnectionLimit(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) {
		c.ConnectionLimit().MaxActiveDownstreamConnections = 2
		probes := c.CopyListener("probes")
		testbed.Patch(probes, linesUnder(t, "A listener for probes"))
		c.AddListener(probes)
		c.Patch(c.Admin, `ignore_global_conn_limit: true`)
	}))
	listeners, err := s.envoy.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.dialTLS(t.Context(), "http/1.1")
	}
	if reply, err := s.do(s.client("http/1.1"), "GET", "/", nil); err == nil {
		t.Errorf("at the limit the probe is answered with %d", reply.status)
	}
	s.envoy.Ingress = listeners["probes"]
	expect(t, "the probe on its own listener", s.probe(s.client("http/1.1")), 200, "ok\n", nil)
}

// While a cluster that CDS has changed waits for its first health check, the old one still serves.
func TestWarmingClusterFailsTheProbeWithoutHold(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, test := range map[string]struct {
		options []option
		status  int
	}{
		"default":       {nil, 503},
		"hold":          {[]option{withGate("clusters: [service]\n" + linesUnder(t, "A cluster that warms"))}, 200},
		"source: admin": {[]option{adminAt(t, `{clusters: [service], source: admin, admin: {address: "ADMIN", interval: 0.1s}}`)}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// It accepts and never answers, so the first check does not end.
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			var clusters []*clusterv3.Cluster
			s := newServingSite(t, append(test.options, clustersByCDS(&clusters))...)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle)
			testbed.SetEndpoints(clusters[0], silent.Addr().String())
			testbed.Patch(clusters[0].HealthChecks[0], `timeout: 60s`)
			s.writeClusters(clusters...)
			s.awaitStat("cluster_manager.warming_clusters", 1)
			s.always("/", test.status, time.Second)
			callRouter(t, s)
		})
	}
}
