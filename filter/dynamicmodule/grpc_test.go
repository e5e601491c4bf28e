package dynamicmodule

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"healthgate/filter/dynamicmodule/fakeenvoy"
	"healthgate/filter/envoystats"
)

// exceedsLimits reports whether a message that protobuf accepts has a name that is too long, or too many nested groups.
func exceedsLimits(t *testing.T, message []byte) bool {
	const maxName, maxGroups = 2048, 100
	depth := 0
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			t.Fatalf("protobuf accepts %q", message)
		}
		message = message[n:]
		switch kind {
		case protowire.StartGroupType:
			if depth++; depth > maxGroups {
				return true
			}
			continue
		case protowire.EndGroupType:
			depth--
			continue
		}
		n = protowire.ConsumeFieldValue(number, kind, message)
		if value, _ := protowire.ConsumeBytes(message); kind == protowire.BytesType && number == 1 && depth == 0 && len(value) > maxName {
			return true
		}
		message = message[n:]
	}
	return false
}

// wantStatus returns the gRPC status of a Check by a gate with the service a.B, by protobuf's own parser.
func wantStatus(t *testing.T, request string) string {
	const ok, invalid, notFound, unimplemented = "0", "3", "5", "12"
	if len(request) > 0 && request[0] == 1 {
		return unimplemented
	}
	if len(request) < 5 || request[0] != 0 || len(request)-5 > 65536 {
		return invalid
	}
	if uint64(binary.BigEndian.Uint32([]byte(request[1:]))) != uint64(len(request)-5) {
		return invalid
	}
	message := &grpc_health_v1.HealthCheckRequest{}
	if proto.Unmarshal([]byte(request[5:]), message) != nil || exceedsLimits(t, []byte(request[5:])) {
		return invalid
	}
	if message.Service == "" || message.Service == "a.B" {
		return ok
	}
	return notFound
}

