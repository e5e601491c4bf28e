package lint

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"healthgate/filter"
)

// checkALPN finds a listener on which HTTP/2 can't be agreed on.
func (g *gate) checkALPN(f *findings) {
	codec := g.in.text("codec_type")
	if g.in.chain == nil || codec == "HTTP1" || codec == "HTTP3" {
		return
	}
	contents := tlsContext(g.in.chain)
	if contents == nil {
		return
	}
	offered := contents.list("common_tls_context", "alpn_protocols")
	for _, protocol := range offered {
		if protocol.scalar == "h2" {
			return
		}
	}
	f.add(contents.at("common_tls_context", "alpn_protocols"), Warning, "alpn",
		"the listener has TLS and does not offer h2, so a balancer that speaks HTTP/2 (a GKE NEG) and every gRPC client are turned away: write alpn_protocols: [h2, http/1.1]")
}

// checkUnderscores finds what refuses gRPC metadata such as user_id.
func (g *gate) checkUnderscores(f *findings) {
	action := g.in.get("common_http_protocol_options", "headers_with_underscores_action")
	switch action.text() {
	case "REJECT_REQUEST":
		f.add(action, Warning, "underscores", "a call with a header like user_id, which is legal gRPC metadata, is reset without a line in the access log: "+
			"leave this out, unless something behind Envoy takes user_id for user-id")
	case "DROP_HEADER":
		f.add(action, Warning, "underscores", "a header like user_id, which is legal gRPC metadata, is dropped before the backend sees it: "+
			"leave this out, unless something behind Envoy takes user_id for user-id")
	}
}

// checkLocalReplies finds mappers that put another answer in the place of the gate's.
func (g *gate) checkLocalReplies(f *findings) {
	const mend = "put its filter into an and_filter with an extension_filter of type envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: \"!response.code_details.startsWith('healthgate_')\""
	for _, p := range g.configurations() {
		if p.config == nil {
			continue
		}
		for _, mapper := range g.in.list("local_reply_config", "mappers") {
			for _, status := range []int{p.config.Unhealthy.Status, p.config.Healthy.Status} {
				if takesReply(mapper.get("filter"), status) == no {
					continue
				}
				to := int(mapper.number(float64(status), "status_code"))
				switch {
				case to/100 != status/100:
					f.add(mapper, Error, "local-reply", "this mapper turns the gate's %d into %d, so that the balancer sees the opposite of what is true: %s", status, to, mend)
				case mapper.get("body") != nil || mapper.get("body_format_override") != nil || to != status:
					f.add(mapper, Warning, "local-reply", "this mapper rewrites the gate's answer of status %d, which a balancer may compare: %s", status, mend)
				}
			}
		}
	}
}

// takesReply says whether an access log's filter takes an answer of the gate's.
func takesReply(n *Node, status int) answer {
	if n == nil {
		return yes
	}
	all := func(key string, start answer, join func(...answer) answer) answer {
		result := start
		for _, one := range n.list(key, "filters") {
			result = join(result, takesReply(one, status))
		}
		return result
	}
	switch {
	case n.get("and_filter") != nil:
		return all("and_filter", yes, func(a ...answer) answer { return min(a[0], a[1]) })
	case n.get("or_filter") != nil:
		return all("or_filter", no, func(a ...answer) answer { return max(a[0], a[1]) })
	case n.get("status_code_filter") != nil:
		return compares(n.get("status_code_filter", "comparison"), status)
	case n.get("response_flag_filter") != nil: // the gate's answers have none
		return no
	case n.get("extension_filter") != nil:
		expression := n.text("extension_filter", "typed_config", "expression")
		if strings.Contains(expression, "healthgate_") {
			return no
		}
	case n.get("not_health_check_filter") != nil: // Envoy does not know that it was a probe
		return yes
	}
	return maybe
}

func compares(comparison *Node, status int) answer {
	with := int(comparison.number(0, "value", "default_value"))
	switch comparison.text("op") {
	case "GE":
		return answerOf(status >= with)
	case "LE":
		return answerOf(status <= with)
	case "NE":
		return answerOf(status != with)
	}
	return answerOf(status == with)
}

// checkAdmin finds an admin interface that others can reach.
func (s *scope) checkAdmin(f *findings) {
	at := s.bootstrap.get("admin", "address", "socket_address", "address")
	if at == nil {
		return
	}
	ip, err := netip.ParseAddr(at.scalar)
	if at.scalar == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return
	}
	f.add(at, Error, "admin-open", "admin listens on %s, and whoever reaches it can stop Envoy, drain it and read its configuration: write 127.0.0.1, or pipe: {path: /run/envoy/admin.sock}", at.scalar)
}

// checkNative finds a gate that asks nothing which Envoy's own filter can't say: a percentage of each cluster, and no more.
func (g *gate) checkNative(f *findings) {
	probes := g.configurations()
	for _, p := range probes {
		if p.config == nil || !nativeSays(p.config) || g.variant == module && len(p.layers[0].value.list("grpc_services")) > 0 {
			return
		}
	}
	c := probes[0].config
	percentages := make([]string, len(c.Clusters))
	for i, cluster := range c.Clusters {
		percentages[i] = fmt.Sprintf("%s: {value: %d}", quoteKey(cluster.Name), cluster.Rule.MinHealthyPercent)
	}
	f.add(g.filter, Warning, "native-is-enough", "a percentage of each cluster is all that is asked, which any Envoy can say without a plugin: "+
		"{name: envoy.filters.http.health_check, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, "+
		"pass_through_mode: false, cluster_min_healthy_percentages: {%s}, headers: [{name: \":path\", string_match: {exact: %s}}]}}",
		strings.Join(percentages, ", "), strconv.Quote(c.Path))
}

// nativeSays says whether Envoy's health_check filter could be asked for the same.
func nativeSays(c *filter.Config) bool {
	plain := c.Require == len(c.Clusters) && !c.IgnoreDrain && c.Hold == filter.Hold{} && c.StaleAfter == 0 && c.Admin == nil && !c.Details &&
		c.Healthy.Status == 200 && c.Unhealthy.Status == 503 && c.StatPrefix == "default"
	for _, cluster := range c.Clusters {
		r := cluster.Rule
		plain = plain && r.MinHealthyPercent > 0 && r.MinHealthy <= 1 && !r.IgnoreDegraded && !r.IgnoreExcluded
	}
	return plain
}
