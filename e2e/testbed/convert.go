package testbed

import (
	"slices"

	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	bootstrapmodulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	dynamicmodulesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/dynamic_modules/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Every configuration of the tests is written for the Go plugin, as envoy/envoy.yaml is. Variant.Convert makes another form of it.

// For returns a copy of the bootstrap in a variant's form.
func (b *Bootstrap) For(v Variant) *Bootstrap {
	converted := b.Clone()
	v.Convert(converted.Bootstrap)
	return converted
}

// GateOverride returns a route override of Healthgate, given in JSON or YAML, in the Go plugin's form. It also enables the filter.
func GateOverride(text string) *anypb.Any {
	value := &xdsv3.TypedStruct{Value: Parse[*structpb.Struct](text)}
	return Any(Enabling(Any(&golangv3.ConfigsPerRoute{PluginsConfig: map[string]*golangv3.RouterPlugin{
		"healthgate": {Override: &golangv3.RouterPlugin_Config{Config: Any(value)}},
	}})))
}

// gateIn returns Healthgate's own configuration from a filter's configuration, in the form of either variant.
func (b *Bootstrap) gateIn(filter proto.Message) *structpb.Struct {
	var config *anypb.Any
	switch f := filter.(type) {
	case *golangv3.Config:
		config = f.GetPluginConfig()
	case *modulev3.DynamicModuleFilter:
		config = f.GetFilterConfig()
	}
	switch c := b.Unpack(config).(type) {
	case *xdsv3.TypedStruct:
		return c.GetValue()
	case *structpb.Struct:
		return c
	}
	panic("no configuration of Healthgate in " + config.GetTypeUrl())
}

// replaceAnys calls replace with each message that an Any inside m holds, the outer ones first. The result of replace takes the message's
// place; nil keeps the message, with the changes that replace has made in it.
func replaceAnys(m proto.Message, replace func(proto.Message) proto.Message) {
	_ = protorange.Range(m.ProtoReflect(), func(values protopath.Values) error {
		message, ok := values.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		any, ok := message.Interface().(*anypb.Any)
		if !ok {
			return nil
		}
		held, err := any.UnmarshalNew()
		if err != nil {
			return nil //nolint:nilerr // empty, or of a type that no test writes
		}
		if other := replace(held); other != nil {
			held = other
		}
		return anypb.MarshalFrom(any, held, proto.MarshalOptions{Deterministic: true})
	})
}

// Convert makes each golang filter load the plugin that was built, or the contrib host in its place.
func (c goPlugin) Convert(m proto.Message) {
	if c.contribHost {
		toContribHost(m)
		return
	}
	replaceAnys(m, func(held proto.Message) proto.Message {
		if config, ok := held.(*golangv3.Config); ok {
			config.LibraryPath = c.Object()
		}
		return nil
	})
}

// Convert turns each configuration of the golang filter into one of the dynamic module, with the same keys, and adds the bootstrap
// extension to a bootstrap.
func (dynamicModule) Convert(m proto.Message) {
	replaceAnys(m, func(held proto.Message) proto.Message {
		switch config := held.(type) {
		case *golangv3.Config:
			return &modulev3.DynamicModuleFilter{
				DynamicModuleConfig: moduleConfig(), FilterName: "healthgate", FilterConfig: asStruct(config.GetPluginConfig()),
			}
		case *golangv3.ConfigsPerRoute:
			return &modulev3.DynamicModuleFilterPerRoute{
				DynamicModuleConfig: moduleConfig(), FilterName: "healthgate",
				FilterConfig: asStruct(config.GetPluginsConfig()["healthgate"].GetConfig()),
			}
		}
		return nil
	})
	isOurs := func(extension *corev3.TypedExtensionConfig) bool { return extension.GetName() == "healthgate" }
	if bootstrap, ok := m.(*bootstrapv3.Bootstrap); ok && !slices.ContainsFunc(bootstrap.GetBootstrapExtensions(), isOurs) {
		addBootstrapExtension(bootstrap, &bootstrapmodulev3.DynamicModuleBootstrapExtension{
			DynamicModuleConfig: moduleConfig(), ExtensionName: "healthgate",
		})
	}
}

func moduleConfig() *dynamicmodulesv3.DynamicModuleConfig {
	return &dynamicmodulesv3.DynamicModuleConfig{Name: "healthgate", MetricsNamespace: "healthgate"}
}

func addBootstrapExtension(b *bootstrapv3.Bootstrap, extension *bootstrapmodulev3.DynamicModuleBootstrapExtension) {
	b.BootstrapExtensions = append(b.BootstrapExtensions,
		&corev3.TypedExtensionConfig{Name: extension.GetExtensionName(), TypedConfig: Any(extension)})
}

// asStruct makes a TypedStruct a Struct; any other message stays.
func asStruct(config *anypb.Any) *anypb.Any {
	held, _ := config.UnmarshalNew() // nil, if it is empty or of a type that no test writes
	if typed, ok := held.(interface{ GetValue() *structpb.Struct }); ok {
		return Any(typed.GetValue())
	}
	return config
}
