package suite

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

func (s *site) await(atMost time.Duration, ready func() error) {
	s.t.Helper()
	mustSucceed(s.t, testbed.WaitFor(s.t.Context(), atMost, ready))
}

// awaitCount waits until a count has reached a number, three times as long as settle, because many things may have to happen.
func (s *site) awaitCount(what string, atLeast int, count func() int) {
	s.t.Helper()
	s.await(3*settle, func() error {
		if n := count(); n < atLeast {
			return fmt.Errorf("%d %s, want %d", n, what, atLeast)
		}
		return nil
	})
}

// awaitStatus waits until requests are answered with a status, and returns the first such answer.
func (s *site) awaitStatus(what string, status int, atMost time.Duration, request func() *answer) (last *answer) {
	s.t.Helper()
	s.await(atMost, func() error {
		if last = request(); last.status != status {
			return fmt.Errorf("%s is answered with %d, want %d", what, last.status, status)
		}
		return nil
	})
	return last
}

// awaitProbe waits until the probe is answered with a status.
func (s *site) awaitProbe(client *http.Client, status int, atMost time.Duration) *answer {
	s.t.Helper()
	return s.awaitStatus("the probe", status, atMost, func() *answer { return s.probe(client) })
}

// awaitPath does the same for a path, with a new connection for each probe.
func (s *site) awaitPath(path string, status int) {
	s.t.Helper()
	s.awaitStatus(path, status, settle, func() *answer { return s.path(path) })
}

// awaitHealthy waits until Envoy's own gauges of the cluster show these hosts. It awaits each host's own state first, because equal
// counts can hide hosts that have swapped places.
func (s *site) awaitHealthy(serving map[*testbed.Backend]bool) {
	s.t.Helper()
	s.awaitHosts(serving)
	healthy := uint64(0)
	for _, up := range serving {
		if up {
			healthy++
		}
	}
	s.awaitGauges("service", healthy, uint64(len(serving)))
}

// awaitHosts waits until each host of the cluster is healthy or not, by admin and not by gauges, which a stats matcher may exclude.
func (s *site) awaitHosts(serving map[*testbed.Backend]bool) {
	s.t.Helper()
	want := map[string]string{}
	for backend, up := range serving {
		want[backend.Address] = map[bool]string{true: "healthy", false: "failed"}[up]
	}
	s.await(settle, func() error {
		hosts, err := s.envoy.Hosts("service")
		if err == nil && !maps.Equal(hosts, want) {
			err = fmt.Errorf("envoy has %v, want %v", hosts, want)
		}
		return err
	})
}

func (s *site) awaitGauges(cluster string, healthy, total uint64) {
	s.t.Helper()
	s.awaitStats("cluster."+cluster+".membership_", map[string]uint64{"healthy": healthy, "total": total})
}

func (s *site) awaitStat(name string, value uint64) {
	s.t.Helper()
	s.awaitStats(name, map[string]uint64{"": value})
}

// awaitStats waits until stats have these values. The keys are their names after the prefix; a stat that Envoy does not have is 0.
func (s *site) awaitStats(prefix string, want map[string]uint64) {
	s.t.Helper()
	s.await(settle, func() error {
		got, err := s.envoy.Stats(prefix)
		for name, value := range want {
			if err == nil && got[prefix+name] != value {
				err = fmt.Errorf("%s%s is %d, want %d", prefix, name, got[prefix+name], value)
			}
		}
		return err
	})
}

// awaitIncrease waits until a counter is greater than now by a number.
func (s *site) awaitIncrease(counter string, by uint64) {
	s.t.Helper()
	before := s.stat(counter)
	s.awaitCount(counter, int(before+by), func() int { return int(s.stat(counter)) })
}

// awaitFreed waits until no more than so many objects are alive. Go frees an object that Envoy has dropped only after some garbage
// collections, and probes cause collections.
func (s *site) awaitFreed(what string, atMost int, count func(testbed.LiveObjects) int) {
	s.t.Helper()
	if err := variant.Can(testbed.CountLiveObjects); err != nil {
		s.t.Logf("live %s are not counted: %v", what, err)
		return
	}
	client := s.client("h2")
	s.await(60*time.Second, func() error {
		for range 500 {
			s.probe(client)
		}
		live, err := variant.LiveObjects(s.envoy)
		if n := count(live); err == nil && n > atMost {
			err = fmt.Errorf("%d %s are alive", n, what)
		}
		return err
	})
}

