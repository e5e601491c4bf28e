package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"healthgate/filter"
)

// answerer is a kind of filter that answers requests by itself.
type answerer struct {
	typeName string // how the name of its type ends
	certain  bool   // it refuses whoever has no credentials, as probes don't
	does     string
}

var answerers = []answerer{
	{"filters.http.jwt_authn.v3.JwtAuthentication", true, "asks for a token, which a probe does not have (401)"},
	{"filters.http.ext_authz.v3.ExtAuthz", true, "asks an authorization service, and refuses where that can't be reached (403)"},
	{"filters.http.oauth2.v3.OAuth2", true, "sends whoever has no cookie to log in (302)"},
	{"filters.http.basic_auth.v3.BasicAuth", true, "asks for a password, which a probe does not have (401)"},
	{"filters.http.api_key_auth.v3.ApiKeyAuth", true, "asks for a key, which a probe does not have (401)"},
	{"filters.http.rbac.v3.RBAC", true, "refuses who its policies don't name (403)"},
	{"filters.http.ratelimit.v3.RateLimit", false, "refuses what is over its limit (429)"},
	{"filters.http.local_ratelimit.v3.LocalRateLimit", false, "refuses what is over its limit (429)"},
	{"filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig", false, "refuses what is over its quota (429)"},
	{"filters.http.fault.v3.HTTPFault", false, "answers some requests with an error, or late"},
	{"filters.http.admission_control.v3.AdmissionControl", false, "refuses requests while others fail (503)"},
	{"filters.http.adaptive_concurrency.v3.AdaptiveConcurrency", false, "refuses requests over its limit (503)"},
	{"filters.http.bandwidth_limit.v3.BandwidthLimit", false, "holds requests back"},
	{"filters.http.csrf.v3.CsrfPolicy", false, "refuses requests from another origin (403)"},
	{"filters.http.ext_proc.v3.ExternalProcessor", false, "asks a processor, which may answer or be out of reach (500)"},
	{"filters.http.wasm.v3.Wasm", false, "runs a program that may answer"},
	{"filters.http.lua.v3.Lua", false, "runs a script that may answer"},
	{"filters.http.health_check.v3.HealthCheck", false, "answers health checks itself"},
	{"filters.http.custom_response.v3.CustomResponse", false, "puts another answer in the place of the gate's"},
}

// checkOrder finds filters that may answer a probe before the gate does.
func (s *scope) checkOrder(f *findings, g *gate) {
	for _, before := range g.in.list("http_filters")[:g.index] {
		contents, typeName := s.httpFilter(before)
		at := slices.IndexFunc(answerers, func(a answerer) bool { return strings.HasSuffix(typeName, a.typeName) })
		if at < 0 || before.isTrue("disabled") && !g.enabledBefore(before) || g.spared(before, contents, typeName) {
			continue
		}
		severity := Warning
		if answerers[at].certain {
			severity = Error
		}
		f.add(before, severity, "order", "%s stands before the gate and %s, whatever the clusters are: put the filter %s first in http_filters; disabled as it is by default, other traffic does not pay for that",
			quoteKey(before.text("name")), answerers[at].does, quoteKey(g.filter.text("name")))
	}
}

// enabledBefore says whether a filter that is off by default is on where the gate is asked.
func (g *gate) enabledBefore(before *Node) bool {
	return slices.ContainsFunc(g.answers, func(p probe) bool {
		return p.route.get("typed_per_filter_config", before.text("name")) != nil || p.virtualHost.get("typed_per_filter_config", before.text("name")) != nil
	})
}

// spared says whether a filter lets the gate's probes pass, by its own configuration or by that of their routes.
func (g *gate) spared(before, contents *Node, typeName string) bool {
	paths := []string{"/"}
	if probes := g.answers; len(probes) > 0 {
		paths = nil
		for _, p := range probes {
			if !sparedOn(p, before.text("name")) {
				paths = append(paths, p.path())
			}
		}
		if len(paths) == 0 {
			return true
		}
	}
	needed := func(path string) bool { return true }
	switch {
	case strings.HasSuffix(typeName, ".JwtAuthentication"):
		needed = func(path string) bool { return jwtNeeds(contents, path) }
	case strings.HasSuffix(typeName, ".RBAC"):
		return contents.get("rules") == nil && contents.get("matcher") == nil
	case strings.HasSuffix(typeName, ".LocalRateLimit"):
		return contents.get("token_bucket") == nil
	case strings.HasSuffix(typeName, ".RateLimit"):
		return !slices.ContainsFunc(g.answers, func(p probe) bool {
			return len(p.route.list("route", "rate_limits")) > 0 || len(p.virtualHost.list("rate_limits")) > 0
		})
	case strings.HasSuffix(typeName, ".HTTPFault"):
		return contents.get("abort") == nil && contents.get("delay") == nil
	case strings.HasSuffix(typeName, ".HealthCheck"):
		if contents.isTrue("pass_through_mode") {
			return true
		}
		needed = func(path string) bool { return healthCheckTakes(contents, path) }
	case strings.HasSuffix(typeName, ".OAuth2"):
		needed = func(path string) bool { return !oauthPasses(contents, path) }
	}
	return !slices.ContainsFunc(paths, needed)
}

// sparedOn says whether a route switches a filter off: for all filters, or in the words of some.
func sparedOn(p probe, name string) bool {
	for _, level := range []*Node{p.route, p.virtualHost} {
		says := level.get("typed_per_filter_config", name)
		if says == nil {
			continue
		}
		contents, typeName := typed(says)
		if typeName == typeFilterConfig && contents.get("config") != nil {
			contents, typeName = typed(contents.get("config"))
		}
		return contents.isTrue("disabled") || strings.HasSuffix(typeName, ".RBACPerRoute") && contents.get("rbac") == nil
	}
	return false
}

// jwtNeeds says whether a path needs a token.
func jwtNeeds(contents *Node, path string) bool {
	for _, rule := range contents.list("rules") {
		if matches(rule, path) == no {
			continue
		}
		return rule.get("requires") != nil || rule.get("requirement_name") != nil
	}
	return contents.get("filter_state_rules") != nil
}

// healthCheckTakes says whether Envoy's own filter takes a probe of a path.
func healthCheckTakes(contents *Node, path string) bool {
	for _, header := range contents.list("headers") {
		if header.text("name") == ":path" {
			if exact := header.get("exact_match"); exact != nil {
				return exact.scalar == path
			}
			return matchesString(header.get("string_match"), path) != no
		}
	}
	return true
}

func oauthPasses(contents *Node, path string) bool {
	for _, header := range contents.list("config", "pass_through_matcher") {
		if header.text("name") == ":path" && matchesString(header.get("string_match"), path) == yes {
			return true
		}
	}
	return false
}

// checkALPN finds a listener on which HTTP/2 can't be agreed on.
func (g *gate) checkALPN(f *findings) {
	codec := g.in.text("codec_type")
	if g.in.chain == nil || codec == "HTTP1" || codec == "HTTP3" {
		return
	}
	contents, typeName := typed(g.in.chain.get("transport_socket", "typed_config"))
	if typeName != typeTLS {
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
		if p.config == nil || !nativeSays(p.config) || g.door == stock && len(p.layers[0].value.list("grpc_services")) > 0 {
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
