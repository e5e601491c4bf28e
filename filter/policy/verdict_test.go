package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The cases of Envoy's own filter (test/extensions/filters/http/health_check/health_check_test.cc in v1.39.1) that gauges distinguish,
// and cases of the rules that only Healthgate has.
func TestEvaluateCluster(t *testing.T) {
	percent := func(p uint64) Rule { return Rule{MinHealthyPercent: p} }
	for _, test := range []struct {
		name   string
		rule   Rule
		counts Counts
		want   Reason
	}{
		{"exactly half", percent(50), Counts{Healthy: 50, Total: 100}, OK},
		{"more than three quarters", percent(75), Counts{Healthy: 800, Total: 1000}, OK},
		{"one host less than half", percent(50), Counts{Healthy: 49, Total: 100}, ClusterUnhealthy},
		{"one host less than three quarters", percent(75), Counts{Healthy: 749, Total: 1000}, ClusterUnhealthy},
		{"half with degraded", percent(50), Counts{Healthy: 40, Degraded: 20, Total: 100}, OK},
		{"only degraded", percent(75), Counts{Degraded: 800, Total: 1000}, OK},
		{"too few with degraded", percent(50), Counts{Healthy: 40, Degraded: 9, Total: 100}, ClusterUnhealthy},
		{"empty, a percentage needed", percent(1), Counts{}, ClusterEmpty},
		{"empty, a host needed", Rule{MinHealthy: 1}, Counts{}, ClusterEmpty},
		{"empty, nothing needed", Rule{}, Counts{}, OK},
		{"none healthy, nothing needed", Rule{}, Counts{Total: 3}, OK},
		{"one healthy, one needed", Rule{MinHealthy: 1}, Counts{Healthy: 1, Total: 3}, OK},
		{"none healthy, one needed", Rule{MinHealthy: 1}, Counts{Total: 3}, ClusterUnhealthy},
		{"one degraded, one needed", Rule{MinHealthy: 1}, Counts{Degraded: 1, Total: 3}, OK},
		{"one degraded, ignored", Rule{MinHealthy: 1, IgnoreDegraded: true}, Counts{Degraded: 1, Total: 3}, ClusterUnhealthy},
		{"fewer hosts than needed", Rule{MinHealthy: 4}, Counts{Healthy: 3, Total: 3}, ClusterUnhealthy},
		{"both minimums, too few hosts", Rule{MinHealthy: 2, MinHealthyPercent: 50}, Counts{Healthy: 1, Total: 2}, ClusterUnhealthy},
		{"both minimums, too low a percentage", Rule{MinHealthy: 1, MinHealthyPercent: 51}, Counts{Healthy: 1, Total: 2}, ClusterUnhealthy},
		{"no rounding up", percent(67), Counts{Healthy: 2, Total: 3}, ClusterUnhealthy},
		{"no rounding down", percent(66), Counts{Healthy: 2, Total: 3}, OK},
		{"all hosts", percent(100), Counts{Healthy: 3, Total: 3}, OK},
		{"excluded hosts count in the total", percent(100), Counts{Healthy: 2, Total: 6, Excluded: 4}, ClusterUnhealthy},
		{"excluded hosts ignored", Rule{MinHealthyPercent: 100, IgnoreExcluded: true}, Counts{Healthy: 2, Total: 6, Excluded: 4}, OK},
		{"excluded hosts ignored, one host too few", Rule{MinHealthyPercent: 100, IgnoreExcluded: true},
			Counts{Healthy: 2, Total: 6, Excluded: 3}, ClusterUnhealthy},
		{"all excluded and ignored", Rule{MinHealthyPercent: 1, IgnoreExcluded: true}, Counts{Total: 6, Excluded: 6}, ClusterEmpty},
		{"all excluded and ignored, nothing needed", Rule{IgnoreExcluded: true}, Counts{Total: 6, Excluded: 6}, OK},
		{"more excluded than hosts", Rule{MinHealthyPercent: 1, IgnoreExcluded: true}, Counts{Total: 6, Excluded: 7}, ClusterEmpty},
		{"all hosts but one", percent(100), Counts{Healthy: 2, Total: 3}, ClusterUnhealthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (Cluster{Rule: test.rule}).Evaluate(Sample{Counts: test.counts}).Reason; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// The least number of healthy hosts that passes, by hand.
func TestPercentNeedsWholeHosts(t *testing.T) {
	for _, test := range []struct{ percent, total, least uint64 }{
		{1, 1, 1}, {1, 100, 1}, {1, 101, 2}, {1, 200, 2}, {1, 201, 3},
		{33, 3, 1}, {34, 3, 2}, {66, 3, 2}, {67, 3, 3}, {50, 2, 1}, {50, 3, 2}, {51, 2, 2}, {51, 100, 51},
		{90, 10, 9}, {91, 10, 10}, {99, 100, 99}, {99, 99, 99}, {99, 101, 100}, {100, 1, 1}, {100, 200, 200},
		{75, 1_000_000, 750_000}, {75, 1_000_001, 750_001},
	} {
		t.Run(fmt.Sprintf("%d percent of %d", test.percent, test.total), func(t *testing.T) {
			cluster := Cluster{Rule: Rule{MinHealthyPercent: test.percent}}
			for healthy, want := range map[uint64]bool{test.least - 1: false, test.least: true, test.total: true} {
				if got := cluster.Evaluate(Sample{Counts: Counts{Healthy: healthy, Total: test.total}}).Passing; got != want {
					t.Errorf("%d healthy: passing %v, want %v", healthy, got, want)
				}
			}
		})
	}
}

// randomPolicy returns a policy, and samples that Envoy could have of its clusters.
func randomPolicy(r *rand.Rand) (*Policy, []Sample) {
	n := 1 + r.IntN(5)
	c := &Policy{Require: 1 + r.IntN(n), Clusters: make([]Cluster, n)}
	counts := make([]Sample, n)
	for i := range n {
		c.Clusters[i].Rule = Rule{
			MinHealthy:        r.Uint64N(4),
			MinHealthyPercent: r.Uint64N(101),
			IgnoreDegraded:    r.IntN(2) == 0,
			IgnoreExcluded:    r.IntN(2) == 0,
		}
		total := r.Uint64N(8)
		healthy := r.Uint64N(total + 1)
		degraded := r.Uint64N(total - healthy + 1)
		counts[i].Counts = Counts{Healthy: healthy, Degraded: degraded, Total: total, Excluded: r.Uint64N(total - healthy - degraded + 1)}
	}
	return c, counts
}

const rounds = 20_000

func TestOneMoreHealthyHostNeverFailsTheGate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		c, counts := randomPolicy(r)
		before := c.Evaluate(counts)
		for i := range counts {
			if counts[i].Healthy+counts[i].Degraded == counts[i].Total {
				continue // no host is left to become healthy
			}
			better := append([]Sample(nil), counts...)
			better[i].Healthy++
			better[i].Excluded = min(better[i].Excluded, better[i].Total-better[i].Healthy-better[i].Degraded)
			if after := c.Evaluate(better); before.Passing && !after.Passing {
				t.Fatalf("%+v passes with %v and fails with %v", c, counts, better)
			}
		}
	}
}

func TestRequiringFewerClustersIsNeverStricter(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range rounds {
		c, counts := randomPolicy(r)
		passed := true // with none required
		for c.Require = 1; c.Require <= len(c.Clusters); c.Require++ {
			now := c.Evaluate(counts).Passing
			if now && !passed {
				t.Fatalf("%v fails with %d clusters required and passes with %d", counts, c.Require-1, c.Require)
			}
			passed = now
		}
	}
}

func TestDegradedIsSetIfHealthyHostsAloneWouldFail(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[bool]int{}
	for range rounds {
		c, counts := randomPolicy(r)
		verdict := c.Evaluate(counts)
		strict := *c
		strict.Clusters = append([]Cluster(nil), c.Clusters...)
		for i := range strict.Clusters {
			strict.Clusters[i].Rule.IgnoreDegraded = true
		}
		want := verdict.Passing && !strict.Evaluate(counts).Passing
		if verdict.Degraded != want {
			t.Fatalf("%+v with %v: degraded is %v, want %v", c, counts, verdict.Degraded, want)
		}
		seen[want]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("only one case occurred: %v", seen)
	}
}

func TestStaleAndUnknownClustersFailWhateverTheMinimums(t *testing.T) {
	healthy := Counts{Healthy: 1, Total: 1}
	fresh, stale, unknown := Sample{Counts: healthy}, Sample{Counts: healthy, Stale: true}, Sample{Unknown: true}
	passes := Verdict{Reason: OK, Passing: true}
	c := &Policy{Clusters: []Cluster{{Rule: Rule{MinHealthy: 1}}, {Rule: Rule{}}}}
	for _, test := range []struct {
		name    string
		require int
		samples []Sample
		want    Verdict
	}{
		{"both are fresh", 2, []Sample{fresh, fresh}, passes},
		{"one of two is stale", 2, []Sample{fresh, stale}, Verdict{Reason: Stale}},
		{"one is stale, the other one suffices", 1, []Sample{fresh, stale}, passes},
		{"both are stale", 1, []Sample{stale, stale}, Verdict{Reason: Stale}},
		{"unknown", 2, []Sample{fresh, unknown}, Verdict{Reason: ClusterUnknown}},
		{"unknown at a stale sample", 2, []Sample{fresh, {Unknown: true, Stale: true}}, Verdict{Reason: Stale}},
		{"empty, nothing needed", 2, []Sample{fresh, {}}, passes},
		{"the first failure is the reason", 2, []Sample{{Counts: Counts{Total: 1}}, unknown}, Verdict{Reason: ClusterUnhealthy}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.Require = test.require
			if got := c.Evaluate(test.samples); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
