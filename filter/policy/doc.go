// Package policy decides. It is pure: samples and times in, verdicts out. It knows neither Envoy nor the configuration's syntax.
//
//	reason.go   the reasons for a verdict
//	sample.go   the host counts of a cluster at one time
//	verdict.go  the rule of a cluster, and the verdict on several
//	hold.go     debouncing a change of the verdict
package policy
