package lifecycle

import (
	"testing"
	"time"
)

// Envoy frees a filter's configuration once End has returned, so nothing that came of it may go on, whoever ends that.
func TestEndWaitsForThePairs(t *testing.T) {
	for _, overrideFirst := range []bool{true, false} {
		func() {
			p := &Process{Lazy: true}
			c := configure(t, p, `{"clusters": ["service"]}`, newFakeEnvoy().host())
			o := override(t, p, `{"path": "/x"}`)
			laid := o.MergeInto(c)
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
