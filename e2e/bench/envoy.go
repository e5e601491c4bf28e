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

// Who answers the probe; a listener each in the one Envoy.
const (
	direct   = "direct_response"
	native   = "native"
	gate     = "healthgate"
	everyone = "healthgate, every route"
	lua      = "lua"
	empty    = "empty plugin"
	emptyGo  = "empty plugin in Go"
)

// scenario is what the one Envoy has besides.
type scenario struct {
	Name     string
	hosts    int // of the cluster that is asked for
	clusters int // more of them, each with three hosts
}

var scenarios = []scenario{
	{"3 hosts", 3, 0},
	{"100 more clusters", 3, 100},
	{"1,000 hosts", 1000, 0},
}

// refresh is how often the stand-in copies Envoy's stats here, on the main thread: rarely, since the contrib host need not.
const refresh = "STAND_IN_REFRESH_MILLISECONDS=100"

// start starts an Envoy with a listener for each contender, all made from the reference configuration. Hosts serve at the
// echo server's address; all but the first are there to be counted.
func start(ctx context.Context, d door.Door, dir, echo string, s scenario, contenders ...string) (*bed.Envoy, map[string]string, error) {
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
		listener, err := listen(config.Part(bed.Listener), name)
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

	if slices.ContainsFunc(contenders, func(name string) bool { return name == gate || name == everyone || name == empty || name == emptyGo }) {
		d.Prepare(config)
	}
	for contender, plugin := range map[string]string{empty: "empty", emptyGo: "emptygo"} {
		if i := slices.Index(contenders, contender); i >= 0 {
			config.Set(fmt.Sprint("static_resources.listeners.", i, ".", filters, ".0.typed_config.filter_name"),
				plugin+"@"+plugin+"@"+filepath.Join(bed.Root(), "build", plugin+".so"))
		}
	}
	envoy, err := bed.StartEnvoy(ctx, dir, config, d.Options(bed.Options{Workers: 1, Env: []string{refresh}}))
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
	assign(service, "service", s.hosts)
	clusters := []any{service}
	for i := range s.clusters {
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
func listen(listener *bed.Config, contender string) (any, error) {
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
	case everyone:
		listener.Delete(filters + ".0.disabled")
		listener.Delete(perRoute)
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
