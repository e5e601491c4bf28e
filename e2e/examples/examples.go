// Package examples applies the examples of envoy/examples to a variant's reference configuration. envoy/examples/README.md says
// where each key of an example goes.
package examples

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// References are the reference configurations in the folder envoy, by variant.
var References = map[string]string{"plugin": "envoy.yaml", "module": "module.yaml"}

// example has the keys of a file in envoy/examples.
type example struct {
	Healthgate      map[string]any   `json:"healthgate"`
	Routes          []any            `json:"routes"`
	Clusters        []map[string]any `json:"clusters"`
	HTTPFilters     []any            `json:"http_filters"`
	AccessLogFilter map[string]any   `json:"access_log_filter"`
	Admin           map[string]any   `json:"admin"`
}

// Names returns the names of the examples, without ".yaml". envoy is the path of the folder with that name.
func Names(envoy string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(envoy, "examples", "*.yaml"))
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".yaml")
	}
	return files, err
}

// Read returns the reference configuration of a variant with the example of that name applied; without one if name is "".
func Read(envoy, name, variant string) (map[string]any, error) {
	var bootstrap map[string]any
	var e example
	files := map[string]any{References[variant]: &bootstrap}
	if name != "" {
		files[filepath.Join("examples", name+".yaml")] = &e
	}
	for path, into := range files {
		text, err := os.ReadFile(filepath.Join(envoy, path))
		if err != nil {
			return nil, err
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	e.apply(bootstrap, variant)
	return bootstrap, nil
}

func (e *example) apply(bootstrap map[string]any, variant string) {
	if e.Admin != nil {
		maps.Copy(bootstrap["admin"].(map[string]any), e.Admin)
	}
	resources := bootstrap["static_resources"].(map[string]any)
	hcm := at(resources, "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config")
	if e.AccessLogFilter != nil {
		at(hcm, "access_log", 0)["filter"] = e.AccessLogFilter
	}

	filter := at(hcm, "http_filters", 0, "typed_config")
	config := map[string]string{"plugin": "plugin_config", "module": "filter_config"}[variant]
	maps.Copy(at(filter, config, "value"), e.Healthgate)
	hcm["http_filters"] = append(e.HTTPFilters, hcm["http_filters"].([]any)...)

	if variant == "module" {
		for i := range e.Routes {
			e.Routes[i] = moduleOverrides(e.Routes[i])
		}
	}
	host := at(hcm, "route_config", "virtual_hosts", 0)
	host["routes"] = append(e.Routes, host["routes"].([]any)...)

	service := at(resources, "clusters", 0)
	for _, cluster := range e.Clusters {
		if cluster["name"] == service["name"] {
			maps.Copy(service, cluster)
			continue
		}
		added := maps.Clone(service)
		maps.Copy(added, cluster)
		resources["clusters"] = append(resources["clusters"].([]any), added)
	}
}

// at returns the map at a path of keys and indices.
func at(node any, path ...any) map[string]any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			node = node.(map[string]any)[step]
		case int:
			node = node.([]any)[step]
		}
	}
	return node.(map[string]any)
}

// moduleOverrides replaces each route override of the Go plugin by the dynamic module's.
func moduleOverrides(node any) any {
	fields, isMap := node.(map[string]any)
	if !isMap {
		return node
	}
	if fields["@type"] == "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute" {
		return map[string]any{
			"@type":                 "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
			"dynamic_module_config": map[string]any{"name": "healthgate", "metrics_namespace": "healthgate"},
			"filter_name":           "healthgate",
			"filter_config": map[string]any{
				"@type": "type.googleapis.com/google.protobuf.Struct",
				"value": at(fields, "plugins_config", "healthgate", "config", "value"),
			},
		}
	}
	for key := range fields {
		fields[key] = moduleOverrides(fields[key])
	}
	return fields
}
