// Package config is the configuration language: its keys, their decoding, and route overrides. schema.json describes the same keys for
// editors.
//
//	config.go    the keys
//	reader.go    reading one object strictly, with errors that name the key
//	decode.go    decoding all keys
//	override.go  route overrides and merged configurations
package config
