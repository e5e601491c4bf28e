// Command libhealthgate is a dynamic module of Envoy's: built with -buildmode=c-shared and found as libhealthgate.so by
// ENVOY_DYNAMIC_MODULES_SEARCH_PATH, it answers a load balancer's probes from the health that Envoy holds of its clusters.
package main

import _ "healthgate/filter/dynamicmodule"

func main() {}
