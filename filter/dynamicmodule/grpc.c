#include "grpc.h"

#include <stdlib.h>
#include <time.h>

#include "watch.h"

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
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t began = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
  return value > (INT64_MAX - began) / nanoseconds[unit - units] ? INT64_MAX : began + value * nanoseconds[unit - units];
}

static bool answers_calls(const hg_stream *stream, const hg_gate *gate) {
  return !stream->override_unusable && gate->service_count > 0;
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
  call->message.nameless = call->method == HG_LIST;
  call->origin = origin;
  call->deadline = deadline_of(stream->envoy);
  return call;
}

// send_error ends a call with a local reply, which sets the response code details. Its message is a header, and its body is empty: if a
// grpc_web filter before this one has translated the call to gRPC, Envoy would send a body as text, and grpc_web would replace the status
// of a text with UNKNOWN. It passes headers with a gRPC status and no body on unchanged.
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

static bool is_known(const hg_gate *gate, const hg_message *message) {
  for (size_t i = 0; i < gate->service_count; i++)
    if (hg_equal(gate->services[i], (hg_envoy_buffer){message->name, message->name_length})) return true;
  return false;
}

static void answer_check(hg_stream *stream, bool known) {
  hg_metric_increment(stream->envoy, stream->gate->checks);
  if (!known) {
    send_error(stream, HG_BUFFER("5"), HG_BUFFER("unknown service"), HG_BUFFER("healthgate_grpc_not_found"));
    return;
  }
  int status = hg_gate_reply(stream->gate)->passing ? HG_SERVING : HG_NOT_SERVING;
  hg_response_send_headers(stream);
  hg_response_send_status(stream, status);
  hg_response_send_trailers(stream, HG_BUFFER("0"));
}

static void answer_list(hg_stream *stream) {
  hg_metric_increment(stream->envoy, stream->gate->checks);
  hg_buffer list = stream->gate->list_responses[hg_gate_reply(stream->gate)->passing];
  hg_response_send_headers(stream);
  hg_response_send_data(stream, list);
  hg_response_send_trailers(stream, HG_BUFFER("0"));
}

static void answer_watch(hg_stream *stream, bool known) {
  hg_metric_increment(stream->envoy, stream->gate->watches);
  hg_call *call = stream->call;
  if (hg_watch_start(stream, &call->origin, call->deadline, known)) {
    free(call); // the request may be large, and a watcher may live for days
    stream->call = NULL;
  } else {
    send_error(stream, HG_BUFFER("8"), HG_BUFFER("too many calls of Watch"), HG_BUFFER("healthgate_grpc_resource_exhausted"));
  }
}

void hg_call_answer(hg_stream *stream) {
  const hg_call *call = stream->call;
  const hg_message *message = &call->message;
  const char *error = hg_message_error(message);
  hg_metrics_flush(&stream->filter->metrics, stream->envoy);
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
