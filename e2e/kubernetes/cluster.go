package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// namespace is created for the runs, and deleted.
const namespace = "healthgate-e2e"

// cluster is a cluster that kubectl controls.
type cluster struct {
	context string   // of kubectl; "" is the current one
	onNode  []string // prefix of a command that runs on a node; {node} in it stands for the node's name
}

// kubectl runs kubectl in the namespace, and returns its output.
func (c *cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return output(ctx, stdin, append([]string{"kubectl", "--context=" + c.context, "--namespace=" + namespace}, args...)...)
}

// output runs a command and returns its output. An error includes the command's error output.
func output(ctx context.Context, stdin string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

const ofEnvoy = "--selector=app.kubernetes.io/name=envoy"

// pods returns the pods that kubectl selects, including pods that terminate.
func (c *cluster) pods(ctx context.Context, selector ...string) ([]corev1.Pod, error) {
	var list corev1.PodList
	out, err := c.kubectl(ctx, "", append([]string{"get", "pods", "--output=json"}, selector...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err == nil && len(list.Items) == 0 {
		err = fmt.Errorf("no pods %s", strings.Join(selector, " "))
	}
	return list.Items, err
}

// waitFor waits until pods have a condition.
func (c *cluster) waitFor(ctx context.Context, condition string, pods ...string) error {
	_, err := c.kubectl(ctx, "", append([]string{"wait", "--for=" + condition, "--timeout=" + taskTimeout.String(), "pods"}, pods...)...)
	return err
}

const (
	ready    = "condition=Ready"
	notReady = "condition=Ready=false"
)

func restarts(pod corev1.Pod) int32 { return pod.Status.ContainerStatuses[0].RestartCount }

// await calls done each second until it returns nil. If ctx ends first, the error includes the last one.
func await(ctx context.Context, done func() error) error {
	for {
		err := done()
		if err == nil {
			return nil
		}
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// settle waits until both Deployments are rolled out, no pod terminates, the balancer sends to each Envoy, and calls no longer fail.
func (c *cluster) settle(ctx context.Context) error {
	var failed int64 = -1
	return await(ctx, func() error {
		for _, name := range []string{"deployment/envoy", "deployment/service"} {
			if _, err := c.kubectl(ctx, "", "rollout", "status", "--timeout=1m", name); err != nil {
				return err
			}
		}
		pods, err := c.pods(ctx)
		if err != nil {
			return err
		}
		envoys := 0
		for _, pod := range pods {
			if pod.DeletionTimestamp != nil {
				return fmt.Errorf("%s is terminating", pod.Name)
			}
			if pod.Labels["app.kubernetes.io/name"] == "envoy" {
				envoys++
			}
		}
		loads, err := c.counts(ctx)
		if err != nil {
			return err
		}
		before := failed
		failed = 0
		for _, counts := range loads.Counts {
			_, n := sum(counts.Calls)
			failed += n
		}
		switch {
		case loads.Envoys != envoys:
			return fmt.Errorf("the balancer sends to %d of %d Envoys", loads.Envoys, envoys)
		case failed != before:
			return errors.New("calls still fail")
		}
		return nil
	})
}

// counts reads the last line of the pod that sends the load.
func (c *cluster) counts(ctx context.Context) (loads Loads, err error) {
	out, err := c.kubectl(ctx, "", "logs", "load", "--tail=1")
	if err == nil {
		err = json.Unmarshal([]byte(out), &loads)
	}
	return loads, err
}

// signal sends a signal to the Envoy of a pod from its node: the first process of a container ignores SIGKILL from inside.
func (c *cluster) signal(ctx context.Context, pod corev1.Pod, signal string) error {
	// The name of a process's control group includes the pod's UID, with _ for - if systemd has created it.
	uid := strings.ReplaceAll(string(pod.UID), "-", "[-_]")
	script := fmt.Sprintf(`n=0; for p in /proc/[0-9]*; do
		if grep -q '%s' "$p/cgroup" && grep -q '^envoy' "$p/comm"; then kill -%s "${p#/proc/}" && n=$((n+1)); fi
	done 2>/dev/null; test $n -gt 0`, uid, signal)
	var command []string
	for _, word := range c.onNode {
		command = append(command, strings.ReplaceAll(word, "{node}", pod.Spec.NodeName))
	}
	_, err := output(ctx, "", append(command, "sh", "-c", script)...)
	return err
}
