// Package main is Healthgate's Go plugin, for Envoy's golang extension. Build it with -buildmode=c-shared, and name the file in
// library_path. The command healthgate is in cmd/healthgate.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"

	"healthgate/filter/golang"
)

// Name is the plugin_name in Envoy's configuration.
const Name = "healthgate"

func init() {
	http.RegisterHttpFilterFactoryAndConfigParser(Name, golang.NewStream, golang.Parser{})
}

func main() {}
