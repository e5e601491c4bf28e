package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// act is what a balancer is given, after it has noticed, to stop sending or to begin, in seconds.
	act = 10
	// spare is what the kubelet is given between the end of the drain and the end of the grace, in seconds.
	spare = 10
	// What a drain waits for by itself, in seconds.
	defaultNotice, defaultFinish = 30, 30
	// What Kubernetes gives a pod to end, in seconds.
	defaultGrace = 30
)

// drained is a Deployment whose pods drain, with its timers in seconds.
type drained struct {
	workload, pod, container *Node
	notice, finish, grace    int
	noticeAt, graceAt        *Node
}

// check is a balancer's health check, with what it does besides, in seconds. 0 is not known.
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
			checks = append(checks, c)
		}
	}
	for _, object := range l.objects {
		d, ok := readDrained(object)
		if !ok {
			continue
		}
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
	if need := d.notice + d.finish + spare; d.grace < need {
		l.found.add(d.graceAt, Error, "timers", "the pod is killed after %d s, and its drain takes up to %d + %d s: write terminationGracePeriodSeconds: %d (notice + finish + %d)",
			d.grace, d.notice, d.finish, need, spare)
	}
}

func (l *linter) checkNotice(d drained, c check) {
	const rule = "timers"
	at := fmt.Sprintf("%s (%s:%d)", c.whose, c.at.file.name, c.at.line)
	if need := c.interval*c.unhealthy + c.timeout + c.act; c.interval > 0 && d.notice < need {
		l.found.add(d.noticeAt, Error, rule, "the drain gives the balancer %d s to notice, and %s takes up to %d s (interval %d × threshold %d + timeout %d + %d to act), so calls are lost: write DRAIN_NOTICE_SECONDS: \"%d\"",
			d.notice, at, need, c.interval, c.unhealthy, c.timeout, c.act, need)
	}
	ready := int(d.workload.number(0, "spec", "minReadySeconds"))
	if need := c.interval*c.healthy + c.timeout + c.act; c.act > 0 && c.interval > 0 && ready < need {
		l.found.add(d.workload.at("spec", "minReadySeconds"), Warning, rule, "a rollout ends old pods %d s after new ones are ready, and %s takes up to %d s to take a new pod in (interval %d × threshold %d + timeout %d + %d), so calls are lost: write minReadySeconds: %d",
			ready, at, need, c.interval, c.healthy, c.timeout, c.act, need)
	}
	if c.draining > 0 && c.draining < d.finish {
		l.found.add(c.drainingAt, Warning, rule, "the balancer cuts connections off after %d s, and the drain lets requests go on for %d s: write %d, or a shorter DRAIN_FINISH_SECONDS",
			c.draining, d.finish, d.finish)
	}
}

// readDrained reads a Deployment, or what is like one, that drains before it ends.
func readDrained(object *Node) (drained, bool) {
	d := drained{workload: object, notice: defaultNotice, finish: defaultFinish}
	switch object.text("kind") {
	case "Deployment", "DaemonSet", "StatefulSet":
		d.pod = object.get("spec", "template", "spec")
	case "Pod":
		d.pod = object.get("spec")
	}
	for _, container := range d.pod.list("containers") {
		var command []string
		for _, word := range container.list("lifecycle", "preStop", "exec", "command") {
			command = append(command, word.scalar)
		}
		said := strings.Join(command, " ")
		if !strings.Contains(said, "drain") || !strings.Contains(said, "healthgate") {
			continue
		}
		d.container, d.noticeAt = container, container.at("env")
		for _, env := range container.list("env") {
			seconds, err := strconv.Atoi(env.text("value"))
			if err != nil {
				continue
			}
			switch env.text("name") {
			case "DRAIN_NOTICE_SECONDS":
				d.notice, d.noticeAt = seconds, env.get("value")
			case "DRAIN_FINISH_SECONDS":
				d.finish = seconds
			}
		}
	}
	d.grace, d.graceAt = int(d.pod.number(defaultGrace, "terminationGracePeriodSeconds")), d.pod.at("terminationGracePeriodSeconds")
	return d, d.container != nil
}

// readinessCheck is the kubelet's: whoever follows it acts at once.
func readinessCheck(container *Node) (check, bool) {
	probe := container.get("readinessProbe")
	return check{at: probe, whose: "the kubelet", interval: int(probe.number(10, "periodSeconds")), timeout: int(probe.number(1, "timeoutSeconds")),
		unhealthy: int(probe.number(3, "failureThreshold")), healthy: 1}, probe != nil
}

// balancersCheck reads the objects by which clouds are told how to check.
func balancersCheck(object *Node) (check, bool) {
	c := check{at: object, act: act}
	read := func(n *Node) {
		c.interval, c.timeout = int(n.number(0, "checkIntervalSec")), int(n.number(5, "timeoutSec"))
		c.unhealthy, c.healthy = int(n.number(2, "unhealthyThreshold")), int(n.number(2, "healthyThreshold"))
		if n != nil {
			c.at = n
		}
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
