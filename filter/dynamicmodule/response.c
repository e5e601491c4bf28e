#include "response.h"

void hg_response_send_headers(hg_stream *stream) {
  hg_header headers[] = {HG_HEADER(":status", "200"), HG_HEADER("content-type", "application/grpc")};
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_headers(stream->envoy, headers, 2, false);
}

void hg_response_send_data(hg_stream *stream, hg_buffer data) {
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_data(stream->envoy, data, false);
}

void hg_response_send_status(hg_stream *stream, int status) {
  // Not compressed, two bytes long, field 1, a varint.
  const char message[] = {0, 0, 0, 0, 2, 1 << 3, (char)status};
  hg_response_send_data(stream, (hg_buffer){message, sizeof message});
}

void hg_response_send_trailers(hg_stream *stream, hg_buffer grpc_status) {
  hg_header trailers[] = {{"grpc-status", sizeof "grpc-status" - 1, grpc_status.ptr, grpc_status.length}};
  if (!stream->destroyed) envoy_dynamic_module_callback_http_send_response_trailers(stream->envoy, trailers, 1);
}
