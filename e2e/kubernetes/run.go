package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

//go:embed load.yaml
var loadObjects string

const (
	upTimeout   = 5 * time.Minute // until calls succeed
	taskTimeout = 8 * time.Minute
	downFor     = time.Minute // how long the service has no pods: longer than a liveness probe needs to restart an Envoy
)

// task is a change of the cluster under load.
type task struct {
	name, what string
	lossless   bool // no call may fail
	do         func(context.Context, *cluster) (remark string, err error)
}

// tasks are in the order in which they run.
var tasks = []task{
	{"scale-service", "service scaled to 0 and back", false, scaleService},
	{"restart-envoy", "rollout restart deployment/envoy", true, restart("envoy")},
	{"restart-service", "rollout restart deployment/service", true, restart("service")},
	{"delete-envoy", "one Envoy pod deleted", true, deleteEnvoy},
	{"evict-envoys", "each Envoy pod evicted, as kubectl drain does", true, evictEnvoys},
	{"kill-envoy", "an Envoy killed (SIGKILL)", false, killEnvoy},
	{"hang-envoy", "an Envoy that hangs (SIGSTOP)", false, hangEnvoy},
}

func restart(name string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		_, err := c.kubectl(ctx, "", "rollout", "restart", "deployment/"+name)
		return "", err
	}
}

// scaleService checks that Envoys without a backend become NotReady, are not restarted, and become Ready again.
func scaleService(ctx context.Context, c *cluster) (string, error) {
	before, err := c.pods(ctx, "envoy")
	if err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := c.kubectl(ctx, "", "scale", "deployment/service", "--replicas=0"); err != nil {
		return "", err
	}
	if err := c.awaitReady(ctx, false); err != nil {
		return "", err
	}
	notReady := time.Since(began)
	pause(ctx, downFor)
	if _, err := c.kubectl(ctx, "", "scale", "deployment/service", "--replicas=3"); err != nil {
		return "", err
	}
	began = time.Now()
	if err := c.awaitReady(ctx, true); err != nil {
		return "", err
	}
	after, err := c.pods(ctx, "envoy")
	if err != nil {
		return "", err
	}
	if n := restarts(after) - restarts(before); n != 0 {
		err = fmt.Errorf("%d restarts of Envoy", n)
	}
	return fmt.Sprintf("Envoys NotReady after %.0f s, no restart in %.0f s, Ready %.0f s after the service was scaled up",
		notReady.Seconds(), downFor.Seconds(), time.Since(began).Seconds()), err
}

// awaitReady waits until every Envoy is Ready, or none is.
func (c *cluster) awaitReady(ctx context.Context, ready bool) error {
	return await(ctx, func() error {
		pods, err := c.pods(ctx, "envoy")
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if isReady(pod) != ready {
				return fmt.Errorf("%s is Ready: %v", pod.Name, !ready)
			}
		}
		return nil
	})
}

// anEnvoy returns an Envoy pod.
func (c *cluster) anEnvoy(ctx context.Context) (corev1.Pod, error) {
	pods, err := c.pods(ctx, "envoy")
	if err != nil {
		return corev1.Pod{}, err
	}
	if len(pods) == 0 {
		return corev1.Pod{}, errors.New("no Envoy pod")
	}
	return pods[0], nil
}

func deleteEnvoy(ctx context.Context, c *cluster) (string, error) {
	pod, err := c.anEnvoy(ctx)
	if err != nil {
		return "", err
	}
	_, err = c.kubectl(ctx, "", "delete", "pod", pod.Name, "--wait=false")
	return "", err
}

