package golang

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/lifecycle"
	"healthgate/filter/version"
)

// envoyLog is Envoy's log.
var envoyLog struct {
	sync.Mutex
	lines []string
}

type fakeCAPI struct{}

func (fakeCAPI) Log(_ api.LogType, message string) {
	envoyLog.Lock()
	defer envoyLog.Unlock()
	envoyLog.lines = append(envoyLog.lines, message)
}
func (fakeCAPI) LogLevel() api.LogType { return api.Info }

func TestMain(m *testing.M) {
	api.SetCommonCAPI(fakeCAPI{})
	m.Run()
}

// fakeEnvoy is Envoy's side of a configuration, with its stats.
type fakeEnvoy struct {
	mutex   sync.Mutex
	stats   map[string]*stat
	defined atomic.Int64
}

type stat struct {
	value atomic.Uint64
	gone  atomic.Bool
}

// calls counts the calls into Envoy by a probe.
var calls atomic.Int64

func (s *stat) check() {
	calls.Add(1)
	if s.gone.Load() {
		panic("request has been finished") // like the SDK once Envoy has destroyed the configuration
	}
}
func (s *stat) Get() uint64         { s.check(); return s.value.Load() }
func (s *stat) Record(value uint64) { s.check(); s.value.Store(value) }
func (s *stat) Increment(by int64)  { s.check(); s.value.Add(uint64(by)) }

func newFakeEnvoy(healthy uint64) *fakeEnvoy {
	e := &fakeEnvoy{stats: map[string]*stat{}}
	e.stat("server.live").Record(1)
	e.stat("cluster.service.membership_healthy").Record(healthy)
	e.stat("cluster.service.membership_total").Record(1)
	return e
}

func (e *fakeEnvoy) stat(name string) *stat {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.stats[name] == nil {
		e.stats[name] = &stat{}
	}
	return e.stats[name]
}

func (e *fakeEnvoy) DefineGaugeMetric(name string) api.GaugeMetric     { return e.define(name) }
func (e *fakeEnvoy) DefineCounterMetric(name string) api.CounterMetric { return e.define(name) }

func (e *fakeEnvoy) define(name string) *stat {
	e.defined.Add(1)
	return e.stat(name)
}

func (e *fakeEnvoy) setGone(gone bool) {
	for _, s := range e.stats {
		s.gone.Store(gone)
	}
}

// request is the headers of a request. Any other method of the map panics.
type request struct {
	api.RequestHeaderMap
	method, path, contentType, accept string
}

func (r *request) GetRaw(name string) string {
	calls.Add(1)
	switch name {
	case ":method":
		return r.method
	case ":path":
		return r.path
	case "accept":
		return r.accept
	}
	return r.contentType
}

// callbacks record the replies of one stream.
type callbacks struct {
	api.FilterCallbackHandler
	decoder decoder
	replies []string // their details
	last    sent
	gone    bool
}

func (c *callbacks) DecoderFilterCallbacks() api.DecoderFilterCallbacks {
	c.decoder.stream = c
	return &c.decoder
}

type decoder struct {
	api.DecoderFilterCallbacks
	stream *callbacks
}

// sent is a reply to Envoy.
type sent struct {
	status     int
	body       string
	headers    map[string][]string
	grpcStatus int64
}

func (d *decoder) SendLocalReply(status int, body string, headers map[string][]string, grpcStatus int64, details string) {
	calls.Add(1)
	if d.stream.gone {
		panic("request has been finished")
	}
	d.stream.replies = append(d.stream.replies, details)
	d.stream.last = sent{status, body, headers, grpcStatus}
}

