package lint

import (
	"net/netip"
	"regexp"
	"strings"
)

// answer is yes, no, or that it depends on more than a probe's path.
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

// matches says whether a route takes a GET of a path, as the router does: envoy/config/route/v3, RouteMatch.
func matches(route *Node, path string) answer {
	match := route.get("match")
	if match == nil {
		return no
	}
	return min(matchesPath(match, path), matchesRest(match))
}

func matchesPath(match *Node, path string) answer {
	folded := func(s string) string { return s }
	if sensitive := match.get("case_sensitive"); sensitive != nil && sensitive.scalar == "false" {
		folded = strings.ToLower
	}
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

// matchesRest looks at what else a match asks of a request.
func matchesRest(match *Node) answer {
	if match.get("grpc") != nil {
		return no
	}
	result := yes
	for _, header := range match.list("headers") {
		result = min(result, matchesHeader(header))
	}
	for _, key := range []string{"query_parameters", "dynamic_metadata", "filter_state", "cookies"} {
		if len(match.list(key)) > 0 {
			result = min(result, maybe)
		}
	}
	for _, key := range []string{"runtime_fraction", "tls_context"} {
		if match.get(key) != nil {
			result = min(result, maybe)
		}
	}
	return result
}

// matchesHeader knows the method of a probe and that it is no gRPC; a balancer may send any other header.
func matchesHeader(header *Node) answer {
	value := ""
	switch name := strings.ToLower(header.text("name")); name {
	case ":method":
		value = "GET"
	case "content-type":
	default:
		return maybe
	}
	exact := header.get("string_match", "exact")
	if exact == nil {
		exact = header.get("exact_match")
	}
	prefix := header.get("string_match", "prefix")
	inverted := header.isTrue("invert_match")
	switch {
	case exact != nil:
		return answerOf((exact.scalar == value) != inverted)
	case prefix != nil:
		return answerOf((value != "" && strings.HasPrefix(value, prefix.scalar)) != inverted)
	}
	return maybe
}

// takesIP says whether a domain other than * takes a request to an IP address, which is what balancers and kubelets probe.
func takesIP(domain *Node) bool {
	host := domain.scalar
	if at, err := netip.ParseAddrPort(host); err == nil {
		return at.IsValid()
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || ipWildcard.MatchString(host)
}

// ipWildcard is the beginning of an address, as in 10.0.*.
var ipWildcard = regexp.MustCompile(`^[0-9]{1,3}\.[0-9.]*\*$`)

// matchesString matches envoy.type.matcher.v3.StringMatcher.
func matchesString(matcher *Node, s string) answer {
	folded := func(s string) string { return s }
	if matcher.isTrue("ignore_case") {
		folded = strings.ToLower
	}
	s = folded(s)
	switch {
	case matcher.get("exact") != nil:
		return answerOf(s == folded(matcher.text("exact")))
	case matcher.get("prefix") != nil:
		return answerOf(strings.HasPrefix(s, folded(matcher.text("prefix"))))
	case matcher.get("suffix") != nil:
		return answerOf(strings.HasSuffix(s, folded(matcher.text("suffix"))))
	case matcher.get("contains") != nil:
		return answerOf(strings.Contains(s, folded(matcher.text("contains"))))
	case matcher.get("safe_regex") != nil:
		return matchesRegex(matcher.text("safe_regex", "regex"), s)
	}
	return maybe
}
