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

hg_buffer hg_response_of(int status) {
  // Not compressed, two bytes long, field 1, a varint.
  static const char responses[][7] = {{0}, {0, 0, 0, 0, 2, 1 << 3, 1}, {0, 0, 0, 0, 2, 1 << 3, 2}, {0, 0, 0, 0, 2, 1 << 3, 3}};
  return (hg_buffer){responses[status], sizeof responses[status]};
}

void hg_response_send_headers(hg_stream *stream) {
  hg_header headers[] = {HG_HEADER(":status", "200"), HG_HEADER("content-type", "application/grpc")};
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_headers(stream->envoy, headers, 2, false);
}

void hg_response_send_data(hg_stream *stream, hg_buffer data) {
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_data(stream->envoy, data, false);
}

void hg_response_send_trailers(hg_stream *stream, const char *grpc_status) {
  hg_header trailers[] = {{"grpc-status", sizeof "grpc-status" - 1, grpc_status, strlen(grpc_status)}};
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_trailers(stream->envoy, trailers, 1);
}
