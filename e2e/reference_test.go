package e2e

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/bed"
)

// asInTheImage starts Envoy with the flags of the image's command, and with the drain time that Envoy has by itself.
func asInTheImage(t *testing.T) option {
	t.Helper()
	command := regexp.MustCompile(`(?m)^CMD (\["--config-path.*\])$`).FindStringSubmatch(readFile(t, filepath.Join(bed.Root(), "Dockerfile")))
	if command == nil {
		t.Fatal("the Dockerfile has no CMD that starts Envoy")
	}
	var flags []string
	if err := json.Unmarshal([]byte(command[1]), &flags); err != nil {
		t.Fatal(err)
	}
	flags = slices.DeleteFunc(flags[2:], func(flag string) bool { return flag == "--disable-hot-restart" }) // the bed has its own
	return func(p *plan) { p.options.Flags, p.options.DrainTime = flags, 600 }
}

// During the notice a client that is let go comes straight back, with one more handshake: the balancer has not noticed yet.
// After the notice nothing else moves it on.
func TestDrainKeepsConnectionsDuringTheNoticeAndMovesThemOnAfterIt(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
			s.setServing(1)
			client := s.client(protocol)
			connections := func() uint64 {
				return s.stats("http.ingress.downstream_cx_total")["http.ingress.downstream_cx_total"]
			}
			call := func() *answer { return s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader("")) }
			call()
			s.post("/healthcheck/fail")
			before := connections()
			for range 25 {
				call()
				if reply := s.probe(client); reply.status != 503 {
					t.Errorf("during the notice the probe is answered with %d, want 503", reply.status)
				}
			}
			if n := connections() - before; n > 0 {
				t.Errorf("50 requests during the notice made %d connections, want 0", n)
			}
			s.post("/drain_listeners?graceful&skip_exit")
			call() // its reply says so
			before = connections()
			call()
			if connections() == before {
				t.Error("after the notice the client goes on with its connection")
			}
		})
	}
}
