package lint

import (
	"regexp"
	"slices"
	"strings"
)

// actor is a kind of HTTP filter that can act on a probe or on the gate's reply.
type actor struct {
	typeName string // how the name of its type ends
	request  string // its effect on a request that comes to it before the gate; "" if nothing
	reply    string // its effect on the gate's reply, which passes it on either side of the gate; "" if nothing
	// acts says whether it does so, by its configuration: on a request, where yes means that no plain probe passes, and on a reply.
	acts func(f filterAt) (request, reply answer)
}

// filterAt is a filter on a probe's route.
type filterAt struct {
	contents *Node // its configuration; nil if not known
	route    *Node // the route's own configuration of it, with the name of its type; nil if there is none
	routeIs  string
	probe    probe
	port     *Node // of the listener
	request  request
}

var actors = []actor{
	{"filters.http.jwt_authn.v3.JwtAuthentication", "asks for a token, which a probe does not have (401)", "", jwtActs},
	{"filters.http.ext_authz.v3.ExtAuthz", "asks an authorization service, and refuses if that can't be reached (403)", "may act on it", extAuthzActs},
	{"filters.http.oauth2.v3.OAuth2", "sends a client without its cookie to log in (302)", "", oauthActs},
	{"filters.http.basic_auth.v3.BasicAuth", "asks for a password, which a probe does not have (401)", "", unlessMissingAllowed},
	{"filters.http.api_key_auth.v3.ApiKeyAuth", "asks for a key, which a probe does not have (401)", "", always},
	{"filters.http.rbac.v3.RBAC", "refuses a probe by its policies (403)", "", rbacActs},
	{"filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder", "refuses each request that is none of its methods (404)", "", transcoderActs},
	{"filters.http.mcp.v3.Mcp", "refuses each request that is not MCP", "", mcpActs},
	{"filters.http.a2a.v3.A2a", "refuses each request that is not A2A", "", a2aActs},
	{"filters.http.checksum.v3alpha.ChecksumConfig", "refuses each path without a checksum (403)", "", checksumActs},
	{"filters.http.file_server.v3.FileServerConfig", "answers with a file, or 404", "", fileServerActs},
	{"filters.http.credential_injector.v3.CredentialInjector", "refuses requests while it has no credential (401)", "", credentialActs},
	{"filters.http.ratelimit.v3.RateLimit", "refuses requests over its limit (429)", "", rateLimitActs},
	{"filters.http.local_ratelimit.v3.LocalRateLimit", "refuses requests over its limit (429)", "", localRateLimitActs},
	{"filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig", "refuses requests over its quota (429)", "", mayRefuse},
	{"filters.http.fault.v3.HTTPFault", "answers some requests with an error, or late", "may delay it", faultActs},
	{"filters.http.admission_control.v3.AdmissionControl", "refuses requests while others fail (503)", "counts each 503 as a failure, and then refuses real requests", ifEnabled},
	{"filters.http.adaptive_concurrency.v3.AdaptiveConcurrency", "refuses requests over its limit (503)", "", ifEnabled},
	{"filters.http.bandwidth_limit.v3.BandwidthLimit", "delays requests", "", bandwidthActs},
	{"filters.http.csrf.v3.CsrfPolicy", "refuses gRPC probes, which have no origin (403)", "", csrfActs},
	{"filters.http.cache.v3.CacheConfig", "may answer from its cache", "", onlyForwarded},
	{"filters.http.cache_v2.v3.CacheV2Config", "may answer from its cache", "", onlyForwarded},
	{"filters.http.health_check.v3.HealthCheck", "answers health checks itself", "", healthCheckActs},
	{"filters.http.ext_proc.v3.ExternalProcessor", "asks a processor, which may answer or be out of reach (500)", "asks a processor, which may change it or be out of reach (500)", extProcActs},
	{"filters.http.wasm.v3.Wasm", "runs a program that may answer", "may change it by its program", mayAct},
	{"filters.http.lua.v3.Lua", "runs a script that may answer", "runs a script that may change it", luaActs},
	{"filters.http.golang.v3alpha.Config", "runs a plugin that may answer", "may change it by its plugin", mayAct},
	{"filters.http.dynamic_modules.v3.DynamicModuleFilter", "runs a module that may answer", "may change it by its module", mayAct},
	{"filters.http.transform.v3.TransformConfig", "changes requests", "changes it", transformActs},
	{"filters.http.custom_response.v3.CustomResponse", "", "may put another reply in its place", customResponseActs},
	{"filters.http.composite.v3.Composite", "runs a filter that a request picks, and that may answer", "may change it by a filter that a request picks", compositeActs},
}

