package dynamicmodule

import (
	"encoding/binary"
	"encoding/json"
	"hash/fnv"

	"google.golang.org/protobuf/encoding/protowire"

	"healthgate/filter/config"
)

// The values of HealthCheckResponse.ServingStatus.
const (
	serving    = 1
	notServing = 2
)

// listResponse returns a framed HealthListResponse: every service with one status.
func listResponse(services []string, status uint64) string {
	response := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), status)
	var message []byte
	for _, service := range services {
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), response)
		message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), entry)
	}
	return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
}

// configHash returns a hash of a configuration, never 0. Configurations with the same hash answer alike.
func configHash(c *config.Config) uint64 {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // JSON can express all of it
	}
	hash := fnv.New64a()
	hash.Write(text)
	return max(hash.Sum64(), 1)
}
