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
	if err := testbed.WaitFor(s.t.Context(), atMost, ready); err != nil {
		s.t.Fatal(err)
	}
}

// awaitProbe waits until the probe is answered with a status.
func (s *site) awaitProbe(client *http.Client, status int, atMost time.Duration) *answer {
	s.t.Helper()
	var last *answer
	s.await(atMost, func() error {
		last = s.probe(client)
		if last.status != status {
			return fmt.Errorf("the probe is answered with %d, want %d", last.status, status)
		}
		return nil
	})
	return last
}

func (s *site) awaitPath(path string, status int) {
	s.t.Helper()
	s.await(settle, func() error {
		if reply := s.path(path); reply.status != status {
			return fmt.Errorf("%s is answered with %d, want %d", path, reply.status, status)
		}
		return nil
	})
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
	s.await(settle, func() error {
		stats, err := s.envoy.Stats("cluster." + cluster + ".membership_")
		if err != nil {
			return err
		}
		h, n := stats["cluster."+cluster+".membership_healthy"], stats["cluster."+cluster+".membership_total"]
		if h != healthy || n != total {
			return fmt.Errorf("envoy counts %d healthy of %d, want %d of %d", h, n, healthy, total)
		}
		return nil
	})
}

func (s *site) awaitStat(name string, value uint64) {
	s.t.Helper()
	s.await(settle, func() error {
		if got := s.stat(name); got != value {
			return fmt.Errorf("%s is %d, want %d", name, got, value)
		}
		return nil
	})
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
		if err != nil {
			return err
		}
		if n := count(live); n > atMost {
			return fmt.Errorf("%d %s are alive", n, what)
		}
		return nil
	})
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
		if err := backend.SetServing(i < n); err != nil {
			s.t.Fatal(err)
		}
		serving[backend] = i < n
	}
	return serving
}

func (s *site) stats(prefix string) map[string]uint64 {
	s.t.Helper()
	stats, err := s.envoy.Stats(prefix)
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// stat returns the value of one stat, 0 if Envoy does not have it.
func (s *site) stat(name string) uint64 {
	s.t.Helper()
	return s.stats(name)[name]
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

func (s *site) post(path string) string {
	s.t.Helper()
	reply, err := s.envoy.Post(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

func (s *site) residentMiB() float64 {
	s.t.Helper()
	held, err := s.envoy.ResidentMiB()
	if err != nil {
		s.t.Fatal(err)
	}
	return held
}

// hang makes Envoy's main thread hang for some seconds, and returns a channel that gets the result at the end.
func (s *site) hang(seconds int) <-chan error {
	s.t.Helper()
	needs(s.t, testbed.HangMainThread)
	return variant.Hang(s.envoy, seconds)
}

func (s *site) loseMetrics(lost bool) {
	s.t.Helper()
	if err := variant.LoseMetrics(s.envoy, lost); err != nil {
		s.t.Fatal(err)
	}
}
