package lint

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// actor is a kind of HTTP filter that can answer a probe or change the gate's reply.
type actor struct {
	onRequest string // its effect on a request that reaches it before the gate; "" if none
	onReply   string // its effect on the gate's reply, on either side of the gate; "" if none
	// acts reports whether its configuration has these effects (yes: no plain probe passes).
	acts func(filterAt) answer
	// replies reports this for the effect on a reply, if another part of the configuration decides it.
	replies func(filterAt) answer
}

// filterAt is a filter on a probe's route.
type filterAt struct {
	contents    *Node  // its configuration; nil if not known
	route       *Node  // the route's own configuration of it; nil if there is none
	routeType   string // the type of the route's own configuration
	port        *Node  // the listener's port
	request     request
	isForwarded bool // the route sends requests upstream
	hasLimits   bool // the route or its virtual host has rate_limits
}

const (
	overLimit = "refuses requests over its limit (429)"
	fromCache = "may answer from its cache"
)

// actors has the filters by their types in envoy.extensions.filters.http.
var actors = map[string]actor{
	"jwt_authn.v3.JwtAuthentication": {"requires a token, which a probe does not have (401)", "", jwtRefuses, nil},
	"ext_authz.v3.ExtAuthz": {"asks an authorization service, and refuses requests if that fails (403)", "may act on it",
		extAuthzActs, nil},
	"oauth2.v3.OAuth2": {"redirects a client without its cookie to a login (302)", "", func(f filterAt) answer {
		return not(anyOf(f.contents.list("config", "pass_through_matcher"), f.hasHeader))
	}, nil},
	"basic_auth.v3.BasicAuth": {"requires a password, which a probe does not have (401)", "", func(f filterAt) answer {
		return answerOf(!f.contents.isTrue("allow_missing"))
	}, nil},
	"api_key_auth.v3.ApiKeyAuth": {"requires a key, which a probe does not have (401)", "", always(yes), nil},
	"rbac.v3.RBAC":               {"refuses a probe by its policies (403)", "", rbacRefuses, nil},
	"grpc_json_transcoder.v3.GrpcJsonTranscoder": {"refuses each request that is none of its methods (404)", "", func(f filterAt) answer {
		c := f.replaced("GrpcJsonTranscoder")
		return answerOf(!f.request.grpc && len(c.list("services")) > 0 && c.isTrue("request_validation_options", "reject_unknown_method"))
	}, nil},
	"mcp.v3.Mcp": {"refuses each request that is not MCP", "", func(f filterAt) answer {
		return answerOf(cmp.Or(f.route.text("traffic_mode"), f.contents.text("traffic_mode")) == "REJECT_NO_MCP")
	}, nil},
	"a2a.v3.A2a": {"refuses each request that is not A2A", "", func(f filterAt) answer {
		return maybeIf(f.contents.text("traffic_mode") == "REJECT") // Envoy 1.40 refuses a GET, and 1.39 does not
	}, nil},
	"checksum.v3alpha.ChecksumConfig": {"refuses each path without a checksum (403)", "", func(f filterAt) answer {
		return answerOf(f.contents.isTrue("reject_unmatched"))
	}, nil},
	"file_server.v3.FileServerConfig": {"answers with a file, or 404", "", func(f filterAt) answer {
		return anyOf(f.replaced("FileServerConfig").list("path_mappings"), func(mapped *Node) answer {
			return answerOf(strings.HasPrefix(f.request.path, mapped.text("request_path_prefix")))
		})
	}, nil},
	"credential_injector.v3.CredentialInjector": {"refuses requests while it has no credential (401)", "", func(f filterAt) answer {
		return maybeIf(!f.contents.isTrue("allow_request_without_credential"))
	}, nil},
	"ratelimit.v3.RateLimit": {overLimit, "", func(f filterAt) answer {
		return maybeIf(f.isForwarded && !isOff(f.contents.get("filter_enabled")) && !isOff(f.contents.get("filter_enforced")) &&
			(f.hasLimits || len(f.contents.list("rate_limits")) > 0 || len(f.route.list("rate_limits")) > 0))
	}, nil},
	"local_ratelimit.v3.LocalRateLimit": {overLimit, "", func(f filterAt) answer {
		c := f.replaced("LocalRateLimit")
		isOn := func(key string) bool { return matchesFraction(c.get(key, "default_value")) != no } // 0 % unless it is given
		return maybeIf((c.get("token_bucket") != nil || len(c.list("descriptors")) > 0) && isOn("filter_enabled") && isOn("filter_enforced"))
	}, nil},
	"rate_limit_quota.v3.RateLimitQuotaFilterConfig": {"refuses requests over its quota (429)", "", always(maybe), nil},
	"fault.v3.HTTPFault":                             {"answers some requests with an error, or late", "may delay it", faultActs, nil},
	"admission_control.v3.AdmissionControl": {"refuses requests while others fail (503)",
		"counts each 503 as a failure, and then refuses real requests", ifEnabled, nil},
	"adaptive_concurrency.v3.AdaptiveConcurrency": {"refuses requests over its limit (503)", "", ifEnabled, nil},
	"bandwidth_limit.v3.BandwidthLimit": {"delays requests", "", func(f filterAt) answer {
		c := f.replaced("BandwidthLimit")
		return maybeIf(!slices.Contains([]string{"", "DISABLED"}, c.text("enable_mode")) && !isOff(c.get("runtime_enabled")))
	}, nil},
	"csrf.v3.CsrfPolicy": {"refuses gRPC probes, which have no origin (403)", "", func(f filterAt) answer {
		return maybeIf(f.request.grpc && !isOff(f.replaced("CsrfPolicy").get("filter_enabled"))) // a gRPC probe is a POST
	}, nil},
	"cache.v3.CacheConfig":      {fromCache, "", ifForwarded, nil},
	"cache_v2.v3.CacheV2Config": {fromCache, "", ifForwarded, nil},
	"health_check.v3.HealthCheck": {"answers health checks itself", "", func(f filterAt) answer {
		return min(maybeIf(!f.contents.isTrue("pass_through_mode")), allOf(f.contents.list("headers"), f.hasHeader))
	}, nil},
	"ext_proc.v3.ExternalProcessor": {"calls a processor, which may answer, or fail (500)",
		"calls a processor, which may change it, or fail (500)", extProcCalls("request"), extProcCalls("response")},
	"wasm.v3.Wasm": {"runs a program that may answer", "may change it by its program", always(maybe), nil},
	"lua.v3.Lua": {"runs a script that may answer", "runs a script that may change it",
		luaDefines(regexp.MustCompile(`\benvoy_on_request\b`)), luaDefines(regexp.MustCompile(`\benvoy_on_response\b`))},
	"golang.v3alpha.Config":                  {"runs a plugin that may answer", "may change it by its plugin", always(maybe), nil},
	"dynamic_modules.v3.DynamicModuleFilter": {"runs a module that may answer", "may change it by its module", always(maybe), nil},
	"transform.v3.TransformConfig":           {"changes requests", "changes it", transforms("request"), transforms("response")},
	"custom_response.v3.CustomResponse": {"", "may replace it by another reply", func(f filterAt) answer {
		return maybeIf(f.contents.get("custom_response_matcher") != nil || f.route.get("custom_response_matcher") != nil)
	}, nil},
	"composite.v3.Composite": {"runs a filter that depends on the request and may answer",
		"may change it by a filter that depends on the request", always(maybe), nil},
}

