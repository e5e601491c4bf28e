package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"

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
	{"kill-envoy", "an Envoy killed (SIGKILL)", false, harm("KILL")},
	{"hang-envoy", "an Envoy that hangs (SIGSTOP)", false, harm("STOP")},
}

func restart(name string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		_, err := c.kubectl(ctx, "", "rollout", "restart", "deployment/"+name)
		return "", err
	}
}

// scaleService checks that Envoys without a backend become NotReady, are not restarted, and become Ready again.
func scaleService(ctx context.Context, c *cluster) (string, error) {
	restarted := func() (n int32, err error) {
		pods, err := c.pods(ctx, ofEnvoy)
		for _, pod := range pods {
			n += restarts(pod)
		}
		return n, err
	}
	// scale returns after how long the Envoys have a condition.
	scale := func(replicas, condition string) (time.Duration, error) {
		began := time.Now()
		_, err := c.kubectl(ctx, "", "scale", "deployment/service", "--replicas="+replicas)
		if err == nil {
			err = c.waitFor(ctx, condition, ofEnvoy)
		}
		return time.Since(began), err
	}
	before, err := restarted()
	if err != nil {
		return "", err
	}
	down, err := scale("0", notReady)
	if err != nil {
		return "", err
	}
	pause(ctx, downFor)
	up, err := scale("3", ready)
	if err != nil {
		return "", err
	}
	after, err := restarted()
	if err == nil && after != before {
		err = fmt.Errorf("%d restarts of Envoy", after-before)
	}
	return fmt.Sprintf("Envoys NotReady after %.0f s, no restart in %.0f s, Ready %.0f s after the service was scaled up",
		down.Seconds(), downFor.Seconds(), up.Seconds()), err
}

func deleteEnvoy(ctx context.Context, c *cluster) (string, error) {
	pods, err := c.pods(ctx, ofEnvoy)
	if err != nil {
		return "", err
	}
	_, err = c.kubectl(ctx, "", "delete", "pod", pods[0].Name, "--wait=false")
	return "", err
}

// evictEnvoys evicts each pod as soon as the disruption budget allows it.
func evictEnvoys(ctx context.Context, c *cluster) (string, error) {
	pods, err := c.pods(ctx, ofEnvoy)
	if err != nil {
		return "", err
	}
	refused := -len(pods) // the last attempt for each is accepted
	for _, pod := range pods {
		eviction := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod.Name, namespace)
		path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/eviction", namespace, pod.Name)
		err := await(ctx, func() error {
			refused++
			_, err := c.kubectl(ctx, eviction, "create", "--raw", path, "-f", "-")
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("the disruption budget refused %d times", refused), nil
}

// harm sends a signal to an Envoy, and waits until its container is restarted and Ready.
func harm(signal string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		pods, err := c.pods(ctx, ofEnvoy)
		if err != nil {
			return "", err
		}
		began := time.Now()
		if err := c.signal(ctx, pods[0], signal); err != nil {
			return "", err
		}
		restarted := fmt.Sprintf("jsonpath={.status.containerStatuses[0].restartCount}=%d", restarts(pods[0])+1)
		for _, condition := range []string{restarted, ready} {
			if err := c.waitFor(ctx, condition, pods[0].Name); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("restarted and Ready after %.0f s", time.Since(began).Seconds()), nil
	}
}

func run(ctx context.Context, args []string) error {
	var names []string
	for _, t := range tasks {
		names = append(names, t.name)
	}
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	kubeContext := flags.String("context", "", "`context` of kubectl; default: the current one")
	onNode := flags.String("on-node", "docker exec {node}", "prefix of a `command` that runs on a node; empty: the command runs here")
	components := flags.String("components", "", "comma-separated `folders` below manifests/components")
	only := flags.String("only", strings.Join(names, ","), "comma-separated `tasks` to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only: %q is none of %s", name, strings.Join(names, ", "))
		}
	}
	c := &cluster{context: *kubeContext, onNode: strings.Fields(*onNode)}
	defer func() {
		log.Printf("deleting the namespace %s", namespace)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upTimeout)
		defer cancel()
		if _, err := c.kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found"); err != nil {
			log.Print(err)
		}
	}()
	if err := c.up(ctx, strings.FieldsFunc(*components, func(r rune) bool { return r == ',' })); err != nil {
		return err
	}
	var results []Result
	var failed error
	for _, t := range tasks {
		if slices.Contains(chosen, t.name) {
			result := c.underLoad(ctx, t)
			if results = append(results, result); !result.passed() {
				failed = errors.Join(failed, fmt.Errorf("failed: %s", t.what))
			}
		}
	}
	return errors.Join(write(os.Stdout, results), failed)
}

// up creates the namespace and everything in it, and waits until calls succeed.
func (c *cluster) up(ctx context.Context, components []string) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	log.Printf("applying overlays/local %s", strings.Join(components, " "))
	objects, err := kustomize.Build("overlays/local", components...)
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
	log.Print("waiting until calls succeed")
	return c.settle(ctx)
}

// underLoad runs a task under load.
func (c *cluster) underLoad(ctx context.Context, t task) Result {
	ctx, cancel := context.WithTimeout(ctx, taskTimeout)
	defer cancel()
	log.Print(t.what)
	result := Result{task: t, Counts: map[string]Counts{}}
	before, err := c.counts(ctx)
	if err == nil {
		result.Remark, err = t.do(ctx, c)
	}
	err = errors.Join(err, c.settle(ctx))
	after, last := c.counts(ctx)
	result.Err = errors.Join(err, last)
	for name, counts := range after.Counts {
		result.Counts[name] = counts.since(before.Counts[name])
	}
	return result
}
