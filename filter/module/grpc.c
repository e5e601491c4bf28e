// What a call of grpc.health.v1.Health asks, and what it is sent.
#include <string.h>

#include "healthgate.h"

hg_call *hg_call_new(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path) {
  static const char service[] = "/grpc.health.v1.Health/";
  const size_t length = sizeof service - 1;
  if (gate->service_count == 0 || path.length < length || memcmp(path.ptr, service, length) != 0 ||
      !hg_equal(HG_BUFFER("POST"), method) || !hg_calls_itself_grpc(stream))
    return NULL;
  hg_envoy_buffer name = {path.ptr + length, path.length - length};
  hg_call *call = hg_new(sizeof *call);
  call->method = hg_equal(HG_BUFFER("Check"), name)   ? HG_CHECK
                 : hg_equal(HG_BUFFER("Watch"), name) ? HG_WATCH
                 : hg_equal(HG_BUFFER("List"), name)  ? HG_LIST
                                                      : HG_UNKNOWN_METHOD;
  return call;
}

void hg_call_take(hg_call *call, const char *bytes, size_t length) {
  for (; length > 0 && call->prefix_count < sizeof call->prefix; bytes++, length--) {
    call->prefix[call->prefix_count++] = (unsigned char)*bytes;
    if (call->prefix_count == sizeof call->prefix)
      call->length = (uint32_t)call->prefix[1] << 24 | (uint32_t)call->prefix[2] << 16 | (uint32_t)call->prefix[3] << 8 | call->prefix[4];
  }
  if (length == 0) return;
  // What is too much is thrown away as it comes.
  if (call->length > HG_MESSAGE_MOST || length > call->length - call->count) {
    call->too_much = true;
    return;
  }
  memcpy(call->message + call->count, bytes, length);
  call->count += (uint32_t)length;
}

// varint reads one of a message, and returns false where there is none.
static bool varint(const char **at, const char *end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
    unsigned char byte = (unsigned char)*(*at)++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return shift < 63 || byte < 2; // of 64 bits
  }
  return false;
}

bool hg_service_of(const char *message, size_t length, hg_envoy_buffer *service) {
  const char *at = message, *end = message + length;
  *service = (hg_envoy_buffer){"", 0};
  while (at < end) {
    uint64_t tag, size;
    if (!varint(&at, end, &tag) || tag >> 3 == 0 || tag > UINT32_MAX) return false;
    switch (tag & 7) {
    case 0:
      if (!varint(&at, end, &size)) return false;
      continue;
    case 1:
      size = 8;
      break;
    case 2:
      if (!varint(&at, end, &size)) return false;
      break;
    case 5:
      size = 4;
      break;
    default:
      return false;
    }
    if (size > (uint64_t)(end - at)) return false;
    if (tag == (1 << 3 | 2)) *service = (hg_envoy_buffer){at, (size_t)size}; // the last one counts
    at += size;
  }
  return true;
}

// send_error ends a call that is given no message.
static void send_error(hg_stream *stream, hg_buffer status, hg_buffer message, hg_buffer details) {
  hg_header headers[] = {{"grpc-status", sizeof "grpc-status" - 1, status.ptr, status.length}};
  envoy_dynamic_module_callback_http_send_response(stream->envoy, 200, headers, 1, message, details);
}

static void send_invalid(hg_stream *stream, hg_buffer message) {
  send_error(stream, HG_BUFFER("3"), message, HG_BUFFER("healthgate_grpc_invalid_argument"));
}

static void send_unimplemented(hg_stream *stream, hg_buffer message) {
  send_error(stream, HG_BUFFER("12"), message, HG_BUFFER("healthgate_grpc_unimplemented"));
}

static void send_data(hg_stream *stream, hg_buffer data) {
  if (!stream->gone) envoy_dynamic_module_callback_http_send_response_data(stream->envoy, data, false);
}

void hg_send_headers(hg_stream *stream) {
  hg_header headers[] = {HG_HEADER(":status", "200"), HG_HEADER("content-type", "application/grpc")};
  envoy_dynamic_module_callback_http_send_response_headers(stream->envoy, headers, 2, false);
}

void hg_send_status(hg_stream *stream, int status) {
  // A HealthCheckResponse: not compressed, two bytes long, field 1, a varint.
  const char message[] = {0, 0, 0, 0, 2, 1 << 3, (char)status};
  send_data(stream, (hg_buffer){message, sizeof message});
}

void hg_send_trailers(hg_stream *stream, hg_buffer grpc_status) {
  hg_header trailers[] = {{"grpc-status", sizeof "grpc-status" - 1, grpc_status.ptr, grpc_status.length}};
  if (!stream->gone) envoy_dynamic_module_callback_http_send_response_trailers(stream->envoy, trailers, 1);
}

static bool is_known(const hg_gate *gate, hg_envoy_buffer service) {
  for (size_t i = 0; i < gate->service_count; i++)
    if (hg_equal(gate->services[i], service)) return true;
  return false;
}

static void answer_check(hg_stream *stream, bool known) {
  hg_count(stream->envoy, stream->gate->checks);
  if (!known) {
    send_error(stream, HG_BUFFER("5"), HG_BUFFER("unknown service"), HG_BUFFER("healthgate_grpc_not_found"));
    return;
  }
  int status = hg_gate_now(stream->gate)->passing ? HG_SERVING : HG_NOT_SERVING;
  hg_send_headers(stream);
  hg_send_status(stream, status);
  hg_send_trailers(stream, HG_BUFFER("0"));
}

static void answer_list(hg_stream *stream) {
  hg_count(stream->envoy, stream->gate->checks);
  hg_buffer list = stream->gate->listed[hg_gate_now(stream->gate)->passing];
  hg_send_headers(stream);
  send_data(stream, list);
  hg_send_trailers(stream, HG_BUFFER("0"));
}

void hg_call_answer(hg_stream *stream) {
  hg_call *call = stream->call;
  hg_envoy_buffer service;
  hg_metrics_pay(stream->filter, stream->envoy);
  if (call->method == HG_UNKNOWN_METHOD)
    send_unimplemented(stream, HG_BUFFER("unknown method of grpc.health.v1.Health"));
  else if (call->prefix_count > 0 && call->prefix[0] == 1)
    send_unimplemented(stream, HG_BUFFER("the message is compressed"));
  else if (call->prefix_count < sizeof call->prefix || call->prefix[0] != 0 || call->too_much || call->count < call->length)
    send_invalid(stream, HG_BUFFER("the request is not one whole message"));
  else if (!hg_service_of(call->message, call->count, &service))
    send_invalid(stream, HG_BUFFER("the message is malformed"));
  else if (call->method == HG_LIST)
    answer_list(stream);
  else if (call->method == HG_CHECK)
    answer_check(stream, is_known(stream->gate, service));
  else
    hg_watch_begin(stream, is_known(stream->gate, service));
}
