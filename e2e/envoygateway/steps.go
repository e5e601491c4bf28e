package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// step is an action and its effect.
type step struct {
	what   string
	do     func() error // nil: only the effect is awaited
	within time.Duration
	see    func() error // returns an error as long as the effect is not there
}

// How long Envoy may take to notice that a host has changed: if it checks the cluster every 5 s, as with a cluster of Envoy Gateway, and if
// it checks a cluster without traffic every 60 s. The margin allows for a busy machine.
const (
	checked = 15 * time.Second
	idle    = 75 * time.Second
)

// reconfigured is how long a change of a file takes to reach Envoy.
const reconfigured = 30 * time.Second

// runStandalone runs the overlay in a standalone Envoy Gateway and goes through the steps. The process is in a network namespace.
func (t *tools) runStandalone(ctx context.Context, dir string, objects overlay, certificate *testbed.Certificate) (err error) {
	if err := startLoopback(); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	s := &standalone{tools: t, dir: dir}
	defer func() {
		s.end()
		if err != nil {
			err = fmt.Errorf("%w\nEnvoy Gateway's log ends:\n%s\nEnvoy's log ends:\n%s", err, testbed.Tail(read(s.serverLog()), 20),
				testbed.Tail(read(s.envoyLog()), 20))
		}
	}()
	var hosts []*testbed.Backend
	var addresses []string
	for range 4 {
		host, err := testbed.StartBackend(ctx, "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer host.Kill()
		hosts, addresses = append(hosts, host), append(addresses, host.Address)
	}
	first := addresses[3] // of another service
	hosts, addresses = hosts[:3], addresses[:3]
	serve := func(serving bool) func() error {
		return func() error {
			var errs []error
			for _, host := range hosts {
				errs = append(errs, host.SetServing(serving))
			}
			return errors.Join(errs...)
		}
	}
	whole := objects.forHost(t.envoyVersion, t.module, addresses...)
	patches, err := readPatches()
	if err != nil {
		return err
	}
	patched := append(whole.clone(), patches)
	apply := func(o overlay) func() error { return func() error { return s.apply(o) } }
	passing, failing := s.expect(200, "healthgate_ok"), s.expect(503, "healthgate_cluster_unhealthy")
	spoiled := patched.withGate("min_helthy", int64(1))
	inserted := patched.withFirstRule(first)

	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.apply(whole); err != nil {
		return err
	}
	if err := s.start(ctx, "Envoy Gateway has started Envoy"); err != nil {
		return err
	}
	for _, step := range []step{
		{"all hosts serve: 200", nil, checked, passing},
		{"no host serves, no traffic, no patches.yaml: 503", serve(false), idle, failing},
		{"all hosts serve again: 200", serve(true), idle, passing},
		{"patches.yaml: Envoy checks an idle cluster every 5 s", apply(patched), reconfigured, func() error {
			dump, err := s.ask("/config_dump?resource=dynamic_active_clusters")
			if err == nil && strings.Count(dump, `"no_traffic_healthy_interval": "5s"`) != 1 {
				err = errors.New("the cluster has not the interval")
			}
			return err
		}},
		{"no host serves: 503", serve(false), checked, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
		{"a gRPC call by the listener https", nil, checked, func() error { return s.callService(ctx, certificate) }},
		{"grpc.health.v1.Health by the listener probe", nil, checked, func() error { return s.checkHealth(ctx, "router.Router") }},
		{"the alerts' metrics are there", nil, checked, s.alertsHaveMetrics},
		{"one host is removed: 2 of 2", apply(append(patched.without("Backend", "service"), backend("service", addresses[:2]...))), reconfigured,
			s.hosts(2, 2)},
		{"it is added again: 3 of 3", apply(patched), reconfigured, s.hosts(3, 3)},
		{"the service has no endpoint: 503 cluster_unknown", apply(patched.without("Backend", "service")), reconfigured,
			s.expect(503, "healthgate_cluster_unknown")},
		{"it has endpoints again: 200", apply(patched), reconfigured, passing},
		{"a rule is inserted before the service's: rule/1 is there", apply(inserted), reconfigured, func() error {
			clusters, err := s.ask("/clusters")
			if err == nil && !strings.Contains(clusters, "grpcroute/default/service/rule/1::") {
				err = errors.New("there is no rule/1")
			}
			return err
		}},
		{"no host of rule/1 serves, and the gate asks rule/0: 200", serve(false), idle, func() error {
			if err := s.hostsOf("grpcroute/default/service/rule/1", 0, 3)(); err != nil {
				return err
			}
			return passing()
		}},
		{"lint finds that in the files", nil, checked, func() error { return s.lintObjects(inserted, "not-asked") }},
		{"lint finds that in the running Envoy", nil, checked, func() error { return s.lintDump("not-asked") }},
		{"without that rule: 503", apply(patched), reconfigured, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
		{"a key is misspelt: Envoy refuses the listener", apply(spoiled), reconfigured, func() error {
			text, err := s.ask("/stats?filter=^listener_manager.lds.update_rejected$")
			if err == nil && strings.HasSuffix(strings.TrimSpace(text), ": 0") {
				err = errors.New("nothing was refused")
			}
			return err
		}},
		{"Envoy Gateway's status says Accepted", nil, checked, func() error {
			return s.isAccepted(ctx, objects.withGate("min_helthy", int64(1)))
		}},
		{"lint finds the key in the files", nil, checked, func() error { return s.lintObjects(spoiled, "config") }},
		{"explain reports that a configuration was refused", nil, checked, s.explains("min_helthy")},
		{"the gate still works: 503", serve(false), checked, failing},
		{"the gate still works: 200", serve(true), checked, passing},
	} {
		if err := s.take(ctx, step); err != nil {
			return err
		}
	}
	s.end()
	if err := s.start(ctx, "a new Envoy with the misspelt key is ready"); err != nil {
		return err
	}
	for _, step := range []step{
		{"it has no listener for the probe, and explain says why", nil, reconfigured, func() error {
			if address, err := s.listener("probe"); err == nil {
				return fmt.Errorf("it listens at %s", address)
			}
			return s.explains("min_helthy")()
		}},
		{"the key is right: 200", apply(patched), reconfigured, passing},
		{"no host serves: 503, and a line in the access log", serve(false), checked, func() error {
			if err := failing(); err != nil {
				return err
			}
			if !strings.Contains(read(s.envoyLog()), `"response_code_details":"healthgate_cluster_unhealthy"`) {
				return errors.New("the access log has no line for it")
			}
			return nil
		}},
		{"all hosts serve again: 200, and no line in the access log", serve(true), checked, func() error {
			if strings.Contains(read(s.envoyLog()), `"response_code_details":"healthgate_ok"`) {
				return errors.New("the access log has a line for a probe that passed")
			}
			return passing()
		}},
	} {
		if err := s.take(ctx, step); err != nil {
			return err
		}
	}
	probes := testbed.StartLoad(testbed.Pace{PerSecond: 50}, func(int) string {
		status, err := s.probe()
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(status)
	})
	var outcome testbed.Outcome
	for _, step := range []step{
		{"Envoy Gateway is killed, and 100 probes: 200", func() error { s.kill(); return nil }, checked, func() error {
			connected, err := s.ask("/stats?filter=^control_plane.connected_state$")
			if err == nil && !strings.HasSuffix(strings.TrimSpace(connected), ": 0") {
				err = errors.New("Envoy has not noticed it")
			}
			if err == nil && probes.Answers()["200"] < 100 {
				err = errors.New("100 probes are not answered yet")
			}
			return errors.Join(err, passing())
		}},
		{"no host serves: 503", func() (err error) {
			outcome, err = probes.Stop()
			return errors.Join(err, serve(false)())
		}, checked, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
	} {
		if err := s.take(ctx, step); err != nil {
			return err
		}
	}
	if outcome.Answers["200"] != outcome.Requests {
		return fmt.Errorf("probes while Envoy Gateway was killed: %v", outcome.Answers)
	}
	fmt.Printf("all as it should be; %d probes while Envoy Gateway was killed, all 200\n", outcome.Requests)
	return nil
}

func (s *standalone) take(ctx context.Context, step step) error {
	if step.do != nil {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return s.await(ctx, step.within, step.what, step.see)
}

// readPatches reads patches.yaml, which the overlay has commented out.
func readPatches() (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(filepath.Join(testbed.Root(), "manifests", kustomize.EnvoyGateway, "patches.yaml"))
	if err != nil {
		return nil, err
	}
	o, err := readObject(text)
	if err != nil {
		return nil, err
	}
	o.SetNamespace("default")
	return o, nil
}

// hosts returns a check that the cluster of the gate has so many healthy hosts of so many.
func (s *standalone) hosts(healthy, total uint64) func() error {
	return s.hostsOf("grpcroute/default/service/rule/0", healthy, total)
}

func (s *standalone) hostsOf(cluster string, healthy, total uint64) func() error {
	return func() error {
		stats, err := testbed.EnvoyAt("", s.admin, nil).Stats("cluster." + cluster + ".membership_")
		if err != nil {
			return err
		}
		h, n := stats["cluster."+cluster+".membership_healthy"], stats["cluster."+cluster+".membership_total"]
		if h != healthy || n != total {
			return fmt.Errorf("%s has %d healthy hosts of %d, want %d of %d", cluster, h, n, healthy, total)
		}
		return nil
	}
}

// alertsHaveMetrics checks that Envoy has each metric that the alerts ask for.
func (s *standalone) alertsHaveMetrics() error {
	text, err := os.ReadFile(filepath.Join(testbed.Root(), "manifests", "alerts.yaml"))
	if err != nil {
		return err
	}
	shown, err := s.ask("/stats/prometheus")
	if err != nil {
		return err
	}
	for _, name := range regexp.MustCompile(`\benvoy_\w+`).FindAllString(string(text), -1) {
		if name != "envoy_cluster_name" && !regexp.MustCompile(`(?m)^`+name+`[{ ]`).MatchString(shown) {
			return fmt.Errorf("Envoy has no %s", name)
		}
	}
	if want := `envoy_cluster_health_check_attempt{envoy_cluster_name="grpcroute/default/service/rule/0"}`; !strings.Contains(shown, want) {
		return fmt.Errorf("Envoy has no %s", want)
	}
	return nil
}

// isAccepted checks that Envoy Gateway accepts the policy.
func (s *standalone) isAccepted(ctx context.Context, objects overlay) error {
	out, err := s.egctlTranslate(ctx, s.dir, objects.forTranslation(), "gateway-api")
	if err != nil {
		return err
	}
	var resources struct {
		EnvoyExtensionPolicies []struct {
			Status struct {
				Ancestors []struct {
					Conditions []struct{ Type, Status string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(out, &resources); err != nil {
		return err
	}
	for _, policy := range resources.EnvoyExtensionPolicies {
		for _, ancestor := range policy.Status.Ancestors {
			for _, condition := range ancestor.Conditions {
				if condition.Type == "Accepted" && condition.Status == "True" {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("it is not accepted: %s", out)
}

func (s *standalone) lintObjects(objects overlay, rule string) error {
	text, err := objects.yaml()
	if err != nil {
		return err
	}
	return s.lint(text, rule)
}

func (s *standalone) lintDump(rule string) error {
	dump, err := s.ask("/config_dump?include_eds")
	if err != nil {
		return err
	}
	return s.lint([]byte(dump), rule)
}

// explains returns a check that explain reports a problem that has a text.
func (s *standalone) explains(text string) func() error {
	return func() error {
		report, err := s.explain()
		if err != nil {
			return err
		}
		for _, problem := range report.Problems {
			if strings.Contains(problem.What, text) {
				return nil
			}
		}
		return fmt.Errorf("explain does not report %s: %+v", text, report)
	}
}
