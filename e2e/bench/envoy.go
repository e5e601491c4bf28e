package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Who answers; a listener each in the one Envoy.
const (
	direct    = "direct_response"
	native    = "native"
	byContrib = "healthgate, contrib door"
	byStock   = "healthgate, stock door"
	// The filter is asked on every route, and not on the probe's alone.
	contribEverywhere = "contrib door, every route"
	stockEverywhere   = "stock door, every route"
	lua               = "lua"
	empty             = "empty plugin"
	emptyGo           = "empty plugin in Go"
	// Of a Check of grpc.health.v1.Health: the stock door, and a host, to which Envoy hands the call on.
	check   = "healthgate, stock door"
	through = "a host, through Envoy"
)

// scenario is what the one Envoy has besides.
type scenario struct {
	Name     string `json:"name"`
	Hosts    int    `json:"hosts"`    // of the cluster that is asked for
	Clusters int    `json:"clusters"` // more of them, each with three hosts
}

var scenarios = []scenario{
	{"3 hosts", 3, 0},
	{"100 more clusters", 3, 100},
	{"1,000 more clusters", 3, 1000},
	{"1,000 hosts", 1000, 0},
}

// The places of scenarios.
const (
	small = iota
	hundred
	thousand
	manyHosts
)

// refresh is how often the stand-in copies Envoy's stats here, on the main thread: rarely, since the contrib host need not.
const refresh = "STAND_IN_REFRESH_MILLISECONDS=1000"

// doorOf is the door that a contender needs, "" where none.
func doorOf(contender string) string {
	switch contender {
	case byContrib, contribEverywhere, empty, emptyGo:
		return "contrib"
	case byStock, stockEverywhere:
		return "stock"
	}
	return ""
}

// start starts an Envoy with a listener for each contender, all made from the reference configuration. Hosts serve at the
// echo server's address; all but the first are there to be counted.
func start(ctx context.Context, doors []door.Door, dir, echo string, s scenario, contenders ...string) (*bed.Envoy, map[string]string, error) {
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return nil, nil, err
	}
	admin, err := bed.UnusedAddress() // the script reaches admin by its port, so that has to be known beforehand
	if err != nil {
		return nil, nil, err
	}
	config.Listen(0, admin.Port)
	// In the clear: it is the answer that is compared, not TLS.
	config.Delete("static_resources.listeners.0.filter_chains.0.transport_socket")
	config.Delete(bed.HCM + ".access_log")

	var listeners []any
	for _, name := range contenders {
		listener, err := listen(config.Part(bed.Listener), name, doors)
		if err != nil {
			return nil, nil, err
		}
		listeners = append(listeners, listener)
	}
	config.Set("static_resources.listeners", listeners)

	clusters := s.clustersOf(config, echo)
	if slices.Contains(contenders, lua) {
		old, err := luaConfig()
		if err != nil {
			return nil, nil, err
		}
		old.Set("static_resources.clusters.1.load_assignment.endpoints.0.lb_endpoints.0", bed.Endpoint(admin.String()))
		clusters = append(clusters, old.Get("static_resources.clusters.1"))
	}
	config.Set("static_resources.clusters", clusters)

	options := bed.Options{Workers: 1, Env: []string{refresh}}
	for _, d := range doors {
		if slices.ContainsFunc(contenders, func(name string) bool { return doorOf(name) == d.Name() }) {
			d.Prepare(config)
			options = d.Options(options)
		}
	}
	options.Sync = nil // nothing is compared
	for contender, plugin := range map[string]string{empty: "empty", emptyGo: "emptygo"} {
		if i := slices.Index(contenders, contender); i >= 0 {
			config.Set(fmt.Sprint("static_resources.listeners.", i, ".", filters, ".0.typed_config.filter_name"),
				plugin+"@"+plugin+"@"+filepath.Join(bed.Root(), "build", plugin+".so"))
		}
	}
	envoy, err := bed.StartEnvoy(ctx, dir, config, options)
	if err != nil {
		return nil, nil, err
	}
	addresses, err := envoy.Listeners()
	return envoy, addresses, err
}

