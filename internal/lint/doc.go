// Package lint is the command lint: it reports problems around a gate, in Envoy's configuration, in the gate's own, and in the Kubernetes
// objects beside them. docs/lint.md describes the rules.
//
//	parse.go, node.go        YAML and JSON as nodes with positions
//	document.go              which kind of document a file is
//	finding.go               findings, and comments that silence a rule (unread, ignore)
//	lint.go                  all files together (unread, no-gate)
//	api.go, apimessages.go   Envoy's API (api)
//	scope.go                 the configuration of one Envoy
//	gate.go, match.go        the gates in it, and the requests that a route matches
//	rules_config.go          config, two-libraries
//	rules_route.go           not-enabled, leaks, shadowed, domains
//	rules_reach.go           reach
//	rules_order.go           order
//	rules_cluster.go         unknown-cluster, not-asked, stat-name, unchecked, idle, panic
//	rules_stats.go           stats
//	rules_timers.go          timers
//	rules_filter.go          alpn, underscores, local-reply, admin-open, native-is-enough
//	rules_envoygateway.go    the same rules for the objects of Envoy Gateway
//	istio.go                 patches of Istio's EnvoyFilter
//	served.go                the gates that a running Envoy serves, for explain
package lint
