package gate

import (
	"time"

	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// Envoy is the Envoy that a gate runs in.
type Envoy interface {
	envoystats.Stats
	// NewCounter and NewGauge define a stat of Healthgate.
	NewCounter(name string) Counter
	NewGauge(name string) SettableGauge
	// Info and Warn write a line to Envoy's log.
	Info(line string)
	Warn(line string)
	// Now returns the time, with a monotonic part.
	Now() time.Time
}

// Counter is a counter of Healthgate.
type Counter interface{ Increment(by int64) }

// SettableGauge is a gauge of Healthgate.
type SettableGauge interface{ Record(value uint64) }

// Source samples the clusters of one configuration.
type Source interface {
	// Sample returns the host counts of the i-th cluster. It neither blocks nor allocates and is safe for concurrent use.
	Sample(now time.Time, i int) policy.Sample
}

// HostSource is a Source that knows the hosts too.
type HostSource interface {
	// Hosts returns the hosts of the i-th cluster when it was last sampled. The result is shared: treat it as immutable.
	Hosts(i int) []policy.Host
}

// DrainSource is a Source that knows whether Envoy fails its health checks.
type DrainSource interface {
	// Draining reports whether Envoy was draining when it was last sampled, and whether it ever was sampled. It neither blocks nor
	// allocates and is safe for concurrent use.
	Draining() (draining, known bool)
}