// checkOrder reports filters that may answer a probe before the gate does, and filters that may change the gate's reply: Envoy passes
// a local reply through every filter of the chain, on either side of the filter that sends it.
func (s *scope) checkOrder(f findings, g *gate) {
	for i, other := range g.in.list("http_filters") {
		contents, typeName := s.httpFilter(other)
		acts, known := actors[strings.TrimPrefix(typeName, httpFilters)]
		if i == g.index || !known || isGate(contents, typeName) {
			continue
		}
		request, reply := g.acted(acts, other, contents)
		severity, side, name := Warning, "before", quoteKey(other.text("name"))
		if i > g.index {
			request, side = no, "after"
		}
		if _, packed := typed(other.get("typed_config")); request == yes && shortName(packed) != "ExtensionWithMatcher" {
			severity = Error
		}
		right := "add to the probe's route: typed_per_filter_config: {" + name + `: {"@type": type.googleapis.com/` + typeFilterConfig +
			", disabled: true}}"
		if does := acts.onRequest; request != no && does != "" {
			f.add(other, severity, "order", "%s is before the gate and %s, whatever the state of the clusters: %s", name, does, right)
		} else if does := acts.onReply; reply != no && does != "" {
			f.add(other, Warning, "order", "%s is %s the gate and sees the gate's reply, as every filter of the chain does; it %s: %s", name,
				side, does, right)
		}
	}
}

