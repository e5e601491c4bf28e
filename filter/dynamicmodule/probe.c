#include <stdio.h>
#include <stdlib.h>

#include "stream.h"

bool hg_is_probe(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path) {
  const char *query = path.length > 0 ? memchr(path.ptr, '?', path.length) : NULL;
  if (query != NULL) path.length = (size_t)(query - path.ptr);
  if (!hg_list_has(&gate->paths, path)) return false;
  return hg_equal(HG_BUFFER("GET"), method) || hg_equal(HG_BUFFER("HEAD"), method) ||
         (hg_equal(HG_BUFFER("POST"), method) && hg_request_is_grpc(stream));
}

static const hg_reply *reply_to(hg_stream *stream) {
  if (stream->override_unusable) return stream->gate->error;
  const hg_reply *reply = hg_gate_reply(stream->gate);
  // A report shows the samples, so a stale reply has none.
  if (!stream->gate->details || reply == stream->gate->stale) return reply;
  hg_envoy_buffer accept = hg_request_header(stream->envoy, HG_BUFFER("accept"));
  // A reply to a gRPC request has a message, in a header, instead of a body.
  if (accept.length == 0 || hg_request_is_grpc(stream->envoy)) return reply;
  const hg_reply *report = healthgateReport(stream->gate->handle, (char *)accept.ptr, accept.length);
  return report != NULL ? report : reply;
}

// percent_encode writes a body in the encoding of grpc-message, and returns its length, at most three times the length of the body.
static size_t percent_encode(char *encoded, hg_buffer body) {
  size_t length = 0;
  for (size_t i = 0; i < body.length; i++) {
    unsigned char byte = (unsigned char)body.ptr[i];
    if (byte >= ' ' && byte <= '~' && byte != '%')
      encoded[length++] = (char)byte;
    else
      length += (size_t)sprintf(encoded + length, "%%%02X", byte);
  }
  return length;
}

// send_grpc sends a reply to a gRPC probe. Its status and its body are headers: send_error in grpc.c has the reason.
static void send_grpc(void *envoy, const hg_reply *reply) {
  hg_header headers[HG_HEADERS_MAX + 2];
  size_t count = reply->header_count + 1; // with grpc-status
  memcpy(headers, reply->headers, count * sizeof *headers);
  char *message = hg_alloc(3 * reply->body.length + 1);
  size_t length = percent_encode(message, reply->body);
  if (length > 0) headers[count++] = (hg_header){"grpc-message", sizeof "grpc-message" - 1, message, length};
  envoy_dynamic_module_callback_http_send_response(envoy, 200, headers, count, HG_BUFFER(""), reply->details);
  free(message);
}

void hg_probe_answer(hg_stream *stream) {
  const hg_reply *reply = reply_to(stream);
  for (int i = 0; i < 2; i++) hg_metric_increment(stream->envoy, reply->counters[i]);
  hg_metrics_flush(&stream->filter->metrics, stream->envoy);
  void *envoy = stream->envoy;
  // Sending may destroy the stream.
  if (hg_request_is_grpc(envoy))
    send_grpc(envoy, reply);
  else
    envoy_dynamic_module_callback_http_send_response(envoy, reply->status, (hg_header *)reply->headers, reply->header_count, reply->body,
                                                     reply->details);
  if (reply->single_use) hg_reply_destroy((hg_reply *)reply);
}