func typed(t testing.TB, text string) *anypb.Any {
	t.Helper()
	return pack(t, &xds.TypedStruct{Value: parseStruct(t, text)})
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func parseStruct(t testing.TB, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustParse(t testing.TB, configured *anypb.Any, envoy api.ConfigCallbackHandler) any {
	t.Helper()
	parsed, err := Parser{}.Parse(configured, envoy)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := parsed.(api.Config); ok {
		t.Cleanup(c.Destroy)
	}
	return parsed
}

// ask sends a probe of a path without a body, and returns the details of its reply, "" for none.
func ask(configuration any, path string) string {
	cb := &callbacks{}
	NewStream(configuration, cb).DecodeHeaders(&request{method: "GET", path: path}, true)
	return strings.Join(cb.replies, " ")
}

func newConfigured(t testing.TB, healthy uint64) (*fakeEnvoy, any) {
	t.Helper()
	envoy := newFakeEnvoy(healthy)
	return envoy, mustParse(t, typed(t, `{"clusters": ["service"]}`), envoy)
}

// play sends a request: h are its headers, d a part of its body and t its trailers; a capital ends it.
func play(stream api.StreamFilter, r *request, parts string) (statuses []api.StatusType) {
	for _, part := range parts {
		switch part {
		case 'h', 'H':
			statuses = append(statuses, stream.DecodeHeaders(r, part == 'H'))
		case 'd', 'D':
			statuses = append(statuses, stream.DecodeData(nil, part == 'D'))
		case 'T':
			statuses = append(statuses, stream.DecodeTrailers(nil))
		}
	}
	return statuses
}

func TestProbeIsAnsweredOnceItHasEnded(t *testing.T) {
	_, c := newConfigured(t, 1)
	for _, test := range []struct {
		name, method, parts string
		want                []api.StatusType
		reply               string
	}{
		{"headers only", "GET", "H", []api.StatusType{api.LocalReply}, "healthgate_ok"},
		{"a body", "GET", "hdD", []api.StatusType{api.StopAndBufferWatermark, api.StopNoBuffer, api.LocalReply}, "healthgate_ok"},
		{"a body and trailers", "GET", "hdT", []api.StatusType{api.StopAndBufferWatermark, api.StopNoBuffer, api.LocalReply}, "healthgate_ok"},
		{"not a probe", "POST", "hdDT", []api.StatusType{api.Continue, api.Continue, api.Continue, api.Continue}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cb := &callbacks{}
			if got := play(NewStream(c, cb), &request{method: test.method, path: "/"}, test.parts); !slices.Equal(got, test.want) {
				t.Errorf("got statuses %v, want %v", got, test.want)
			}
			if got := strings.Join(cb.replies, " "); got != test.reply {
				t.Errorf("got replies %q, want %q", got, test.reply)
			}
		})
	}
}

func TestReplyIsComplete(t *testing.T) {
	for healthy, want := range map[uint64]sent{1: {200, "ok\n", nil, 0}, 0: {503, "unavailable\n", nil, 14}} {
		_, c := newConfigured(t, healthy)
		cb := &callbacks{}
		play(NewStream(c, cb), &request{method: "GET", path: "/"}, "H")
		got := cb.last
		if got.status != want.status || got.body != want.body || got.grpcStatus != want.grpcStatus || got.headers["cache-control"] == nil {
			t.Errorf("%d healthy: got %+v", healthy, got)
		}
	}
}

func TestReportNeedsAClientThatAcceptsJSONAndReadsBodies(t *testing.T) {
	envoy := newFakeEnvoy(1)
	c := mustParse(t, typed(t, `{"clusters": ["service"], "response": {"details": true}}`), envoy)
	for _, test := range []struct {
		name, contentType, accept string
		report                    bool
	}{{"accepts JSON", "", "application/json", true}, {"accepts anything", "", "*/*", false}, {"gRPC", "application/grpc",
		"application/json", false}} {
		t.Run(test.name, func(t *testing.T) {
			for _, parts := range []string{"H", "hD"} {
				cb := &callbacks{}
				play(NewStream(c, cb), &request{method: "GET", path: "/", contentType: test.contentType, accept: test.accept}, parts)
				if got := strings.HasPrefix(cb.last.body, "{"); got != test.report {
					t.Errorf("%s: got %q", parts, cb.last.body)
				}
			}
		})
	}
}

// Envoy drops a merged configuration also while its filter and route live.
func TestOnlyFilterAndRouteHaveDestroy(t *testing.T) {
	_, parent := newConfigured(t, 1)
	child := mustParse(t, typed(t, `{"stat_prefix": "route"}`), nil)
	merged := Parser{}.Merge(parent, child)
	ask(merged, "/")
	if _, ends := merged.(api.Config); ends {
		t.Error("a merged configuration has Destroy")
	}
	if (Parser{}).Merge(parent, child) != merged {
		t.Error("the same pair merges to another configuration")
	}
	child.(api.Config).Destroy()
	if (Parser{}).Merge(parent, child) == merged {
		t.Error("a destroyed route keeps its pairs")
	}
	again := mustParse(t, typed(t, `{}`), nil)
	pair := Parser{}.Merge(parent, again)
	parent.(api.Config).Destroy()
	if (Parser{}).Merge(parent, again) == pair {
		t.Error("a destroyed filter keeps its pairs")
	}
}

func TestPanicFailsTheProbe(t *testing.T) {
	loadAgain()
	envoy, c := newConfigured(t, 1)
	envoy.setGone(true)
	for _, parts := range []string{"H", "hD", "hT"} {
		cb := &callbacks{}
		statuses := play(NewStream(c, cb), &request{method: "GET", path: "/"}, parts)
		if statuses[len(statuses)-1] != api.LocalReply || !slices.Equal(cb.replies, []string{"healthgate_error"}) {
			t.Errorf("got %v and %v, want a failure", statuses, cb.replies)
		}
	}
	// It is counted if it can be.
	envoy.setGone(false)
	envoy.stat("server.live").gone.Store(true)
	reply := ask(c, "/")
	if got := envoy.stat("healthgate.default.failed_error").Get(); got != 1 || reply != "healthgate_error" {
		t.Errorf("got failed_error %d and %s, want 1 and a failure", got, reply)
	}
	lines := linesWith("healthgate: panic in a probe, answered with 503: ")
	if len(lines) != 1 {
		t.Errorf("got %d lines for panics within a minute, want 1: %v", len(lines), lines)
	}
}

// Without a client no reply can be sent; the SDK recovers.
func TestPanicOfAReplyReachesTheSDK(t *testing.T) {
	_, c := newConfigured(t, 1)
	defer func() {
		if recover() == nil {
			t.Error("the panic was swallowed")
		}
	}()
	NewStream(c, &callbacks{gone: true}).DecodeHeaders(&request{method: "GET", path: "/"}, true)
}

// For any headers a stream is answered or continues, and only probes are answered.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/", "", "application/json")
	f.Add("HEAD", "/?x=1", "", "*/*")
	f.Add("POST", "/", "application/grpc", "")
	f.Add("POST", "/", "application/grpc-web", "")
	f.Add("GET", "/\x00?\xff", "", ",,;application/json;;")
	envoy := newFakeEnvoy(1)
	c := mustParse(f, typed(f, `{"clusters": ["service"], "response": {"details": true}}`), envoy)
	f.Fuzz(func(t *testing.T, method, path, contentType, accept string) {
		cb := &callbacks{}
		status := NewStream(c, cb).DecodeHeaders(&request{nil, method, path, contentType, accept}, true)
		before, _, _ := strings.Cut(path, "?")
		want := api.Continue
		grpc := contentType == "application/grpc" || strings.HasPrefix(contentType, "application/grpc+")
		if (method == "GET" || method == "HEAD" || method == "POST" && grpc) && before == "/" {
			want = api.LocalReply
		}
		if status != want || (len(cb.replies) == 1) != (want == api.LocalReply) {
			t.Errorf("%q %q %q %q: got %v with replies %v", method, path, contentType, accept, status, cb.replies)
		}
	})
}

