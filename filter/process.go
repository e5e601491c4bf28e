package filter

// Process is what the gates of one process share. The zero value is ready.
type Process struct {
	liveness liveness
	ages     ages
	gauges   gauges
	holds    debounces
	warnings warnings
}
