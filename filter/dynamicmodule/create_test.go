package dynamicmodule

import (
	"fmt"
	"testing"

	"healthgate/filter/dynamicmodule/fakeenvoy"
)

// What an update by RDS or LDS costs per route override and per filter chain, besides Envoy's own work: an update brings equal
// configurations, or some that differ.
func BenchmarkConfigurations(b *testing.B) {
	const equal = `{"clusters": ["service"], "path": "/ready"}`
	distinct := func(i int) string {
		return fmt.Sprintf(`{"clusters": ["service%d"], "path": "/ready"}`, i)
	}
	route := func(config string) func() { return fakeenvoy.NewRoute(config).Free }
	filter := func(config string) func() { return fakeenvoy.NewFilter(config).Free }
	for _, bench := range []struct {
		name   string
		create func(config string) (destroy func())
		config func(i int) string
	}{
		{"route/equal", route, func(int) string { return equal }},
		{"route/distinct", route, distinct},
		{"filter/equal", filter, func(int) string { return equal }},
		{"filter/distinct", filter, distinct},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			const update = 100 // configurations; the next update replaces them
			var last, next []func()
			for i := 0; b.Loop(); i++ {
				if next = append(next, bench.create(bench.config(i))); len(next) == update {
					for _, destroy := range last {
						destroy()
					}
					last, next = next, last[:0]
				}
			}
			for _, destroy := range append(last, next...) {
				destroy()
			}
		})
	}
}
