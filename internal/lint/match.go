package lint

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
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
	match := route.get("match")
	if match == nil {
		return no
	}
	return min(matchesPath(match, r.path), matchesRest(match, r))
}

func matchesPath(match *Node, path string) answer {
	folded := foldIf(match.text("case_sensitive") == "false")
	switch {
	case match.get("path") != nil:
		return answerOf(folded(match.text("path")) == folded(path))
	case match.get("path_separated_prefix") != nil:
		prefix := folded(match.text("path_separated_prefix"))
		return answerOf(folded(path) == prefix || strings.HasPrefix(folded(path), prefix+"/"))
	case match.get("safe_regex") != nil:
		return matchesRegex(match.text("safe_regex", "regex"), path)
	case match.get("prefix") != nil:
		return answerOf(strings.HasPrefix(folded(path), folded(match.text("prefix"))))
	case match.get("connect_matcher") != nil:
		return no
	}
	return maybe
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
	compiled, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return maybe
	}
	return answerOf(compiled.MatchString(s))
}

// matchesRest evaluates the rest of a match.
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
	if certificate := match.get("tls_context"); certificate != nil {
		result = min(result, matchesCertificate(certificate, r))
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

// matchesCertificate reports whether a probe, which has no client certificate, meets a TlsContextMatchOptions.
func matchesCertificate(options *Node, r request) answer {
	result := yes
	for _, key := range []string{"presented", "validated"} {
		if wanted := options.get(key); wanted != nil && wanted.scalar == "true" {
			result = no
		}
	}
	if r.tls == maybe {
		return min(result, maybe)
	}
	return result
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

// headerMatches maps the older keys of a HeaderMatcher to the keys of a StringMatcher.
var headerMatches = map[string]string{"exact_match": "exact", "prefix_match": "prefix", "suffix_match": "suffix",
	"contains_match": "contains", "safe_regex_match": "safe_regex"}

func hasMatch(header *Node) bool {
	for _, e := range header.entries {
		switch e.key {
		case "name", "invert_match", "treat_missing_header_as_empty", "present_match":
		default:
			return true
		}
	}
	return false
}

func matchesValue(header *Node, value string) answer {
	if matcher := header.get("string_match"); matcher != nil {
		return matchesString(matcher, value)
	}
	if within := header.get("range_match"); within != nil {
		n, err := strconv.ParseFloat(value, 64)
		return answerOf(err == nil && n >= within.number(0, "start") && n < within.number(0, "end"))
	}
	for _, e := range header.entries {
		if kind := headerMatches[e.key]; kind != "" {
			return matchesString(&Node{kind: mapping, entries: []entry{{kind, e.value}}}, value)
		}
	}
	return maybe
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
	folded := foldIf(matcher.isTrue("ignore_case"))
	switch {
	case matcher.get("safe_regex") != nil:
		return matchesRegex(matcher.text("safe_regex", "regex"), s)
	case matcher.get("exact") != nil:
		return answerOf(folded(s) == folded(matcher.text("exact")))
	case matcher.get("prefix") != nil:
		return answerOf(strings.HasPrefix(folded(s), folded(matcher.text("prefix"))))
	case matcher.get("suffix") != nil:
		return answerOf(strings.HasSuffix(folded(s), folded(matcher.text("suffix"))))
	case matcher.get("contains") != nil:
		return answerOf(strings.Contains(folded(s), folded(matcher.text("contains"))))
	}
	return maybe
}
