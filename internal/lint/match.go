package lint

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// answer is yes, no, or maybe: it depends on more than is known of a probe.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

func not(a answer) answer { return yes - a }

// anyOf returns the strongest answer.
func anyOf(all []*Node, is func(*Node) answer) answer {
	result := no
	for _, one := range all {
		result = max(result, is(one))
	}
	return result
}

// allOf returns the weakest answer.
func allOf(all []*Node, is func(*Node) answer) answer {
	result := yes
	for _, one := range all {
		result = min(result, is(one))
	}
	return result
}

// request is a plain probe, as far as its headers are known.
type request struct {
	path string
	tls  answer // whether the client uses TLS
	grpc bool   // it is a gRPC health check, and no plain GET
}

// matches reports whether a route takes a probe, as the router does: envoy/config/route/v3, RouteMatch.
func matches(route *Node, r request) answer {
	if match := route.get("match"); match != nil {
		return min(matchesPath(match, r.path), matchesRest(match, r))
	}
	return no
}

func matchesPath(match *Node, path string) answer {
	folded := foldIf(match.text("case_sensitive") == "false")
	prefix := match.get("path_separated_prefix")
	switch result := matchesText(match, "path", folded, path); {
	case prefix != nil && match.get("path") == nil:
		return answerOf(strings.HasPrefix(folded(path)+"/", folded(prefix.scalar)+"/"))
	case result == maybe && match.get("connect_matcher") != nil:
		return no
	default:
		return result
	}
}

// foldIf returns strings.ToLower, or a function that changes nothing.
func foldIf(fold bool) func(string) string {
	if fold {
		return strings.ToLower
	}
	return func(s string) string { return s }
}

// matchesRegex matches a whole string, as Envoy does.
func matchesRegex(pattern, s string) answer {
	if len(pattern) > 4096 {
		return maybe
	}
	if compiled, err := regexp.Compile(`^(?:` + pattern + `)$`); err == nil {
		return answerOf(compiled.MatchString(s))
	}
	return maybe
}

func matchesRest(match *Node, r request) answer {
	if match.get("grpc") != nil && !r.grpc {
		return no
	}
	result := allOf(match.list("headers"), func(header *Node) answer { return matchesHeader(header, r) })
	for _, key := range []string{"query_parameters", "dynamic_metadata", "filter_state", "cookies"} {
		if len(match.list(key)) > 0 {
			result = min(result, maybe)
		}
	}
	if fraction := match.get("runtime_fraction"); fraction != nil {
		result = min(result, matchesFraction(fraction.get("default_value")))
	}
	if certificate := match.get("tls_context"); certificate != nil { // a probe has none
		needed := certificate.text("presented") == "true" || certificate.text("validated") == "true"
		result = min(result, answerOf(!needed), max(answerOf(r.tls != maybe), maybe))
	}
	return result
}

// matchesFraction reports whether a FractionalPercent includes each request, some or none.
func matchesFraction(fraction *Node) answer {
	of := map[string]float64{"TEN_THOUSAND": 10_000, "MILLION": 1_000_000}[fraction.text("denominator")]
	if of == 0 {
		of = 100
	}
	switch numerator := fraction.number(0, "numerator"); {
	case numerator >= of:
		return yes
	case numerator > 0:
		return maybe
	}
	return no
}

// header returns the value of a probe's header, whether the header is present, and whether both are known: an operator may add headers
// to a balancer's probe.
func (r request) header(name string) (value string, present, known bool) {
	switch strings.ToLower(name) {
	case ":method":
		if r.grpc {
			return "POST", true, true
		}
		return "GET", true, true
	case ":path":
		return r.path, true, true
	case "content-type":
		if r.grpc {
			return "application/grpc", true, true
		}
		return "", false, true
	case ":scheme", "x-forwarded-proto": // Envoy sets both from the connection
		switch r.tls {
		case yes:
			return "https", true, true
		case no:
			return "http", true, true
		}
	}
	return "", false, false
}

// matchesHeader matches envoy.config.route.v3.HeaderMatcher.
func matchesHeader(header *Node, r request) answer {
	value, present, known := r.header(header.text("name"))
	if !known {
		switch strings.ToLower(header.text("name")) {
		case ":authority", "host", ":scheme", "x-forwarded-proto", "x-request-id": // present, with an unknown value
			present = true
		default:
			return maybe
		}
	}
	result := maybe
	wanted := header.get("present_match")
	switch {
	case wanted != nil:
		result = answerOf(present == (wanted.scalar != "false"))
	case !present && header.isTrue("treat_missing_header_as_empty"):
		result = matchesValue(header, "")
	case !present:
		return no // inverted or not
	case known && hasMatch(header):
		result = matchesValue(header, value)
	case !hasMatch(header): // the header is present
		result = yes
	}
	if header.isTrue("invert_match") {
		return not(result)
	}
	return result
}