func TestNewStreamAlwaysReturnsAFilter(t *testing.T) {
	for _, parsed := range []any{nil, "a string", override{}} {
		cb := &callbacks{}
		s := NewStream(parsed, cb)
		if s == nil {
			t.Fatalf("%v: got no filter", parsed)
		}
		if got := s.DecodeHeaders(&request{method: "GET", path: "/"}, true); got != api.Continue {
			t.Errorf("%v: got %v, want Continue", parsed, got)
		}
	}
}

func TestParseReadsTypedStructAndStruct(t *testing.T) {
	text := `{"clusters": ["service"]}`
	for _, c := range []*anypb.Any{typed(t, text), pack(t, &udpa.TypedStruct{Value: parseStruct(t, text)}), pack(t, parseStruct(t, text))} {
		if _, ok := mustParse(t, c, newFakeEnvoy(1)).(configuration); !ok {
			t.Errorf("%s was not read", c.GetTypeUrl())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	broken := typed(t, `{"clusters": ["service"]}`)
	broken.Value = []byte("not protobuf")
	for name, test := range map[string]struct {
		configured *anypb.Any
		want       string
	}{
		"nothing": {&anypb.Any{}, "healthgate: plugin_config: is required, with at least clusters: [service]"},
		"another type": {pack(t, &durationpb.Duration{}),
			"healthgate: plugin_config: google.protobuf.Duration is another type; write it as xds.type.v3.TypedStruct or google.protobuf.Struct"},
		"unknown type": {&anypb.Any{TypeUrl: "type.googleapis.com/no.Such"}, "healthgate: plugin_config: no.Such can't be read"},
		"not protobuf": {broken, "healthgate: plugin_config: xds.type.v3.TypedStruct can't be read"},
		"bad keys":     {typed(t, `{"clusters": ["a"], "paht": "/"}`), "healthgate: paht: unknown key, did you mean path?"},
		"empty":        {pack(t, &xds.TypedStruct{}), "healthgate: clusters: is required"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := Parser{}.Parse(test.configured, newFakeEnvoy(1))
			if parsed != nil || err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, %v, want %s", parsed, err, test.want)
			}
		})
	}
}

