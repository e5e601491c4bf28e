// The hooks, in the order in which Envoy calls them.
#include "fake_envoy.h"

#include <stdlib.h>
#include <string.h>

#include "../abi_types.h"

// The module's hooks. They are weak so that this file links alone.
#define HOOK __attribute__((weak)) extern
HOOK const char *envoy_dynamic_module_on_program_init(void);
HOOK const void *envoy_dynamic_module_on_bootstrap_extension_config_new(void *, hg_envoy_buffer, hg_envoy_buffer);
HOOK void envoy_dynamic_module_on_bootstrap_extension_config_destroy(const void *);
HOOK const void *envoy_dynamic_module_on_bootstrap_extension_new(const void *, void *);
HOOK void envoy_dynamic_module_on_bootstrap_extension_destroy(const void *);
HOOK void envoy_dynamic_module_on_bootstrap_extension_server_initialized(void *, const void *);
HOOK void envoy_dynamic_module_on_bootstrap_extension_timer_fired(void *, const void *, void *);
HOOK void envoy_dynamic_module_on_bootstrap_extension_shutdown(void *, const void *, void (*)(void *), void *);
HOOK void envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(void *, const void *, hg_envoy_buffer);
HOOK void envoy_dynamic_module_on_bootstrap_extension_cluster_removal(void *, const void *, hg_envoy_buffer);
HOOK const void *envoy_dynamic_module_on_http_filter_config_new(void *, hg_envoy_buffer, hg_envoy_buffer);
HOOK void envoy_dynamic_module_on_http_filter_config_destroy(const void *);
HOOK const void *envoy_dynamic_module_on_http_filter_per_route_config_new(hg_envoy_buffer, hg_envoy_buffer);
HOOK void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *);
HOOK const void *envoy_dynamic_module_on_http_filter_new(const void *, void *);
HOOK void envoy_dynamic_module_on_http_filter_destroy(const void *);
HOOK unsigned envoy_dynamic_module_on_http_filter_request_headers(void *, const void *, bool);
HOOK unsigned envoy_dynamic_module_on_http_filter_request_body(void *, const void *, bool);
HOOK unsigned envoy_dynamic_module_on_http_filter_request_trailers(void *, const void *);
HOOK void envoy_dynamic_module_on_http_filter_scheduled(void *, const void *, uint64_t);
HOOK void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(void *, const void *);
HOOK void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(void *, const void *);

static const void *bootstrap_config, *extension;
static int owner; // Envoy's pointers for the bootstrap extension

static hg_envoy_buffer buffer(const char *text) { return (hg_envoy_buffer){text, strlen(text)}; }

bool fe_load(void) { return envoy_dynamic_module_on_program_init() != NULL; }
bool fe_bootstrap(const char *config) {
  const void *made = envoy_dynamic_module_on_bootstrap_extension_config_new(&owner, buffer("healthgate"), buffer(config));
  if (made == NULL) return false;
  bootstrap_config = made;
  extension = envoy_dynamic_module_on_bootstrap_extension_new(bootstrap_config, &owner);
  return true;
}
void fe_stop_bootstrap(void) {
  envoy_dynamic_module_on_bootstrap_extension_destroy(extension);
  envoy_dynamic_module_on_bootstrap_extension_config_destroy(bootstrap_config);
}
void fe_server_initialized(void) { envoy_dynamic_module_on_bootstrap_extension_server_initialized(&owner, extension); }
void fe_timer_fires(void) { envoy_dynamic_module_on_bootstrap_extension_timer_fired(&owner, bootstrap_config, &owner); }
static void ended(void *context) { fe_ended++; }
void fe_shutdown(void) { envoy_dynamic_module_on_bootstrap_extension_shutdown(&owner, extension, ended, NULL); }
void fe_start(void) {
  if (!fe_bootstrap("")) abort();
}
void fe_cluster(const char *name, bool removed) {
  if (removed)
    envoy_dynamic_module_on_bootstrap_extension_cluster_removal(&owner, bootstrap_config, buffer(name));
  else
    envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(&owner, bootstrap_config, buffer(name));
}

fe_filter *fe_filter_new(const char *config, size_t length) {
  fe_filter *filter = calloc(1, sizeof *filter);
  pthread_mutex_init(&filter->lock, NULL);
  filter->module = envoy_dynamic_module_on_http_filter_config_new(filter, buffer("healthgate"), (hg_envoy_buffer){config, length});
  filter->frozen = true;
  if (filter->module != NULL) return filter;
  free(filter);
  return NULL;
}
void fe_filter_free(fe_filter *filter) {
  envoy_dynamic_module_on_http_filter_config_destroy(filter->module);
  free(filter);
}
uint64_t fe_metric(fe_filter *filter, const char *name) {
  uint64_t value = UINT64_MAX;
  pthread_mutex_lock(&filter->lock);
  for (int i = 0; i < filter->metrics; i++)
    if (strcmp(filter->names[i], name) == 0) value = filter->values[i];
  pthread_mutex_unlock(&filter->lock);
  return value;
}
const void *fe_route_new(const char *config, size_t length) {
  return envoy_dynamic_module_on_http_filter_per_route_config_new(buffer("healthgate"), (hg_envoy_buffer){config, length});
}
void fe_route_free(const void *route) { envoy_dynamic_module_on_http_filter_per_route_config_destroy(route); }

fe_stream *fe_stream_new(fe_filter *filter, const void *route, const char *method, const char *path, const char *type, const char *accept) {
  fe_stream *stream = calloc(1, sizeof *stream);
  stream->filter = filter;
  stream->route = route;
  stream->method = method, stream->path = path, stream->type = type, stream->accept = accept;
  stream->chunks = 1;
  stream->module = envoy_dynamic_module_on_http_filter_new(filter->module, stream);
  return stream;
}
void fe_stream_free(fe_stream *stream) {
  fe_destroy(stream);
  free(stream);
}
unsigned fe_headers(fe_stream *stream, bool end) {
  return envoy_dynamic_module_on_http_filter_request_headers(stream, stream->module, end);
}
unsigned fe_body(fe_stream *stream, const char *bytes, size_t length, bool end) {
  // A copy of exactly this size, so that ASan sees a read beyond it.
  char *copy = malloc(length + (length == 0));
  if (length > 0) memcpy(copy, bytes, length);
  stream->chunk = copy;
  stream->chunk_length = length;
  unsigned status = envoy_dynamic_module_on_http_filter_request_body(stream, stream->module, end);
  stream->chunk_length = 0;
  free(copy);
  return status;
}
unsigned fe_trailers(fe_stream *stream) { return envoy_dynamic_module_on_http_filter_request_trailers(stream, stream->module); }
void fe_watermark(fe_stream *stream, bool above) {
  (above ? envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark
         : envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark)(stream, stream->module);
}
int fe_run(fe_stream *stream) {
  int events = fe_take_events(stream);
  for (int i = 0; i < events && !stream->destroyed; i++) envoy_dynamic_module_on_http_filter_scheduled(stream, stream->module, 0);
  return events;
}
