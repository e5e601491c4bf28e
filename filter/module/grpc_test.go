package module

import (
	"encoding/binary"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"healthgate/filter/module/fakeenvoy"
)

// wantStatus is the gRPC status of a Check of a service a.B, or of all, by the rule: in Go, and by protobuf's own library.
func wantStatus(request string) string {
	const ok, invalid, notFound, unimplemented = "0", "3", "5", "12"
	if len(request) > 0 && request[0] == 1 {
		return unimplemented
	}
	if len(request) < 5 || request[0] != 0 || uint64(binary.BigEndian.Uint32([]byte(request[1:]))) != uint64(len(request)-5) || len(request)-5 > 2048 {
		return invalid
	}
	service := ""
	for message := []byte(request[5:]); len(message) > 0; {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || !number.IsValid() {
			return invalid
		}
		message = message[n:]
		if kind == protowire.StartGroupType || kind == protowire.EndGroupType { // which proto3 has not
			return invalid
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return invalid
		}
		if number == 1 && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			service = string(value)
		}
		message = message[n:]
	}
	if service == "" || service == "a.B" {
		return ok
	}
	return notFound
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
		if want := "grpc-status: " + wantStatus(request) + "\n"; !strings.HasSuffix(status, want) {
			t.Errorf("%q: got %q, want %q", request, status, want)
		}
	})
}
