package repo

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// Prometheus can parse each query of the dashboard. The suite tests that Envoy has the metrics.
func TestDashboardQueriesParse(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, inRoot("manifests", "components", "metrics", "dashboard.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	replaced := []string{"$__rate_interval", "5m"}
	for _, v := range dashboard.Templating.List {
		replaced = append(replaced, "$"+v.Name, "x", "${"+v.Name+"}", "x")
	}
	variables := strings.NewReplacer(replaced...)
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			expr := variables.Replace(target.Expr)
			if _, err := parser.ParseExpr(expr); err != nil || strings.Contains(expr, "$") {
				t.Errorf("%q: %s: %v", panel.Title, target.Expr, err)
			}
		}
	}
	if queries < 8 {
		t.Errorf("found %d queries", queries)
	}
}