func TestPanicWhileParsingIsAnError(t *testing.T) {
	envoy := newFakeEnvoy(1)
	envoy.setGone(true)
	if parsed, err := (Parser{}).Parse(typed(t, `{"clusters": ["service"]}`), envoy); parsed != nil || err == nil {
		t.Errorf("got %v, %v, want an error", parsed, err)
	}
}

func TestRouteOverridesTheFilter(t *testing.T) {
	_, parent := newConfigured(t, 1)
	merged := Parser{}.Merge(parent, mustParse(t, typed(t, `{"path": "/readyz", "clusters": ["service", "unknown"]}`), nil))
	narrower := Parser{}.Merge(merged, mustParse(t, typed(t, `{"path": "/livez", "require": "any"}`), nil))
	for _, test := range []struct {
		name          string
		configuration any
		path, reply   string
	}{
		{"the filter's path by the filter", parent, "/", "healthgate_ok"}, {"the route's path by the filter", parent, "/readyz", ""},
		{"the filter's path by the route", merged, "/", ""}, {"the route's path by the route", merged, "/readyz", "healthgate_cluster_empty"},
		{"a narrower level", narrower, "/livez", "healthgate_ok"},
		{"it does not fit", Parser{}.Merge(parent, mustParse(t, typed(t, `{"require": 2}`), nil)), "/", "healthgate_error"},
		{"not ours", Parser{}.Merge(parent, "a string"), "/", "healthgate_error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ask(test.configuration, test.path); got != test.reply {
				t.Errorf("got %q, want %q", got, test.reply)
			}
		})
	}
}

// Envoy keeps an entry for each definition of a stat for as long as the filter's configuration lives. The workers define them.
func TestRouteOverridesDefineNoStatTwice(t *testing.T) {
	envoy, parsed := newConfigured(t, 1)
	probeRoutes := func(body string) int64 {
		var workers sync.WaitGroup
		for i := range 10 {
			text := fmt.Sprintf(`{"stat_prefix": "route", "response": {"healthy": {"body": "%s%d"}}}`, body, i)
			route := mustParse(t, typed(t, text), nil)
			workers.Go(func() { ask(Parser{}.Merge(parsed, route), "/") })
		}
		workers.Wait()
		return envoy.defined.Load()
	}
	if before, now := probeRoutes("a"), probeRoutes("b"); now != before {
		t.Errorf("ten overrides define %d stats again", now-before)
	}
}

// On the main thread Envoy can refuse a route's configuration; on a worker it would abort.
func TestBrokenRouteIsRefusedOnTheMainThreadAndFailsItsProbesElsewhere(t *testing.T) {
	bad := typed(t, `{"path": "/readyz", "paht": "/"}`)
	main, worker := make(chan error), make(chan any)
	onThread := func(f func()) { go func() { runtime.LockOSThread(); f() }() }
	var parent any
	onThread(func() {
		_, parent = newConfigured(t, 1)
		_, err := Parser{}.Parse(bad, nil)
		onThread(func() {
			child, err := Parser{}.Parse(bad, nil)
			if err != nil {
				t.Errorf("on a worker: got %v, want none", err)
			}
			worker <- child
		})
		child := <-worker
		merged := Parser{}.Merge(parent, child)
		for path, want := range map[string]string{"/": "healthgate_error", "/readyz": "healthgate_error", "/x": ""} {
			if got := ask(merged, path); got != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
		}
		main <- err
	})
	if err := <-main; err == nil || err.Error() != "healthgate: paht: unknown key, did you mean path?" {
		t.Errorf("on the main thread: got %v, want an error", err)
	}
}

// linesWith returns the lines of Envoy's log that start with a text.
func linesWith(start string) []string {
	envoyLog.Lock()
	defer envoyLog.Unlock()
	return slices.DeleteFunc(slices.Clone(envoyLog.lines), func(line string) bool { return !strings.HasPrefix(line, start) })
}

// loadAgain forgets all that was logged once per process.
func loadAgain() {
	logVersion, warnOfVersion, process = sync.Once{}, sync.Once{}, lifecycle.Process{}
	envoyLog.Lock()
	defer envoyLog.Unlock()
	envoyLog.lines = nil
}