func hasMatch(header *Node) bool {
	return slices.ContainsFunc(header.entries, func(e entry) bool {
		return !slices.Contains([]string{"name", "invert_match", "treat_missing_header_as_empty", "present_match"}, e.key)
	})
}

func matchesValue(header *Node, value string) answer {
	if matcher := header.get("string_match"); matcher != nil {
		return matchesString(matcher, value)
	}
	if within := header.get("range_match"); within != nil {
		n, err := strconv.ParseFloat(value, 64)
		return answerOf(err == nil && n >= within.number(0, "start") && n < within.number(0, "end"))
	}
	older := &Node{kind: mapping}
	for _, e := range header.entries { // exact_match, prefix_match, …
		older.entries = append(older.entries, entry{strings.TrimSuffix(e.key, "_match"), e.value})
	}
	return matchesString(older, value)
}

// takesIP reports whether a domain other than * matches a request to an IP address, as balancers and kubelets send.
func takesIP(domain *Node) bool {
	host := domain.scalar
	if at, err := netip.ParseAddrPort(host); err == nil {
		return at.IsValid()
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || ipWildcard.MatchString(host)
}

// ipWildcard matches the beginning of an address, as in 10.0.*.
var ipWildcard = regexp.MustCompile(`^[0-9]{1,3}\.[0-9.]*\*$`)

// matchesString matches envoy.type.matcher.v3.StringMatcher.
func matchesString(matcher *Node, s string) answer {
	return matchesText(matcher, "exact", foldIf(matcher.isTrue("ignore_case")), s)
}

// matchesText matches one of the conditions on a text. The whole text has another key in each message.
func matchesText(matcher *Node, whole string, folded func(string) string, s string) answer {
	is := func(matches func(s, of string) bool, key string) answer {
		return answerOf(matches(folded(s), folded(matcher.text(key))))
	}
	switch {
	case matcher.get("safe_regex") != nil:
		return matchesRegex(matcher.text("safe_regex", "regex"), s)
	case matcher.get(whole) != nil:
		return is(func(s, of string) bool { return s == of }, whole)
	case matcher.get("prefix") != nil:
		return is(strings.HasPrefix, "prefix")
	case matcher.get("suffix") != nil:
		return is(strings.HasSuffix, "suffix")
	case matcher.get("contains") != nil:
		return is(strings.Contains, "contains")
	}
	return maybe
}

// chainMatcher evaluates a listener's filter_chain_matcher for a plain probe of a connection manager. A condition on the client (its
// address, port or server name) is not met by a plain probe; one on the destination's address may be.
type chainMatcher struct{ connectionManager }

// selects returns whether a Matcher (xds.type.matcher.v3) gives a plain probe the manager's filter chain.
func (c chainMatcher) selects(matcher *Node) answer {
	if tree := matcher.get("matcher_tree"); tree != nil {
		return c.leads(c.branch(tree, matcher.get("on_no_match")))
	}
	result, left := no, yes // left: no entry so far has taken the probe
	for _, one := range matcher.list("matcher_list", "matchers") {
		if one.isTrue("on_match", "keep_matching") {
			continue
		}
		met := c.meets(one.get("predicate"))
		result = max(result, min(left, met, c.leads(one.get("on_match"))))
		left = min(left, not(met))
	}
	return max(result, min(left, c.leads(matcher.get("on_no_match"))))
}

// leads returns whether an OnMatch leads to the chain. If there is none, the default filter chain takes the connection.
func (c chainMatcher) leads(onMatch *Node) answer {
	switch {
	case onMatch.get("matcher") != nil:
		return c.selects(onMatch.get("matcher"))
	case onMatch.get("action") != nil:
		return answerOf(onMatch.text("action", "typed_config", "value") == c.chain.text("name"))
	}
	return answerOf(c.chain == c.listener.get("default_filter_chain"))
}

// branch returns the OnMatch of a MatcherTree that takes the probe. A custom_match is by address.
func (c chainMatcher) branch(tree, byDefault *Node) *Node {
	value, known := c.input(tree.get("input"))
	if known != yes || tree.get("custom_match") != nil {
		return byDefault
	}
	if exact := tree.get("exact_match_map", "map", value); exact != nil {
		return exact
	}
	longest := -1
	for _, e := range tree.pairs("prefix_match_map", "map") {
		if strings.HasPrefix(value, e.key) && len(e.key) > longest {
			byDefault, longest = e.value, len(e.key)
		}
	}
	return byDefault
}

// meets returns whether a plain probe meets a predicate.
func (c chainMatcher) meets(predicate *Node) answer {
	switch {
	case predicate.get("and_matcher") != nil:
		return allOf(predicate.list("and_matcher", "predicate"), c.meets)
	case predicate.get("or_matcher") != nil:
		return anyOf(predicate.list("or_matcher", "predicate"), c.meets)
	case predicate.get("not_matcher") != nil:
		return not(c.meets(predicate.get("not_matcher")))
	}
	value, known := c.input(predicate.get("single_predicate", "input"))
	if known != yes || predicate.get("single_predicate", "value_match") == nil {
		return known
	}
	return matchesString(predicate.get("single_predicate", "value_match"), value)
}

// input returns the value of a network input for a plain probe, and whether it is known; no if the probe has none.
func (c chainMatcher) input(n *Node) (value string, known answer) {
	_, typeName := typed(n.get("typed_config"))
	switch shortName(typeName) {
	case "DestinationPortInput":
		if port := c.listener.text("address", "socket_address", "port_value"); port != "" && port != "0" {
			return port, yes
		}
		return "", maybe
	case "TransportProtocolInput":
		if hasTLS(c.chain) {
			return "tls", yes
		}
		return "raw_buffer", yes
	case "ApplicationProtocolInput":
		if hasTLS(c.chain) {
			return "'h2','http/1.1'", yes
		}
		return "'http/1.1'", answerOf(c.inspectsHTTP())
	case "DestinationIPInput", "NetworkNamespaceInput":
		return "", maybe
	}
	return "", no
}

// rbacRefuses reports whether an RBAC filter refuses a plain probe. One that only logs, or only has shadow rules, refuses none.
func rbacRefuses(f filterAt) answer {
	c := f.contents
	if f.route != nil {
		c = f.route.get("rbac")
	}
	rules := c.get("rules")
	if c.get("matcher") != nil {
		return maybe
	}
	named := no
	for _, policy := range rules.pairs("policies") {
		one := min(anyOf(policy.value.list("permissions"), f.meets), anyOf(policy.value.list("principals"), f.meets))
		if policy.value.get("condition") != nil || policy.value.get("checked_condition") != nil || policy.value.get("cel_config") != nil {
			one = min(one, maybe)
		}
		named = max(named, one)
	}
	switch {
	case rules == nil, rules.text("action") == "LOG":
		return no
	case rules.text("action") == "DENY":
		return named
	}
	return not(named)
}

// meets reports whether a Permission matches a probe, or a Principal its client, which has no certificate and no token.
func (f filterAt) meets(n *Node) answer {
	switch {
	case n.get("and_rules") != nil || n.get("and_ids") != nil:
		return allOf(slices.Concat(n.list("and_rules", "rules"), n.list("and_ids", "ids")), f.meets)
	case n.get("or_rules") != nil || n.get("or_ids") != nil:
		return anyOf(slices.Concat(n.list("or_rules", "rules"), n.list("or_ids", "ids")), f.meets)
	case n.get("not_rule") != nil:
		return not(f.meets(n.get("not_rule")))
	case n.get("not_id") != nil:
		return not(f.meets(n.get("not_id")))
	case n.get("destination_port") != nil && f.port != nil:
		return answerOf(f.port.scalar == strconv.Itoa(int(n.number(0, "destination_port"))))
	case n.get("authenticated") != nil:
		return no
	case n.get("any") != nil:
		return answerOf(n.isTrue("any"))
	case n.get("header") != nil:
		return matchesHeader(n.get("header"), f.request)
	case n.get("url_path") != nil:
		return matchesString(n.get("url_path", "path"), f.request.path)
	case n.get("metadata") != nil && !n.isTrue("metadata", "invert"): // from a filter that knows the client
		return no
	}
	return maybe // addresses, names of servers, extensions
}

// Taker is a route that takes requests for a path.
type Taker struct {
	Line   int
	Match  string // the condition on the path, as in prefix: /
	Action string // as in: sends it to cluster a
	Always bool   // the route has no other condition
}

// Takers returns the routes of a virtual host that take a path, in order, up to the first that always does.
func Takers(virtualHost *yaml.Node, path string) (all []Taker) {
	n, err := (&yamlReader{place: place{position: newFile("", nil).at(0, 0)}}).node(virtualHost, 0)
	if err != nil {
		return nil
	}
	rename(n, typeVirtualHost)
	for _, route := range n.list("routes") {
		match := route.get("match")
		if matchesPath(match, path) != yes {
			continue
		}
		t := Taker{Line: route.line, Action: action(route), Always: true}
		for _, e := range match.pairs() {
			switch e.key {
			case "path", "prefix", "path_separated_prefix":
				t.Match = e.key + ": " + e.value.text()
			case "safe_regex":
				t.Match = e.key + ": " + e.value.text("regex")
			case "case_sensitive":
			default:
				t.Always = t.Always && e.value.kind == null
			}
		}
		if all = append(all, t); t.Always {
			break
		}
	}
	return all
}