// clustersOf are the clusters of a scenario, made from the reference configuration's.
func (s scenario) clustersOf(config *bed.Config, echo string) []any {
	config.Delete(bed.Cluster + ".health_checks") // their own cost comes and goes with their clock
	config.Delete(bed.Cluster + ".dns_lookup_family")
	config.Set(bed.Cluster+".type", "STATIC")
	service := config.Get(bed.Cluster)
	hosts := func(n int) []any {
		all := []any{bed.Endpoint(echo)}
		for i := 1; i < n; i++ {
			// Never sent to: the locality of lower priority is for counting alone.
			all = append(all, bed.Endpoint(fmt.Sprintf("127.1.%d.%d:1", i/250, i%250+1)))
		}
		return all
	}
	assign := func(cluster any, name string, n int) {
		all := hosts(n)
		cluster.(map[string]any)["load_assignment"] = map[string]any{"cluster_name": name, "endpoints": []any{
			map[string]any{"lb_endpoints": all[:1]},
			map[string]any{"lb_endpoints": all[1:], "priority": 1},
		}}
	}
	assign(service, "service", s.Hosts)
	clusters := []any{service}
	for i := range s.Clusters {
		name := fmt.Sprint("other", i)
		other := config.Part(bed.Cluster).Get("")
		other.(map[string]any)["name"] = name
		assign(other, name, 3)
		clusters = append(clusters, other)
	}
	return clusters
}

func luaConfig() (*bed.Config, error) { return bed.LoadConfig("envoy/lua.yaml") }

// Paths within a listener.
var (
	hcm        = strings.TrimPrefix(bed.HCM, bed.Listener+".")
	filters    = strings.TrimPrefix(bed.HTTPFilters, bed.Listener+".")
	probeRoute = strings.TrimPrefix(bed.Routes, bed.Listener+".") + ".0"
)

// listen turns the reference configuration's listener into a contender's.
func listen(listener *bed.Config, contender string, doors []door.Door) (any, error) {
	listener.Set("name", contender)
	listener.Set(hcm+".stat_prefix", "ingress")
	listener.Set("address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
	perRoute := probeRoute + ".typed_per_filter_config"
	switch contender {
	case direct:
		listener.Delete(perRoute)
		listener.Set(probeRoute+".direct_response", map[string]any{"status": 200, "body": map[string]any{"inline_string": "ok\n"}})
		all := listener.Get(filters).([]any)
		listener.Set(filters, all[1:])
	case native:
		listener.Delete(perRoute)
		listener.Set(filters+".0", map[string]any{
			"name": "native",
			"typed_config": map[string]any{
				"@type":                           "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
				"pass_through_mode":               false,
				"cluster_min_healthy_percentages": map[string]any{"service": map[string]any{"value": 1}},
				"headers":                         []any{map[string]any{"name": ":path", "string_match": map[string]any{"exact": "/"}}},
			},
		})
	case lua:
		listener.Delete(perRoute)
		old, err := luaConfig()
		if err != nil {
			return nil, err
		}
		listener.Set(filters+".0", old.Get(bed.HTTPFilters+".0"))
	case contribEverywhere, stockEverywhere:
		listener.Delete(filters + ".0.disabled")
		listener.Delete(perRoute)
	case byStock: // answers Checks too, as envoy/stock.yaml does
		routes := strings.TrimPrefix(bed.Routes, bed.Listener+".")
		health := listener.Part(probeRoute)
		health.Set("match", map[string]any{"prefix": "/grpc.health.v1.Health/"})
		listener.Set(routes, slices.Insert(listener.Get(routes).([]any), 1, health.Get("")))
		listener.Set(filters+".0."+door.FilterConfig+".grpc_services", []any{"router.Router"})
	}
	for _, d := range doors { // the contrib door's is written with the rest of the bootstrap
		if d.Name() == doorOf(contender) && d.Name() == "stock" {
			d.Rewrite(listener)
		}
	}
	return listener.Get(""), nil
}

// sizeMiB is the size of a file.
func sizeMiB(path string) (float64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()) / (1 << 20), nil
}
