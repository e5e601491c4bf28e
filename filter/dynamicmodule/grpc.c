#include <stdlib.h>

#include "stream.h"

// deadline_of returns when a call must end according to its grpc-timeout, which is up to 8 digits and a unit. It returns INT64_MAX if the
// call has no grpc-timeout, or a malformed one, which Envoy ignores too.
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
  // Not hg_now, which may be some milliseconds behind: the call would end early.
  int64_t began = hg_exact_now();
  return value > (INT64_MAX - began) / nanoseconds[unit - units] ? INT64_MAX : began + value * nanoseconds[unit - units];
}

static bool answers_calls(const hg_stream *stream, const hg_gate *gate) {
  return !stream->override_unusable && gate->services.count > 0;
}

static hg_origin origin_of(const hg_stream *stream, const hg_gate *gate) {
  const hg_route *route = envoy_dynamic_module_callback_get_most_specific_route_config(stream->envoy);
  return (hg_origin){
      .filter = stream->filter,
      .authority = hg_hash(hg_request_header(stream->envoy, HG_BUFFER(":authority"))),
      .config_hash = answers_calls(stream, gate) ? gate->config_hash : 0,
      .serial = route != NULL && route->overrides ? route->serial : 0,
  };
}

static enum hg_method method_of(hg_envoy_buffer name) {
  return hg_equal(HG_BUFFER("Check"), name)   ? HG_CHECK
         : hg_equal(HG_BUFFER("Watch"), name) ? HG_WATCH
         : hg_equal(HG_BUFFER("List"), name)  ? HG_LIST
                                              : HG_UNKNOWN_METHOD;
}

hg_call *hg_call_create(const hg_stream *stream, const hg_gate *gate, hg_envoy_buffer method, hg_envoy_buffer path) {
  static const char service[] = "/grpc.health.v1.Health/";
  const size_t length = sizeof service - 1;
  if (path.length < length || memcmp(path.ptr, service, length) != 0 || !hg_equal(HG_BUFFER("POST"), method) ||
      !hg_request_is_grpc(stream->envoy))
    return NULL;
  hg_origin origin = origin_of(stream, gate);
  if (hg_groups_observe(&origin)) hg_watch_notify();
  if (!answers_calls(stream, gate)) return NULL;
  hg_call *call = hg_alloc(sizeof *call);
  call->method = method_of((hg_envoy_buffer){path.ptr + length, path.length - length});
  call->origin = origin;
  call->deadline = deadline_of(stream->envoy);
  return call;
}

// send_error ends a call with a local reply, which sets the response code details. Its message is a header, and its body is empty: if a
// grpc_web filter before this one has translated the call to gRPC, Envoy would send a body as text, and grpc_web would replace the status
// of a text with UNKNOWN. It passes headers with a gRPC status and no body on unchanged.
static void send_error(hg_stream *stream, const char *status, const char *message, const char *details) {
  hg_header headers[] = {{"grpc-message", sizeof "grpc-message" - 1, message, strlen(message)},
                         {"grpc-status", sizeof "grpc-status" - 1, status, strlen(status)}};
  envoy_dynamic_module_callback_http_send_response(stream->envoy, 200, headers, 2, HG_BUFFER(""), hg_buffer_of(details));
}

static void send_response(hg_stream *stream, hg_buffer response) {
  hg_response_send_headers(stream);
  hg_response_send_data(stream, response);
  hg_response_send_trailers(stream, "0");
}

static void answer_watch(hg_stream *stream, bool known) {
  hg_metric_increment(stream->envoy, stream->gate->watches);
  hg_call *call = stream->call;
  if (hg_watch_start(stream, &call->origin, call->deadline, known)) {
    stream->call = NULL;
    hg_call_destroy(call); // the request may be large, and a watcher may live for days
  } else {
    send_error(stream, "8", "too many calls of Watch", "healthgate_grpc_resource_exhausted");
  }
}

static void answer_check_or_list(hg_stream *stream, bool known) {
  hg_gate *gate = stream->gate;
  hg_metric_increment(stream->envoy, gate->checks);
  bool passing = hg_gate_reply(gate)->passing;
  if (stream->call->method == HG_LIST)
    send_response(stream, gate->list_responses[passing]);
  else if (known)
    send_response(stream, hg_response_of(passing ? HG_SERVING : HG_NOT_SERVING));
  else
    send_error(stream, "5", "unknown service", "healthgate_grpc_not_found");
}

void hg_call_answer(hg_stream *stream) {
  const hg_call *call = stream->call;
  hg_envoy_buffer name = {"", 0};
  hg_metrics_flush(&stream->filter->metrics, stream->envoy);
  if (call->method == HG_UNKNOWN_METHOD) {
    send_error(stream, "12", "unknown method of grpc.health.v1.Health", "healthgate_grpc_unimplemented");
    return;
  }
  if (call->message.length > 0 && call->message.bytes[0] == 1) {
    send_error(stream, "12", "the message is compressed", "healthgate_grpc_unimplemented");
    return;
  }
  const char *error = hg_message_parse(&call->message, call->method == HG_LIST ? NULL : &name);
  if (error != NULL) {
    send_error(stream, "3", error, "healthgate_grpc_invalid_argument");
    return;
  }
  (call->method == HG_WATCH ? answer_watch : answer_check_or_list)(stream, hg_list_has(&stream->gate->services, name));
}

void hg_call_destroy(hg_call *call) {
  if (call != NULL) free(call->message.bytes);
  free(call);
}
