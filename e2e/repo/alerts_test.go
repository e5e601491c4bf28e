package repo

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// alerts reads the rules as Prometheus does: strictly, with each expression and template checked.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	text, err := os.ReadFile(inRoot("manifests", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	rules := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules[rule.Alert] = rule
		}
	}
	return rules
}

func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	rules := alerts(t)
	if len(rules) != 5 {
		t.Errorf("there are %d rules, want 5", len(rules))
	}
	unchecked := map[string]bool{"HealthgateUnchecked": true}
	const gate = `envoy_healthgate_default_`
	for name, test := range map[string]struct {
		series string // a point a minute, for 20 minutes
		fires  map[string]bool
	}{
		"all is well": {
			`envoy_server_live{job="envoy", instance="a"} 1x20
			 GATEhealthy{job="envoy", instance="a"} 1x20
			 GATEfailed_stale{job="envoy", instance="a"} 5x20
			 GATEfailed_error{job="envoy", instance="a"} 0x20
			 GATEtransitions{job="envoy", instance="a"} 3x20
			 GATEok{job="envoy", instance="a"} 0+60x20
			 GATEfailed{job="envoy", instance="a"} 5x20
			 envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 3x20
			 envoy_cluster_health_check_attempt{job="envoy", instance="a", envoy_cluster_name="service"} 0+36x20
			 envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="admin"} 1x20
			 envoy_cluster_membership_total{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 3x20
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 0+3x20`, nil,
		},
		"one of two fails": {
			`envoy_server_live{job="envoy", instance="a"} 1x20
			 envoy_server_live{job="envoy", instance="b"} 1x20
			 GATEhealthy{job="envoy", instance="a"} 0x20
			 GATEhealthy{job="envoy", instance="b"} 1x20`, map[string]bool{"HealthgateFailing": true},
		},
		"it drains": {
			`envoy_server_live{job="envoy", instance="a"} 0x20
			 GATEhealthy{job="envoy", instance="a"} 0x20`, nil,
		},
		"it is blind by age": {
			`GATEfailed_stale{job="envoy", instance="a"} 0+10x20
			 GATEfailed_error{job="envoy", instance="a"} 0x20`, map[string]bool{"HealthgateBlind": true},
		},
		"it is blind by error": {
			`GATEfailed_stale{job="envoy", instance="a"} 0x20
			 GATEfailed_error{job="envoy", instance="a"} 0x18 1 2`, map[string]bool{"HealthgateBlind": true},
		},
		"the kubelet alone probes": {
			`GATEok{job="envoy", instance="a"} 0+12x20
			 GATEfailed{job="envoy", instance="a"} 0x20`, map[string]bool{"HealthgateUnprobed": true},
		},
		"it is probed while it fails": {
			`GATEok{job="envoy", instance="a"} 100x20
			 GATEfailed{job="envoy", instance="a"} 0+60x20`, nil,
		},
		"a cluster is not checked any more": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 3x20
			 envoy_cluster_health_check_attempt{job="envoy", instance="a", envoy_cluster_name="service"} 900x20`, unchecked,
		},
		"a cluster of Envoy Gateway's is not checked any more": {
			`envoy_cluster_membership_total{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 3x20
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 900x20`, unchecked,
		},
		"a cluster is checked once a minute, since it has had no traffic": {
			`envoy_cluster_membership_total{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 3x20
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 0+3x20`, nil,
		},
		"another Envoy has the health checks": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 3x20
			 envoy_cluster_health_check_attempt{job="envoy", instance="b", envoy_cluster_name="service"} 0+36x20`, unchecked,
		},
		"no Envoy checks a cluster": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="tracing"} 1x20
			 envoy_cluster_membership_total{job="other", instance="b", envoy_cluster_name="tracing"} 1x20
			 envoy_cluster_health_check_attempt{job="other", instance="b", envoy_cluster_name="tracing"} 0+36x20`, nil,
		},
		"a cluster has no hosts": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 0x20`, nil,
		},
		"it flaps": {
			`GATEtransitions{job="envoy", instance="a"} 0+1x20`, map[string]bool{"HealthgateFlapping": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			series := series(t, strings.ReplaceAll(test.series, "GATE", gate))
			engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10000, Timeout: time.Minute})
			defer engine.Close()
			for alert, rule := range rules {
				query, err := engine.NewInstantQuery(t.Context(), series, nil, rule.Expr, time.Unix(0, 0).Add(20*time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				result := query.Exec(t.Context())
				if result.Err != nil {
					t.Fatal(result.Err)
				}
				if fires := len(result.Value.(promql.Vector)) > 0; fires != test.fires[alert] {
					t.Errorf("%s fires: %v, want %v (%v)", alert, fires, test.fires[alert], result)
				}
			}
		})
	}
}

// series are what promtool's notation says, a line each, with a point a minute.
func series(t *testing.T, text string) storage.Queryable {
	t.Helper()
	var all []storage.Series
	for line := range strings.Lines(text) {
		name, points, err := parser.ParseSeriesDesc(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		one := promql.Series{Metric: name}
		for i, point := range points {
			one.Floats = append(one.Floats, promql.FPoint{T: (time.Duration(i) * time.Minute).Milliseconds(), F: point.Value})
		}
		all = append(all, promql.NewStorageSeries(one))
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			set := &seriesSet{}
			for _, series := range all {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(series.Labels().Get(m.Name)) }) {
					set.series = append(set.series, series)
				}
			}
			return set
		},
	}}
}

type seriesSet struct {
	series []storage.Series
	next   int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
