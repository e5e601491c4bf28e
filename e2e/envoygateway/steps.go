package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"k8s.io/apimachinery/pkg/api/meta"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// How long Envoy may take to notice that a host has changed: if it checks the cluster every 5 s, as with a cluster of Envoy Gateway, and if
// it checks a cluster without traffic every 60 s. The margin allows for a busy machine.
const (
	checked = 15 * time.Second
	idle    = 75 * time.Second
)

// reconfigured is how long a change of a file takes to reach Envoy.
const reconfigured = 30 * time.Second

// Clusters of the GRPCRoute.
const (
	rule0 = "grpcroute/default/service/rule/0"
	rule1 = "grpcroute/default/service/rule/1"
)

// run runs the overlay in a standalone Envoy Gateway and goes through the steps.
func (s *standalone) run(objects overlay) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nEnvoy Gateway's log ends:\n%s\nEnvoy's log ends:\n%s", err,
				testbed.Tail(s.read("envoy-gateway.log"), 20), testbed.Tail(s.read("envoy.log"), 20))
		}
	}()
	var hosts []*testbed.Backend
	var addresses []string
	for range 4 {
		host, err := testbed.StartBackend(s.ctx, "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer host.Kill()
		hosts, addresses = append(hosts, host), append(addresses, host.Address)
	}
	first := addresses[3] // of another service
	hosts, addresses = hosts[:3], addresses[:3]
	serve := func(serving bool) func() error {
		return func() (err error) {
			for _, host := range hosts {
				err = errors.Join(err, host.SetServing(serving))
			}
			return err
		}
	}
	whole := objects.forHost(s.envoyVersion, built("libhealthgate.so"), addresses...)
	// The overlay has patches.yaml commented out.
	patches, err := os.ReadFile(filepath.Join(testbed.Root(), "manifests", kustomize.EnvoyGateway, "patches.yaml"))
	if err != nil {
		return err
	}
	patched := whole.with(string(patches))
	apply := func(o overlay) func() error { return func() error { return s.apply(o) } }
	passing, failing := s.expect(200, "healthgate_ok"), s.expect(503, "healthgate_cluster_unhealthy")
	misspelt, inserted := patched.misspelt(), patched.withFirstRule(first)
	var probes *testbed.Load

	if err := errors.Join(s.prepare(), s.apply(whole)); err != nil {
		return err
	}
	for _, step := range []struct {
		what   string
		do     func() error // nil: only the effect is awaited
		within time.Duration
		see    func() error // returns an error as long as the effect is not there
	}{
		{"Envoy Gateway has started Envoy", s.start, time.Minute, s.isLive},
		{"all hosts serve: 200", nil, checked, passing},
		{"no host serves, no traffic, no patches.yaml: 503", serve(false), idle, failing},
		{"all hosts serve again: 200", serve(true), idle, passing},
		{"patches.yaml: Envoy checks an idle cluster every 5 s", apply(patched), reconfigured, func() error {
			return s.has("/config_dump?resource=dynamic_active_clusters", `"no_traffic_healthy_interval": "5s"`)
		}},
		{"no host serves: 503", serve(false), checked, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
		{"a gRPC call by the listener https", nil, checked, s.callService},
		{"grpc.health.v1.Health by the listener probe", nil, checked, s.checkHealth},
		{"the alerts' metrics are there", nil, checked, s.alertsHaveMetrics},
		{"one host is removed: 2 of 2", apply(patched.without("Backend").withBackend("service", addresses[:2]...)), reconfigured,
			s.hosts(rule0, 2, 2)},
		{"it is added again: 3 of 3", apply(patched), reconfigured, s.hosts(rule0, 3, 3)},
		{"the service has no endpoint: 503 cluster_unknown", apply(patched.without("Backend")), reconfigured,
			s.expect(503, "healthgate_cluster_unknown")},
		{"it has endpoints again: 200", apply(patched), reconfigured, passing},
		{"a rule is inserted before the service's: rule/1 is there", apply(inserted), reconfigured, func() error {
			return s.has("/clusters", rule1+"::")
		}},
		{"no host of rule/1 serves, and the gate asks rule/0: 200", serve(false), idle, func() error {
			if err := s.hosts(rule1, 0, 3)(); err != nil {
				return err
			}
			return passing()
		}},
		{"lint finds that in the files", nil, checked, func() error { return s.lints("not-asked", inserted.yaml()) }},
		{"lint finds that in the running Envoy", nil, checked, func() error {
			dump, err := s.envoy.Get("/config_dump?include_eds")
			if err != nil {
				return err
			}
			return s.lints("not-asked", dump)
		}},
		{"without that rule: 503", apply(patched), reconfigured, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
		{"a key is misspelt: Envoy refuses the listener", apply(misspelt), reconfigured, func() error {
			return s.has("/stats?filter=^listener_manager.lds.update_rejected$", `: [1-9]`)
		}},
		{"Envoy Gateway's status says Accepted", nil, checked, func() error { return s.isAccepted(objects.misspelt()) }},
		{"lint finds the key in the files", nil, checked, func() error { return s.lints("config", misspelt.yaml()) }},
		{"explain reports that a configuration was refused", nil, checked, func() error { return s.explains("problem: .*min_helthy") }},
		{"the gate still works: 503", serve(false), checked, failing},
		{"the gate still works: 200", serve(true), checked, passing},
		{"a new Envoy with the misspelt key is ready", s.restart, time.Minute, s.isLive},
		{"it has no listener for the probe, and explain says why", nil, reconfigured, func() error {
			if address, err := s.listener("probe"); err == nil {
				return fmt.Errorf("it listens at %s", address)
			}
			return s.explains("problem: .*min_helthy")
		}},
		{"the key is right: 200", apply(patched), reconfigured, passing},
		{"no host serves: 503, and a line in the access log", serve(false), checked, func() error {
			if err := failing(); err != nil {
				return err
			}
			if !strings.Contains(s.read("envoy.log"), `"response_code_details":"healthgate_cluster_unhealthy"`) {
				return errors.New("the access log has no line for it")
			}
			return nil
		}},
		{"all hosts serve again: 200, and no line in the access log", serve(true), checked, func() error {
			if strings.Contains(s.read("envoy.log"), `"response_code_details":"healthgate_ok"`) {
				return errors.New("the access log has a line for a probe that passed")
			}
			return passing()
		}},
		{"Envoy Gateway is killed, and 100 probes: 200", func() error {
			probes = testbed.StartLoad(testbed.Pace{PerSecond: 50}, func(int) string {
				status, err := s.probe()
				if err != nil {
					return err.Error()
				}
				return strconv.Itoa(status)
			})
			return s.kill()
		}, checked, func() error {
			if n := probes.Answers()["200"]; n < 100 {
				return fmt.Errorf("%d probes are answered with 200", n)
			}
			return errors.Join(s.has("/stats?filter=^control_plane.connected_state$", ": 0"), passing())
		}},
		{"no host serves: 503", func() error {
			outcome, err := probes.Stop()
			if outcome.Answers["200"] != outcome.Requests {
				err = fmt.Errorf("probes while Envoy Gateway was killed: %v", outcome.Answers)
			}
			return errors.Join(err, serve(false)())
		}, checked, failing},
		{"all hosts serve again: 200", serve(true), checked, passing},
	} {
		began := time.Now()
		if step.do != nil {
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
		}
		if err := testbed.WaitFor(s.ctx, step.within, step.see); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		passed(step.what, began)
	}
	fmt.Println("all as it should be")
	return nil
}

// has fails unless an answer of Envoy's admin has a pattern.
func (s *standalone) has(path, pattern string) error {
	text, err := s.envoy.Get(path)
	if err == nil && !regexp.MustCompile(pattern).MatchString(text) {
		err = fmt.Errorf("%s does not have %s", path, pattern)
	}
	return err
}

// hosts returns a check that a cluster has so many healthy hosts of so many.
func (s *standalone) hosts(cluster string, healthy, total uint64) func() error {
	return func() error {
		stats, err := s.envoy.Stats("cluster." + cluster + ".membership_")
		h, n := stats["cluster."+cluster+".membership_healthy"], stats["cluster."+cluster+".membership_total"]
		if err == nil && (h != healthy || n != total) {
			err = fmt.Errorf("%s has %d healthy hosts of %d, want %d of %d", cluster, h, n, healthy, total)
		}
		return err
	}
}

// callService calls the service by the Gateway's listener https.
func (s *standalone) callService() error {
	address, err := s.listener("https")
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(s.ctx, built("demo"), "call", "-address", address).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// checkHealth asks grpc.health.v1.Health at the probe's listener.
func (s *standalone) checkHealth() error {
	address, err := s.listener("probe")
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, err := healthpb.NewHealthClient(conn).Check(s.ctx, &healthpb.HealthCheckRequest{Service: "router.Router"})
	if err == nil && reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		err = fmt.Errorf("router.Router is %v", reply.GetStatus())
	}
	return err
}

// alertsHaveMetrics checks that Envoy has each metric that the alerts ask for.
func (s *standalone) alertsHaveMetrics() error {
	text, err := os.ReadFile(filepath.Join(testbed.Root(), "manifests", "alerts.yaml"))
	if err != nil {
		return err
	}
	shown, err := s.envoy.Get("/stats/prometheus")
	if err != nil {
		return err
	}
	wanted := []string{`envoy_cluster_health_check_attempt{envoy_cluster_name="` + rule0 + `"}`}
	for _, name := range regexp.MustCompile(`\benvoy_\w+`).FindAllString(string(text), -1) {
		if name != "envoy_cluster_name" {
			wanted = append(wanted, name)
		}
	}
	for _, metric := range wanted {
		if !regexp.MustCompile(`(?m)^` + metric + `[{ ]`).MatchString(shown) {
			return fmt.Errorf("Envoy has no %s", metric)
		}
	}
	return nil
}

// isAccepted checks that Envoy Gateway accepts the policy.
func (s *standalone) isAccepted(objects overlay) error {
	out, err := s.translate(objects.forTranslation(), "gateway-api")
	if err != nil {
		return err
	}
	var resources struct {
		EnvoyExtensionPolicies []struct{ Status gatewayv1.PolicyStatus }
	}
	if err := yaml.Unmarshal(out, &resources); err != nil {
		return err
	}
	for _, policy := range resources.EnvoyExtensionPolicies {
		for _, ancestor := range policy.Status.Ancestors {
			if meta.IsStatusConditionTrue(ancestor.Conditions, "Accepted") {
				return nil
			}
		}
	}
	return fmt.Errorf("it is not accepted: %s", out)
}