func TestVersionIsLoggedOnce(t *testing.T) {
	loadAgain()
	for range 3 {
		newConfigured(t, 1)
	}
	if got := linesWith("healthgate: " + version.String() + ", Go plugin for Envoy 1.39.1"); len(got) != 1 {
		t.Errorf("got %q, want one line", got)
	}
}

func TestAnotherEnvoyIsLoggedOnce(t *testing.T) {
	loadAgain()
	for _, test := range []struct {
		name   string
		commit uint64
		want   int
	}{{"the gauge is rejected", 0, 0}, {"the right one", 11893200, 0}, {"another", 0x123456, 1}, {"another again", 0x123457, 1}} {
		t.Run(test.name, func(t *testing.T) {
			envoy := newFakeEnvoy(1)
			envoy.stat("server.version").Record(test.commit)
			mustParse(t, typed(t, `{"clusters": ["service"]}`), envoy)
			if got := linesWith("healthgate: this plugin was built for Envoy 1.39.1 (commit b579d0)"); len(got) != test.want {
				t.Errorf("got %d warnings, want %d", len(got), test.want)
			}
		})
	}
}

// The SDK's source has the words of its panics.
func TestIsGoneKnowsThePanicsOfTheSDK(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/envoy").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(strings.TrimSpace(string(dir)) + "/contrib/golang/filters/http/source/go/pkg/http/type.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"errRequestFinished", "errFilterDestroyed"} {
		words := regexp.MustCompile(name + ` += "(.*)"`).FindSubmatch(text)
		if words == nil || !(envoy{}).IsGone(string(words[1])) {
			t.Errorf("%s is %q, which IsGone does not know", name, words)
		}
	}
	if (envoy{}).IsGone("index out of range") || (envoy{}).IsGone(os.ErrClosed) {
		t.Error("IsGone is true for another panic")
	}
}

// The plugin links only the SDK, protobuf and the xDS types.
func TestPluginLinksFewModules(t *testing.T) {
	allowed := []string{
		"healthgate", "google.golang.org/protobuf/", "github.com/envoyproxy/envoy/contrib/golang/", "github.com/cncf/xds/go/",
		// These are linked by the xDS types.
		"github.com/envoyproxy/protoc-gen-validate/validate", "cel.dev/expr", "google.golang.org/genproto/googleapis/",
	}
	for _, dependency := range dependencies(t, "healthgate") {
		if !slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(dependency, prefix) }) {
			t.Errorf("the plugin links %s", dependency)
		}
	}
}

// Imports only point downwards, only envoystats and the variants know Envoy, and no variant is known to another package.
func TestPackagesImportOnlyEarlierOnes(t *testing.T) {
	order := []string{"version", "policy", "config", "envoystats", "gate", "adminsource", "lifecycle"}
	for i, name := range append(order, "golang", "dynamicmodule") {
		allowed := order[:min(i, len(order))]
		for _, dependency := range dependencies(t, "healthgate/filter/"+name) {
			below, ours := strings.CutPrefix(dependency, "healthgate/filter/")
			switch {
			case below == name, slices.Contains(allowed, below):
			case ours, strings.HasPrefix(dependency, "healthgate"), name == "policy",
				name != "golang" && strings.Contains(dependency, "envoy"):
				t.Errorf("%s imports %s", name, dependency)
			}
		}
	}
}

// dependencies returns the packages that a package links, without the standard library.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Fields(string(out))
	if len(found) < 1 {
		t.Fatalf("go list found only %v", found)
	}
	return found
}

// factory is a variable, as in the SDK, so that the compiler does not know the function.
var factory api.StreamFilterFactory = NewStream

// A probe reads its method and path, a cluster's three gauges and server.live, and writes one counter and the reply.
func TestProbeCallsEnvoyEightTimesAndAllocatesOnlyItsStream(t *testing.T) {
	_, config := newConfigured(t, 1)
	get, cb := &request{method: "GET", path: "/"}, &callbacks{}
	probe := func() {
		cb.replies = cb.replies[:0]
		factory(config, cb).DecodeHeaders(get, true)
	}
	probe() // the first one is a change, and logged
	calls.Store(0)
	probe()
	if n := calls.Load(); n != 8 {
		t.Errorf("a probe calls Envoy %d times, want 8", n)
	}
	if allocated := testing.AllocsPerRun(1000, probe); allocated != 1 {
		t.Errorf("a probe allocates %v times, want 1", allocated)
	}
}
