package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/examples"
	"healthgate/e2e/testbed"
)

// answers are the statuses of a path: with two, one and no healthy host in each cluster, and while Envoy drains with two.
type answers struct{ both, one, none, drain int }

var (
	oneHost  = answers{200, 200, 503, 503}
	twoHosts = answers{200, 503, 503, 503}
)

// exampleAnswers are the answers of each path, by example. "" is the reference configuration itself.
var exampleAnswers = map[string]map[string]answers{
	"":               {"/": oneHost},
	"admin":          {"/": oneHost},
	"any-of-several": {"/": oneHost},
	"degraded":       {"/": oneHost},
	"details":        {"/": oneHost},
	"drain-ignore":   {"/": {200, 200, 503, 200}},
	"excluded":       {"/": oneHost},
	"hold":           {"/": oneHost},
	"kubelet":        {"/": oneHost, "/readyz": {200, 200, 503, 200}},
	"mark-probes":    {"/": oneHost},
	"percent":        {"/": twoHosts},
	"require":        {"/": oneHost},
	"response":       {"/": {204, 204, 429, 429}},
	"route-override": {"/": oneHost, "/spare": twoHosts},
	"several-gates":  {"/": oneHost, "/cart": oneHost, "/checkout": oneHost},
	"stale-after":    {"/": oneHost},
}

// Each example is started as it is written, except for its addresses, TLS and how often hosts are checked.
func TestExamplesAnswerAsDescribed(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	names, err := examples.Names(filepath.Join(testbed.Root(), "envoy"))
	if err != nil || len(names) != len(exampleAnswers)-1 {
		t.Fatalf("found %v, %v; want %d examples", names, err, len(exampleAnswers)-1)
	}
	for _, name := range append(names, "") {
		t.Run(cmp.Or(name, "reference"), func(t *testing.T) {
			t.Parallel()
			if exampleAnswers[name] == nil {
				t.Fatal("exampleAnswers does not have this example")
			}
			e := startExample(t, name)
			for _, step := range []struct {
				name    string
				serving int
				drain   string
				want    func(answers) int
			}{
				{"both hosts", 2, "ok", func(a answers) int { return a.both }},
				{"one host", 1, "ok", func(a answers) int { return a.one }},
				{"no host", 0, "ok", func(a answers) int { return a.none }},
				{"a drain", 2, "fail", func(a answers) int { return a.drain }},
				{"both hosts again", 2, "ok", func(a answers) int { return a.both }},
			} {
				e.step(step.serving, step.drain)
				for path, want := range exampleAnswers[name] {
					e.await(step.name, path, step.want(want))
				}
			}
			e.further(name)
		})
	}
}

// example is an Envoy that has one.
type example struct {
	*testing.T
	envoy    *testbed.Envoy
	backends []*testbed.Backend
}