// evictEnvoys evicts each pod as soon as the disruption budget allows it.
func evictEnvoys(ctx context.Context, c *cluster) (string, error) {
	pods, err := c.pods(ctx, "envoy")
	if err != nil {
		return "", err
	}
	refused := 0
	for _, pod := range pods {
		eviction := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod.Name, namespace)
		err := await(ctx, func() error {
			path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/eviction", namespace, pod.Name)
			_, err := c.kubectl(ctx, eviction, "create", "--raw", path, "-f", "-")
			if err != nil {
				refused++
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("the disruption budget refused %d times", refused), nil
}

func killEnvoy(ctx context.Context, c *cluster) (string, error) {
	return c.harm(ctx, "KILL")
}

func hangEnvoy(ctx context.Context, c *cluster) (string, error) {
	return c.harm(ctx, "STOP")
}

// harm sends a signal to an Envoy, and waits until its container is restarted and Ready.
func (c *cluster) harm(ctx context.Context, signal string) (string, error) {
	pod, err := c.anEnvoy(ctx)
	if err != nil {
		return "", err
	}
	before := restarts([]corev1.Pod{pod})
	began := time.Now()
	if err := c.signal(ctx, pod, signal); err != nil {
		return "", err
	}
	err = await(ctx, func() error {
		now, err := get[corev1.Pod](ctx, c, "pod", pod.Name)
		if err != nil {
			return err
		}
		if restarts([]corev1.Pod{now}) == before || !isReady(now) {
			return fmt.Errorf("%s is not restarted and Ready", pod.Name)
		}
		return nil
	})
	return fmt.Sprintf("restarted and Ready after %.0f s", time.Since(began).Seconds()), err
}

func run(ctx context.Context, args []string) error {
	var names []string
	for _, t := range tasks {
		names = append(names, t.name)
	}
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	kubeContext := flags.String("context", "", "`context` of kubectl; default: the current one")
	onNode := flags.String("on-node", "docker exec {node}", "prefix of a `command` that runs on a node; empty: the command runs here")
	overlay := flags.String("overlay", "local", "`folder` below manifests/overlays; it must have a NodePort 30443")
	components := flags.String("components", "", "comma-separated `folders` below manifests/components")
	only := flags.String("only", "", "comma-separated `tasks` to run, of "+strings.Join(names, ", "))
	output := flags.String("output", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return fmt.Errorf("-output %q: want text or json", *output)
	}
	c := &cluster{context: *kubeContext, onNode: strings.Fields(*onNode)}
	defer func() {
		progress("deleting the namespace %s", namespace)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upTimeout)
		defer cancel()
		if _, err := c.kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found"); err != nil {
			progress("%v", err)
		}
	}()
	if err := c.up(ctx, *overlay, split(*components)); err != nil {
		return err
	}
	var results []Result
	for _, t := range chosen {
		results = append(results, c.underLoad(ctx, t))
	}
	return report(results, *output)
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// choose returns the tasks of a list of names, or all tasks if the list is empty.
func choose(only string) (chosen []task, err error) {
	wanted := split(only)
	for _, t := range tasks {
		if len(wanted) == 0 || slices.Contains(wanted, t.name) {
			chosen = append(chosen, t)
		}
	}
	if len(wanted) > 0 && len(chosen) != len(wanted) {
		return nil, fmt.Errorf("-only %s: some of these are no tasks", only)
	}
	return chosen, nil
}

// report prints the results, and returns an error if a task failed.
func report(results []Result, output string) error {
	if output == "json" {
		if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
			return err
		}
	} else if err := write(os.Stdout, results); err != nil {
		return err
	}
	for _, r := range results {
		if !r.passed() {
			return fmt.Errorf("failed: %s", r.Run)
		}
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// up creates the namespace and everything in it, and waits until calls succeed.
func (c *cluster) up(ctx context.Context, overlay string, components []string) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	progress("applying overlays/%s %s", overlay, strings.Join(components, " "))
	objects, err := kustomize.Build("overlays/"+overlay, components...)
	if err != nil {
		return err
	}
	manifests, err := objects.AsYaml()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kubernetes")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	certificate, err := testbed.NewCertificate(dir)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"create", "namespace", namespace}},
		{"", []string{"label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"}},
		{"", []string{"create", "secret", "tls", "envoy-tls", "--cert", certificate.CertFile, "--key", certificate.KeyFile}},
		{string(manifests), []string{"apply", "--server-side", "--validate=strict", "--filename", "-"}},
		{loadObjects, []string{"apply", "--server-side", "--validate=strict", "--filename", "-"}},
	} {
		if _, err := c.kubectl(ctx, step.stdin, step.args...); err != nil {
			return err
		}
	}
	progress("waiting until calls succeed")
	return c.settle(ctx)
}

// underLoad runs a task under load.
func (c *cluster) underLoad(ctx context.Context, t task) Result {
	ctx, cancel := context.WithTimeout(ctx, taskTimeout)
	defer cancel()
	progress("%s", t.what)
	result := Result{Run: t.what, Lossless: t.lossless, Counts: map[string]Counts{}}
	before, err := c.counts(ctx)
	if err == nil {
		result.Remark, err = t.do(ctx, c)
	}
	err = errors.Join(err, c.settle(ctx))
	after, last := c.counts(ctx)
	if err = errors.Join(err, last); err != nil {
		result.Error = err.Error()
	}
	for name, counts := range after.Counts {
		result.Counts[name] = counts.since(before.Counts[name])
	}
	return result
}
