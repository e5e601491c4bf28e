// The module's hooks, in the order in which Envoy calls them.
#include "fake_envoy.h"

#include <stdlib.h>
#include <string.h>

// The hooks are weak so that this file links alone.
#define HOOK(name) __attribute__((weak)) envoy_dynamic_module_on_##name
#define BOOTSTRAP(name) envoy_dynamic_module_on_bootstrap_extension_##name
#define FILTER(name) envoy_dynamic_module_on_http_filter_##name
const char *HOOK(program_init)(void);
const void *HOOK(bootstrap_extension_config_new)(void *, hg_envoy_buffer, hg_envoy_buffer);
void HOOK(bootstrap_extension_config_destroy)(const void *);
const void *HOOK(bootstrap_extension_new)(const void *, void *);
void HOOK(bootstrap_extension_destroy)(const void *);
void HOOK(bootstrap_extension_server_initialized)(void *, const void *);
void HOOK(bootstrap_extension_timer_fired)(void *, const void *, void *);
void HOOK(bootstrap_extension_shutdown)(void *, const void *, void (*)(void *), void *);
void HOOK(bootstrap_extension_cluster_add_or_update)(void *, const void *, hg_envoy_buffer);
void HOOK(bootstrap_extension_cluster_removal)(void *, const void *, hg_envoy_buffer);
const void *HOOK(http_filter_config_new)(void *, hg_envoy_buffer, hg_envoy_buffer);
void HOOK(http_filter_config_destroy)(const void *);
const void *HOOK(http_filter_per_route_config_new)(hg_envoy_buffer, hg_envoy_buffer);
void HOOK(http_filter_per_route_config_destroy)(const void *);
const void *HOOK(http_filter_new)(const void *, void *);
void HOOK(http_filter_destroy)(const void *);
unsigned HOOK(http_filter_request_headers)(void *, const void *, bool);
unsigned HOOK(http_filter_request_body)(void *, const void *, bool);
unsigned HOOK(http_filter_request_trailers)(void *, const void *);
void HOOK(http_filter_scheduled)(void *, const void *, uint64_t);
void HOOK(http_filter_downstream_above_write_buffer_high_watermark)(void *, const void *);
void HOOK(http_filter_downstream_below_write_buffer_low_watermark)(void *, const void *);

static const void *bootstrap_config, *extension;
static int owner; // Envoy's pointers for the bootstrap extension
int fe_ended;

static hg_envoy_buffer buffer(const char *text) { return (hg_envoy_buffer){text, strlen(text)}; }

const char *fe_load(void) { return envoy_dynamic_module_on_program_init(); }
bool fe_bootstrap(const char *config) {
  const void *created = BOOTSTRAP(config_new)(&owner, buffer("healthgate"), buffer(config));
  if (created == NULL) return false;
  bootstrap_config = created;
  extension = BOOTSTRAP(new)(bootstrap_config, &owner);
  return true;
}
void fe_stop_bootstrap(void) {
  BOOTSTRAP(destroy)(extension);
  BOOTSTRAP(config_destroy)(bootstrap_config);
}
void fe_server_initialized(void) { BOOTSTRAP(server_initialized)(&owner, extension); }
void fe_timer_fires(void) { BOOTSTRAP(timer_fired)(&owner, bootstrap_config, &owner); }
static void end(void *context) { fe_ended++; }
void fe_shutdown(void) { BOOTSTRAP(shutdown)(&owner, extension, end, NULL); }
void fe_cluster(const char *name, bool removed) {
  (removed ? BOOTSTRAP(cluster_removal) : BOOTSTRAP(cluster_add_or_update))(&owner, bootstrap_config, buffer(name));
}

fe_filter *fe_filter_new(const char *config, size_t length) {
  fe_filter *filter = calloc(1, sizeof *filter);
  pthread_mutex_init(&filter->lock, NULL);
  filter->module = FILTER(config_new)(filter, buffer("healthgate"), (hg_envoy_buffer){config, length});
  filter->frozen = true;
  if (filter->module != NULL) return filter;
  free(filter);
  return NULL;
}
void fe_filter_free(fe_filter *filter) {
  FILTER(config_destroy)(filter->module);
  free(filter);
}
const void *fe_route_new(const char *config, size_t length) {
  return FILTER(per_route_config_new)(buffer("healthgate"), (hg_envoy_buffer){config, length});
}
void fe_route_free(const void *route) { FILTER(per_route_config_destroy)(route); }

fe_stream *fe_stream_new(fe_filter *filter, const void *route, const char *method, const char *path, const char *type, const char *accept) {
  fe_stream *stream = calloc(1, sizeof *stream);
  *stream = (fe_stream){.filter = filter, .route = route, .method = method, .path = path, .type = type, .accept = accept, .chunks = 1};
  stream->module = FILTER(new)(filter->module, stream);
  return stream;
}
void fe_destroy(fe_stream *stream) {
  if (stream->destroyed) return;
  stream->destroyed = true;
  FILTER(destroy)(stream->module);
}
void fe_stream_free(fe_stream *stream) {
  fe_destroy(stream);
  free(stream);
}
unsigned fe_headers(fe_stream *stream, bool end) { return FILTER(request_headers)(stream, stream->module, end); }
unsigned fe_body(fe_stream *stream, const char *bytes, size_t length, bool end) {
  // A copy of exactly this size, so that ASan sees a read beyond it.
  char *copy = malloc(length + (length == 0));
  if (length > 0) memcpy(copy, bytes, length);
  stream->chunk = copy;
  stream->chunk_length = length;
  unsigned status = FILTER(request_body)(stream, stream->module, end);
  stream->chunk_length = 0;
  free(copy);
  return status;
}
unsigned fe_trailers(fe_stream *stream) { return FILTER(request_trailers)(stream, stream->module); }
void fe_watermark(fe_stream *stream, bool above) {
  (above ? FILTER(downstream_above_write_buffer_high_watermark) : FILTER(downstream_below_write_buffer_low_watermark))(stream,
                                                                                                                      stream->module);
}
int fe_run(fe_stream *stream) {
  int events = __atomic_exchange_n(&stream->events, 0, __ATOMIC_SEQ_CST);
  for (int i = 0; i < events && !stream->destroyed; i++) FILTER(scheduled)(stream, stream->module, 0);
  return events;
}
