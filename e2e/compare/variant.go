package main

import (
	"fmt"

	"healthgate/e2e/testbed"
)

// Variant is a way in which Healthgate is loaded.
type Variant struct {
	Name string // plugin or module
	testbed.Variant
}

const (
	plugin, module = "plugin", "module"
	// pluginFor is the version of Envoy for which the Go plugin is built.
	pluginFor = "1.39.1"
	// filterConfig is where Healthgate's configuration stands in a filter of the reference configuration.
	filterConfig = testbed.FilterConfig
)

// variantsOf finds the variants of a name: plugin, module or both. The empty name is all that the Envoy can load.
func variantsOf(name string) (all []Variant, err error) {
	if name == "" {
		version, err := testbed.EnvoyVersion()
		if err != nil {
			return nil, err
		}
		name = map[bool]string{true: "both", false: module}[version == pluginFor]
	}
	wanted := []string{name}
	if name == "both" {
		wanted = []string{plugin, module}
	}
	for _, name := range wanted {
		loaded, err := testbed.Named(name)
		if err != nil {
			return nil, fmt.Errorf("variant %q: there are plugin, module and both", name)
		}
		all = append(all, Variant{name, loaded})
	}
	return all, nil
}

// MergesLevels reports whether each level of overrides overrides the wider one. If not, the most specific one alone overrides the filter's
// configuration, because Envoy gives a dynamic module no other.
func (v Variant) MergesLevels() bool { return v.Can(testbed.OverrideLevels) == nil }

// ReadsGauges reports whether the variant reads gauges alone: it does not know which clusters Envoy has, and that their health is checked
// only by a counter.
func (v Variant) ReadsGauges() bool { return v.Can(testbed.UnnoticedRemovals) == nil }

// AnswersGRPC reports whether the variant answers grpc.health.v1.Health.
func (v Variant) AnswersGRPC() bool { return v.Can(testbed.GRPC) == nil }

// CountsConfigurations reports whether its host counts the configurations that are alive.
func (v Variant) CountsConfigurations() bool { return v.Can(testbed.CountLiveObjects) == nil }
