package lint

import "strconv"

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
		one := min(anyOf(policy.value.list("permissions"), f.permits), anyOf(policy.value.list("principals"), f.identifies))
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

// permits reports whether a Permission matches a probe.
func (f filterAt) permits(n *Node) answer {
	switch {
	case n.get("and_rules") != nil:
		return allOf(n.list("and_rules", "rules"), f.permits)
	case n.get("or_rules") != nil:
		return anyOf(n.list("or_rules", "rules"), f.permits)
	case n.get("not_rule") != nil:
		return not(f.permits(n.get("not_rule")))
	case n.get("destination_port") != nil:
		if f.port == nil {
			return maybe
		}
		return answerOf(f.port.scalar == strconv.Itoa(int(n.number(0, "destination_port"))))
	}
	return f.matches(n)
}

// identifies reports whether a Principal matches the client of a probe, which has no certificate and no token.
func (f filterAt) identifies(n *Node) answer {
	switch {
	case n.get("and_ids") != nil:
		return allOf(n.list("and_ids", "ids"), f.identifies)
	case n.get("or_ids") != nil:
		return anyOf(n.list("or_ids", "ids"), f.identifies)
	case n.get("not_id") != nil:
		return not(f.identifies(n.get("not_id")))
	case n.get("authenticated") != nil:
		return no
	}
	return f.matches(n)
}

// matches evaluates the fields that permissions and principals share.
func (f filterAt) matches(n *Node) answer {
	switch {
	case n.get("any") != nil:
		return answerOf(n.isTrue("any"))
	case n.get("header") != nil:
		return matchesHeader(n.get("header"), f.request)
	case n.get("url_path") != nil:
		return matchesString(n.get("url_path", "path"), f.request.path)
	case n.get("metadata") != nil: // from a filter that knows the client
		if n.isTrue("metadata", "invert") {
			return maybe
		}
		return no
	}
	return maybe // addresses, names of servers, extensions
}
