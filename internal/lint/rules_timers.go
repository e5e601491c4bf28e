package lint

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Times in seconds.
const (
	reaction          = 10 // for a balancer to stop or begin to send, after its health check has changed
	spare             = 10 // between the end of the drain and the end of the grace period
	defaultDrainDelay = 30
	defaultTimeout    = 30
	defaultGrace      = 30 // of Kubernetes
)

// drain has the times of a workload whose pods drain, in seconds.
type drain struct {
	workload, container   *Node
	delay, timeout, grace int
	delayAt, graceAt      *Node
}

// balancer has the times of a balancer, in seconds. 0 is not known.
type balancer struct {
	at                                                     *Node
	name                                                   string
	interval, timeout, unhealthy, healthy, reaction, drain int // drain: how long connections to a removed pod may go on
	drainAt                                                *Node
}

// timers compares the times of a shutdown, as manifests/README.md describes them.
func (l *linter) timers() {
	var balancers []balancer
	for _, object := range l.objects {
		if b, ok := readBalancer(object); ok {
			l.checked = true
			balancers = append(balancers, b)
		}
	}
	for _, object := range l.objects {
		d, ok := l.readDrain(object)
		if !ok {
			continue
		}
		l.checked = true
		if need := d.delay + d.timeout + spare; d.grace < need {
			l.found.add(d.graceAt, Error, "timers", "the pod is killed after %d s, and its drain takes up to %d + %d s: write "+
				"terminationGracePeriodSeconds: %d (delay + timeout + %d)", d.grace, d.delay, d.timeout, need, spare)
		}
		for _, b := range append(slices.Clone(balancers), readinessProbe(d.container)...) {
			l.checkBalancer(d, b)
		}
	}
}

func (l *linter) checkBalancer(d drain, b balancer) {
	at := fmt.Sprintf("%s (%s:%d)", b.name, b.at.file.name, b.at.line)
	if need := b.interval*b.unhealthy + b.timeout + b.reaction; b.interval > 0 && d.delay < need {
		l.found.add(d.delayAt, Error, "timers", "the drain delay is %d s, and %s takes up to %d s to remove a pod (interval %d × threshold "+
			"%d + timeout %d + %d), so requests fail: write DRAIN_DELAY: %ds", d.delay, at, need,
			b.interval, b.unhealthy, b.timeout, b.reaction, need)
	}
	ready := int(d.workload.number(0, "spec", "minReadySeconds"))
	if need := b.interval*b.healthy + b.timeout + b.reaction; b.reaction > 0 && b.interval > 0 && ready < need {
		l.found.add(d.workload.at("spec", "minReadySeconds"), Warning, "timers", "a rollout ends old pods %d s after new ones are ready, and "+
			"%s takes up to %d s to add a pod (interval %d × threshold %d + timeout %d + %d), so requests fail: write minReadySeconds: %d",
			ready, at, need, b.interval, b.healthy, b.timeout, b.reaction, need)
	}
	if b.drain > 0 && b.drain < d.timeout {
		l.found.add(b.drainAt, Warning, "timers", "the balancer cuts connections off after %d s, and the drain timeout is %d s: write %d, or a "+
			"shorter DRAIN_TIMEOUT", b.drain, d.timeout, d.timeout)
	}
}

// drainTimes are the flags of `healthgate drain` for a time, with the variables that set it without the flag.
var drainTimes = []struct{ flag, variable string }{{"--delay", "DRAIN_DELAY"}, {"--timeout", "DRAIN_TIMEOUT"}}

// otherDrainFlags are the other flags of `healthgate drain`, and whether a value follows.
var otherDrainFlags = map[string]bool{"--admin": true, "--log": true, "--output": true, "-o": true, "--help": false, "-h": false}

// readDrain reads a Deployment or another workload with a preStop hook that drains.
func (l *linter) readDrain(object *Node) (drain, bool) {
	d := drain{workload: object, delay: defaultDrainDelay, timeout: defaultTimeout}
	pod := object.get("spec")
	switch object.text("kind") {
	case "Pod":
	case "Deployment", "DaemonSet", "StatefulSet":
		pod = pod.get("template", "spec")
	default:
		return d, false
	}
	for _, container := range slices.Concat(pod.list("containers"), pod.list("initContainers")) { // a sidecar is one of the latter
		words := drainArguments(container)
		if words == nil {
			continue
		}
		d.container, d.delayAt = container, container.at("env")
		for _, env := range container.list("env") {
			for i, of := range drainTimes {
				if env.text("name") == of.variable {
					d.set(i, env.get("value"), env.text("value"))
				}
			}
		}
		for len(words) > 0 {
			words = l.readDrainFlag(&d, words)
		}
	}
	d.grace, d.graceAt = int(pod.number(defaultGrace, "terminationGracePeriodSeconds")), pod.at("terminationGracePeriodSeconds")
	return d, d.container != nil
}

