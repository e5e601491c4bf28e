package testbed

// The header of the dynamic module ABI, which the contrib host is built with, comes with this module.
import _ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/abi"
