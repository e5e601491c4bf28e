// Command healthgate is a plugin of Envoy's golang extension: built with -buildmode=c-shared and named as library_path,
// it answers a load balancer's GET with 200 or 503 from the health that Envoy holds of its clusters.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"

	"healthgate/filter/golang"
)

// Name is the plugin_name under which Envoy finds the filter.
const Name = "healthgate"

func init() {
	http.RegisterHttpFilterFactoryAndConfigParser(Name, golang.NewStream, golang.Parser{})
}

func main() {}
