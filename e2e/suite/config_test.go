package suite

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// Envoy checks a cluster without traffic as often as others; otherwise it would notice a change after a minute.
func TestIdleClusterIsCheckedAtItsInterval(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
	s.setServing(0) // waits at most settle, far less than a minute
	s.awaitProbe(s.client("h2"), 503, time.Second)
}

// The Lua script that Healthgate replaces still works, as a comparison.
func TestLuaConfigurationAnswersProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(p *plan) { p.config = readConfig(t, "envoy/lua.yaml") }, withConfig(func(c *testbed.Bootstrap) {
		admin := unusedAddress(t) // the script needs its port
		c.Listen(0, admin.Port)
		testbed.SetEndpoints(c.StaticResources.Clusters[1], admin.String())
	}))
	for _, protocol := range protocols {
		client := s.client(protocol)
		s.setServing(1)
		expect(t, protocol, s.awaitProbe(client, 200, time.Second), 200, "ok\n", nil)
		s.setServing(0)
		expect(t, protocol, s.awaitProbe(client, 503, time.Second), 503, "unavailable\n", nil)
	}
	s.setServing(1)
	callRouter(t, s)
}

// gRPC metadata with an underscore in its name arrives. With the actions that lint reports the call is reset, or arrives without it.
func TestMetadataWithAnUnderscoreArrives(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for action, test := range map[string]struct {
		rule    string
		code    codes.Code
		arrives bool
	}{
		"ALLOW": {"", codes.OK, true}, "REJECT_REQUEST": {"underscores", codes.Internal, false}, "DROP_HEADER": {"underscores", codes.OK, false},
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
				if action != "ALLOW" { // which the reference configuration has
					c.Patch(c.HCM(), "common_http_protocol_options: {headers_with_underscores_action: "+action+"}")
				}
				log := c.Unpack(c.HCM().AccessLog[0].GetTypedConfig()).(*streamv3.StdoutAccessLog)
				log.GetLogFormat().GetJsonFormat().Fields["user"] = structpb.NewStringValue("%REQ(user_id)%")
			}))
			expectLint(t, s.config, test.rule)
			s.setServing(1)
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "user_id", "alice"), settle)
			defer cancel()
			_, err := router.Recommend(ctx, s.dialGRPC(), &router.Point{})
			if status.Code(err) != test.code {
				t.Errorf("a call with user_id got %v, want %v", err, test.code)
			}
			if test.code == codes.OK {
				s.awaitLog(`"path":"/router.Router/Recommend"`, settle)
			}
			if arrives := strings.Contains(s.envoy.Log(), `"user":"alice"`); arrives != test.arrives {
				t.Errorf("the header arrives: %v, want %v", arrives, test.arrives)
			}
		})
	}
}

// commentedOut returns the lines after a comment in the reference configuration that are comments too, as YAML.
func commentedOut(t *testing.T, comment string) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, filepath.Join(testbed.Root(), "envoy", "envoy.yaml")), comment+"\n")
	if !found {
		t.Fatalf("envoy.yaml lacks %q", comment)
	}
	var text strings.Builder
	for line := range strings.Lines(rest) {
		line, commented := strings.CutPrefix(strings.TrimLeft(line, " "), "# ")
		if !commented {
			break
		}
		text.WriteString(line)
	}
	return text.String()
}

func TestHTTP10NeedsTheLinesInTheComment(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it reads Envoy's log")
	lines := commentedOut(t, "without these two lines:")
	for name, test := range map[string]struct {
		options []option
		status  string
	}{
		"without": {nil, "HTTP/1.1 426 Upgrade Required"},
		"with":    {[]option{withHCM(lines)}, "HTTP/1.0 200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServingSite(t, test.options...)
			conn := s.dialTLS(t.Context(), "http/1.1")
			send(t, conn, "GET / HTTP/1.0\r\n\r\n") // HTTP/1.0 has no host header
			answer, err := io.ReadAll(conn)
			if first, _, _ := strings.Cut(string(answer), "\r\n"); first != test.status {
				t.Errorf("it is answered with %q, %v, want %q", answer, err, test.status)
			}
			if name == "without" {
				s.awaitLog(`"details":"low_version"`, settle)
			}
		})
	}
}

// Without a backend Envoy answers a gRPC health check with the status that an ALB target group with protocol version gRPC accepts by
// default.
func TestDefaultHealthCheckOfAGRPCTargetGroupPassesWithoutABackend(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.client("h2")
	s.setServing(0)
	reply := s.mustDo(client, "POST", "/AWS.ALB/healthcheck", nil, "content-type", "application/grpc")
	if got := reply.header.Get("grpc-status"); reply.status != 200 || got != "12" {
		t.Errorf("it got %d with grpc-status %q, want 200 with 12", reply.status, got)
	}
}