// checkOrder finds filters that may answer a probe before the gate does, and filters that may change the gate's reply: Envoy passes
// a local reply through every filter of the chain, on either side of the filter that sends it.
func (s *scope) checkOrder(f *findings, g *gate) {
	for i, other := range g.in.list("http_filters") {
		if i == g.index {
			continue
		}
		contents, typeName := s.httpFilter(other)
		uncertain := false
		if strings.HasSuffix(typeName, ".ExtensionWithMatcher") { // its matcher may leave the filter out
			contents, typeName = typed(contents.get("extension_config", "typed_config"))
			uncertain = true
		}
		at := slices.IndexFunc(actors, func(a actor) bool { return strings.HasSuffix(typeName, a.typeName) })
		if at < 0 || isOwn(contents, typeName) {
			continue
		}
		a := actors[at]
		request, reply := g.acted(a, other, contents)
		if i > g.index || a.request == "" {
			request = no
		}
		if a.reply == "" {
			reply = no
		}
		name, severity := quoteKey(other.text("name")), Warning
		if request == yes && !uncertain {
			severity = Error
		}
		side := "before"
		if i > g.index {
			side = "after"
		}
		switch {
		case request != no:
			f.add(other, severity, "order", "%s stands before the gate and %s, whatever the clusters are: %s", name, a.request, g.sparing(other))
		case reply != no:
			f.add(other, Warning, "order", "%s stands %s the gate and sees the gate's reply, as every filter of the chain does; it %s: %s", name,
				side, a.reply, g.sparing(other))
		}
	}
}

// sparing are the lines that keep a filter from the gate's probes.
func (g *gate) sparing(other *Node) string {
	name := other.text("name")
	if !plainKey.MatchString(name) {
		name = `"` + name + `"`
	}
	return "write into the probe's route: typed_per_filter_config: {" + name + `: {"@type": type.googleapis.com/` + typeFilterConfig + ", disabled: true}}"
}

// acted returns the most that a filter does on any route of the gate.
func (g *gate) acted(a actor, other, contents *Node) (request, reply answer) {
	at := func(p probe, path string) {
		f := filterAt{contents: contents, probe: p, request: g.request(path)}
		f.request.grpc = path == healthPath
		f.port = g.in.listener.get("address", "socket_address", "port_value")
		f.route, f.routeIs = mostSpecific(p, other.text("name"))
		if f.route.isTrue("disabled") { // in the filter's own words
			return
		}
		onRequest, onReply := a.acts(f)
		request, reply = max(request, onRequest), max(reply, onReply)
	}
	if len(g.answers) == 0 && !other.isTrue("disabled") {
		at(probe{}, "/")
	}
	for _, p := range g.probes {
		if g.answersHealth(p) && isOn(p, other) {
			at(p, healthPath)
		}
	}
	type state struct {
		path, routeIs string
		route         *Node
		direct        bool
	}
	known := map[state]bool{}
	for _, p := range g.answers {
		if !isOn(p, other) {
			continue
		}
		s := state{path: p.path(), direct: p.route.get("direct_response") != nil}
		s.route, s.routeIs = mostSpecific(p, other.text("name"))
		if !known[s] {
			known[s] = true
			at(p, p.path())
		}
	}
	return request, reply
}

// levels are a probe's levels of routes, the narrowest first.
func (p probe) levels() []*Node { return []*Node{p.route, p.virtualHost, p.routes} }

// isOn says whether a filter is on for a probe's route: PerFilterConfigs::disabled in source/common/router of v1.39.1.
func isOn(p probe, other *Node) bool {
	for _, level := range p.levels() {
		says := level.get("typed_per_filter_config", other.text("name"))
		if says == nil {
			continue
		}
		contents, typeName := typed(says)
		return typeName != typeFilterConfig || !contents.isTrue("disabled")
	}
	return !other.isTrue("disabled")
}

// mostSpecific returns the configuration of a filter that counts on a probe's route, or nil if no level has one.
func mostSpecific(p probe, name string) (contents *Node, typeName string) {
	for _, level := range p.levels() {
		contents, typeName = typed(level.get("typed_per_filter_config", name))
		if typeName == typeFilterConfig {
			contents, typeName = typed(contents.get("config"))
		}
		if typeName != "" {
			return contents, typeName
		}
	}
	return nil, ""
}

// replaced returns the route's configuration of a filter if it has the same type as the filter's configuration, which it replaces; else
// the filter's.
func (f filterAt) replaced(typeName string) *Node {
	if f.route != nil && strings.HasSuffix(f.routeIs, typeName) {
		return f.route
	}
	return f.contents
}

func always(filterAt) (request, reply answer)    { return yes, no }
func mayRefuse(filterAt) (request, reply answer) { return maybe, no }
func mayAct(filterAt) (request, reply answer)    { return maybe, maybe }

// onlyForwarded is for filters that leave alone a request whose route sends it nowhere.
func onlyForwarded(f filterAt) (request, reply answer) {
	if f.probe.route.get("direct_response") != nil || f.probe.route.get("redirect") != nil {
		return no, no
	}
	return maybe, no
}

