#include "stream.h"

hg_envoy_buffer hg_request_header(void *stream, hg_buffer key) {
  hg_envoy_buffer value = {"", 0};
  if (!envoy_dynamic_module_callback_http_get_header(stream, HG_REQUEST_HEADER, key, &value, 0, NULL))
    return (hg_envoy_buffer){"", 0};
  return value;
}

// The same rule as Grpc::Common::hasGrpcContentType in source/common/grpc/common.cc of v1.39.1.
bool hg_request_is_grpc(void *stream) {
  static const char grpc[] = "application/grpc";
  const size_t length = sizeof grpc - 1;
  hg_envoy_buffer type = hg_request_header(stream, HG_BUFFER("content-type"));
  return type.length >= length && memcmp(type.ptr, grpc, length) == 0 && (type.length == length || type.ptr[length] == '+');
}
