package envoystats

import (
	"slices"
	"testing"
	"time"

	"healthgate/filter/policy"
)

func TestClusterGaugesAreWhatASourceReads(t *testing.T) {
	clusters := []policy.Cluster{{Name: "a:b", StatName: "a:b"}, {Name: "c", StatName: "d", Rule: policy.Rule{IgnoreExcluded: true}}}
	stats := &knowingStats{newFakeStats()}
	NewSource(clusters, 3*time.Second, stats, &Ages{}, epoch)
	if got, want := slices.Sorted(slices.Values(ClusterGauges(clusters))), slices.Sorted(slices.Values(stats.names)); !slices.Equal(got,
		want) {
		t.Errorf("got %q, a source reads %q", got, want)
	}
}

// knowingStats has every cluster.
type knowingStats struct{ *fakeStats }

func (s *knowingStats) Cluster(string, string) Value { return &number{value: 1} }
