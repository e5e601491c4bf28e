package dynamicmodule

import (
	"encoding/binary"
	"strings"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"healthgate/filter/config"
	"healthgate/filter/dynamicmodule/fakeenvoy"
)

// exceeds says whether a message that protobuf accepts has a name that is too long, or too many groups in each other.
func exceeds(t *testing.T, message []byte) bool {
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

// wantStatus is the gRPC status of a Check of a service a.B, or of all, by protobuf's own reading of the message.
func wantStatus(t *testing.T, request string) string {
	const ok, invalid, notFound, unimplemented = "0", "3", "5", "12"
	if len(request) > 0 && request[0] == 1 {
		return unimplemented
	}
	if len(request) < 5 || request[0] != 0 || uint64(binary.BigEndian.Uint32([]byte(request[1:]))) != uint64(len(request)-5) || len(request)-5 > 65536 {
		return invalid
	}
	message := &grpc_health_v1.HealthCheckRequest{}
	if proto.Unmarshal([]byte(request[5:]), message) != nil || exceeds(t, []byte(request[5:])) {
		return invalid
	}
	if message.Service == "" || message.Service == "a.B" {
		return ok
	}
	return notFound
}

// framed is a message as a call sends it.
func framed(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

func FuzzCheck(f *testing.F) {
	for _, request := range []string{
		"", "\x00", "\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x00", "\x02\x00\x00\x00\x00", "\x00\x00\x00\x00\x05\x0a\x03a.B", "\x00\x00\x00\x00\x03\x0a\x01b",
		"\x00\xff\xff\xff\xff", "\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x01\x0b", "\x00\x00\x00\x00\x05\x15\x01\x02\x03\x04",
		"\x00\x00\x00\x00\x09\x11\x01\x02\x03\x04\x05\x06\x07\x08", "\x00\x00\x00\x00\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"\x00\x00\x00\x00\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x00\x00\x00\x08\x00" + strings.Repeat("\x10\x01", 1024),
		"\x00\x00\x00\x00\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "\x00\x00\x00\x00\x02\x00\x01", // more than 64 bits; a field of number 0
		"\x00\x00\x00\x00\x06\xf8\xff\xff\xff\x0f\x01", "\x00\x00\x00\x00\x06\x80\x80\x80\x80\x10\x01", // the largest field number, and one more
		"\x00\x00\x00\x08\x02" + strings.Repeat("\x10\x01", 1025),
	} {
		f.Add(request)
	}
	for _, message := range []string{
		"\x13\x14", "\x13\x0a\x03a.B\x14", "\x13\x1b\x08\x01\x1c\x14", "\x13\x1c", "\x13", "\x14", "\x0b\x0c", "\x13\x0a\x01\xff\x14", // groups
		"\x13\xf8\xff\xff\xff\x3f\x01\x14", "\x13\x80\x80\x80\x80\x40\x01\x14", "\x13\x80\x80\x80\x80\x80\x01\x01\x14", // with large numbers
		strings.Repeat("\x13", 100) + strings.Repeat("\x14", 100), strings.Repeat("\x13", 101) + strings.Repeat("\x14", 101),
		"\x0a\x02\xc3\xbc", "\x0a\x01\xc3", "\x0a\x03\xed\xa0\x80", "\x0a\x04\xf4\x90\x80\x80", "\x0a\x01\xff\x0a\x00", "\x0e", "\x0f", "\x8a\x00\x03a.B",
		"\x12\x80\x40" + strings.Repeat("u", 8192) + "\x0a\x03a.B",
		"\x0a\x80\x10" + strings.Repeat("n", 2048), "\x0a\x81\x10" + strings.Repeat("n", 2049), "\x0a\x81\x10" + strings.Repeat("n", 2049) + "\x0a\x00",
	} {
		f.Add(framed(message))
	}
	fakeenvoy.Reset()
	fakeenvoy.Gauge("server.live", 1)
	fakeenvoy.Gauge(workersStarted, 1)
	cluster("service", 1, 0, 1)
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

func TestContentTellsConfigurationsApart(t *testing.T) {
	contents := map[uint64]string{}
	for _, alike := range [][]string{
		{`{"clusters": ["a"], "grpc_services": ["b"]}`, `{"clusters": [{"name": "a", "min_healthy": 1}], "grpc_services": ["b", ""], "grpc_max_watchers": 10000, "require": "any"}`},
		{`{"clusters": ["a"], "grpc_services": ["c"]}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 5}`},
		{`{"clusters": ["a", "b"], "grpc_services": ["b"]}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "drain": "ignore"}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "hold": {"unhealthy_after": "1s"}}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "source": "admin", "admin": {"address": "unix:///a"}}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "source": "admin", "admin": {"address": "unix:///b"}}`},
		{`{"clusters": ["a"], "grpc_services": ["b"], "stat_prefix": "other"}`},
	} {
		first := uint64(0)
		for i, text := range alike {
			raw, err := unpack([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			config, err := config.Decode(raw, config.Module)
			if err != nil {
				t.Fatal(err)
			}
			content := configHash(config)
			if i == 0 {
				first = content
			}
			if content != first || content == 0 {
				t.Errorf("%s has content %d, and not %d", text, content, first)
			}
		}
		if other, there := contents[first]; there {
			t.Errorf("%s has the content of %s", alike[0], other)
		}
		contents[first] = alike[0]
	}
}

func TestWatchersAreLimitedByConfiguration(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"], "grpc_services": ["a.B"], "grpc_max_watchers": 2}`)
	routes := []*fakeenvoy.Route{newRoute(t, `{"grpc_max_watchers": 3}`), newRoute(t, `{"grpc_max_watchers": 3}`)}
	open := func(route *fakeenvoy.Route) *fakeenvoy.Stream {
		s := f.Open(fakeenvoy.Request{Route: route, Method: "POST", Path: "/grpc.health.v1.Health/Watch", ContentType: "application/grpc", Body: "\x00\x00\x00\x00\x00"})
		t.Cleanup(s.Free)
		return s
	}
	for i, test := range []struct {
		route   *fakeenvoy.Route
		refused bool
	}{
		{nil, false}, {routes[0], false}, {nil, false}, {nil, true}, {routes[0], false},
		{routes[1], false}, {routes[1], true}, {routes[0], true}, // the same configuration, made anew
	} {
		r := open(test.route).Request()
		if refused := r.Details == "healthgate_grpc_resource_exhausted"; refused != test.refused || refused == (r.Data != "") {
			t.Errorf("Watch %d: got %+v", i, r)
		}
	}
	if watches, watchers := f.Metric("default.grpc_watch"), f.Metric("default.grpc_watchers"); watches != 8 || watchers != 5 {
		t.Errorf("grpc_watch is %d, grpc_watchers %d", watches, watchers)
	}
}
