package main

import (
	"fmt"

	"healthgate/e2e/testbed"
)

// Variant is a variant of Healthgate.
type Variant struct {
	Name string // plugin or module
	testbed.Variant
}

const (
	plugin, module = "plugin", "module"
	// pluginFor is the version of Envoy for which the Go plugin is built.
	pluginFor = "1.39.1"
)

// variantsOf returns the variants for a name: plugin, module or both. An empty name means all that this Envoy can load.
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
		loaded, err := testbed.VariantNamed(name)
		if err != nil {
			return nil, fmt.Errorf("variant %q is not plugin, module or both", name)
		}
		all = append(all, Variant{name, loaded})
	}
	return all, nil
}

// MergesLevels reports whether each level of overrides overrides the wider one. Otherwise only the most specific one overrides the filter's
// configuration, because Envoy gives a dynamic module no other.
func (v Variant) MergesLevels() bool { return v.Can(testbed.OverrideLevels) == nil }

// ReadsGauges reports whether all that the variant knows is Envoy's stats: it learns neither which clusters exist nor how old a sample is.
func (v Variant) ReadsGauges() bool { return v.Can(testbed.UnnoticedRemovals) == nil }

// AnswersGRPC reports whether the variant answers grpc.health.v1.Health.
func (v Variant) AnswersGRPC() bool { return v.Can(testbed.GRPC) == nil }
