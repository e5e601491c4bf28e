package configure

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// Gate is the gate to add.
type Gate struct {
	Cluster string // the cluster's name in Envoy
	Path    string // of the probe
	Module  bool   // for the dynamic module; else for the Go plugin
	Check   Check  // for a cluster that has no health checks; the zero Check adds none
}

// Check is a health check of a cluster's hosts.
type Check struct {
	GRPC    bool   // by grpc.health.v1, which needs HTTP/2 to the hosts
	Service string // asked by gRPC; "" asks for the server as a whole
	Path    string // asked by an HTTP GET; "" is no HTTP check
}

// Validate returns an error if the filter would refuse the gate.
func (g Gate) Validate() error {
	if g.Check.Path != "" && !strings.HasPrefix(g.Check.Path, "/") {
		return fmt.Errorf("--http-check: %q does not start with /", g.Check.Path)
	}
	if g.Check.GRPC && g.Check.Path != "" {
		return errors.New("--grpc-service and --http-check exclude each other: remove one of them")
	}
	s, err := structpb.NewStruct(map[string]any{"path": g.Path, "clusters": []any{g.Cluster}})
	if err != nil {
		return err
	}
	variant := config.Plugin
	if g.Module {
		variant = config.Module
	}
	_, err = config.Decode(s, variant)
	var wrong config.Errors
	if errors.As(err, &wrong) {
		for _, key := range wrong {
			key.Path = cmp.Or(flagOf[key.Path], key.Path)
		}
	}
	return err
}

// flagOf has the flag of each key that a Gate sets.
var flagOf = map[string]string{"path": "--path", "clusters[0].name": "--cluster"}

// facts has all that the parts of a configuration depend on.
type facts struct {
	Gate
	StatName string   // the cluster's alt_stat_name
	Disabled []string // the filters to disable on the probe's route
	HostName string   // of the virtual host to add
	HTTP2    bool     // the cluster speaks only HTTP/2
}

//go:embed gate.tmpl
var source string

var parts = template.New("")

func init() {
	parts.Funcs(template.FuncMap{"yaml": quote, "part": func(name string, by int, f facts) string {
		return strings.TrimSpace(strings.Join(indented(by, f.part(name)), "\n"))
	}})
	template.Must(parts.Parse(source))
}

// part returns the lines of a part of a configuration, without indentation.
func (f facts) part(name string) []string {
	var b strings.Builder
	if err := parts.ExecuteTemplate(&b, name, f); err != nil {
		panic(err) // the template is wrong
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// quote returns a string as YAML, without quotes if that is safe.
func quote(s string) string {
	bare := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_./", r))
	})
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n", "/":
		bare = false
	}
	if bare && s[0] != '.' {
		return s
	}
	return strconv.Quote(s)
}

// Print returns a configuration with each part in its place. The other lines show the place.
func (g Gate) Print() string { return strings.Join(facts{Gate: g}.part("page"), "\n") + "\n" }
