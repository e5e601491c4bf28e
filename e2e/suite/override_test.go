package suite

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"healthgate/e2e/testbed"
)

// awaitBoth probes a path on both listeners, one after the other, until each answers with a status, and returns how long that
// took.
func (s *site) awaitBoth(path string, status int) (took time.Duration) {
	s.t.Helper()
	began := time.Now()
	both := []*site{s, s.at("second")}
	s.await(settle, func() error {
		var err error
		for _, side := range both {
			if reply := side.mustDo(side.client("h2"), "GET", path, nil); reply.status != status {
				err = fmt.Errorf("%s is answered with %d, want %d", path, reply.status, status)
			}
		}
		return err
	})
	return time.Since(began)
}

// Two listeners with the same RDS routes share the route's override. The golang extension keeps one merged configuration of it, and
// makes another when the other listener is probed.
func TestListenersWithSharedRoutesHoldAndLogSeparately(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRDS(), withGate(`{"clusters": ["service"], "stat_prefix": "first"}`),
		withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`))
	s.overrideRoute("/readyz", `{"path": "/readyz", "hold": {"unhealthy_after": "2s", "healthy_after": "1s"}}`)
	s.awaitBoth("/readyz", 200)
	s.setServing(0)
	if took := s.awaitBoth("/readyz", 503); took < time.Second { // the hold began up to a check before
		t.Errorf("they failed after %v, the hold is 2s", took)
	}
	s.setServing(1)
	if took := s.awaitBoth("/readyz", 200); took < 500*time.Millisecond {
		t.Errorf("they passed after %v, the hold is 1s", took)
	}
	for _, prefix := range []string{"first", "second"} {
		for _, change := range []string{"starts with 200", "changed from 200 to 503", "changed from 503 to 200"} {
			s.awaitLines("healthgate: gate "+prefix+" "+change, 1, settle)
		}
	}
}

// A removed cluster's gauges keep their values, so only stale_after can fail the probe.
func TestListenersWithSharedRoutesBecomeStaleSeparately(t *testing.T) {
	t.Parallel()
	needs(t, testbed.UnnoticedRemovals)
	var clusters []*clusterv3.Cluster
	s := newSite(t, withRDS(), clustersByCDS(&clusters), withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`))
	s.awaitProbe(s.client("h2"), 200, settle)
	s.overrideRoute("/readyz", `{"path": "/readyz", "stale_after": "2s"}`)
	s.awaitBoth("/readyz", 200)
	s.removeClusters()
	if n := s.stat("cluster.service.membership_healthy"); n != 1 {
		t.Fatalf("the removed cluster has %d healthy hosts in its gauge, want 1", n)
	}
	if took := s.awaitBoth("/readyz", 503); took > 4*time.Second {
		t.Errorf("they became stale after %v, stale_after is 2s", took)
	}
	s.awaitLog(`"details":"healthgate_stale"`, settle)
	s.writeClusters(clusters...)
	s.awaitBoth("/readyz", 200)
}

// Updates that are more frequent than stale_after must not make a removed cluster fresh again.
func TestListenerUpdatesDoNotRefreshARemovedCluster(t *testing.T) {
	t.Parallel()
	needs(t, testbed.UnnoticedRemovals)
	var clusters []*clusterv3.Cluster
	s := newSite(t, withLDS(), clustersByCDS(&clusters), withGate(`{"clusters": ["service"], "stale_after": "3s"}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.removeClusters()
	removed := time.Now()
	update := 0
	s.await(settle, func() error {
		if update++; !s.reload(fmt.Sprintf(`{"clusters": ["service"], "stale_after": "3s", "stat_prefix": "update%d"}`, update),
			allowMissingClusters) {
			t.Fatal("envoy refused a good configuration")
		}
		if reply := s.probe(client); reply.status != 503 {
			return fmt.Errorf("after %v and %d updates it is answered with %d", time.Since(removed), update, reply.status)
		}
		return nil
	})
	if took := time.Since(removed); took > 6*time.Second || update < 3 {
		t.Errorf("it became stale after %v and %d updates, stale_after is 3s", took, update)
	}
}

// An error of a pair of filter and override ends when either changes.
func TestListenerUpdateFixesAnErrorOfAnOverride(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRDS(), withLDS())
	s.overrideRoute("/readyz", `{"path": "/readyz", "require": 2}`)
	client := s.client("h2")
	expect(t, "two of one cluster", s.mustDo(client, "GET", "/readyz", nil), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_error"`, settle)

	if !s.reload(`{"clusters": ["service", {"name": "missing", "min_healthy": 0}]}`, func(c *testbed.Bootstrap) {
		s.useRDS(c)
	}) {
		t.Fatal("envoy refused a good listener")
	}
	s.await(settle, func() error {
		reply := s.mustDo(s.client("h2"), "GET", "/readyz", nil)
		if variant.Can(testbed.UnnoticedRemovals) != nil { // it knows that Envoy has no such cluster
			if !strings.Contains(s.envoy.Log(), `"details":"healthgate_cluster_unknown"`) {
				return errors.New("the error has not changed")
			}
			return nil
		}
		if reply.status != 200 {
			return fmt.Errorf("two of two clusters: %d", reply.status)
		}
		return nil
	})
}
