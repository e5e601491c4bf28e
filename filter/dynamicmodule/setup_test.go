package dynamicmodule

import (
	"os"
	"testing"

	"healthgate/filter/dynamicmodule/fakeenvoy"
	"healthgate/filter/envoystats"
)

func TestMain(m *testing.M) {
	startSampling = func() {}
	if !fakeenvoy.Start() {
		panic("the module is refused")
	}
	os.Exit(m.Run())
}

// setCluster sets the gauges of a cluster.
func setCluster(name string, healthy, degraded, total uint64) {
	fakeenvoy.Gauge("cluster."+name+".membership_healthy", healthy)
	fakeenvoy.Gauge("cluster."+name+".membership_degraded", degraded)
	fakeenvoy.Gauge("cluster."+name+".membership_total", total)
	fakeenvoy.Gauge("cluster."+name+".membership_excluded", 0)
}

// tick runs the main thread and makes a pass.
func tick() {
	fakeenvoy.TimerFires()
	shared.tick()
}

// startEnvoy begins with an Envoy that serves. Its cluster service has one healthy host, and its cluster other an unhealthy one.
func startEnvoy(t *testing.T) {
	t.Helper()
	fakeenvoy.Reset()
	shared.sampler.clusters.reset()
	shared.pace = pace{}
	fakeenvoy.Gauge("server.live", 1)
	fakeenvoy.Gauge(envoystats.WorkersStarted, 1)
	setCluster("service", 1, 0, 1)
	setCluster("other", 0, 0, 1)
	shared.sampler.makePass(true)
	tick()
}

// reset forgets all clusters, as if Envoy had not started yet.
func (c *clusters) reset() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.reported, c.before, c.final = nil, nil, false
}

func newFilter(t *testing.T, config string) *fakeenvoy.Filter {
	t.Helper()
	f := fakeenvoy.NewFilter(config)
	if f == nil {
		t.Fatalf("%s is refused:\n%s", config, fakeenvoy.Log())
	}
	t.Cleanup(f.Free)
	return f
}

func newRoute(t *testing.T, config string) *fakeenvoy.Route {
	t.Helper()
	r := fakeenvoy.NewRoute(config)
	if r == nil {
		t.Fatalf("%s is refused:\n%s", config, fakeenvoy.Log())
	}
	t.Cleanup(r.Free)
	return r
}

func probe(f *fakeenvoy.Filter) fakeenvoy.Request { return probeOn(f, nil, "/") }

func probeOn(f *fakeenvoy.Filter, route *fakeenvoy.Route, path string) fakeenvoy.Request {
	return f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: path})
}

// call returns a call of grpc.health.v1.Health for all services.
func call(method string) fakeenvoy.Request {
	const allServices = "\x00\x00\x00\x00\x00"
	return fakeenvoy.Request{Method: "POST", Path: "/grpc.health.v1.Health/" + method, ContentType: "application/grpc", Body: allServices}
}

// watch opens a Watch, which ends with the test.
func watch(t *testing.T, f *fakeenvoy.Filter, route *fakeenvoy.Route) *fakeenvoy.Stream {
	r := call("Watch")
	r.Route = route
	s := f.Open(r)
	t.Cleanup(s.Free)
	return s
}

func wantDetails(t *testing.T, r fakeenvoy.Request, want string) {
	t.Helper()
	if r.Details != want {
		t.Errorf("got %d %q, want %q", r.Status, r.Details, want)
	}
}

// wantLines checks that the log has a number of lines that contain a text.
func wantLines(t *testing.T, text string, want int) {
	t.Helper()
	if got := len(fakeenvoy.Lines(text)); got != want {
		t.Errorf("%d lines with %q, want %d, in %s", got, text, want, fakeenvoy.Log())
	}
}

// wantMetrics checks Healthgate's own stats.
func wantMetrics(t *testing.T, f *fakeenvoy.Filter, want map[string]int64) {
	t.Helper()
	for name, value := range want {
		if got := f.Metric(name); got != value {
			t.Errorf("%s is %d, want %d", name, got, value)
		}
	}
}
