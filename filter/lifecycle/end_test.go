package lifecycle

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// Envoy frees a filter's configuration once End has returned, so nothing that came of it may go on, whoever ends that.
func TestEndWaitsForThePairs(t *testing.T) {
	for _, overrideFirst := range []bool{true, false} {
		func() {
			p := &Process{Lazy: true}
			raw, _ := structpb.NewStruct(map[string]any{"clusters": []any{"service"}})
			c, err := p.Configure(raw, newFakeEnvoy().host())
			if err != nil {
				t.Fatal(err)
			}
			route, _ := structpb.NewStruct(map[string]any{"path": "/x"})
			o, err := p.NewOverride(route)
			if err != nil {
				t.Fatal(err)
			}
			laid := o.Over(c)
			laid.Gate()
			first, second := o.End, c.End
			if !overrideFirst {
				first, second = second, first
			}
			release, ended := make(chan struct{}), make(chan struct{})
			running := make(chan struct{})
			laid.ends = append(laid.ends, func() { close(running); <-release })
			go first()
			<-running
			go func() {
				second()
				close(ended)
			}()
			select {
			case <-ended:
				t.Errorf("override first: %v: the other side has ended before the pair", overrideFirst)
			case <-time.After(50 * time.Millisecond):
			}
			close(release)
			<-ended
		}()
	}
}
