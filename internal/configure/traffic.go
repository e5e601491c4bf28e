package configure

import (
	"fmt"
	"regexp"
	"strings"
)

// traffic lists the requests that the gate's route takes, and which route took them until now.
func traffic(t *text, virtualHost value, path string) string {
	said := fmt.Sprintf("the route takes every request for %s of virtual host %q: GET and HEAD are the gate's, other methods get 503",
		path, virtualHost.text("name"))
	var before []string
	for _, route := range virtualHost.get("routes").items() {
		match, always := matches(route.get("match"), path)
		if match == "" {
			continue
		}
		text := fmt.Sprintf("line %d (%s, %s)", t.line(route.Line), match, action(route))
		if !always {
			text += " if its other conditions hold"
		}
		if before = append(before, text); always {
			break
		}
	}
	if len(before) == 0 {
		return said + "; no route took them until now"
	}
	return said + "; until now they went to the route in " + strings.Join(before, ", then ") + "; --path chooses another path"
}

// matches returns the part of a match that takes a path, "" if none does, and whether it has no other condition.
func matches(match value, path string) (by string, always bool) {
	always = true
	for _, other := range []string{"headers", "query_parameters", "grpc", "runtime_fraction", "dynamic_metadata", "tls_context",
		"filter_state", "cookies"} {
		always = always && !match.get(other).there()
	}
	same := func(a, b string) bool { return a == b }
	if match.text("case_sensitive") == "false" {
		path = strings.ToLower(path)
		same = strings.EqualFold
	}
	lower := func(s string) string {
		if match.text("case_sensitive") == "false" {
			return strings.ToLower(s)
		}
		return s
	}
	if exact := match.text("path"); exact != "" && same(exact, path) {
		return "path: " + exact, always
	}
	if prefix := match.get("prefix"); prefix.Node != nil && strings.HasPrefix(path, lower(prefix.Value)) {
		return "prefix: " + prefix.Value, always
	}
	if prefix := match.text("path_separated_prefix"); prefix != "" && (same(prefix, path) || strings.HasPrefix(path, lower(prefix)+"/")) {
		return "path_separated_prefix: " + prefix, always
	}
	if pattern := match.get("safe_regex").text("regex"); pattern != "" {
		if matcher, err := regexp.Compile("^(?:" + pattern + ")$"); err == nil && matcher.MatchString(path) {
			return "safe_regex: " + pattern, always
		}
	}
	return "", false
}

// action is a route's, in a few words.
func action(route value) string {
	switch {
	case route.get("route").text("cluster") != "":
		return "to cluster " + route.get("route").text("cluster")
	case route.get("route").there():
		return "to an upstream"
	case route.get("redirect").there():
		return "a redirect"
	case route.get("direct_response").there():
		return "a direct response of " + route.get("direct_response").text("status")
	}
	return "another action"
}
