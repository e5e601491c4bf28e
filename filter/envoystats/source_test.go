package envoystats

import (
	"slices"
	"testing"
	"time"

	"healthgate/filter/policy"
)

// The gauges that are wanted here were read off a real Envoy; e2e's tests read them there.
func TestGaugesAreNamedAsEnvoyNamesThem(t *testing.T) {
	for name, want := range map[string]string{
		"service":                  "cluster.service.membership_healthy",
		"a.b":                      "cluster.a.b.membership_healthy",
		"outbound|80||a:v1":        "cluster.outbound|80||a_v1.membership_healthy",
		"http://service.local:80":  "cluster.http_service.local_80.membership_healthy",
		"a:/b":                     "cluster.a_b.membership_healthy",
		"a::b":                     "cluster.a__b.membership_healthy",
		"a\x00b":                   "cluster.a_b.membership_healthy",
		".a":                       "cluster..a.membership_healthy",
		"a.":                       "cluster.a.membership_healthy",
		"a..":                      "cluster.a.membership_healthy",
		"a.:":                      "cluster.a._.membership_healthy",
		"xds:///eds.authority/a:b": "cluster.xds_/eds.authority/a_b.membership_healthy",
	} {
		t.Run(name, func(t *testing.T) {
			stats := newFakeStats()
			NewSource([]policy.Cluster{{StatName: name}}, 0, stats, &Ages{}, time.Time{})
			if stats.names[0] != want {
				t.Errorf("got %s, want %s", stats.names[0], want)
			}
		})
	}
}

func TestClusterGaugesAreWhatASourceReads(t *testing.T) {
	clusters := []policy.Cluster{{Name: "a:b", StatName: "a:b"}, {Name: "c", StatName: "d", Rule: policy.Rule{IgnoreExcluded: true}}}
	stats := &knowingStats{newFakeStats()}
	NewSource(clusters, 3*time.Second, stats, &Ages{}, epoch)
	if got, want := slices.Sorted(slices.Values(ClusterGauges(clusters))), slices.Sorted(slices.Values(stats.names)); !slices.Equal(got, want) {
		t.Errorf("got %q, a source reads %q", got, want)
	}
}

// knowingStats know every cluster.
type knowingStats struct{ *fakeStats }

func (s *knowingStats) Cluster(string, string) Value { return &number{value: 1} }
