package lint

import "regexp"

// placeholder matches a variable of a template: envsubst and the shell, Go and Jinja, Ansible, Consul, sed.
var placeholder = regexp.MustCompile(`\$\{?\{?[A-Za-z_(]|\{\{|\{%|<[A-Za-z_ .-]+>|<%|@[A-Z_]+@|%[A-Z_]{3,}%|__[A-Z_]+__|#\{`)

func isPlaceholder(s string) bool { return placeholder.MatchString(s) }

// placeholderWord matches a word that a script replaces by a number: ADMIN_PORT.
var placeholderWord = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
