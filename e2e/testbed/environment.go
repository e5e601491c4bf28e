package testbed

// Environment variables that make the suite use a running Envoy with the reference configuration and backends: all of them, or none.
const (
	EnvIngress  = "HEALTHGATE_INGRESS"  // host:port of Envoy's listener
	EnvAdmin    = "HEALTHGATE_ADMIN"    // host:port of its admin interface
	EnvCA       = "HEALTHGATE_CA"       // a file with the listener's certificate, self-signed for localhost
	EnvBackends = "HEALTHGATE_BACKENDS" // grpc-host:port=control-host:port for each backend, with commas between
)
