// Package lint reports problems around a gate: in Envoy's configuration, in the gate's own, and in the Kubernetes objects
// beside them.
package lint

// Rule is one kind of problem.
type Rule struct {
	Name  string // in brackets at the end of a finding
	Finds string // the problem, on one line
}

// Rules has all rules, in the order of docs/lint.md, which has a section for each.
var Rules = []Rule{
	{"unread", "lint cannot read a file, or knows nothing in it"},
	{"no-gate", "there is no gate, or its name is misspelt"},
	{"api", "the configuration does not fit Envoy's API"},
	{"config", "the gate's own configuration is refused"},
	{"not-enabled", "no route enables the gate"},
	{"leaks", "the probe's route lets probes pass without the filter"},
	{"shadowed", "another route, or a redirect, takes the probe"},
	{"domains", "no virtual host matches a probe by IP address"},
	{"reach", "a plain probe does not reach the gate"},
	{"order", "another filter answers first, or changes the gate's reply"},
	{"unknown-cluster", "the gate depends on a cluster that does not exist"},
	{"not-asked", "a cluster gets traffic and no gate depends on it, or the other way round"},
	{"stat-name", "the gate reads the stats of another name"},
	{"stats", "a stats matcher excludes stats that are read"},
	{"unchecked", "a cluster has no health checks, or no hosts"},
	{"idle", "an idle cluster is checked too rarely"},
	{"panic", "the gate passes while Envoy panics"},
	{"timers", "the times of a shutdown do not fit together"},
	{"admin-open", "other machines can reach admin"},
	{"alpn", "TLS without HTTP/2"},
	{"local-reply", "the gate's replies are rewritten"},
	{"underscores", "legal gRPC metadata is refused"},
	{"two-libraries", "one plugin from two files"},
	{"native-is-enough", "Envoy's own filter can do the same"},
	{"ignore", "a finding is silenced without a reason"},
}