// mustNotGrow repeats an action, first for a warm-up, and waits until Envoy's memory has grown by at most so many MiB since then.
func (s *site) mustNotGrow(atMost float64, warmUp, times int, action func(i int)) {
	s.t.Helper()
	var before float64
	var began time.Time
	for i := range warmUp + times {
		if i == warmUp {
			before, began = s.residentMiB(), time.Now()
		}
		action(i)
	}
	took := time.Since(began)
	s.await(60*time.Second, func() error {
		if after := s.residentMiB(); after > before+atMost {
			return fmt.Errorf("envoy has grown by %.1f MiB in %d times", after-before, times)
		}
		return nil
	})
	s.t.Logf("%d times in %v; %.1f MiB, then %.1f", times, took, before, s.residentMiB())
}

// setServing makes the first n backends SERVING and the others not, and waits until Envoy has noticed.
func (s *site) setServing(n int) {
	s.t.Helper()
	s.awaitHealthy(s.serve(n))
}

// serve makes the first n backends SERVING and the others not.
func (s *site) serve(n int) map[*testbed.Backend]bool {
	s.t.Helper()
	serving := map[*testbed.Backend]bool{}
	for i, backend := range s.backends {
		s.setBackend(i, i < n)
		serving[backend] = i < n
	}
	return serving
}

// setBackend makes a backend SERVING or not, and waits for nothing.
func (s *site) setBackend(i int, serving bool) {
	s.t.Helper()
	mustSucceed(s.t, s.backends[i].SetServing(serving))
}

func (s *site) stats(prefix string) map[string]uint64 {
	s.t.Helper()
	stats, err := s.envoy.Stats(prefix)
	mustSucceed(s.t, err)
	return stats
}

// stat returns the value of one stat, 0 if Envoy does not have it.
func (s *site) stat(name string) uint64 {
	s.t.Helper()
	return s.stats(name)[name]
}

// awaitSample waits until the gates know Envoy's present state.
func (s *site) awaitSample() {
	s.t.Helper()
	s.stats("healthgate.")
}

// awaitLog waits until Envoy has written a text.
func (s *site) awaitLog(text string, atMost time.Duration) {
	s.t.Helper()
	s.await(atMost, func() error {
		if !strings.Contains(s.envoy.Log(), text) {
			return fmt.Errorf("envoy has not logged %q", text)
		}
		return nil
	})
}

// awaitDetails waits until the access log has an answer with these details.
func (s *site) awaitDetails(details string) {
	s.t.Helper()
	s.awaitLog(`"details":"`+details+`"`, settle)
}

// awaitLines waits until Envoy's log has a text so many times, because a line may follow the answer that it reports. More are an error.
func (s *site) awaitLines(text string, lines int, atMost time.Duration) {
	s.t.Helper()
	s.await(atMost, func() error {
		if n := strings.Count(s.envoy.Log(), text); n < lines {
			return fmt.Errorf("%d lines of envoy's log have %q, want %d", n, text, lines)
		}
		return nil
	})
	s.stats("server.live") // when the main thread answers, it has written all that it had begun to write
	if n := strings.Count(s.envoy.Log(), text); n > lines {
		s.t.Errorf("%d lines of envoy's log have %q, want %d", n, text, lines)
	}
}

// mustNotLog fails if Envoy has written a text.
func (s *site) mustNotLog(text string) {
	s.t.Helper()
	if log := s.envoy.Log(); strings.Contains(log, text) {
		s.t.Errorf("envoy has logged %q:\n%s", text, testbed.Tail(log, 40))
	}
}

func (s *site) post(path string) string {
	s.t.Helper()
	reply, err := s.envoy.Post(path)
	mustSucceed(s.t, err)
	return reply
}

func (s *site) residentMiB() float64 {
	s.t.Helper()
	held, err := s.envoy.ResidentMiB()
	mustSucceed(s.t, err)
	return held
}

// mustEndInOrder ends Envoy by SIGTERM.
func (s *site) mustEndInOrder() {
	s.t.Helper()
	if err := s.envoy.Stop(); err != nil {
		s.t.Errorf("envoy ended with %v on SIGTERM, want 0", err)
	}
}

// hang makes Envoy's main thread hang for some seconds, and returns a channel that gets the result at the end.
func (s *site) hang(seconds int) <-chan error {
	s.t.Helper()
	needs(s.t, testbed.HangMainThread)
	hung := make(chan error, 1)
	go func() { hung <- variant.Hang(s.envoy, seconds) }()
	return hung
}

// whileHanging calls check while Envoy's main thread hangs for some seconds, and returns when it no longer hangs.
func (s *site) whileHanging(seconds int, check func()) {
	s.t.Helper()
	hung := s.hang(seconds)
	check()
	mustSucceed(s.t, <-hung)
}
