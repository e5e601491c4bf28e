package repo

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Prometheus reads the rules strictly, with each expression and template checked.
func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	groups, errs := rulefmt.Parse([]byte(readFile(t, inRoot("manifests", "alerts.yaml"))), false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	rules := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules[rule.Alert] = rule
		}
	}
	if len(rules) != 5 {
		t.Errorf("there are %d rules, want 5", len(rules))
	}
	for name, test := range map[string]struct {
		series string // a point a minute, for 20 minutes
		fires  string // the alert
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
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 0+3x20`, "",
		},
		"one of two fails": {
			`envoy_server_live{job="envoy", instance="a"} 1x20
			 envoy_server_live{job="envoy", instance="b"} 1x20
			 GATEhealthy{job="envoy", instance="a"} 0x20
			 GATEhealthy{job="envoy", instance="b"} 1x20`, "HealthgateFailing",
		},
		"it drains": {
			`envoy_server_live{job="envoy", instance="a"} 0x20
			 GATEhealthy{job="envoy", instance="a"} 0x20`, "",
		},
		"it is blind by age": {
			`GATEfailed_stale{job="envoy", instance="a"} 0+10x20
			 GATEfailed_error{job="envoy", instance="a"} 0x20`, "HealthgateBlind",
		},
		"it is blind by error": {
			`GATEfailed_stale{job="envoy", instance="a"} 0x20
			 GATEfailed_error{job="envoy", instance="a"} 0x18 1 2`, "HealthgateBlind",
		},
		"the kubelet alone probes": {
			`GATEok{job="envoy", instance="a"} 0+12x20
			 GATEfailed{job="envoy", instance="a"} 0x20`, "HealthgateUnprobed",
		},
		"it is probed while it fails": {
			`GATEok{job="envoy", instance="a"} 100x20
			 GATEfailed{job="envoy", instance="a"} 0+60x20`, "",
		},
		"a cluster is not checked any more": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 3x20
			 envoy_cluster_health_check_attempt{job="envoy", instance="a", envoy_cluster_name="service"} 900x20`, "HealthgateUnchecked",
		},
		"a cluster of Envoy Gateway's is not checked any more": {
			`envoy_cluster_membership_total{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 3x20
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 900x20`,
			"HealthgateUnchecked",
		},
		"a cluster is checked once a minute, since it has had no traffic": {
			`envoy_cluster_membership_total{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 3x20
			 envoy_cluster_health_check_attempt{job="eg", instance="c", envoy_cluster_name="grpcroute/default/service/rule/0"} 0+3x20`, "",
		},
		"another Envoy has the health checks": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 3x20
			 envoy_cluster_health_check_attempt{job="envoy", instance="b", envoy_cluster_name="service"} 0+36x20`, "HealthgateUnchecked",
		},
		"no Envoy checks a cluster": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="tracing"} 1x20
			 envoy_cluster_membership_total{job="other", instance="b", envoy_cluster_name="tracing"} 1x20
			 envoy_cluster_health_check_attempt{job="other", instance="b", envoy_cluster_name="tracing"} 0+36x20`, "",
		},
		"a cluster has no hosts": {
			`envoy_cluster_membership_total{job="envoy", instance="a", envoy_cluster_name="service"} 0x20`, "",
		},
		"it flaps": {
			`GATEtransitions{job="envoy", instance="a"} 0+1x20`, "HealthgateFlapping",
		},
	} {
		t.Run(name, func(t *testing.T) {
			queryable := series(t, strings.ReplaceAll(test.series, "GATE", "envoy_healthgate_default_"))
			engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10000, Timeout: time.Minute})
			defer engine.Close()
			for alert, rule := range rules {
				query, err := engine.NewInstantQuery(t.Context(), queryable, nil, rule.Expr, time.Unix(0, 0).Add(20*time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				result := query.Exec(t.Context())
				if result.Err != nil {
					t.Fatal(result.Err)
				}
				if fires := len(result.Value.(promql.Vector)) > 0; fires != (alert == test.fires) {
					t.Errorf("%s fires: %v (%v)", alert, fires, result)
				}
			}
		})
	}
}

// series has the points, one a minute, of promtool's notation, a series in each line.
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
			set := &seriesSet{SeriesSet: storage.EmptySeriesSet()}
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
	storage.SeriesSet
	series []storage.Series
	next   int
}

func (s *seriesSet) Next() bool         { s.next++; return s.next <= len(s.series) }
func (s *seriesSet) At() storage.Series { return s.series[s.next-1] }

// Prometheus can parse each query of the dashboard. The suite tests that Envoy has the metrics.
func TestDashboardQueriesParse(t *testing.T) {
	t.Parallel()
	dashboard := readFile(t, inRoot("manifests", "components", "metrics", "dashboard.json"))
	variables := regexp.MustCompile(`\$\{?\w+\}?`)
	queries := regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(dashboard, -1)
	for _, query := range queries {
		text, err := strconv.Unquote(query[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.ParseExpr(variables.ReplaceAllString(strings.ReplaceAll(text, "$__rate_interval", "5m"), "x")); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if len(queries) < 8 {
		t.Errorf("found %d queries", len(queries))
	}
}
