package testbed

import (
	"net/http"
	"net/http/httputil"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// AdminAsWritten serves an Envoy's admin interface, except that /config_dump shows a static configuration as it was written. Envoy itself
// shows the contrib host's form, if that takes the place of the golang extension.
func AdminAsWritten(envoy *Envoy, config Configuration) (http.Handler, error) {
	dump, err := configDump(config)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "admin" },
		Transport: envoy.adminTransport(),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/config_dump" {
			_, _ = w.Write(dump)
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// configDump returns the answer of /config_dump for a bootstrap without dynamic resources.
func configDump(config Configuration) ([]byte, error) {
	b, err := ParseBootstrap(config.JSON())
	if err != nil {
		return nil, err
	}
	listeners, clusters := &adminv3.ListenersConfigDump{}, &adminv3.ClustersConfigDump{}
	for _, listener := range b.GetStaticResources().GetListeners() {
		listeners.StaticListeners = append(listeners.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{Listener: Any(listener)})
	}
	for _, cluster := range b.GetStaticResources().GetClusters() {
		clusters.StaticClusters = append(clusters.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{Cluster: Any(cluster)})
	}
	return JSON(&adminv3.ConfigDump{Configs: []*anypb.Any{
		Any(&adminv3.BootstrapConfigDump{Bootstrap: b.Bootstrap}), Any(clusters), Any(listeners),
	}}), nil
}
