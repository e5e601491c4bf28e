package filter

import (
	"math/rand/v2"
	"testing"
)

// The cases of Envoy's own filter: test/extensions/filters/http/health_check/health_check_test.cc in v1.39.1, as far as
// gauges can tell them apart, and those of the rules that Envoy's filter does not have.
func TestRuleJudgesACluster(t *testing.T) {
	percent := func(p uint64) Rule { return Rule{MinHealthyPercent: p} }
	for _, test := range []struct {
		name   string
		rule   Rule
		counts Counts
		want   Reason
	}{
		{"half of it is half of it", percent(50), Counts{Healthy: 50, Total: 100}, OK},
		{"more than three quarters", percent(75), Counts{Healthy: 800, Total: 1000}, OK},
		{"one host less than half", percent(50), Counts{Healthy: 49, Total: 100}, ClusterUnhealthy},
		{"one host less than three quarters", percent(75), Counts{Healthy: 749, Total: 1000}, ClusterUnhealthy},
		{"degraded ones make up half", percent(50), Counts{Healthy: 40, Degraded: 20, Total: 100}, OK},
		{"degraded ones alone", percent(75), Counts{Degraded: 800, Total: 1000}, OK},
		{"degraded ones are too few", percent(50), Counts{Healthy: 40, Degraded: 9, Total: 100}, ClusterUnhealthy},
		{"empty, something asked", percent(1), Counts{}, ClusterEmpty},
		{"empty, a host asked", Rule{MinHealthy: 1}, Counts{}, ClusterEmpty},
		{"empty, nothing asked", Rule{}, Counts{}, OK},
		{"none healthy, nothing asked", Rule{}, Counts{Total: 3}, OK},
		{"one healthy, one asked", Rule{MinHealthy: 1}, Counts{Healthy: 1, Total: 3}, OK},
		{"none healthy, one asked", Rule{MinHealthy: 1}, Counts{Total: 3}, ClusterUnhealthy},
		{"one degraded, one asked", Rule{MinHealthy: 1}, Counts{Degraded: 1, Total: 3}, OK},
		{"one degraded, ignored", Rule{MinHealthy: 1, IgnoreDegraded: true}, Counts{Degraded: 1, Total: 3}, ClusterUnhealthy},
		{"fewer hosts than asked", Rule{MinHealthy: 4}, Counts{Healthy: 3, Total: 3}, ClusterUnhealthy},
		{"both, and one of them fails", Rule{MinHealthy: 2, MinHealthyPercent: 50}, Counts{Healthy: 1, Total: 2}, ClusterUnhealthy},
		{"both, and the other fails", Rule{MinHealthy: 1, MinHealthyPercent: 51}, Counts{Healthy: 1, Total: 2}, ClusterUnhealthy},
		{"no rounding up", percent(67), Counts{Healthy: 2, Total: 3}, ClusterUnhealthy},
		{"no rounding down", percent(66), Counts{Healthy: 2, Total: 3}, OK},
		{"all of it", percent(100), Counts{Healthy: 3, Total: 3}, OK},
		{"excluded ones are of the total", percent(100), Counts{Healthy: 2, Total: 6, Excluded: 4}, ClusterUnhealthy},
		{"excluded ones, ignored", Rule{MinHealthyPercent: 100, IgnoreExcluded: true}, Counts{Healthy: 2, Total: 6, Excluded: 4}, OK},
		{"excluded ones, ignored, one too few", Rule{MinHealthyPercent: 100, IgnoreExcluded: true}, Counts{Healthy: 2, Total: 6, Excluded: 3}, ClusterUnhealthy},
		{"all are excluded and ignored", Rule{MinHealthyPercent: 1, IgnoreExcluded: true}, Counts{Total: 6, Excluded: 6}, ClusterEmpty},
		{"all are excluded and ignored, nothing asked", Rule{IgnoreExcluded: true}, Counts{Total: 6, Excluded: 6}, OK},
		{"more excluded than there are", Rule{MinHealthyPercent: 1, IgnoreExcluded: true}, Counts{Total: 6, Excluded: 7}, ClusterEmpty},
		{"all of it but one", percent(100), Counts{Healthy: 2, Total: 3}, ClusterUnhealthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.rule.Judge(test.counts).Reason; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// nativePasses is the check of Envoy's own filter, written from HealthCheckFilter::onComplete of v1.39.1.
func nativePasses(percent, counted, total uint64) bool {
	if total == 0 {
		return percent == 0
	}
	return !(100*counted < total*percent)
}

func TestPercentAgreesWithEnvoyAtEveryBoundary(t *testing.T) {
	for total := range uint64(201) {
		for percent := range uint64(101) {
			for healthy := range total + 1 {
				rule := Rule{MinHealthyPercent: percent}
				got := rule.Judge(Counts{Healthy: healthy, Total: total}).Reason == OK
				if want := nativePasses(percent, healthy, total); got != want {
					t.Fatalf("%d of %d at %d %%: got %v, Envoy has %v", healthy, total, percent, got, want)
				}
				// And what passes is never less than what was asked for, in exact numbers.
				if total > 0 && got && healthy*100 < percent*total {
					t.Fatalf("%d of %d passes at %d %%", healthy, total, percent)
				}
			}
		}
	}
}

// randomGate makes a policy of some clusters, and counts that Envoy could have of them.
func randomGate(r *rand.Rand) (*Policy, []Sample) {
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
		c, counts := randomGate(r)
		before := c.Judge(counts)
		for i := range counts {
			if counts[i].Healthy+counts[i].Degraded == counts[i].Total {
				continue // no host is left to become healthy
			}
			better := append([]Sample(nil), counts...)
			better[i].Healthy++
			better[i].Excluded = min(better[i].Excluded, better[i].Total-better[i].Healthy-better[i].Degraded)
			if after := c.Judge(better); before.Passing && !after.Passing {
				t.Fatalf("%+v passes with %v and fails with %v", c, counts, better)
			}
		}
	}
}

func TestRequiringFewerClustersIsNeverStricter(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range rounds {
		c, counts := randomGate(r)
		passed := true // with none required
		for c.Require = 1; c.Require <= len(c.Clusters); c.Require++ {
			now := c.Judge(counts).Passing
			if now && !passed {
				t.Fatalf("%v fails with %d clusters required and passes with %d", counts, c.Require-1, c.Require)
			}
			passed = now
		}
	}
}

func TestDegradedIsSaidWhereHealthyHostsAloneWouldNotDo(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[bool]int{}
	for range rounds {
		c, counts := randomGate(r)
		verdict := c.Judge(counts)
		strict := *c
		strict.Clusters = append([]Cluster(nil), c.Clusters...)
		for i := range strict.Clusters {
			strict.Clusters[i].Rule.IgnoreDegraded = true
		}
		want := verdict.Passing && !strict.Judge(counts).Passing
		if verdict.Degraded != want {
			t.Fatalf("%+v with %v: degraded is %v, want %v", c, counts, verdict.Degraded, want)
		}
		seen[want]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("only one of the cases was seen: %v", seen)
	}
}

func TestFailingClusterThatStandsFirstIsTheReason(t *testing.T) {
	c := &Policy{Require: 3, Clusters: []Cluster{
		{Rule: Rule{MinHealthy: 1}}, {Rule: Rule{MinHealthy: 2}}, {Rule: Rule{MinHealthy: 1}},
	}}
	got := c.Judge([]Sample{{Counts: Counts{Healthy: 1, Total: 1}}, {Counts: Counts{Healthy: 1, Total: 2}}, {}})
	if want := (Verdict{Reason: ClusterUnhealthy}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestStaleClusterDoesNotPassHoweverHealthy(t *testing.T) {
	fresh, stale := Sample{Counts: Counts{Healthy: 1, Total: 1}}, Sample{Counts: Counts{Healthy: 1, Total: 1}, Stale: true}
	c := &Policy{Clusters: []Cluster{{Rule: Rule{MinHealthy: 1}}, {Rule: Rule{}}}}
	for _, test := range []struct {
		name    string
		require int
		samples []Sample
		want    Verdict
	}{
		{"both are fresh", 2, []Sample{fresh, fresh}, Verdict{Reason: OK, Passing: true}},
		{"one of two is stale", 2, []Sample{fresh, stale}, Verdict{Reason: Stale}},
		{"one is stale, and the other enough", 1, []Sample{fresh, stale}, Verdict{Reason: OK, Passing: true}},
		{"both are stale", 1, []Sample{stale, stale}, Verdict{Reason: Stale}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.Require = test.require
			if got := c.Judge(test.samples); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestClusterThatIsNotThereFailsWhateverTheMinimums(t *testing.T) {
	for _, test := range []struct {
		name   string
		sample Sample
		want   Reason
	}{
		{"not there", Sample{Unknown: true}, ClusterUnknown},
		{"not there, for all that was seen last", Sample{Unknown: true, Stale: true}, Stale},
		{"empty", Sample{}, OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (Cluster{}).Judge(test.sample); got != (Finding{Reason: test.want}) {
				t.Errorf("got %+v, want %v", got, test.want)
			}
		})
	}
}
