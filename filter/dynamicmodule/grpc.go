package dynamicmodule

import (
	"encoding/binary"
	"encoding/json"
	"hash/fnv"

	"google.golang.org/protobuf/encoding/protowire"

	"healthgate/filter/config"
)

// grpcCounters are the names of what counts calls of grpc.health.v1.Health: Check and List, and Watch.
func grpcCounters(prefix string) []string {
	return []string{scope + prefix + ".grpc_check", scope + prefix + ".grpc_watch"}
}

// grpcGauge is the name of how many calls of Watch there are.
func grpcGauge(prefix string) string { return scope + prefix + ".grpc_watchers" }

// The values of HealthCheckResponse.ServingStatus.
const (
	serving    = 1
	notServing = 2
)

// list is a framed HealthListResponse: every service with one status.
func list(services []string, status uint64) []byte {
	response := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), status)
	var message []byte
	for _, service := range services {
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), response)
		message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), entry)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// contentOf returns a hash of a configuration, never 0: two configurations with the same hash answer alike.
func contentOf(config *config.Config) uint64 {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // it has nothing that JSON can't express
	}
	hash := fnv.New64a()
	hash.Write(text)
	return max(hash.Sum64(), 1)
}