// framed returns a message with gRPC's prefix.
func framed(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

func FuzzCheck(f *testing.F) {
	for _, request := range []string{
		"", "\x00", "\x00\x00\x00\x00", "\x00\x00\x00\x00\x01", "\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x01\x00\x00\x00\x00", "\x01\x00\x00\x00\x09", "\x02\x00\x00\x00\x00", // compressed, or no such compression
		"\x01\x00\x01\x00\x01" + strings.Repeat("\x10", 65537),                                 // also too large
		"\x00\xff\xff\xff\xff", "\x00\xff\xff\xff\xff\x01\x02\x03", "\x00\x00\x01\x00\x01\x10", // too large
	} {
		f.Add(request)
	}
	for _, message := range []string{
		"", "\x0a\x03a.B", "\x0a\x01b", "\x0a\x01b\x0a\x00", "\x0a\x00\x0a\x01b", // the last name counts
		"\x08\x01", "\x10\x01", "\x15\x01\x02\x03\x04", "\x11\x01\x02\x03\x04\x05\x06\x07\x08", "\x12\x02\x08\x08\x0a\x01b", // unknown fields
		"\x0a", "\x0a\x01", "\x0a\x09", "\x15\x01\x02\x03", "\x11\x01\x02", "\x80\x80", "\x12\x81\x80\x80\x80\x10\x00", // cut off
		"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", // 64 bits, and more
		"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x01",
		"\x00\x01", "\xf8\xff\xff\xff\x0f\x01", "\x80\x80\x80\x80\x10\x01", // field 0, the largest field number, and one more
		"\x13\x14", "\x13\x0a\x03a.B\x14", "\x13\x1b\x08\x01\x1c\x14", "\x13\x1c", "\x13", "\x14", "\x0b\x0c", // groups
		"\x13\x0a\x01\xff\x14", "\x13\x0a\x01b\x14", "\x13\x1b\x14\x1c",
		"\x13\xf8\xff\xff\xff\x3f\x01\x14", "\x13\x80\x80\x80\x80\x40\x01\x14", "\x13\x80\x80\x80\x80\x80\x01\x01\x14",
		strings.Repeat("\x13", 100) + strings.Repeat("\x14", 100), strings.Repeat("\x13", 101) + strings.Repeat("\x14", 101),
		"\x0a\x02\xc3\xbc", "\x0a\x04\xf4\x8f\xbf\xbf", "\x0a\x01\xc3", "\x0a\x02\xc3b", "\x0a\x01\x80", "\x0a\x02\xbe\xbe", "\x0a\x02\xc1\xbf",
		"\x0a\x03\xed\xa0\x80", "\x0a\x04\xf4\x90\x80\x80", "\x0a\x04\xfc\x80\x80\x80", "\x0a\x01\xff\x0a\x00", "\x0a\x02\xc3\xbc\x0a\x01\xc3",
		"\x0e", "\x0f", "\x8a\x00\x03a.B", // wire types that do not exist; a tag in more bytes than it needs
		strings.Repeat("\x10\x01", 32768), strings.Repeat("\x10\x01", 32769), "\x12\x80\x40" + strings.Repeat("u", 8192) + "\x0a\x03a.B",
		"\x0a\x80\x10" + strings.Repeat("n", 2048), "\x0a\x81\x10" + strings.Repeat("n", 2049),
		"\x0a\x81\x10" + strings.Repeat("n", 2049) + "\x0a\x00",
	} {
		f.Add(framed(message))
	}
	fakeenvoy.Reset()
	fakeenvoy.Gauge("server.live", 1)
	fakeenvoy.Gauge(envoystats.WorkersStarted, 1)
	setCluster("service", 1, 0, 1)
	fakeenvoy.TimerFires()
	filter := fakeenvoy.NewFilter(`{"clusters": ["service"], "grpc_services": ["a.B"]}`)
	f.Cleanup(filter.Free)
	f.Fuzz(func(t *testing.T, request string) {
		r := filter.Ask(fakeenvoy.Request{Method: "POST", Path: "/grpc.health.v1.Health/Check", ContentType: "application/grpc", Body: request})
		status := r.Trailers
		if status == "" {
			status = r.Headers
		}
		if want := "grpc-status: " + wantStatus(t, request) + "\n"; !strings.HasSuffix(status, want) {
			t.Errorf("%q: got %q, want %q", request, status, want)
		}
	})
}

func TestWatchSendsEachChange(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"], "grpc_services": ["a.B"]}`)
	s := watch(t, f, nil)
	want := framed("\x08\x01")
	for i := range 6 {
		setCluster("service", uint64(i%2), 0, 1)
		tick()
		s.Run()
		want += framed("\x08" + string(rune(2-i%2)))
	}
	if got := s.Request().Data; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wantMetrics(t, f, metrics{"default.grpc_watchers": 1, "default.grpc_watch": 1})
}

func TestWatchersAreLimitedByConfiguration(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"], "grpc_services": ["a.B"], "grpc_max_watchers": 2}`)
	routes := []*fakeenvoy.Route{newRoute(t, `{"grpc_max_watchers": 3}`), newRoute(t, `{"grpc_max_watchers": 3}`)}
	for i, test := range []struct {
		route   *fakeenvoy.Route
		refused bool
	}{
		{nil, false}, {routes[0], false}, {nil, false}, {nil, true}, {routes[0], false},
		{routes[1], false}, {routes[1], true}, {routes[0], true}, // the same configuration, created again
	} {
		r := watch(t, f, test.route).Request()
		if refused := r.Details == "healthgate_grpc_resource_exhausted"; refused != test.refused || refused == (r.Data != "") {
			t.Errorf("Watch %d: got %+v", i, r)
		}
	}
	wantMetrics(t, f, metrics{"default.grpc_watch": 8, "default.grpc_watchers": 5})
}

func TestWatchersOfAReplacedConfigurationAreEnded(t *testing.T) {
	const a, b = `{"clusters": ["service"], "grpc_services": ["a"]}`, `{"clusters": ["other"], "grpc_services": ["a"]}`
	filter := func(config string) func(*testing.T) { return func(t *testing.T) { newFilter(t, config) } }
	routes := func(configs ...string) func(*testing.T) {
		return func(t *testing.T) {
			for _, config := range configs {
				newRoute(t, config)
			}
		}
	}
	for name, test := range map[string]struct {
		route  string // of the watched stream, "" for none
		update func(t *testing.T)
		ends   bool
	}{
		"different filter":                            {"", filter(b), true},
		"equal filter":                                {"", filter(a), false},
		"filter with another stat_prefix":             {"", filter(`{"clusters": ["other"], "stat_prefix": "x"}`), false},
		"different filter of an override":             {`{"drain": "ignore"}`, filter(b), true},
		"different override":                          {`{"drain": "ignore"}`, routes(`{"clusters": ["other"]}`), true},
		"equal override":                              {`{"drain": "ignore"}`, routes(`{"drain": "ignore"}`, `{"path": "/x"}`), false},
		"override with another stat_prefix":           {`{"drain": "ignore"}`, routes(`{"stat_prefix": "x"}`), false},
		"override, and the stream's route is without": {"", routes(`{"clusters": ["other"]}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			startEnvoy(t)
			f := newFilter(t, a)
			var route *fakeenvoy.Route
			if test.route != "" {
				route = newRoute(t, test.route)
			}
			s := watch(t, f, route)
			shared.endReplaced(time.Now().Add(time.Minute)) // the update that created f
			test.update(t)
			shared.endReplaced(time.Now()) // too early
			tick()
			s.Run()
			if got := s.Request().Trailers; got != "" {
				t.Fatalf("ended before the update was effective: %q", got)
			}
			shared.endReplaced(time.Now().Add(2 * supersedeAfter))
			tick()
			notifyWatchers()
			s.Run()
			if got := s.Request().Trailers == "grpc-status: 14\n"; got != test.ends {
				t.Errorf("ended: %v, want %v", got, test.ends)
			}
		})
	}
}

func TestEndlessUpdatesDoNotDelayTheEndOfWatchers(t *testing.T) {
	u, now, due := updates{}, time.Now(), 0
	for range 100 {
		u.record(now)
		if now = now.Add(supersedeAfter / 10); u.takeDue(now) {
			due++
		}
	}
	if due < 9 {
		t.Errorf("it was due %d times in ten seconds", due)
	}
}
