// What a probe is sent.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "go.h"

hg_envoy_buffer hg_request_header(void *stream, hg_buffer key) {
  hg_envoy_buffer value = {"", 0};
  if (!envoy_dynamic_module_callback_http_get_header(stream, HG_REQUEST_HEADER, key, &value, 0, NULL))
    return (hg_envoy_buffer){"", 0};
  return value;
}

// As Envoy takes a request for gRPC: Grpc::Common::hasGrpcContentType in source/common/grpc/common.cc of v1.39.1.
bool hg_calls_itself_grpc(void *stream) {
  static const char grpc[] = "application/grpc";
  const size_t length = sizeof grpc - 1;
  hg_envoy_buffer type = hg_request_header(stream, HG_BUFFER("content-type"));
  return type.length >= length && memcmp(type.ptr, grpc, length) == 0 && (type.length == length || type.ptr[length] == '+');
}

static bool is_method(hg_envoy_buffer method, void *stream) {
  return hg_equal(HG_BUFFER("GET"), method) || hg_equal(HG_BUFFER("HEAD"), method) ||
         (hg_equal(HG_BUFFER("POST"), method) && hg_calls_itself_grpc(stream));
}

bool hg_is_probe(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path) {
  const char *query = path.length > 0 ? memchr(path.ptr, '?', path.length) : NULL;
  if (query != NULL) path.length = (size_t)(query - path.ptr);
  for (size_t i = 0; i < gate->path_count; i++)
    if (hg_equal(gate->paths[i], path)) return is_method(method, stream);
  return false;
}

// reply_to returns what a probe is sent: Go makes a report of what is known now, and that is asked only while it is true.
static const hg_reply *reply_to(hg_stream *stream) {
  if (stream->broken) return stream->gate->error;
  const hg_reply *reply = hg_gate_now(stream->gate);
  if (!stream->gate->details || reply == stream->gate->stale) return reply;
  hg_envoy_buffer accept = hg_request_header(stream->envoy, HG_BUFFER("accept"));
  // The reply to a request that calls itself gRPC has a message, in a header, in the place of a body.
  if (accept.length == 0 || hg_calls_itself_grpc(stream->envoy)) return reply;
  const hg_reply *report = healthgateReport(stream->gate->handle, (char *)accept.ptr, accept.length);
  return report != NULL ? report : reply;
}

// percent_encode writes a body in the encoding of grpc-message, and returns its length, up to three times that of the body.
static size_t percent_encode(char *into, hg_buffer body) {
  size_t length = 0;
  for (size_t i = 0; i < body.length; i++) {
    unsigned char byte = (unsigned char)body.ptr[i];
    if (byte >= ' ' && byte <= '~' && byte != '%')
      into[length++] = (char)byte;
    else
      length += (size_t)sprintf(into + length, "%%%02X", byte);
  }
  return length;
}

// answer_grpc sends a reply to a gRPC probe. Its status and its body are headers: send_error in grpc.c has the reason.
static void answer_grpc(void *envoy, const hg_reply *reply) {
  hg_header headers[HG_HEADERS_MOST + 2];
  size_t count = reply->count + 1; // with grpc-status
  memcpy(headers, reply->headers, count * sizeof *headers);
  char *message = hg_new(3 * reply->body.length + 1);
  size_t length = percent_encode(message, reply->body);
  if (length > 0) headers[count++] = (hg_header){"grpc-message", sizeof "grpc-message" - 1, message, length};
  envoy_dynamic_module_callback_http_send_response(envoy, 200, headers, count, HG_BUFFER(""), reply->details);
  free(message);
}

void hg_answer(hg_stream *stream) {
  const hg_reply *reply = reply_to(stream);
  for (int i = 0; i < 2; i++) hg_count(stream->envoy, reply->counters[i]);
  hg_metrics_pay(stream->filter, stream->envoy);
  void *envoy = stream->envoy;
  // Nothing of the stream's may be touched afterwards: it may have gone.
  if (hg_calls_itself_grpc(envoy))
    answer_grpc(envoy, reply);
  else
    envoy_dynamic_module_callback_http_send_response(envoy, reply->status, (hg_header *)reply->headers, reply->count, reply->body,
                                                     reply->details);
  if (reply->once) hg_reply_free((hg_reply *)reply);
}
