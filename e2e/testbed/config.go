package testbed

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Config is an Envoy bootstrap as it is written, to be changed in the few places where a test bed differs from
// production, and in those that a test is about.
type Config struct{ tree any }

// Where things are in envoy/envoy.yaml.
const (
	Listener    = "static_resources.listeners.0"
	Cluster     = "static_resources.clusters.0"
	filterChain = Listener + ".filter_chains.0"
	HCM         = filterChain + ".filters.0.typed_config"
	Routes      = HCM + ".route_config.virtual_hosts.0.routes"
	HTTPFilters = HCM + ".http_filters"
	Healthgate  = HTTPFilters + ".0"
	HealthCheck = Cluster + ".health_checks.0"
	Endpoints   = Cluster + ".load_assignment.endpoints.0.lb_endpoints"
)

// LoadConfig reads a file of the checkout's.
func LoadConfig(path string) (*Config, error) {
	text, err := os.ReadFile(filepath.Join(Root(), path))
	if err != nil {
		return nil, err
	}
	c := &Config{}
	if err := yaml.Unmarshal(text, &c.tree); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Clone returns a deep copy.
func (c *Config) Clone() *Config { return c.Part("") }

// Part returns a deep copy of what stands at a path.
func (c *Config) Part(path string) *Config {
	part, clone := &Config{c.Get(path)}, &Config{}
	if err := json.Unmarshal(part.JSON(), &clone.tree); err != nil {
		panic(err) // it has just been made
	}
	return clone
}

// JSON returns the configuration as Envoy reads it.
func (c *Config) JSON() []byte {
	text, err := json.MarshalIndent(c.tree, "", " ")
	if err != nil {
		panic(err) // the tree holds what YAML can hold
	}
	return text
}

// Tree is a configuration of what YAML can hold.
func Tree(tree any) *Config { return &Config{tree} }

// Change replaces the configuration by what change makes of a copy, in which nothing stands in two places.
func (c *Config) Change(change func(tree any) any) { c.tree = change(c.Clone().tree) }

// Get returns what stands at a path of keys and indices, such as "static_resources.clusters.0.name", or nil. The empty
// path is the whole.
func (c *Config) Get(path string) any {
	at := c.tree
	if path == "" {
		return at
	}
	for _, step := range strings.Split(path, ".") {
		switch node := at.(type) {
		case map[string]any:
			at = node[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(node) {
				return nil
			}
			at = node[i]
		default:
			return nil
		}
	}
	return at
}

// Set puts a value at a path. It makes the last key, or the one after the last index; what is above must be there.
func (c *Config) Set(path string, value any) {
	dot := strings.LastIndexByte(path, '.')
	above, last := c.tree, path
	if dot >= 0 {
		above, last = c.Get(path[:dot]), path[dot+1:]
	}
	switch node := above.(type) {
	case map[string]any:
		node[last] = value
		return
	case []any:
		i, err := strconv.Atoi(last)
		switch {
		case err == nil && i < len(node):
			node[i] = value
			return
		case err == nil && i == len(node):
			c.Set(path[:dot], append(node, value))
			return
		}
	}
	panic("no such place in the configuration: " + path)
}

// Delete removes a key.
func (c *Config) Delete(path string) {
	above, last := "", path
	if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
		above, last = path[:dot], path[dot+1:]
	}
	delete(c.Get(above).(map[string]any), last)
}

// Endpoint is an endpoint of a load assignment, at host:port or unix:path.
func Endpoint(address string) map[string]any {
	where := map[string]any{}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		where["pipe"] = map[string]any{"path": path}
	} else {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			panic(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			panic(err)
		}
		where["socket_address"] = map[string]any{"address": host, "port_value": number}
	}
	return map[string]any{"endpoint": map[string]any{"address": where}}
}

// SetEndpoints makes the first cluster's hosts those at the addresses.
func (c *Config) SetEndpoints(addresses ...string) {
	endpoints := make([]any, len(addresses))
	for i, address := range addresses {
		endpoints[i] = Endpoint(address)
	}
	c.Set(Endpoints, endpoints)
}

// CheckEvery makes the first cluster's health checks come at the interval, given as Envoy writes it ("0.1s").
func (c *Config) CheckEvery(interval string) {
	for _, key := range []string{"interval", "no_traffic_interval", "no_traffic_healthy_interval"} {
		c.Set(HealthCheck+"."+key, interval)
	}
	c.Set(HealthCheck+".interval_jitter", "0.01s")
}
