// Package lint finds problems around a gate: in Envoy's configuration, in the gate's own, and in the Kubernetes objects
// beside them.
package lint

// Rule is one kind of problem.
type Rule struct {
	Name  string // as it stands in brackets behind a finding
	Finds string // the problem, on one line
}

// Rules are all there are, in the order of docs/lint.md, which has a section for each.
var Rules = []Rule{
	{"unread", "lint cannot read a file, or nothing in it is Envoy's"},
	{"no-gate", "no gate is there, or its name is misspelt"},
	{"api", "the configuration does not fit Envoy's API"},
	{"config", "the gate's own configuration is refused"},
	{"not-enabled", "no route asks the gate"},
	{"leaks", "the probe's route lets probes pass where the filter is absent"},
	{"shadowed", "another route, or a redirect, takes the probe"},
	{"domains", "no virtual host takes a probe by IP address"},
	{"reach", "a plain probe does not get to the gate"},
	{"order", "another filter answers first, or changes the gate's reply"},
	{"unknown-cluster", "the gate asks a cluster that is not there"},
	{"not-asked", "a route goes to a cluster that no gate asks, or no route to one that a gate asks"},
	{"stat-name", "the gate reads the stats of another name"},
	{"stats", "a stats matcher leaves out stats that are read"},
	{"unchecked", "nothing checks the hosts of a cluster, or it has none"},
	{"idle", "an idle cluster is checked too seldom"},
	{"panic", "the gate passes while Envoy panics"},
	{"timers", "the timers of a shutdown do not fit together"},
	{"admin-open", "admin can be reached from elsewhere"},
	{"alpn", "TLS without HTTP/2"},
	{"local-reply", "the gate's replies are rewritten"},
	{"underscores", "legal gRPC metadata is refused"},
	{"two-libraries", "one plugin from two files"},
	{"native-is-enough", "Envoy's own filter can do the same"},
	{"ignore", "a finding is silenced without a reason"},
}
