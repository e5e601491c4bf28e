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

	appsv1 "k8s.io/api/apps/v1"
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
	args = append([]string{"--namespace", namespace}, args...)
	if c.context != "" {
		args = append([]string{"--context", c.context}, args...)
	}
	return output(ctx, stdin, "kubectl", args...)
}

// output runs a command and returns its output. An error includes the command's error output.
func output(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// get reads objects.
func get[T any](ctx context.Context, c *cluster, args ...string) (object T, err error) {
	out, err := c.kubectl(ctx, "", append(append([]string{"get"}, args...), "--output", "json")...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &object)
	}
	return object, err
}

// pods returns the pods of the Deployment envoy or service, including pods that terminate.
func (c *cluster) pods(ctx context.Context, name string) ([]corev1.Pod, error) {
	list, err := get[corev1.PodList](ctx, c, "pods", "--selector", "app.kubernetes.io/name="+name)
	return list.Items, err
}

func isReady(pod corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// restarts returns how often the containers of pods were restarted.
func restarts(pods []corev1.Pod) (n int32) {
	for _, pod := range pods {
		for _, container := range pod.Status.ContainerStatuses {
			n += container.RestartCount
		}
	}
	return n
}

// checkSettled returns an error unless all pods of a Deployment are updated, Ready and available, and no old one is left.
func checkSettled(deployment appsv1.Deployment, pods []corev1.Pod) error {
	name, want, status := deployment.Name, *deployment.Spec.Replicas, deployment.Status
	if status.ObservedGeneration < deployment.Generation || status.UpdatedReplicas != want || status.AvailableReplicas != want {
		return fmt.Errorf("%s has %d updated and %d available pods of %d", name, status.UpdatedReplicas, status.AvailableReplicas, want)
	}
	if len(pods) != int(want) {
		return fmt.Errorf("%s has %d pods, want %d", name, len(pods), want)
	}
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
			return fmt.Errorf("%s is terminating", pod.Name)
		case !isReady(pod):
			return fmt.Errorf("%s is not Ready", pod.Name)
		}
	}
	return nil
}

// await calls ready each second until it returns nil. If ctx ends first, the error includes the last one.
func await(ctx context.Context, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// settle waits until both Deployments are settled, the balancer sends to each Envoy, and calls no longer fail.
func (c *cluster) settle(ctx context.Context) error {
	var failed int64 = -1
	return await(ctx, func() error {
		envoys := 0
		for _, name := range []string{"envoy", "service"} {
			deployment, err := get[appsv1.Deployment](ctx, c, "deployment", name)
			if err != nil {
				return err
			}
			pods, err := c.pods(ctx, name)
			if err != nil {
				return err
			}
			if err := checkSettled(deployment, pods); err != nil {
				return err
			}
			if name == "envoy" {
				envoys = len(pods)
			}
		}
		loads, err := c.counts(ctx)
		if err != nil {
			return err
		}
		before := failed
		failed = 0
		for _, counts := range loads.Counts {
			failed += counts.Failed
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

// counts asks the pod that sends the load.
func (c *cluster) counts(ctx context.Context) (loads Loads, err error) {
	out, err := c.kubectl(ctx, "", "exec", "load", "--", "/kubernetes", "counts")
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
	command := append([]string{}, c.onNode...)
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "{node}", pod.Spec.NodeName)
	}
	command = append(command, "sh", "-c", script)
	_, err := output(ctx, "", command[0], command[1:]...)
	return err
}
