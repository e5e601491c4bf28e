package envoyadmin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddressIsAPortOrASocket(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9901": "", "localhost:9901": "", "[::1]:9901": "", "unix:///run/admin.sock": "", "unix://@admin": "",
		"9901":                   "missing port in address",
		":9901":                  "the host is missing",
		"127.0.0.1":              "missing port in address",
		"::1:9901":               "too many colons in address",
		"":                       "missing port in address",
		"localhost:http":         `port "http" is not a number from 1 to 65535`,
		"localhost:99999":        `port "99999" is not a number`,
		"localhost:0":            `port "0" is not a number`,
		"127.0.0.1:9901/admin":   "without the path /admin, 127.0.0.1:9901",
		"http://127.0.0.1:9901":  "without http:// and path, 127.0.0.1:9901",
		"https://localhost:1/x/": "without http:// and path, localhost:1",
		"unix://run/admin.sock":  "unix:///run/admin.sock",
		"unix:/run/admin.sock":   "unix:///run/admin.sock",
		"/run/admin.sock":        "unix:///run/admin.sock",
	} {
		client, err := New(address)
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) && !strings.Contains(err.Error(), want) ||
			err == nil && client.Address() != address {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("%q is neither host:port, as in 127.0.0.1:9901, nor unix:///path: ",
			address)) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// Whatever answers in admin's place, the error says that it is not admin and where to name it.
func TestServerThatIsNotAdminIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		answer string // as bytes; "" closes the connection
		want   string
	}{
		"a page":    {"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html", "has no version of Envoy, so this is not Envoy's admin interface"},
		"an object": {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "has no version of Envoy, so this is not Envoy's admin interface"},
		"a 404": {"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
			"/server_info is answered with 404 Not Found, so this is not Envoy's admin interface"},
		"TLS":       {"\x15\x03\x01\x00\x02\x02\x46", "does not speak HTTP/1.1 without TLS"},
		"HTTP/2":    {"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", "does not speak HTTP/1.1 without TLS"},
		"SSH":       {"SSH-2.0-x\r\n", "does not speak HTTP/1.1 without TLS"},
		"no answer": {"", "the connection was closed without an answer"},
		"no server": {"-", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listener.Close() })
			address := listener.Addr().String()
			if test.answer == "-" {
				address = "127.0.0.1:1" // a port that only root can use
			}
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = conn.Write([]byte(test.answer))
					conn.Close()
				}
			}()
			client, err := New(address)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.ServerInfo(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "admin at "+client.Address()+": ") ||
				!strings.HasSuffix(err.Error(), "; set --admin or ADMIN_ADDRESS to the address of admin") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnswersAreRead(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.RequestURI()
		if !r.Close {
			t.Error("the connection stays open, which a drain would wait for")
		}
		switch r.URL.Path {
		case "/stats":
			fmt.Fprint(w, "a.b: 7\ncluster.a: b.total: 3\ntext: \"LIVE\"\nhistogram: P0(1,1)\nnegative: -1\nno value\n")
		case "/clusters":
			fmt.Fprint(w, `{"cluster_statuses": [{"name": "a", "a_field_of_tomorrow": {}}]}`)
		case "/redirects":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	t.Cleanup(server.Close)
	client, err := New(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := client.Stats(t.Context(), `^a\+b c$`)
	if want := (map[string]uint64{"a.b": 7, "cluster.a: b.total": 3}); err != nil || !maps.Equal(stats, want) {
		t.Errorf("%v: the stats are %v", err, stats)
	}
	if asked != `GET /stats?filter=%5Ea%5C%2Bb%20c%24` {
		t.Errorf("asked %s", asked)
	}
	clusters, err := client.Clusters(t.Context(), "a.b", "c")
	if err != nil || clusters["a"] == nil || asked != `GET /clusters?format=json&filter=%5E%28a%5C.b%7Cc%29%24` {
		t.Errorf("%v: %v, asked %s", err, clusters, asked)
	}
	if err := client.Post(t.Context(), "/redirects"); err == nil || !strings.HasSuffix(err.Error(), "/redirects is answered with 302 Found") {
		t.Errorf("a redirect is followed: %v", err)
	}
}

func TestHungEnvoyIsReportedAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := New(DefaultAddress)
		if err != nil {
			t.Fatal(err)
		}
		client.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}
		start := time.Now()
		_, err = client.ServerInfo(t.Context())
		if took := time.Since(start); took != Timeout || err == nil ||
			!strings.Contains(err.Error(), "no answer within 5s: Envoy's main thread hangs") {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
