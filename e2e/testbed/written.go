package testbed

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
)

// AdminAsWritten is an Envoy's admin interface, but for /config_dump: that shows a static configuration as it was written. Where the
// contrib host takes the golang extension's place, what Envoy has itself is the contrib host's.
func AdminAsWritten(envoy *Envoy, config *Config) (http.Handler, error) {
	dump, err := configDump(config)
	if err != nil {
		return nil, err
	}
	network, target := "tcp", envoy.Admin
	if path, unix := strings.CutPrefix(target, "unix:"); unix {
		network, target = "unix", path
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "admin" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, target)
		}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/config_dump" {
			_, _ = w.Write(dump)
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// configDump is what admin's /config_dump says of a bootstrap without dynamic resources.
func configDump(config *Config) ([]byte, error) {
	const admin = typeURL + "envoy.admin.v3."
	listeners, clusters := []any{}, []any{}
	for _, listener := range config.Get("static_resources.listeners").([]any) {
		listeners = append(listeners, map[string]any{"listener": listener})
	}
	for _, cluster := range config.Get("static_resources.clusters").([]any) {
		clusters = append(clusters, map[string]any{"cluster": cluster})
	}
	return json.Marshal(map[string]any{"configs": []any{
		map[string]any{"@type": admin + "BootstrapConfigDump", "bootstrap": config.Get("")},
		map[string]any{"@type": admin + "ClustersConfigDump", "static_clusters": clusters},
		map[string]any{"@type": admin + "ListenersConfigDump", "static_listeners": listeners},
	}})
}