// readDrainFlag reads the flag that begins some arguments, and returns the arguments after it.
func (l *linter) readDrainFlag(d *drain, words []*Node) (rest []*Node) {
	at, rest := words[0], words[1:]
	flag, value, joined := strings.Cut(at.scalar, "=")
	i := slices.IndexFunc(drainTimes, func(of struct{ flag, variable string }) bool { return of.flag == flag })
	hasValue, isOther := otherDrainFlags[flag]
	if !joined && (i >= 0 || hasValue) && len(rest) > 0 {
		value, rest = rest[0].scalar, rest[1:]
	}
	switch {
	case !strings.HasPrefix(flag, "-") || flag == "-" || flag == "--":
	case i >= 0:
		if !d.set(i, at, value) && !isPlaceholder(value) {
			l.found.add(at, Error, "timers", "%s is %q, which is not a duration, so the drain fails at once: write %s 30s", flag, clip(value), flag)
		}
	case !isOther:
		l.found.add(at, Error, "timers", "healthgate drain has no flag %s, so it fails at once and nothing drains: it has %s and %s", clip(flag),
			drainTimes[0].flag, drainTimes[1].flag)
	}
	return rest
}

// set sets one of drainTimes, and reports whether the value is a duration.
func (d *drain) set(i int, at *Node, value string) bool {
	duration, err := time.ParseDuration(value)
	if err != nil || duration < 0 {
		return false
	}
	if seconds := int(math.Ceil(duration.Seconds())); i == 0 {
		d.delay, d.delayAt = seconds, at
	} else {
		d.timeout = seconds
	}
	return true
}

// drainArguments returns the arguments of `healthgate drain` in a container's preStop hook; nil if the hook does not drain.
func drainArguments(container *Node) (all []*Node) {
	for _, part := range container.list("lifecycle", "preStop", "exec", "command") {
		for _, word := range strings.Fields(part.scalar) { // a part may be a line of shell
			all = append(all, &Node{position: part.position, scalar: strings.Trim(word, `"';`)})
		}
	}
	for i := 1; i < len(all); i++ {
		if all[i].scalar == "drain" && strings.HasSuffix(all[i-1].scalar, "healthgate") {
			rest := all[i+1:]
			if end := slices.IndexFunc(rest, func(word *Node) bool {
				return slices.Contains([]string{"", "&&", "||", "|", "&"}, word.scalar)
			}); end >= 0 {
				rest = rest[:end]
			}
			return append([]*Node{}, rest...)
		}
	}
	return nil
}

// readinessProbe returns the kubelet's probe as a balancer: Services follow it at once.
func readinessProbe(container *Node) []balancer {
	probe := container.get("readinessProbe")
	if probe == nil {
		return nil
	}
	b := balancer{at: probe, name: "the kubelet", healthy: 1}
	b.interval, b.timeout = int(probe.number(10, "periodSeconds")), int(probe.number(1, "timeoutSeconds"))
	b.unhealthy = int(probe.number(3, "failureThreshold"))
	return []balancer{b}
}

// readBalancer reads an object that configures the health check of a cloud's balancer.
func readBalancer(object *Node) (b balancer, ok bool) {
	var check, draining *Node
	switch spec := object.get("spec"); object.text("kind") {
	case "BackendConfig":
		b.name = "the BackendConfig's check"
		check, draining = spec.get("healthCheck"), spec.get("connectionDraining")
	case "HealthCheckPolicy":
		b.name = "the HealthCheckPolicy's check"
		check = spec.get("default")
	case "GCPBackendPolicy":
		draining = spec.get("default", "connectionDraining")
	case "Ingress", "TargetGroupBinding":
		return readALB(object)
	default:
		return b, false
	}
	b.at, b.reaction = object, reaction
	if check != nil { // with the defaults of GKE for pods (NEGs); the timeout is at most the interval
		b.at = check
		b.interval = int(check.number(15, "checkIntervalSec"))
		b.timeout = int(check.number(float64(min(15, b.interval)), "timeoutSec"))
		b.unhealthy, b.healthy = int(check.number(2, "unhealthyThreshold")), int(check.number(1, "healthyThreshold"))
	}
	b.drain, b.drainAt = int(draining.number(0, "drainingTimeoutSec")), draining.get("drainingTimeoutSec")
	return b, true
}

// readALB reads the annotations of the AWS Load Balancer Controller.
func readALB(object *Node) (balancer, bool) {
	const prefix = "alb.ingress.kubernetes.io/"
	annotations := object.get("metadata", "annotations")
	number := func(key string, byDefault float64) int { return int(annotations.number(byDefault, prefix+key)) }
	b := balancer{at: object.at("metadata", "annotations"), name: "the ALB's check", reaction: reaction,
		interval: number("healthcheck-interval-seconds", 15), timeout: number("healthcheck-timeout-seconds", 5),
		unhealthy: number("unhealthy-threshold-count", 2), healthy: number("healthy-threshold-count", 2)}
	attributes := annotations.get(prefix + "target-group-attributes")
	for attribute := range strings.SplitSeq(attributes.text(), ",") {
		if value, found := strings.CutPrefix(strings.TrimSpace(attribute), "deregistration_delay.timeout_seconds="); found {
			b.drain, _ = strconv.Atoi(value)
			b.drainAt = attributes
		}
	}
	isALB := slices.ContainsFunc(annotations.pairs(), func(e entry) bool { return strings.HasPrefix(e.key, prefix) })
	return b, isALB || object.text("spec", "ingressClassName") == "alb"
}
