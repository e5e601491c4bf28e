package lint

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// checkALPN reports a TLS listener without HTTP/2.
func (g *gate) checkALPN(f findings) {
	codec, tls := g.in.text("codec_type"), tlsContext(g.in.chain)
	if tls == nil || codec == "HTTP1" || codec == "HTTP3" || tls.get("common_tls_context", "alpn_protocols").has("h2") {
		return
	}
	f.add(tls.at("common_tls_context", "alpn_protocols"), Warning, "alpn", "the listener has TLS and does not offer h2, so gRPC clients and "+
		"balancers that speak HTTP/2 (a GKE NEG) cannot connect: write alpn_protocols: [h2, http/1.1]")
}

// checkUnderscores reports an option that rejects gRPC metadata such as user_id.
func (g *gate) checkUnderscores(f findings) {
	action := g.in.get("common_http_protocol_options", "headers_with_underscores_action")
	follows := map[string]string{"REJECT_REQUEST": "Envoy resets a request with it, without an access log entry",
		"DROP_HEADER": "Envoy drops it before the backend"}[action.text()]
	if follows != "" && g.forwards() {
		f.add(action, Warning, "underscores", "a header like user_id is legal gRPC metadata, and %s: remove this, unless something behind Envoy "+
			"treats user_id as user-id", follows)
	}
}

// forwards reports whether the connection manager may forward a request: one of its routes does, or routes are missing from the files.
func (g *gate) forwards() bool {
	return g.routing.partial || len(g.routing.configurations) == 0 || slices.ContainsFunc(g.routing.configurations, func(routes *Node) bool {
		return slices.ContainsFunc(routesIn(routes), isForwarding)
	})
}

func isForwarding(route *Node) bool {
	return route.get("direct_response") == nil && route.get("redirect") == nil
}

// checkLocalReplies reports mappers that change the gate's replies, and a format of all bodies.
func (g *gate) checkLocalReplies(f findings) {
	const (
		rule  = "local-reply"
		right = "combine its filter by an and_filter with an extension_filter of type " +
			"envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: \"!response.code_details.startsWith('healthgate_')\""
	)
	config := g.in.get("local_reply_config")
	if config == nil {
		return
	}
	for _, p := range g.configurations() {
		r := g.request(p.config.Path)
		for _, status := range []int{p.config.Unhealthy.Status, p.config.Healthy.Status} {
			formatted := config.get("body_format")
			for _, mapper := range config.list("mappers") { // the first that takes the reply
				taken := takesReply(mapper.get("filter"), status, r)
				if taken == no {
					continue
				}
				severity, changes := Warning, "may change"
				if taken == yes {
					severity, changes = Error, "changes"
				}
				to, override := int(mapper.number(float64(status), "status_code")), mapper.get("body_format_override")
				if to/100 != status/100 {
					f.add(mapper, severity, rule, "this mapper %s the gate's %d to %d, the opposite verdict for the balancer: %s", changes, status, to,
						right)
				} else if to != status || mapper.get("body") != nil || changesBody(override) {
					f.add(mapper, Warning, rule, "this mapper rewrites the gate's %d reply, which a balancer may compare: %s", status, right)
				}
				if override != nil {
					formatted = nil
				}
				if taken == yes {
					break
				}
			}
			if changesBody(formatted) {
				f.add(formatted, Warning, rule, "this format rewrites the body of the gate's replies, which a balancer may compare: add a "+
					"first mapper for the gate's replies, with body_format_override: {text_format_source: {inline_string: \"%%LOCAL_REPLY_BODY%%\"}}")
			}
		}
	}
}

// changesBody reports whether a format changes the body of a reply.
func changesBody(format *Node) bool {
	plain := cmp.Or(format.text("text_format"), format.text("text_format_source", "inline_string"))
	return format != nil && plain != "%LOCAL_REPLY_BODY%"
}

// takesReply reports whether an access log filter matches a reply of the gate to a probe.
func takesReply(n *Node, status int, r request) answer {
	if n == nil {
		return yes
	}
	take := func(one *Node) answer { return takesReply(one, status, r) }
	switch {
	case n.get("and_filter") != nil:
		return allOf(n.list("and_filter", "filters"), take)
	case n.get("or_filter") != nil:
		return anyOf(n.list("or_filter", "filters"), take)
	case n.get("status_code_filter") != nil:
		return compares(n.get("status_code_filter", "comparison"), status)
	case n.get("response_flag_filter") != nil: // the gate's replies have none
		return no
	case n.get("header_filter") != nil:
		return matchesHeader(n.get("header_filter", "header"), r)
	case n.get("runtime_filter") != nil:
		return matchesFraction(n.get("runtime_filter", "percent_sampled"))
	case n.get("extension_filter") != nil:
		if strings.Contains(n.text("extension_filter", "typed_config", "expression"), "healthgate_") {
			return no
		}
	case n.get("not_health_check_filter") != nil: // Envoy does not mark the gate's probes
		return yes
	}
	return maybe
}

func compares(comparison *Node, status int) answer {
	with := int(comparison.number(0, "value", "default_value"))
	met, known := map[string]bool{"GE": status >= with, "LE": status <= with, "NE": status != with}[comparison.text("op")]
	return answerOf(met || !known && status == with)
}

// checkAdmin reports an admin interface that other machines can reach.
func (s *scope) checkAdmin(f findings) {
	at := s.bootstrap.get("admin", "address", "socket_address", "address")
	if ip, err := netip.ParseAddr(at.text()); err == nil && !ip.Unmap().IsLoopback() { // else a name, which Envoy refuses, or a placeholder
		f.add(at, Error, "admin-open", "admin listens on %s, and any client that reaches it can stop Envoy, drain it and read its "+
			"configuration: write 127.0.0.1, or pipe: {path: /run/envoy/admin.sock}", at.scalar)
	}
}

// checkNative reports a gate for which Envoy's own filter is enough: it needs only a percentage of each cluster.
func (g *gate) checkNative(f findings) {
	probes := g.configurations()
	if len(probes) == 0 || slices.ContainsFunc(probes, func(p probe) bool {
		return !isNative(p.config) || g.variant == module && len(p.layers[0].value.list("grpc_services")) > 0
	}) {
		return
	}
	c := probes[0].config
	percentages := make([]string, len(c.Clusters))
	for i, cluster := range c.Clusters {
		percentages[i] = fmt.Sprintf("%s: {value: %d}", quoteKey(cluster.Name), cluster.Rule.MinHealthyPercent)
	}
	f.add(g.filter, Warning, "native-is-enough", "this gate needs only a percentage of each cluster, which Envoy's own filter checks without "+
		"a plugin: {name: envoy.filters.http.health_check, typed_config: {\"@type\": "+
		"type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, "+
		"pass_through_mode: false, cluster_min_healthy_percentages: {%s}, headers: [{name: \":path\", string_match: {exact: %s}}]}}",
		strings.Join(percentages, ", "), strconv.Quote(c.Path))
}

// isNative reports whether Envoy's health_check filter can do the same.
func isNative(c *config.Config) bool {
	needsMore := func(cluster policy.Cluster) bool {
		r := cluster.Rule
		return r.MinHealthyPercent == 0 || r.MinHealthy > 1 || r.IgnoreDegraded || r.IgnoreExcluded
	}
	return c.Require == len(c.Clusters) && !c.IgnoreDrain && c.Hold == policy.Hold{} && c.StaleAfter == 0 && c.Admin == nil && !c.Details &&
		c.Healthy.Status == 200 && c.Unhealthy.Status == 503 && c.StatPrefix == "default" && !slices.ContainsFunc(c.Clusters, needsMore)
}
