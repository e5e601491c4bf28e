package repo

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// dashboard is Grafana's form, of what is used here alone: any other key is an error.
type dashboard struct {
	Title, UID, Description, Refresh, Timezone string
	Tags                                       []string
	SchemaVersion                              int
	Editable                                   bool
	Time                                       struct{ From, To string }
	Templating                                 struct{ List []variable }
	Panels                                     []panel
}

type variable struct {
	Name, Label, Type, Query string
	Datasource               datasource
	Current                  struct{ Text, Value string }
	Refresh, Sort            int
	IncludeAll, Multi        bool
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults struct {
			Unit               string
			Min, Max, Decimals int
		}
		Overrides []any
	}
	Targets []struct {
		RefID, Expr, LegendFormat string
		Datasource                datasource
	}
}

// Each panel asks what Prometheus can answer, of the data source that is chosen. That Envoy has the metrics is a test of the suite's.
func TestDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(readFile(t, inRoot("manifests", "components", "metrics", "dashboard.json")))))
	decoder.DisallowUnknownFields()
	var board dashboard
	if err := decoder.Decode(&board); err != nil {
		t.Fatal(err)
	}
	var replaced []string
	for _, v := range board.Templating.List {
		replaced = append(replaced, "$"+v.Name, "x", "${"+v.Name+"}", "x")
	}
	variables := strings.NewReplacer(append(replaced, "$__rate_interval", "5m")...)
	ids, places := map[int]bool{}, map[[2]int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || places[[2]int{p.GridPos.X, p.GridPos.Y}] || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("the panel %q has another's id or place, or is without a description or a query", p.Title)
		}
		ids[p.ID], places[[2]int{p.GridPos.X, p.GridPos.Y}] = true, true
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if _, err := parser.ParseExpr(expr); err != nil || strings.Contains(expr, "$") {
				t.Errorf("%q asks %s: %v", p.Title, target.Expr, err)
			}
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%q asks the data source %+v", p.Title, target.Datasource)
			}
		}
	}
	if len(board.Panels) < 8 {
		t.Errorf("there are %d panels", len(board.Panels))
	}
}
