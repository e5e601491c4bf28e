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
	"sigs.k8s.io/yaml"
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
	var tests []struct{ Name, Fires, Series string }
	if err := yaml.UnmarshalStrict([]byte(readFile(t, "testdata/alerts.yaml")), &tests); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.Name, func(t *testing.T) {
			queryable := series(t, strings.ReplaceAll(test.Series, "GATE", "envoy_healthgate_default_"))
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
				if fires := len(result.Value.(promql.Vector)) > 0; fires != (alert == test.Fires) {
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
