package lint

import "strings"

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
