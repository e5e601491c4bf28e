// Package main is Healthgate's dynamic module. Build it with -buildmode=c-shared as libhealthgate.so, which Envoy finds by
// ENVOY_DYNAMIC_MODULES_SEARCH_PATH.
package main

import _ "healthgate/filter/dynamicmodule"

func main() {}
