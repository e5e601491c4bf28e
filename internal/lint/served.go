package lint

import (
	"errors"
	"net"
	"slices"

	"healthgate/filter/config"
)

// Served is a gate of a running Envoy: one path on one listener.
type Served struct {
	Listener   string // its name; "" if the configuration gives it none
	Address    string // host:port of the listener, as its configuration has it; "" if that is not an address with a port
	UDP        bool   // it is a listener of HTTP/3
	Path       string
	Route      string // the name of its route, or ""
	Host       string // a domain of its virtual host, if a probe by IP address does not reach it; else ""
	TLS        bool
	ServerName string         // the server name that the filter chain requires, or ""
	Proxied    bool           // the listener requires the PROXY protocol
	HTTP2      bool           // it speaks only HTTP/2
	Config     *config.Config // nil if it is refused
	Err        error          // the reason
	// Prefixes has the stat prefixes that may count its replies, its own first: a route that a dynamic module's filter gets later has no
	// stats, and the filter's count its replies.
	Prefixes []string
	// NotAsked is set if no route enables the gate.
	NotAsked bool
	// Module is set for the dynamic module, which knows which clusters exist.
	Module bool
}

// Live returns the gates in admin's /config_dump, and the findings about them.
func Live(name string, dump []byte) ([]Served, []Finding, error) {
	l := &linter{}
	if err := l.read(Input{name, dump}); err != nil {
		return nil, nil, err
	}
	if len(l.scopes) == 0 {
		return nil, nil, errors.New("it is no /config_dump of an Envoy")
	}
	var all []Served
	for _, s := range l.scopes {
		for _, g := range s.gates() {
			all = append(all, s.served(g)...)
		}
		s.check(&l.found)
	}
	return all, l.found.sorted(l.files), nil
}

// served returns the paths that a gate answers.
func (s *scope) served(g *gate) []Served {
	base := Served{Listener: g.in.listener.text("name"), Module: g.variant == module}
	if address := g.in.listener.get("address", "socket_address"); address.text("port_value") != "" && address.text("port_value") != "0" {
		base.Address = net.JoinHostPort(address.text("address"), address.text("port_value"))
	}
	base.UDP = g.in.listener.text("address", "socket_address", "protocol") == "UDP"
	if g.in.chain != nil {
		base.TLS = hasTLS(g.in.chain)
		base.ServerName = g.in.chain.get("filter_chain_match", "server_names").first().text()
		base.HTTP2 = g.in.text("codec_type") == "HTTP2"
		base.Proxied = g.in.proxyProtocol() != nil
	}
	answering := g.answers
	if len(answering) == 0 {
		d := g.decode([]*layer{g.layer})
		base.Config, base.Err, base.NotAsked = d.config, d.err, g.filter.isTrue("disabled") && len(g.routing.configurations) > 0 &&
			!g.routing.partial
		if base.Path = "/"; d.config != nil {
			base.Path = d.config.Path
		}
		if d.config == nil && d.err == nil {
			base.Err = g.layer.err
		}
		base.countedBy(g)
		return []Served{base}
	}
	var all []Served
	for _, p := range answering {
		one := base
		one.Path, one.Route, one.Config = p.path(), p.route.text("name"), p.config
		if domain := p.virtualHost.get("domains").first().text(); p.virtualHost != virtualHostByIP(p.routes) && g.filter.isTrue("disabled") {
			one.Host = domain
		}
		one.countedBy(g)
		if !slices.ContainsFunc(all, func(s Served) bool { return s.Path == one.Path && s.Config == one.Config }) {
			all = append(all, one)
		}
	}
	return all
}

// countedBy sets the prefixes.
func (s *Served) countedBy(g *gate) {
	if s.Config == nil {
		return
	}
	s.Prefixes = []string{s.Config.StatPrefix}
	if own := g.decode([]*layer{g.layer}).config; g.variant == module && own != nil && own.StatPrefix != s.Config.StatPrefix {
		s.Prefixes = append(s.Prefixes, own.StatPrefix)
	}
}
