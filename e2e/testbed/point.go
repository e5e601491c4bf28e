package testbed

// The variables that point the tests at what somebody else has started: an Envoy with the reference configuration in front of
// backends. All of them, or none.
const (
	PointIngress  = "HEALTHGATE_INGRESS"  // host:port of Envoy's listener
	PointAdmin    = "HEALTHGATE_ADMIN"    // host:port of its admin interface
	PointCA       = "HEALTHGATE_CA"       // a file with the listener's certificate, self-signed for localhost
	PointBackends = "HEALTHGATE_BACKENDS" // of each backend grpc-host:port=control-host:port, with commas between
)
