package config

import (
	"maps"

	"google.golang.org/protobuf/types/known/structpb"
)

// Override is the configuration of a route. It inherits missing keys from the filter's configuration. Treat it as immutable.
type Override struct {
	config *Config
}

// DecodeOverride decodes a route override as strictly as Decode, so that Envoy can refuse it when it creates the route. Merge makes the
// checks that need the filter's keys, because neither side knows the other when it is created. So a route's keys are decoded twice.
func DecodeOverride(raw *structpb.Struct, variant Variant) (*Override, error) {
	c, errs := decode(raw, variant, false)
	if len(errs) > 0 {
		return nil, errs
	}
	return &Override{c}, nil
}

// Config returns the override alone, with defaults for the keys that it does not set.
func (o *Override) Config() *Config { return o.config }

// Path returns the path as the override sets it, "" if it does not.
func (o *Override) Path() string { return o.config.written.raw.GetFields()["path"].GetStringValue() }

// Sets reports whether the override has a key.
func (o *Override) Sets(key string) bool { return o.config.written.raw.GetFields()[key] != nil }

// Empty reports whether the override has no key.
func (o *Override) Empty() bool { return len(o.config.written.raw.GetFields()) == 0 }

// Merge returns the configuration with an override applied. The error is of type Errors.
func (c *Config) Merge(o *Override) (*Config, error) {
	return Decode(MergeRaw(c.written.raw, o.config.written.raw), c.written.variant)
}

// MergeRaw applies an override to a configuration, both as written: field by field at every depth; a list is replaced as a whole. An
// override with source: stats and no admin removes the admin of the wider level. Neither argument is changed.
func MergeRaw(wider, override *structpb.Struct) *structpb.Struct {
	merged := mergeFields(wider, override)
	if override.GetFields()["source"].GetStringValue() == "stats" && override.GetFields()["admin"] == nil {
		delete(merged.Fields, "admin")
	}
	return merged
}

func mergeFields(wider, override *structpb.Struct) *structpb.Struct {
	merged := &structpb.Struct{Fields: maps.Clone(wider.GetFields())}
	for key, value := range override.GetFields() {
		old, new := merged.Fields[key].GetStructValue(), value.GetStructValue()
		if old != nil && new != nil {
			value = structpb.NewStructValue(mergeFields(old, new))
		}
		if merged.Fields == nil {
			merged.Fields = make(map[string]*structpb.Value)
		}
		merged.Fields[key] = value
	}
	return merged
}
