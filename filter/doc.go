// Package filter holds no code; its packages are Healthgate's two variants. Data flows one way: configuration, sample, evaluate, hold,
// reply. A package imports only those above it:
//
//	version/        which build this is
//	policy/         samples to a verdict, hold: pure functions
//	config/         the configuration language: keys, strict decoding, route overrides, JSON Schema
//	envoystats/     source: stats, the names of Envoy's stats, staleness, draining
//	gate/           one gate at run time: sample, evaluate, reply, count, log, warn, report
//	adminsource/    source: admin, a poller of Envoy's admin interface
//	lifecycle/      configurations and route overrides, from creation to end
//	golang/         the Go plugin: callbacks of contrib's golang extension
//	dynamicmodule/  the dynamic module: callbacks of the dynamic modules' ABI, and C on the probe's path
package filter
