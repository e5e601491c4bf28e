// Calls of grpc.health.v1.Health: Check, List and Watch, and the replies to them.
#include <string.h>
#include <time.h>

#include "grpc.h"

// deadline_of returns when a call ends by its grpc-timeout, which is up to 8 digits and a unit. It returns INT64_MAX if the call has none,
// or a malformed one, which Envoy ignores too.
static int64_t deadline_of(void *stream) {
  static const char units[] = "HMSmun";
  static const int64_t nanoseconds[] = {INT64_C(3600000000000), INT64_C(60000000000), 1000000000, 1000000, 1000, 1};
  hg_envoy_buffer timeout = hg_request_header(stream, HG_BUFFER("grpc-timeout"));
  if (timeout.length < 2 || timeout.length > 9) return INT64_MAX;
  int64_t value = 0;
  for (size_t i = 0; i + 1 < timeout.length; i++) {
    if (timeout.ptr[i] < '0' || timeout.ptr[i] > '9') return INT64_MAX;
    value = 10 * value + (timeout.ptr[i] - '0');
  }
  const char *unit = memchr(units, timeout.ptr[timeout.length - 1], sizeof units - 1);
  if (unit == NULL) return INT64_MAX;
  // hg_now may be some milliseconds behind, so that the call would end early.
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t began = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
  return value > (INT64_MAX - began) / nanoseconds[unit - units] ? INT64_MAX : began + value * nanoseconds[unit - units];
}

static uint64_t hash(hg_envoy_buffer text) {
  uint64_t hash = UINT64_C(14695981039346656037); // FNV-1a
  for (size_t i = 0; i < text.length; i++) hash = (hash ^ (unsigned char)text.ptr[i]) * UINT64_C(1099511628211);
  return hash;
}

static hg_origin origin_of(const hg_stream *stream, const hg_gate *gate) {
  const hg_route *route = envoy_dynamic_module_callback_get_most_specific_route_config(stream->envoy);
  return (hg_origin){
      .filter = stream->filter,
      .authority = hash(hg_request_header(stream->envoy, HG_BUFFER(":authority"))),
      .content = stream->broken || gate->service_count == 0 ? 0 : gate->content,
      .serial = route != NULL && route->overrides ? route->serial : 0,
  };
}

static enum hg_method method_of(hg_envoy_buffer name) {
  return hg_equal(HG_BUFFER("Check"), name)   ? HG_CHECK
         : hg_equal(HG_BUFFER("Watch"), name) ? HG_WATCH
         : hg_equal(HG_BUFFER("List"), name)  ? HG_LIST
                                              : HG_UNKNOWN_METHOD;
}

hg_call *hg_call_new(const hg_stream *stream, const hg_gate *gate, hg_envoy_buffer method, hg_envoy_buffer path) {
  static const char service[] = "/grpc.health.v1.Health/";
  const size_t length = sizeof service - 1;
  if (path.length < length || memcmp(path.ptr, service, length) != 0 || !hg_equal(HG_BUFFER("POST"), method) ||
      !hg_calls_itself_grpc(stream->envoy))
    return NULL;
  hg_origin origin = origin_of(stream, gate);
  if (hg_groups_observe(&origin)) hg_watch_tell();
  if (stream->broken || gate->service_count == 0) return NULL;
  hg_call *call = hg_new(sizeof *call);
  call->method = method_of((hg_envoy_buffer){path.ptr + length, path.length - length});
  call->message.nameless = call->method == HG_LIST;
  call->origin = origin;
  call->deadline = deadline_of(stream->envoy);
  return call;
}

// send_error ends a call with a local reply, which sets the response code details. Its message is a header, and its body is empty. Envoy
// would send a body as text if grpc_web, in front of this filter, has made the call gRPC, and grpc_web replaces the status of a text by
// UNKNOWN. It passes on headers with a gRPC status and without a body.
static void send_error(hg_stream *stream, hg_buffer status, hg_buffer message, hg_buffer details) {
  hg_header headers[] = {{"grpc-message", sizeof "grpc-message" - 1, message.ptr, message.length},
                         {"grpc-status", sizeof "grpc-status" - 1, status.ptr, status.length}};
  envoy_dynamic_module_callback_http_send_response(stream->envoy, 200, headers, 2, HG_BUFFER(""), details);
}

static void send_invalid(hg_stream *stream, const char *message) {
  send_error(stream, HG_BUFFER("3"), (hg_buffer){message, strlen(message)}, HG_BUFFER("healthgate_grpc_invalid_argument"));
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

static bool is_known(const hg_gate *gate, const hg_message *message) {
  for (size_t i = 0; i < gate->service_count; i++)
    if (hg_equal(gate->services[i], (hg_envoy_buffer){message->name, message->name_length})) return true;
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

static void answer_watch(hg_stream *stream, bool known) {
  hg_count(stream->envoy, stream->gate->watches);
  if (!hg_watch_begin(stream, known))
    send_error(stream, HG_BUFFER("8"), HG_BUFFER("too many calls of Watch"), HG_BUFFER("healthgate_grpc_resource_exhausted"));
}

void hg_call_answer(hg_stream *stream) {
  const hg_call *call = stream->call;
  const hg_message *message = &call->message;
  const char *error = hg_message_error(message);
  hg_metrics_pay(stream->filter, stream->envoy);
  if (call->method == HG_UNKNOWN_METHOD)
    send_unimplemented(stream, HG_BUFFER("unknown method of grpc.health.v1.Health"));
  else if (message->prefix_count > 0 && message->prefix[0] == 1)
    send_unimplemented(stream, HG_BUFFER("the message is compressed"));
  else if (error != NULL)
    send_invalid(stream, error);
  else if (call->method == HG_LIST)
    answer_list(stream);
  else if (call->method == HG_CHECK)
    answer_check(stream, is_known(stream->gate, message));
  else
    answer_watch(stream, is_known(stream->gate, message));
}
