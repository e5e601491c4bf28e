// What Envoy calls of the filter: configurations on the main thread, and each stream's request on its worker.
#include <stdlib.h>

#include "go.h"
#include "grpc.h"

#define EXPORT __attribute__((visibility("default")))

// ---- configurations

EXPORT const void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, hg_envoy_buffer name, hg_envoy_buffer config) {
  (void)name;
  hg_filter *filter = hg_new(sizeof *filter);
  filter->envoy = envoy;
  if (healthgateFilterNew(filter, (char *)config.ptr, config.length)) return filter;
  while (filter->metrics != NULL) {
    hg_metric *next = filter->metrics->next;
    free(filter->metrics);
    filter->metrics = next;
  }
  free(filter);
  return NULL;
}

// Any thread: the last of its streams may be what ends it.
EXPORT void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) {
  hg_filter *filter = (hg_filter *)config;
  hg_filter_remove(filter);
  healthgateFilterEnd(filter->handle);
  if (filter->gate != NULL) hg_gate_release(filter->gate);
  for (hg_metric *metric = filter->metrics, *next; metric != NULL; metric = next) {
    next = metric->next;
    free(metric);
  }
  free(filter);
}

EXPORT const void *envoy_dynamic_module_on_http_filter_per_route_config_new(hg_envoy_buffer name, hg_envoy_buffer config) {
  (void)name;
  static _Atomic uint64_t serial;
  hg_route *route = hg_new(sizeof *route);
  route->serial = ++serial;
  if (!healthgateRouteNew(route, (char *)config.ptr, config.length)) {
    free(route);
    return NULL;
  }
  hg_route_add(route);
  return route;
}

EXPORT void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *config) {
  hg_route *route = (hg_route *)config;
  hg_route_remove(route);
  healthgateRouteEnd(route->handle);
  free(route);
}

// ---- streams

static void release(hg_stream *stream) {
  if (stream->held) hg_gate_release(stream->gate);
  free(stream->call);
  free(stream->watcher);
  free(stream);
}

// during has a stream do what may destroy it. The stream may have gone afterwards.
static void during(hg_stream *stream, void (*act)(hg_stream *)) {
  stream->busy = true;
  act(stream);
  stream->busy = false;
  if (stream->gone) release(stream);
}

static void answer(hg_stream *stream) {
  during(stream, stream->call != NULL ? hg_call_answer : hg_answer);
}

EXPORT const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *envoy) {
  hg_stream *stream = hg_new(sizeof *stream);
  stream->filter = (hg_filter *)config;
  stream->envoy = envoy;
  return stream;
}

EXPORT void envoy_dynamic_module_on_http_filter_destroy(const void *module) {
  hg_stream *stream = (hg_stream *)module;
  if (stream->watcher != NULL) hg_watch_end(stream);
  stream->gone = true;
  if (!stream->busy) release(stream);
}

// is_mine finds out whether a request is for the gate, and keeps the gate where it is.
static bool is_mine(hg_stream *stream) {
  hg_gate *gate = hg_gate_of(stream->filter, stream->envoy, &stream->held);
  if (gate == NULL) {
    gate = hg_filter_gate(stream->filter);
    stream->broken = true;
  }
  hg_envoy_buffer method = hg_request_header(stream->envoy, HG_BUFFER(":method"));
  hg_envoy_buffer path = hg_request_header(stream->envoy, HG_BUFFER(":path"));
  if (!hg_is_probe(gate, stream->envoy, method, path)) {
    stream->call = hg_call_new(stream, gate, method, path);
    if (stream->call == NULL) {
      if (stream->held) hg_gate_release(gate);
      stream->held = false;
      return false;
    }
  }
  stream->gate = gate;
  return true;
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_headers(void *envoy, const void *module, bool end) {
  (void)envoy;
  hg_stream *stream = (hg_stream *)module;
  if (!is_mine(stream)) return HG_HEADERS_CONTINUE;
  // A client that is answered before it has finished would see its HTTP/2 stream reset.
  if (end) answer(stream);
  return HG_HEADERS_STOP;
}

static void take(hg_stream *stream) {
  enum { MOST = 64 };
  hg_envoy_buffer few[MOST], *chunks = few;
  size_t count = envoy_dynamic_module_callback_http_get_body_chunks_size(stream->envoy, HG_RECEIVED_REQUEST_BODY);
  if (count == 0) return;
  if (count > MOST) chunks = hg_new(count * sizeof *chunks);
  if (envoy_dynamic_module_callback_http_get_body_chunks(stream->envoy, HG_RECEIVED_REQUEST_BODY, chunks))
    for (size_t i = 0; i < count; i++) hg_message_take(&stream->call->message, chunks[i].ptr, chunks[i].length);
  if (chunks != few) free(chunks);
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_body(void *envoy, const void *module, bool end) {
  (void)envoy;
  hg_stream *stream = (hg_stream *)module;
  if (stream->gate == NULL) return HG_BODY_CONTINUE;
  if (stream->call != NULL) take(stream);
  if (end) answer(stream);
  return HG_BODY_STOP_NO_BUFFER;
}

EXPORT unsigned envoy_dynamic_module_on_http_filter_request_trailers(void *envoy, const void *module) {
  (void)envoy;
  hg_stream *stream = (hg_stream *)module;
  if (stream->gate == NULL) return HG_TRAILERS_CONTINUE;
  answer(stream);
  return HG_TRAILERS_STOP;
}

EXPORT void envoy_dynamic_module_on_http_filter_scheduled(void *envoy, const void *module, uint64_t event) {
  (void)envoy;
  (void)event;
  during((hg_stream *)module, hg_watch_go_on);
}

EXPORT void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(void *envoy, const void *module) {
  (void)envoy;
  hg_watch_block((hg_stream *)module, true);
}

EXPORT void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(void *envoy, const void *module) {
  (void)envoy;
  hg_watch_block((hg_stream *)module, false);
}
