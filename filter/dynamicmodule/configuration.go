package dynamicmodule

import (
	"healthgate/filter/config"
	"healthgate/filter/lifecycle"
)

// configuration is a filter's configuration.
type configuration struct {
	*lifecycle.Configuration
	envoy  *filterEnvoy
	gauges []*gauge // sampled before its gate exists, so that its first probe need not wait for a pass
}

// override is a route override.
type override struct {
	*lifecycle.Override
	config *config.Override
	prefix prefix
	gauges []*gauge // sampled early, as in configuration
}

// prefix is the stat_prefix of a route override, "" for the filter's own, and whether its gates may answer gRPC calls.
type prefix struct {
	name string
	grpc bool
}

func prefixOf(o *config.Override) prefix {
	p := prefix{grpc: o.Sets("grpc_services")}
	if o.Sets("stat_prefix") {
		p.name = o.Config().StatPrefix
	}
	return p
}