// acted returns the strongest effect of a filter on any route of the gate.
func (g *gate) acted(a actor, other, contents *Node) (request, reply answer) {
	known := map[filterAt]bool{}
	on := func(p probe, path string) {
		isOn, own, ownType := p.configures(other)
		f := filterAt{contents: contents, route: own, routeType: ownType, request: g.request(path), port: g.in.port()}
		f.request.grpc = path == healthPath
		f.isForwarded = isForwarding(p.route)
		f.hasLimits = len(p.route.list("route", "rate_limits")) > 0 || len(p.virtualHost.list("rate_limits")) > 0
		if !isOn || f.route.isTrue("disabled") || known[f] { // a field of the filter's own message
			return
		}
		known[f] = true
		onRequest := a.acts(f)
		onReply := onRequest
		if a.replies != nil {
			onReply = a.replies(f)
		}
		request, reply = max(request, onRequest), max(reply, onReply)
	}
	if len(g.answers) == 0 {
		on(probe{}, "/")
	}
	for _, p := range g.probes {
		if g.answersHealth(p) {
			on(p, healthPath)
		}
	}
	for _, p := range g.answers {
		on(p, p.path())
	}
	return request, reply
}

// configures returns whether a filter is enabled on a probe's route, and the configuration of the narrowest level that has one:
// PerFilterConfigs::disabled in source/common/router of v1.39.1.
func (p probe) configures(filter *Node) (isOn bool, contents *Node, typeName string) {
	isOn = !filter.isTrue("disabled")
	for _, level := range slices.Backward(p.levels()) {
		if packed := level.get("typed_per_filter_config", filter.text("name")); packed != nil {
			own, ownType, disabled := routeConfig(packed)
			if isOn = !disabled; ownType != "" {
				contents, typeName = own, ownType
			}
		}
	}
	return isOn, contents, typeName
}

// replaced returns the route's configuration if it is of this message type, because then it replaces the filter's; otherwise it returns the
// filter's.
func (f filterAt) replaced(message string) *Node {
	if f.route != nil && shortName(f.routeType) == message {
		return f.route
	}
	return f.contents
}

// hasHeader reports whether a probe meets a condition on a header.
func (f filterAt) hasHeader(header *Node) answer { return matchesHeader(header, f.request) }

func always(a answer) func(filterAt) answer { return func(filterAt) answer { return a } }

func maybeIf(b bool) answer { return min(answerOf(b), maybe) }

func ifForwarded(f filterAt) answer { return maybeIf(f.isForwarded) }

// isOff reports whether a RuntimeFeatureFlag or a RuntimeFractionalPercent is off by default.
func isOff(flag *Node) bool {
	value := flag.get("default_value")
	return value != nil && (value.scalar == "false" || value.kind == mapping && matchesFraction(value) == no)
}

func ifEnabled(f filterAt) answer {
	enabled := f.contents.get("enabled")
	return maybeIf(enabled == nil || !isOff(enabled) && enabled.get("default_value") != nil)
}

