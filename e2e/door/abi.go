package door

// The header of the dynamic module ABI, which the stand-in is built with, comes with this module.
import _ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/abi"
