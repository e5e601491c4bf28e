package lint

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// act is the time that a balancer has, after it has noticed, to stop sending or to begin, in seconds.
	act = 10
	// spare is the time between the end of the drain and the end of the grace, in seconds.
	spare = 10
	// The defaults of a drain, in seconds.
	defaultDelay, defaultTimeout = 30, 30
	// Kubernetes' default, in seconds.
	defaultGrace = 30
)

// drained is a Deployment whose pods drain, with its timers in seconds.
type drained struct {
	workload, pod, container *Node
	delay, timeout, grace    int
	delayAt, graceAt         *Node
}

// check is a balancer's health check, with its other timers, in seconds. 0 is not known.
type check struct {
	at                                    *Node
	whose                                 string
	interval, timeout, unhealthy, healthy int
	act                                   int
	draining                              int // how long it lets connections to a pod that is out go on
	drainingAt                            *Node
}

// timers holds the timers of a shutdown against each other, as manifests/README.md has them.
func (l *linter) timers() {
	var checks []check
	for _, object := range l.objects {
		if c, ok := balancersCheck(object); ok {
			l.checked = true
			checks = append(checks, c)
		}
	}
	for _, object := range l.objects {
		d, ok := l.readDrained(object)
		if !ok {
			continue
		}
		l.checked = true
		l.checkGrace(d)
		all := checks
		if kubelets, ok := readinessCheck(d.container); ok {
			all = append(slices.Clone(checks), kubelets)
		}
		for _, c := range all {
			l.checkNotice(d, c)
		}
	}
}

func (l *linter) checkGrace(d drained) {
	if need := d.delay + d.timeout + spare; d.grace < need {
		l.found.add(d.graceAt, Error, "timers", "the pod is killed after %d s, and its drain takes up to %d + %d s: write "+
			"terminationGracePeriodSeconds: %d (delay + timeout + %d)",
			d.grace, d.delay, d.timeout, need, spare)
	}
}

func (l *linter) checkNotice(d drained, c check) {
	const rule = "timers"
	at := fmt.Sprintf("%s (%s:%d)", c.whose, c.at.file.name, c.at.line)
	if need := c.interval*c.unhealthy + c.timeout + c.act; c.interval > 0 && d.delay < need {
		l.found.add(d.delayAt, Error, rule, "the drain gives the balancer %d s to notice, and %s takes up to %d s (interval %d × threshold "+
			"%d + timeout %d + %d to act), so calls are lost: write DRAIN_DELAY: %ds",
			d.delay, at, need, c.interval, c.unhealthy, c.timeout, c.act, need)
	}
	ready := int(d.workload.number(0, "spec", "minReadySeconds"))
	if need := c.interval*c.healthy + c.timeout + c.act; c.act > 0 && c.interval > 0 && ready < need {
		l.found.add(d.workload.at("spec", "minReadySeconds"), Warning, rule, "a rollout ends old pods %d s after new ones are ready, and "+
			"%s takes up to %d s to take a new pod in (interval %d × threshold %d + timeout %d + %d), so calls are lost: write minReadySeconds: %d",
			ready, at, need, c.interval, c.healthy, c.timeout, c.act, need)
	}
	if c.draining > 0 && c.draining < d.timeout {
		l.found.add(c.drainingAt, Warning, rule, "the balancer cuts connections off after %d s, and the drain lets requests go on for %d "+
			"s: write %d, or a shorter DRAIN_TIMEOUT",
			c.draining, d.timeout, d.timeout)
	}
}

// drainKeys are the flags of `healthgate drain` and the variables that it reads if there is no flag.
var drainKeys = []struct {
	flag     string
	variable string
}{{"--delay", "DRAIN_DELAY"}, {"--timeout", "DRAIN_TIMEOUT"}}

// oldVariables are in seconds, and older than the first release: they go as soon as no manifest has them.
var oldVariables = map[string]int{"DRAIN_NOTICE_SECONDS": 0, "DRAIN_FINISH_SECONDS": 1}

// otherDrainFlags are the flags of `healthgate drain` that are no timers, with whether a value follows.
var otherDrainFlags = map[string]bool{"--admin": true, "--log": true, "--output": true, "-o": true, "--help": false, "-h": false}

