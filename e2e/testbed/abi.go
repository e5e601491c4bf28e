package testbed

// This module has the header of the dynamic module ABI, which the contrib host is built with.
import _ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/abi"
