package envoystats

import "testing"

// Each is from /stats of Envoy 1.39.1 with a cluster of that name.
func TestClusterScope(t *testing.T) {
	for name, want := range map[string]string{
		"service":                             "cluster.service.",
		"service.":                            "cluster.service.",
		"service..":                           "cluster.service.",
		".service":                            "cluster..service.",
		"a.b":                                 "cluster.a.b.",
		"a..b":                                "cluster.a..b.",
		"a:b":                                 "cluster.a_b.",
		"a:/b":                                "cluster.a_b.",
		"a://b":                               "cluster.a_b.",
		"a:::b":                               "cluster.a___b.",
		"a:":                                  "cluster.a_.",
		"a/b":                                 "cluster.a/b.",
		"outbound|80||a.b.svc":                "cluster.outbound|80||a.b.svc.",
		"httproute/default/a/rule/0":          "cluster.httproute/default/a/rule/0.",
		"a b":                                 "cluster.a b.",
		"outbound|8080||a.svc.cluster.local;": "cluster.outbound|8080||a.svc.cluster.local;.",
		"outbound|80||a:v1":                   "cluster.outbound|80||a_v1.",
		"http://service.local:80":             "cluster.http_service.local_80.",
		"a::b":                                "cluster.a__b.",
		"a\x00b":                              "cluster.a_b.",
		".a":                                  "cluster..a.",
		"a.":                                  "cluster.a.",
		"a..":                                 "cluster.a.",
		"a.:":                                 "cluster.a._.",
		"xds:///eds.authority/a:b":            "cluster.xds_/eds.authority/a_b.",
	} {
		if got := ClusterScope(name); got != want {
			t.Errorf("ClusterScope(%q) is %q, want %q", name, got, want)
		}
	}
}