// readDrained reads a Deployment or another workload that drains before it ends.
func (l *linter) readDrained(object *Node) (drained, bool) {
	d := drained{workload: object, delay: defaultDelay, timeout: defaultTimeout}
	switch object.text("kind") {
	case "Deployment", "DaemonSet", "StatefulSet":
		d.pod = object.get("spec", "template", "spec")
	case "Pod":
		d.pod = object.get("spec")
	}
	for _, container := range slices.Concat(d.pod.list("containers"), d.pod.list("initContainers")) { // a sidecar is one of the latter
		words := drainWords(container)
		if words == nil {
			continue
		}
		d.container, d.delayAt = container, container.at("env")
		set := func(i int, at *Node, value string) bool {
			seconds, ok := drainSeconds(value)
			if !ok {
				return false
			}
			if i == 0 {
				d.delay, d.delayAt = seconds, at
			} else {
				d.timeout = seconds
			}
			return true
		}
		for _, env := range container.list("env") {
			if i, old := oldVariables[env.text("name")]; old {
				set(i, env.get("value"), env.text("value")+"s")
			}
			for i, key := range drainKeys {
				if env.text("name") == key.variable {
					set(i, env.get("value"), env.text("value"))
				}
			}
		}
		for i := 0; i < len(words); i++ {
			flag, value, joined := strings.Cut(words[i].text, "=")
			if !strings.HasPrefix(flag, "-") || flag == "-" || flag == "--" {
				continue
			}
			at := words[i].at
			key := slices.IndexFunc(drainKeys, func(k struct{ flag, variable string }) bool { return k.flag == flag })
			follows, other := otherDrainFlags[flag]
			if !joined && (key >= 0 || follows) && i+1 < len(words) {
				i++
				value = words[i].text
			}
			switch {
			case key >= 0:
				if !set(key, at, value) && !isPlaceholder(value) {
					l.found.add(at, Error, "timers", "%s is %q, which is no duration, so the drain ends at once: write %s 30s", flag, clip(value), flag)
				}
			case !other:
				l.found.add(at, Error, "timers", "healthgate drain has no flag %s, so it ends at once and nothing drains: it has %s and %s",
					clip(flag), drainKeys[0].flag, drainKeys[1].flag)
			}
		}
	}
	d.grace, d.graceAt = int(d.pod.number(defaultGrace, "terminationGracePeriodSeconds")), d.pod.at("terminationGracePeriodSeconds")
	return d, d.container != nil
}

// word is one of a command, with where it stands.
type word struct {
	text string
	at   *Node
}

// drainWords returns the arguments of `healthgate drain` in a container's preStop hook, not nil if it is there.
func drainWords(container *Node) []word {
	var all []word
	for _, part := range container.list("lifecycle", "preStop", "exec", "command") {
		for _, text := range strings.Fields(part.scalar) { // one part may be a line for a shell
			all = append(all, word{strings.Trim(text, `"';`), part})
		}
	}
	for i := 1; i < len(all); i++ {
		if all[i].text == "drain" && strings.HasSuffix(all[i-1].text, "healthgate") {
			rest := []word{}
			for _, w := range all[i+1:] {
				if w.text == "&&" || w.text == "||" || w.text == "|" || w.text == "" || w.text == "&" {
					break
				}
				rest = append(rest, w)
			}
			return rest
		}
	}
	return nil
}

// drainSeconds reads a duration as the command does.
func drainSeconds(value string) (int, bool) {
	if d, err := time.ParseDuration(value); err == nil && d >= 0 {
		return int(math.Ceil(d.Seconds())), true
	}
	return 0, false
}

// readinessCheck is the kubelet's. Services follow it at once.
func readinessCheck(container *Node) (check, bool) {
	probe := container.get("readinessProbe")
	return check{at: probe, whose: "the kubelet", interval: int(probe.number(10, "periodSeconds")), timeout: int(probe.number(1,
		"timeoutSeconds")),
		unhealthy: int(probe.number(3, "failureThreshold")), healthy: 1}, probe != nil
}

// balancersCheck reads the objects that configure a cloud's checks.
func balancersCheck(object *Node) (check, bool) {
	c := check{at: object, act: act}
	// The defaults for backends that are pods (NEGs); the timeout is no longer than the interval.
	read := func(n *Node) {
		if n == nil {
			return
		}
		c.at = n
		c.interval = int(n.number(15, "checkIntervalSec"))
		c.timeout = int(n.number(float64(min(15, c.interval)), "timeoutSec"))
		c.unhealthy, c.healthy = int(n.number(2, "unhealthyThreshold")), int(n.number(1, "healthyThreshold"))
	}
	drain := func(n *Node) {
		c.draining, c.drainingAt = int(n.number(0, "drainingTimeoutSec")), n.get("drainingTimeoutSec")
	}
	switch object.text("kind") {
	case "BackendConfig":
		c.whose = "the BackendConfig's check"
		read(object.get("spec", "healthCheck"))
		drain(object.get("spec", "connectionDraining"))
	case "HealthCheckPolicy":
		c.whose = "the HealthCheckPolicy's check"
		read(object.get("spec", "default"))
	case "GCPBackendPolicy":
		drain(object.get("spec", "default", "connectionDraining"))
	case "Ingress", "TargetGroupBinding":
		return albCheck(object)
	default:
		return c, false
	}
	return c, true
}

// albCheck reads the annotations of the AWS Load Balancer Controller.
func albCheck(object *Node) (check, bool) {
	const prefix = "alb.ingress.kubernetes.io/"
	annotations := object.get("metadata", "annotations")
	seconds := func(key string, byDefault int) int { return int(annotations.number(float64(byDefault), prefix+key)) }
	c := check{at: object.at("metadata", "annotations"), whose: "the ALB's check", act: act,
		interval: seconds("healthcheck-interval-seconds", 15), timeout: seconds("healthcheck-timeout-seconds", 5),
		unhealthy: seconds("unhealthy-threshold-count", 2), healthy: seconds("healthy-threshold-count", 2)}
	attributes := annotations.get(prefix + "target-group-attributes")
	for _, attribute := range strings.Split(attributes.text(), ",") {
		if value, found := strings.CutPrefix(strings.TrimSpace(attribute), "deregistration_delay.timeout_seconds="); found {
			c.draining, _ = strconv.Atoi(value)
			c.drainingAt = attributes
		}
	}
	alb := object.text("spec", "ingressClassName") == "alb"
	for _, e := range annotations.pairs() {
		alb = alb || strings.HasPrefix(e.key, prefix)
	}
	return c, alb
}
