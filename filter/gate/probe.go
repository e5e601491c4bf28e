package gate

import "strings"

// IsProbe reports whether a request is a probe of a path, whatever its query is: GET or HEAD, or POST with a gRPC content type.
// contentType is needed for POST only. It keeps none of the strings.
func IsProbe(probed, method, path, contentType string) bool {
	switch method {
	case "GET", "HEAD":
	case "POST":
		if !IsGRPC(contentType) {
			return false
		}
	default:
		return false
	}
	if query := strings.IndexByte(path, '?'); query >= 0 {
		path = path[:query]
	}
	return path == probed
}

// IsGRPC reports whether Envoy treats a request as gRPC because of its content type: Grpc::Common::hasGrpcContentType in
// source/common/grpc/common.cc of v1.39.1.
func IsGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}
