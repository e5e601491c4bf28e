package lint

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
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
		"the listener has TLS and does not offer h2, so a balancer that speaks HTTP/2 (a GKE NEG) and every gRPC client cannot connect: "+
			"write alpn_protocols: [h2, http/1.1]")
}

// checkUnderscores finds what refuses gRPC metadata such as user_id.
func (g *gate) checkUnderscores(f *findings) {
	action := g.in.get("common_http_protocol_options", "headers_with_underscores_action")
	switch action.text() {
	case "REJECT_REQUEST":
		f.add(action, Warning, "underscores", "a call with a header like user_id, which is legal gRPC metadata, is reset without a line in "+
			"the access log: leave this out, unless something behind Envoy takes user_id for user-id")
	case "DROP_HEADER":
		f.add(action, Warning, "underscores", "a header like user_id, which is legal gRPC metadata, is dropped before the backend sees it: "+
			"leave this out, unless something behind Envoy takes user_id for user-id")
	}
}

// checkLocalReplies finds mappers that change the gate's replies, and a format of all bodies.
func (g *gate) checkLocalReplies(f *findings) {
	const (
		rule  = "local-reply"
		right = "put its filter into an and_filter with an extension_filter of type " +
			"envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: \"!response.code_details.startsWith('healthgate_')\""
	)
	config := g.in.get("local_reply_config")
	for _, p := range g.configurations() {
		if p.config == nil || config == nil {
			continue
		}
		r := g.request(p.config.Path)
		for _, status := range []int{p.config.Unhealthy.Status, p.config.Healthy.Status} {
			formatted := config.get("body_format")
			for _, mapper := range config.list("mappers") { // the first that takes the reply
				taken := takesReply(mapper.get("filter"), status, r)
				if taken == no {
					continue
				}
				to := int(mapper.number(float64(status), "status_code"))
				changed := mapper.get("body") != nil || changesBody(mapper.get("body_format_override"))
				switch {
				case to/100 != status/100 && taken == yes:
					f.add(mapper, Error, rule, "this mapper turns the gate's %d into %d, so that the balancer sees the opposite of the truth: %s",
						status, to, right)
				case to/100 != status/100:
					f.add(mapper, Warning, rule, "this mapper may turn the gate's %d into %d, so that the balancer sees the opposite of the truth: "+
						"%s", status, to, right)
				case changed || to != status:
					f.add(mapper, Warning, rule, "this mapper rewrites the gate's reply of status %d, which a balancer may compare: %s", status, right)
				}
				if mapper.get("body_format_override") != nil {
					formatted = nil
				}
				if taken == yes {
					break
				}
			}
			if changesBody(formatted) {
				f.add(formatted, Warning, rule, "this format rewrites the body of each reply of the gate, which a balancer may compare: put a "+
					"mapper first that takes the gate's replies, "+
					"with body_format_override: {text_format_source: {inline_string: \"%%LOCAL_REPLY_BODY%%\"}}")
			}
		}
	}
}

// changesBody says whether a format makes another body of a reply's.
func changesBody(format *Node) bool {
	if format == nil {
		return false
	}
	plain := format.text("text_format_source", "inline_string")
	if older := format.text("text_format"); older != "" {
		plain = older
	}
	return plain != "%LOCAL_REPLY_BODY%"
}

// takesReply says whether an access log's filter takes a reply of the gate to a probe.
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
	if err != nil || ip.Unmap().IsLoopback() { // a name, which Envoy refuses, or a placeholder
		return
	}
	f.add(at, Error, "admin-open", "admin listens on %s, and anyone who reaches it can stop Envoy, drain it and read its configuration: "+
		"write 127.0.0.1, or pipe: {path: /run/envoy/admin.sock}", at.scalar)
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
	f.add(g.filter, Warning, "native-is-enough", "a percentage of each cluster is all that is asked, which any Envoy can say without a "+
		"plugin: {name: envoy.filters.http.health_check, typed_config: {\"@type\": "+
		"type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, "+
		"pass_through_mode: false, cluster_min_healthy_percentages: {%s}, headers: [{name: \":path\", string_match: {exact: %s}}]}}",
		strings.Join(percentages, ", "), strconv.Quote(c.Path))
}

// nativeSays says whether Envoy's health_check filter could be asked for the same.
func nativeSays(c *config.Config) bool {
	plain := c.Require == len(c.Clusters) && !c.IgnoreDrain && c.Hold == policy.Hold{} && c.StaleAfter == 0 && c.Admin == nil && !c.Details &&
		c.Healthy.Status == 200 && c.Unhealthy.Status == 503 && c.StatPrefix == "default"
	for _, cluster := range c.Clusters {
		r := cluster.Rule
		plain = plain && r.MinHealthyPercent > 0 && r.MinHealthy <= 1 && !r.IgnoreDegraded && !r.IgnoreExcluded
	}
	return plain
}
