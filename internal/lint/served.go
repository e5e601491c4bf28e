package lint

import (
	"cmp"
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
func Live(name string, dump []byte) (all []Served, found []Finding, err error) {
	l := &linter{found: findings{}}
	if err := l.read(Input{name, dump}); err != nil {
		return nil, nil, err
	}
	if len(l.scopes) == 0 {
		return nil, nil, errors.New("it is no /config_dump of an Envoy")
	}
	for _, s := range l.scopes {
		for _, g := range s.check(l.found) {
			all = append(all, g.served()...)
		}
	}
	return all, l.found.sorted(l.files), nil
}

// served returns the paths that a gate answers.
func (g *gate) served() (all []Served) {
	address := g.in.listener.get("address", "socket_address")
	base := Served{Listener: g.in.listener.text("name"), Module: g.variant == module, UDP: address.text("protocol") == "UDP"}
	if port := address.text("port_value"); port != "" && port != "0" {
		base.Address = net.JoinHostPort(address.text("address"), port)
	}
	if g.in.chain != nil {
		base.TLS = hasTLS(g.in.chain)
		base.ServerName = g.in.chain.get("filter_chain_match", "server_names").first().text()
		base.HTTP2 = g.in.text("codec_type") == "HTTP2"
		base.Proxied = g.in.proxyProtocol() != nil
	}
	own := g.decode([]*layer{g.layer})
	if len(g.answers) == 0 {
		base.NotAsked = g.filter.isTrue("disabled") && len(g.routing.configurations) > 0 && !g.routing.partial
		base.Config, base.Err, base.Path = own.config, own.err, cmp.Or(probe{config: own.config}.path(), "/")
		if own.config == nil && own.err == nil {
			base.Err = g.layer.err
		}
		base.countedBy(own.config)
		return []Served{base}
	}
	for _, p := range g.answers {
		one := base
		one.Path, one.Route, one.Config = p.path(), p.route.text("name"), p.config
		if p.virtualHost != virtualHostByIP(p.routes) && g.filter.isTrue("disabled") {
			one.Host = p.virtualHost.get("domains").first().text()
		}
		one.countedBy(own.config)
		if !slices.ContainsFunc(all, func(s Served) bool { return s.Path == one.Path && s.Config == one.Config }) {
			all = append(all, one)
		}
	}
	return all
}

func (s *Served) countedBy(filter *config.Config) {
	if s.Config == nil {
		return
	}
	if s.Prefixes = []string{s.Config.StatPrefix}; s.Module && filter != nil && filter.StatPrefix != s.Config.StatPrefix {
		s.Prefixes = append(s.Prefixes, filter.StatPrefix)
	}
}