// startExample starts an Envoy with an example. Each cluster has the same two hosts.
func startExample(t *testing.T, name string) *example {
	t.Helper()
	bootstrap, err := examples.Read(filepath.Join(testbed.Root(), "envoy"), name, variant.Name())
	if err != nil {
		t.Fatal(err)
	}
	config := testbed.Tree(bootstrap)
	dir, err := os.MkdirTemp("", "e2e") // a short path, since a socket's is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	own := testbed.Healthgate + ".typed_config.plugin_config.value"
	if variant.Name() == "module" {
		own = testbed.Healthgate + ".typed_config.filter_config.value"
	}
	if config.Get("admin.address.pipe") != nil {
		socket := filepath.Join(dir, "admin.sock")
		config.Set("admin.address.pipe.path", socket)
		config.Set(own+".admin.address", "unix://"+socket)
	} else {
		config.Set("admin.address.socket_address.port_value", 0)
	}
	for i := range config.Get("static_resources.listeners").([]any) {
		listener := fmt.Sprint("static_resources.listeners.", i)
		config.Set(listener+".address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
		config.Delete(listener + ".filter_chains.0.transport_socket")
	}
	if config.Get(own+".hold") != nil {
		config.Set(own+".hold", map[string]any{"healthy_after": "0.5s", "unhealthy_after": "0.5s"})
	}
	e := &example{T: t}
	var hosts []any
	for range 2 {
		backend, err := testbed.StartBackend(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(backend.Kill)
		e.backends = append(e.backends, backend)
		hosts = append(hosts, testbed.Endpoint(backend.Address))
	}
	for i := range config.Get("static_resources.clusters").([]any) {
		cluster := fmt.Sprint("static_resources.clusters.", i)
		config.Set(cluster+".load_assignment.endpoints.0.lb_endpoints", hosts)
		for _, key := range []string{"interval", "no_traffic_interval", "no_traffic_healthy_interval"} {
			config.Set(cluster+".health_checks.0."+key, "0.1s")
		}
		config.Set(cluster+".health_checks.0.interval_jitter", "0.01s")
	}
	if variant.Name() == "module" {
		e.envoy, err = testbed.StartEnvoy(t.Context(), dir, config, variant.Options(testbed.Options{}))
	} else {
		e.envoy, err = testbed.Start(t.Context(), variant, dir, config, testbed.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.envoy.Kill)
	return e
}

// step sets how many hosts serve, and whether Envoy fails its health checks: drain is "fail" or "ok".
func (e *example) step(serving int, drain string) {
	e.Helper()
	for i, backend := range e.backends {
		if err := backend.SetServing(i < serving); err != nil {
			e.Fatal(err)
		}
	}
	if _, err := e.envoy.Post("/healthcheck/" + drain); err != nil {
		e.Fatal(err)
	}
}

// get requests a path, with an accept header if accept is not empty.
func (e *example) get(path, accept string) (status int, body []byte, err error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+e.envoy.Ingress+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if accept != "" {
		request.Header.Set("accept", accept)
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer reply.Body.Close()
	body, err = io.ReadAll(reply.Body)
	return reply.StatusCode, body, err
}

func (e *example) await(when, path string, want int) {
	e.Helper()
	err := testbed.WaitFor(e.Context(), settle, func() error {
		status, _, err := e.get(path, "")
		if err == nil && status != want {
			err = fmt.Errorf("%s is answered with %d, want %d", path, status, want)
		}
		return err
	})
	if err != nil {
		e.Fatalf("with %s: %v; envoy's log ends:\n%s", when, err, testbed.Tail(e.envoy.Log(), 20))
	}
}

// further checks what an example changes besides statuses. Both hosts are healthy.
func (e *example) further(name string) {
	e.Helper()
	switch name {
	case "admin", "details":
		var report struct {
			Status string
			Checks map[string]any
		}
		if _, body, err := e.get("/", "application/json"); err != nil || json.Unmarshal(body, &report) != nil || report.Status != "pass" || len(report.Checks) == 0 {
			e.Errorf("%v: the report is %s", err, body)
		}
	case "":
		if variant.Can(testbed.GRPC) != nil {
			return
		}
		conn, err := grpc.NewClient("passthrough:///"+e.envoy.Ingress, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			e.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(e.Context(), settle)
		defer cancel()
		reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, asked("router.Router"))
		if err != nil || reply.Status != serving {
			e.Errorf("Check: got %v, %v", reply, err)
		}
	case "route-override", "several-gates", "kubelet": // each gate has metrics of its own
		prefixes := map[string][]string{
			"route-override": {"default", "spare"}, "several-gates": {"default", "cart", "checkout"}, "kubelet": {"balancer", "kubelet"},
		}[name]
		err := testbed.WaitFor(e.Context(), settle, func() error { // an answer may be counted after it is sent
			stats, err := e.envoy.Stats("healthgate.")
			for _, prefix := range prefixes {
				if err == nil && stats["healthgate."+prefix+".ok"] == 0 {
					err = fmt.Errorf("healthgate.%s.ok is not among %v", prefix, slices.Sorted(maps.Keys(stats)))
				}
			}
			return err
		})
		if err != nil {
			e.Error(err)
		}
	}
}