// isOff says whether a RuntimeFeatureFlag or a RuntimeFractionalPercent is off by default.
func isOff(flag *Node) bool {
	value := flag.get("default_value")
	return value != nil && (value.scalar == "false" || value.kind == mapping && matchesFraction(value) == no)
}

func ifEnabled(f filterAt) (request, reply answer) {
	if enabled := f.contents.get("enabled"); enabled != nil && (isOff(enabled) || enabled.get("default_value") == nil) {
		return no, no
	}
	return maybe, maybe
}

func unlessMissingAllowed(f filterAt) (request, reply answer) {
	return answerOf(!f.contents.isTrue("allow_missing")), no
}

func extAuthzActs(f filterAt) (request, reply answer) {
	c := f.contents
	switch {
	case isOff(c.get("filter_enabled")) && !c.get("deny_at_disable").isTrue("default_value"), c.isTrue("shadow_mode"):
		return no, no
	case c.isTrue("failure_mode_allow"), c.get("filter_enabled_metadata") != nil, c.get("filter_enabled") != nil &&
		matchesFraction(c.get("filter_enabled", "default_value")) == maybe:
		return maybe, maybe
	}
	return yes, maybe
}

func oauthActs(f filterAt) (request, reply answer) {
	passes := no
	for _, header := range f.contents.list("config", "pass_through_matcher") {
		passes = max(passes, matchesHeader(header, f.request))
	}
	return not(passes), no
}

// jwtActs is by the first rule that matches.
func jwtActs(f filterAt) (request, reply answer) {
	if name := f.route.text("requirement_name"); name != "" {
		return jwtNeeds(f.contents.get("requirement_map", name)), no
	}
	result := no
	for _, rule := range f.contents.list("rules") {
		matched := matches(rule, f.request)
		if matched == no {
			continue
		}
		need := no
		if name := rule.text("requirement_name"); name != "" {
			need = jwtNeeds(f.contents.get("requirement_map", name))
		} else if requires := rule.get("requires"); requires != nil {
			need = jwtNeeds(requires)
		}
		if matched == yes {
			if result == maybe && need == no || need == maybe {
				return maybe, no
			}
			return need, no
		}
		if need != no {
			result = maybe
		}
	}
	if f.contents.get("filter_state_rules") != nil {
		result = maybe
	}
	return result, no
}

// jwtNeeds says whether a JwtRequirement, which is not nil if it is there, refuses a request without a token.
func jwtNeeds(requirement *Node) answer {
	if requirement == nil { // a name that is not there is refused
		return yes
	}
	switch {
	case requirement.get("requires_any") != nil:
		result := yes
		for _, one := range requirement.list("requires_any", "requirements") {
			result = min(result, jwtNeeds(one))
		}
		return result
	case requirement.get("requires_all") != nil:
		result := no
		for _, one := range requirement.list("requires_all", "requirements") {
			result = max(result, jwtNeeds(one))
		}
		return result
	case requirement.get("provider_name") != nil, requirement.get("provider_and_audiences") != nil:
		return yes
	}
	return no // allow_missing, allow_missing_or_failed, extract_only_without_validation, or nothing
}

func transcoderActs(f filterAt) (request, reply answer) {
	c := f.replaced(".GrpcJsonTranscoder")
	return answerOf(!f.request.grpc && len(c.list("services")) > 0 && c.isTrue("request_validation_options", "reject_unknown_method")), no
}

func mcpActs(f filterAt) (request, reply answer) {
	mode := f.contents.text("traffic_mode")
	if own := f.route.text("traffic_mode"); own != "" {
		mode = own
	}
	return answerOf(mode == "REJECT_NO_MCP"), no
}

// a2aActs: Envoy 1.40 refuses a GET, and 1.39 does not.
func a2aActs(f filterAt) (request, reply answer) {
	return min(answerOf(f.contents.text("traffic_mode") == "REJECT"), maybe), no
}

func checksumActs(f filterAt) (request, reply answer) {
	return answerOf(f.contents.isTrue("reject_unmatched")), no
}

func fileServerActs(f filterAt) (request, reply answer) {
	for _, mapped := range f.replaced(".FileServerConfig").list("path_mappings") {
		if strings.HasPrefix(f.request.path, mapped.text("request_path_prefix")) {
			return yes, no
		}
	}
	return no, no
}

func credentialActs(f filterAt) (request, reply answer) {
	if f.contents.isTrue("allow_request_without_credential") {
		return no, no
	}
	return maybe, no
}

