// The hooks of the filter: configurations on the main thread, and the request of each stream on its worker.
#include <stdlib.h>

#include "stream.h"

#define EXPORT __attribute__((visibility("default")))

// ---- configurations

EXPORT const void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, hg_envoy_buffer name, hg_envoy_buffer config) {
  hg_age_main_thread_updates();
  hg_filter *filter = hg_alloc(sizeof *filter);
  filter->metrics.envoy = envoy;
  if (healthgateFilterCreate(filter, (char *)config.ptr, config.length)) return filter;
  hg_metrics_free(&filter->metrics);
  free(filter);
  return NULL;
}

// On any thread: the last stream may end the configuration.
EXPORT void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) {
  hg_filter *filter = (hg_filter *)config;
  hg_filter_unregister(filter);
  healthgateFilterDestroy(filter->handle);
  if (filter->gate != NULL) hg_gate_unref(filter->gate);
  hg_metrics_free(&filter->metrics);
  free(filter);
}

EXPORT const void *envoy_dynamic_module_on_http_filter_per_route_config_new(hg_envoy_buffer name, hg_envoy_buffer config) {
  hg_age_main_thread_updates();
  static _Atomic uint64_t serial;
  hg_route *route = hg_alloc(sizeof *route);
  route->serial = ++serial;
  if (!healthgateRouteCreate(route, (char *)config.ptr, config.length)) {
    free(route);
    return NULL;
  }
  hg_route_register(route);
  return route;
}

EXPORT void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *config) {
  hg_route *route = (hg_route *)config;
  hg_route_unregister(route);
  healthgateRouteDestroy(route->handle);
  free(route);
}

// ---- streams

static void free_stream(hg_stream *stream) {
  if (stream->gate_referenced) hg_gate_unref(stream->gate);
  hg_call_destroy(stream->call);
  free(stream->watcher);
  free(stream);
}

// with_stream_alive calls act, which may destroy the stream.
static void with_stream_alive(hg_stream *stream, void (*act)(hg_stream *)) {
  stream->sending = true;
  act(stream);
  stream->sending = false;
  if (stream->destroyed) free_stream(stream);
}

static void answer_request(hg_stream *stream) { with_stream_alive(stream, stream->call != NULL ? hg_call_answer : hg_probe_answer); }

EXPORT const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *envoy) {
  hg_stream *stream = hg_alloc(sizeof *stream);
  stream->filter = (hg_filter *)config;
  stream->envoy = envoy;
  return stream;
}

EXPORT void envoy_dynamic_module_on_http_filter_destroy(const void *module) {
  hg_stream *stream = (hg_stream *)module;
  if (stream->watcher != NULL) hg_watch_end(stream);
  stream->destroyed = true;
  if (!stream->sending) free_stream(stream);
}

// find_gate sets the stream's gate if the request is a probe, or a call that the gate answers.
static void find_gate(hg_stream *stream) {
  hg_gate *gate = hg_stream_gate(stream->filter, stream->envoy, &stream->gate_referenced);
  if (gate == NULL) {
    gate = hg_filter_gate(stream->filter);
    stream->override_unusable = true;
  }
  hg_envoy_buffer method = hg_request_header(stream->envoy, HG_BUFFER(":method"));
  hg_envoy_buffer path = hg_request_header(stream->envoy, HG_BUFFER(":path"));
  if (hg_is_probe(gate, stream->envoy, method, path) || (stream->call = hg_call_create(stream, gate, method, path)) != NULL) {
    stream->gate = gate;
  } else if (stream->gate_referenced) {
    hg_gate_unref(gate);
    stream->gate_referenced = false;
  }
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_headers(void *envoy, const void *module, bool end) {
  hg_stream *stream = (hg_stream *)module;
  find_gate(stream);
  if (stream->gate == NULL) return HG_HEADERS_CONTINUE;
  // A reply before the end of the request would reset an HTTP/2 stream.
  if (end) answer_request(stream);
  return HG_HEADERS_STOP;
}

static void append_body(hg_stream *stream) {
  enum { FEW = 64 };
  hg_envoy_buffer few[FEW], *chunks = few;
  size_t count = envoy_dynamic_module_callback_http_get_body_chunks_size(stream->envoy, HG_RECEIVED_REQUEST_BODY);
  if (count == 0) return;
  if (count > FEW) chunks = hg_alloc(count * sizeof *chunks);
  if (envoy_dynamic_module_callback_http_get_body_chunks(stream->envoy, HG_RECEIVED_REQUEST_BODY, chunks))
    for (size_t i = 0; i < count; i++) hg_message_append(&stream->call->message, chunks[i]);
  if (chunks != few) free(chunks);
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_body(void *envoy, const void *module, bool end) {
  hg_stream *stream = (hg_stream *)module;
  if (stream->gate == NULL) return HG_BODY_CONTINUE;
  if (stream->call != NULL) append_body(stream);
  if (end) answer_request(stream);
  return HG_BODY_STOP_NO_BUFFER;
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_trailers(void *envoy, const void *module) {
  hg_stream *stream = (hg_stream *)module;
  if (stream->gate == NULL) return HG_TRAILERS_CONTINUE;
  answer_request(stream);
  return HG_TRAILERS_STOP;
}

EXPORT void envoy_dynamic_module_on_http_filter_scheduled(void *envoy, const void *module, uint64_t event) {
  with_stream_alive((hg_stream *)module, hg_watch_resume);
}

EXPORT void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(void *envoy, const void *module) {
  hg_watch_set_blocked((hg_stream *)module, true);
}

EXPORT void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(void *envoy, const void *module) {
  hg_watch_set_blocked((hg_stream *)module, false);
}
