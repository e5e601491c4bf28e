package testbed

import (
	"context"
	"io"
	"maps"
	"strconv"
	"sync"
	"time"

	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"fortio.org/log"
)

// Pace is how often a load sends.
type Pace struct {
	Clients   int           // each sends its next request after the reply to its last; 1 if 0
	PerSecond float64       // requests per second of all clients; 0: as many as they can
	For       time.Duration // 0: until Stop
	Requests  int64         // ends after exactly so many; 0: no limit
}

// Load is a series of requests from several clients at the same time. fortio keeps the pace and measures the latency.
type Load struct {
	stop    *periodic.Aborter
	done    chan struct{}
	mutex   sync.Mutex
	answers map[string]int64
	outcome Outcome
	err     error
}

// NoAnswer is the answer of a probe whose connection failed.
const NoAnswer = "no answer"

// Outcome is the result of a load.
type Outcome struct {
	Requests int64
	Answers  map[string]int64 // the number of requests with each answer
	Took     time.Duration
	P50, P99 time.Duration
}

// StartLoad calls send at a pace, with the number of the client from 0, until the load ends. send returns the answer under which the
// request is counted, such as a status.
func StartLoad(p Pace, send func(client int) (answer string)) *Load {
	l := newLoad()
	options := l.runnerOptions(p)
	load := periodic.NewPeriodicRunner(&options) // empties the options
	for client := range load.Options().Runners {
		load.Options().Runners[client] = runner(func() {
			answer := send(client)
			l.mutex.Lock()
			defer l.mutex.Unlock()
			l.answers[answer]++
		})
	}
	go func() {
		defer close(l.done)
		l.finish(load.Run())
	}()
	return l
}

// ProbeOptions are the connection options of StartProbes.
type ProbeOptions struct {
	HTTP2          bool
	NewConnections bool // a new connection for each probe; otherwise each client keeps one
}

// StartProbes sends GET to a URL at a pace. For HTTP/1.1 it uses fortio's own client, which needs less CPU for a probe than Envoy's worker;
// for HTTP/2 it uses Go's client, which needs more. Answers are statuses, or NoAnswer.
func StartProbes(p Pace, url string, o ProbeOptions) *Load {
	l := newLoad()
	options := fhttp.HTTPRunnerOptions{RunnerOptions: l.runnerOptions(p), AllowInitialErrors: true}
	options.HTTPOptions.URL = url
	options.HTTPOptions.NumConnections = options.NumThreads
	options.HTTPOptions.H2 = o.HTTP2
	if o.NewConnections {
		options.HTTPOptions.ConnReuseRange = [2]int{1, 1}
	}
	go func() {
		defer close(l.done)
		result, err := fhttp.RunHTTPTest(&options)
		if l.err = err; err != nil {
			return
		}
		for status, n := range result.RetCodes {
			answer := strconv.Itoa(status)
			if status == fhttp.SocketError {
				answer = NoAnswer
			}
			l.answers[answer] = n
		}
		l.finish(result.RunnerResults)
	}()
	return l
}

func newLoad() *Load {
	log.SetLogLevelQuiet(log.Critical) // fortio's warnings are about requests that are counted here
	return &Load{stop: periodic.NewAborter(), done: make(chan struct{}), answers: map[string]int64{}}
}

func (l *Load) runnerOptions(p Pace) periodic.RunnerOptions {
	options := periodic.RunnerOptions{
		QPS: p.PerSecond, Duration: p.For, NumThreads: max(1, p.Clients), Exactly: p.Requests, Out: io.Discard, Stop: l.stop,
		Percentiles: []float64{50, 99}, Resolution: 10e-6, NoCatchUp: true,
		Uniform: true, // the clients do not all send at the same time
	}
	if p.PerSecond == 0 {
		options.QPS = -1
	}
	if p.For == 0 {
		options.Duration = -1
	}
	return options
}

func (l *Load) finish(r periodic.RunnerResults) {
	percentile := func(i int) time.Duration {
		if r.DurationHistogram.Count == 0 {
			return 0
		}
		return time.Duration(r.DurationHistogram.Percentiles[i].Value * float64(time.Second))
	}
	l.outcome = Outcome{r.DurationHistogram.Count, l.answers, r.ActualDuration, percentile(0), percentile(1)}
}

// Answers returns how many requests have got each answer so far. A load of StartProbes only has them at its end.
func (l *Load) Answers() map[string]int64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return maps.Clone(l.answers)
}

// Stop ends the load after the requests that are under way, and returns the outcome of all requests. It may be called again.
func (l *Load) Stop() (Outcome, error) {
	l.stop.Abort(true)
	return l.Wait()
}

// Wait returns the outcome of a load that ends by itself.
func (l *Load) Wait() (Outcome, error) {
	<-l.done
	return l.outcome, l.err
}

// runner makes a function a runner of fortio.
type runner func()

// Run makes one call.
func (r runner) Run(context.Context, periodic.ThreadID) (bool, string) {
	r()
	return true, ""
}