func extAuthzActs(f filterAt) answer {
	c := f.contents
	switch {
	case isOff(c.get("filter_enabled")) && !c.isTrue("deny_at_disable", "default_value"), c.isTrue("shadow_mode"):
		return no
	case c.isTrue("failure_mode_allow"), c.get("filter_enabled_metadata") != nil, c.get("filter_enabled") != nil &&
		matchesFraction(c.get("filter_enabled", "default_value")) == maybe:
		return maybe
	}
	return yes
}

// jwtRefuses evaluates the first rule that matches.
func jwtRefuses(f filterAt) answer {
	required := func(rule *Node) answer {
		if name := rule.text("requirement_name"); name != "" {
			return jwtRequires(f.contents.get("requirement_map", name))
		}
		return min(jwtRequires(rule.get("requires")), answerOf(rule.get("requires") != nil))
	}
	if f.route.text("requirement_name") != "" {
		return required(f.route)
	}
	result := no
	for _, rule := range f.contents.list("rules") {
		switch matched, required := matches(rule, f.request), required(rule); {
		case matched == yes && (result == maybe && required == no || required == maybe):
			return maybe
		case matched == yes:
			return required
		case matched == maybe && required != no:
			result = maybe
		}
	}
	return max(result, maybeIf(f.contents.get("filter_state_rules") != nil))
}

// jwtRequires reports whether a JwtRequirement refuses a request without a token. Envoy refuses all requests for one that is not there.
func jwtRequires(requirement *Node) answer {
	switch {
	case requirement == nil, requirement.get("provider_name") != nil, requirement.get("provider_and_audiences") != nil:
		return yes
	case requirement.get("requires_any") != nil:
		return allOf(requirement.list("requires_any", "requirements"), jwtRequires)
	}
	// requires_all; else allow_missing, allow_missing_or_failed, extract_only_without_validation, or nothing
	return anyOf(requirement.list("requires_all", "requirements"), jwtRequires)
}

func faultActs(f filterAt) answer {
	c := f.replaced("HTTPFault")
	fraction := func(fault string, fixed ...string) answer {
		if !slices.ContainsFunc(fixed, func(key string) bool { return c.get(fault, key) != nil }) { // by a header, which a probe does not have
			return no
		}
		return matchesFraction(c.get(fault, "percentage"))
	}
	result := max(fraction("abort", "http_status", "grpc_status"), min(fraction("delay", "fixed_delay"), maybe))
	result = min(result, allOf(c.list("headers"), f.hasHeader))
	if c.get("upstream_cluster") != nil {
		result = min(result, ifForwarded(f))
	}
	if len(c.list("downstream_nodes")) > 0 || c.get("max_active_faults") != nil {
		result = min(result, maybe)
	}
	return result
}

// extProcCalls is by the parts that a processor gets of a "request" or a "response".
func extProcCalls(of string) func(filterAt) answer {
	return func(f filterAt) answer {
		mode := cmp.Or(f.route.get("overrides", "processing_mode"), f.contents.get("processing_mode"))
		headers, body := mode.text(of+"_header_mode"), mode.text(of+"_body_mode")
		return maybeIf(!f.contents.isTrue("observability_mode") && (headers != "SKIP" || body != "" && body != "NONE"))
	}
}

var luaComment = regexp.MustCompile(`--[^\n]*`)

// luaDefines is by the functions that a script defines.
func luaDefines(function *regexp.Regexp) func(filterAt) answer {
	return func(f filterAt) answer {
		code := f.contents.get("default_source_code")
		inline := f.contents.get("inline_code")
		if name := f.route.text("name"); name != "" {
			code, inline = f.contents.get("source_codes", name), nil
		}
		if own := f.route.get("source_code"); own != nil {
			code, inline = own, nil
		}
		if inline = cmp.Or(code.get("inline_string"), inline); inline == nil {
			return maybeIf(len(code.pairs()) > 0) // in a file
		}
		return maybeIf(function.MatchString(luaComment.ReplaceAllString(inline.scalar, "")))
	}
}

// transforms is by the actions of the filter on a "request" or a "response".
func transforms(what string) func(filterAt) answer {
	return func(f filterAt) answer {
		return maybeIf(f.replaced("TransformConfig").get(what+"_transformation") != nil)
	}
}