// rateLimitActs: a route that sends its requests nowhere has no limits.
func rateLimitActs(f filterAt) (request, reply answer) {
	if isOff(f.contents.get("filter_enabled")) || isOff(f.contents.get("filter_enforced")) {
		return no, no
	}
	if forwarded, _ := onlyForwarded(f); forwarded == no {
		return no, no
	}
	if len(f.probe.route.list("route", "rate_limits")) > 0 || len(f.probe.virtualHost.list("rate_limits")) > 0 ||
		len(f.contents.list("rate_limits")) > 0 || len(f.route.list("rate_limits")) > 0 {
		return maybe, no
	}
	return no, no
}

// localRateLimitActs: both shares are 0 % unless they are given.
func localRateLimitActs(f filterAt) (request, reply answer) {
	c := f.replaced(".LocalRateLimit")
	if c.get("token_bucket") == nil && len(c.list("descriptors")) == 0 {
		return no, no
	}
	for _, share := range []string{"filter_enabled", "filter_enforced"} {
		if matchesFraction(c.get(share, "default_value")) == no {
			return no, no
		}
	}
	return maybe, no
}

func faultActs(f filterAt) (request, reply answer) {
	c := f.replaced(".HTTPFault")
	share := func(fault string, fixed ...string) answer {
		if !slices.ContainsFunc(fixed, func(key string) bool { return c.get(fault, key) != nil }) { // by header, which a probe does not have
			return no
		}
		return matchesFraction(c.get(fault, "percentage"))
	}
	abort := share("abort", "http_status", "grpc_status")
	request = max(abort, min(share("delay", "fixed_delay"), maybe))
	for _, header := range c.list("headers") {
		request = min(request, matchesHeader(header, f.request))
	}
	if c.get("upstream_cluster") != nil {
		forwarded, _ := onlyForwarded(f)
		request = min(request, forwarded)
	}
	if len(c.list("downstream_nodes")) > 0 || c.get("max_active_faults") != nil {
		request = min(request, maybe)
	}
	return request, request
}

func bandwidthActs(f filterAt) (request, reply answer) {
	c := f.replaced(".BandwidthLimit")
	if mode := c.text("enable_mode"); mode == "" || mode == "DISABLED" || isOff(c.get("runtime_enabled")) {
		return no, no
	}
	return maybe, no
}

// csrfActs: a GET is never refused. A gRPC probe is a POST.
func csrfActs(f filterAt) (request, reply answer) {
	c := f.replaced(".CsrfPolicy")
	if isOff(c.get("filter_enabled")) || !f.request.grpc {
		return no, no
	}
	return maybe, no
}

func healthCheckActs(f filterAt) (request, reply answer) {
	if f.contents.isTrue("pass_through_mode") {
		return no, no
	}
	result := maybe
	for _, header := range f.contents.list("headers") {
		result = min(result, matchesHeader(header, f.request))
	}
	return result, no
}

func extProcActs(f filterAt) (request, reply answer) {
	if f.contents.isTrue("observability_mode") {
		return no, no
	}
	mode := f.contents.get("processing_mode")
	if own := f.route.get("overrides", "processing_mode"); own != nil {
		mode = own
	}
	sent := func(headers, body string) answer {
		if mode.text(headers) == "SKIP" && (mode.text(body) == "" || mode.text(body) == "NONE") {
			return no
		}
		return maybe
	}
	return sent("request_header_mode", "request_body_mode"), sent("response_header_mode", "response_body_mode")
}

var (
	luaComment = regexp.MustCompile(`--[^\n]*`)
	luaRequest = regexp.MustCompile(`\benvoy_on_request\b`)
	luaReply   = regexp.MustCompile(`\benvoy_on_response\b`)
)

// luaActs is by the functions that a script defines.
func luaActs(f filterAt) (request, reply answer) {
	code := f.contents.get("default_source_code")
	inline := f.contents.get("inline_code")
	if name := f.route.text("name"); name != "" {
		code, inline = f.contents.get("source_codes", name), nil
	}
	if own := f.route.get("source_code"); own != nil {
		code, inline = own, nil
	}
	if text := code.get("inline_string"); text != nil {
		inline = text
	}
	if inline == nil {
		if len(code.pairs()) == 0 {
			return no, no
		}
		return maybe, maybe // in a file
	}
	script := luaComment.ReplaceAllString(inline.scalar, "")
	return min(answerOf(luaRequest.MatchString(script)), maybe), min(answerOf(luaReply.MatchString(script)), maybe)
}

func transformActs(f filterAt) (request, reply answer) {
	c := f.replaced(".TransformConfig")
	return min(answerOf(c.get("request_transformation") != nil), maybe), min(answerOf(c.get("response_transformation") != nil), maybe)
}

func customResponseActs(f filterAt) (request, reply answer) {
	if f.contents.get("custom_response_matcher") == nil && f.route.get("custom_response_matcher") == nil {
		return no, no
	}
	return no, maybe
}

// compositeActs: the actions are in the matcher around it.
func compositeActs(filterAt) (request, reply answer) { return maybe, maybe }
