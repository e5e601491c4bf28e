// The functions that the module calls.
#include "fake_envoy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLBACK(name) envoy_dynamic_module_callback_##name

int fe_passes, fe_timers, fe_lifecycle, fe_initialized, fe_schedulers;
uint64_t fe_timer_ms;

// ---- the log

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char *lines;
static size_t lines_length;

char *fe_log(void) {
  pthread_mutex_lock(&log_lock);
  char *copy = strdup(lines != NULL ? lines : "");
  pthread_mutex_unlock(&log_lock);
  return copy;
}
void CALLBACK(log)(unsigned level, hg_buffer line) {
  pthread_mutex_lock(&log_lock);
  lines = realloc(lines, lines_length + line.length + 16);
  lines_length += (size_t)sprintf(lines + lines_length, "%u %.*s\n", level, (int)line.length, line.ptr);
  pthread_mutex_unlock(&log_lock);
}

// ---- streams

bool CALLBACK(http_get_header)(void *envoy, unsigned type, hg_buffer key, hg_envoy_buffer *value, size_t index, size_t *count) {
  fe_stream *stream = envoy;
  if (type != HG_REQUEST_HEADER || index != 0 || count != NULL || stream->destroyed) abort();
  const struct {
    const char *key, *value;
  } headers[] = {{":method", stream->method}, {":path", stream->path}, {"content-type", stream->type}, {"accept", stream->accept},
                 {":authority", stream->authority}, {"grpc-timeout", stream->timeout}};
  const char *found = NULL;
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
    if (strncmp(key.ptr, headers[i].key, key.length) == 0) found = headers[i].value;
  *value = (hg_envoy_buffer){found, found != NULL ? strlen(found) : 0};
  return found != NULL;
}

size_t CALLBACK(http_get_body_chunks_size)(void *envoy, unsigned type) {
  fe_stream *stream = envoy;
  return stream->chunk_length == 0 ? 0 : stream->chunks;
}

bool CALLBACK(http_get_body_chunks)(void *envoy, unsigned type, hg_envoy_buffer *chunks) {
  fe_stream *stream = envoy;
  size_t each = stream->chunk_length / stream->chunks;
  for (size_t i = 0; i < stream->chunks; i++)
    chunks[i] = (hg_envoy_buffer){stream->chunk + i * each, i + 1 < stream->chunks ? each : stream->chunk_length - i * each};
  return true;
}

const void *CALLBACK(get_most_specific_route_config)(void *envoy) { return ((fe_stream *)envoy)->route; }

// send counts a send, and returns whether the stream still exists: Envoy destroys a stream that it can't write to.
static bool send(fe_stream *stream) {
  if (stream->destroyed) return false;
  if (++stream->sends == stream->destroyed_at) fe_destroy(stream);
  return !stream->destroyed;
}

static void print_headers(char *into, size_t size, hg_header *headers, size_t count) {
  size_t at = 0;
  for (size_t i = 0; i < count; i++)
    at += (size_t)snprintf(into + at, size - at, "%.*s: %.*s\n", (int)headers[i].key_length, headers[i].key_ptr,
                           (int)headers[i].value_length, headers[i].value_ptr);
}

void CALLBACK(http_send_response)(void *envoy, uint32_t status, hg_header *headers, size_t count, hg_buffer body, hg_buffer details) {
  fe_stream *stream = envoy;
  if (!send(stream)) return;
  stream->replies++;
  stream->status = status;
  print_headers(stream->headers, sizeof stream->headers, headers, count);
  snprintf(stream->body, sizeof stream->body, "%.*s", (int)body.length, body.ptr);
  snprintf(stream->details, sizeof stream->details, "%.*s", (int)details.length, details.ptr);
}

void CALLBACK(http_send_response_headers)(void *envoy, hg_header *headers, size_t count, bool end) {
  fe_stream *stream = envoy;
  if (send(stream) && !end) print_headers(stream->headers, sizeof stream->headers, headers, count);
}

void CALLBACK(http_send_response_data)(void *envoy, hg_buffer data, bool end) {
  fe_stream *stream = envoy;
  if (!send(stream) || end || stream->data_length + data.length > sizeof stream->data) return;
  memcpy(stream->data + stream->data_length, data.ptr, data.length);
  stream->data_length += data.length;
}

void CALLBACK(http_send_response_trailers)(void *envoy, hg_header *trailers, size_t count) {
  fe_stream *stream = envoy;
  if (!send(stream)) return;
  print_headers(stream->trailers, sizeof stream->trailers, trailers, count);
  stream->replies++;
  fe_destroy(stream); // as Envoy may if the client has ended its side
}

void *CALLBACK(http_filter_scheduler_new)(void *envoy) {
  fe_stream **scheduler = malloc(sizeof *scheduler);
  *scheduler = envoy;
  __atomic_add_fetch(&fe_schedulers, 1, __ATOMIC_SEQ_CST);
  return scheduler;
}
void CALLBACK(http_filter_scheduler_commit)(void *scheduler, uint64_t event) {
  __atomic_add_fetch(&(*(fe_stream **)scheduler)->events, 1, __ATOMIC_SEQ_CST);
}
void CALLBACK(http_filter_scheduler_delete)(void *scheduler) {
  free(scheduler);
  __atomic_sub_fetch(&fe_schedulers, 1, __ATOMIC_SEQ_CST);
}

// ---- Healthgate's stats

static fe_filter extension = {.lock = PTHREAD_MUTEX_INITIALIZER}; // the stats of the bootstrap extension

static unsigned define(fe_filter *filter, hg_buffer name, size_t *id) {
  if (filter->frozen) return HG_METRIC_SUCCESS + 3;
  snprintf(filter->names[filter->metrics], sizeof filter->names[0], "%.*s", (int)name.length, name.ptr);
  *id = ++filter->metrics;
  return HG_METRIC_SUCCESS;
}
#define DEFINES(callback, filter) \
  unsigned CALLBACK(callback)(HG_DEFINE) { return define(filter, name, id); }
DEFINES(http_filter_config_define_counter, config)
DEFINES(http_filter_config_define_gauge, config)
DEFINES(bootstrap_extension_config_define_counter, &extension)
DEFINES(bootstrap_extension_config_define_gauge, &extension)

enum { ADD, SUBTRACT, SET };
static unsigned write(fe_filter *filter, size_t id, int operation, uint64_t value) {
  if (id == 0 || id > filter->metrics) abort();
  pthread_mutex_lock(&filter->lock);
  uint64_t *stat = &filter->values[id - 1];
  *stat = operation == ADD ? *stat + value : operation == SUBTRACT ? *stat - value : value;
  pthread_mutex_unlock(&filter->lock);
  return HG_METRIC_SUCCESS;
}
#define WRITES(callback, filter, operation) \
  unsigned CALLBACK(callback)(HG_WRITE) { return write(filter, id, operation, value); }
WRITES(http_filter_increment_counter, ((fe_stream *)of)->filter, ADD)
WRITES(http_filter_increment_gauge, ((fe_stream *)of)->filter, ADD)
WRITES(http_filter_decrement_gauge, ((fe_stream *)of)->filter, SUBTRACT)
WRITES(http_filter_set_gauge, ((fe_stream *)of)->filter, SET)
#ifndef FE_OF_1_38
WRITES(http_filter_config_increment_counter, of, ADD)
WRITES(http_filter_config_set_gauge, of, SET)
#endif
WRITES(bootstrap_extension_config_increment_counter, &extension, ADD)
WRITES(bootstrap_extension_config_increment_gauge, &extension, ADD)
WRITES(bootstrap_extension_config_decrement_gauge, &extension, SUBTRACT)
WRITES(bootstrap_extension_config_set_gauge, &extension, SET)

int64_t fe_metric(fe_filter *filter, const char *name) {
  for (fe_filter *of = filter;; of = &extension) {
    for (size_t i = 0; i < of->metrics; i++) {
      if (strcmp(of->names[i], name) != 0) continue;
      pthread_mutex_lock(&of->lock);
      int64_t value = (int64_t)of->values[i];
      pthread_mutex_unlock(&of->lock);
      return value;
    }
    if (of == &extension) return -1;
  }
}

// ---- Envoy's gauges

enum { GAUGES = 256 };
static struct {
  char name[64]; // "" for none
  uint64_t value;
} gauges[GAUGES];

void fe_gauge(const char *name, uint64_t value) {
  int at = GAUGES;
  for (int i = GAUGES - 1; i >= 0; i--)
    if (gauges[i].name[0] == 0) at = i;
  for (int i = 0; i < GAUGES; i++)
    if (strcmp(gauges[i].name, name) == 0) at = i;
  if (at == GAUGES) abort();
  snprintf(gauges[at].name, sizeof gauges[at].name, "%s", name);
  gauges[at].value = value;
}
void fe_remove_gauge(const char *name) {
  for (int i = 0; i < GAUGES; i++)
    if (strcmp(gauges[i].name, name) == 0) gauges[i].name[0] = 0;
}

static struct {
  const char *gauge;
  void (*act)(void);
} after;
void fe_after(const char *gauge, void (*act)(void)) {
  after.gauge = gauge;
  after.act = act;
}
void fe_service_degrades(void) {
  fe_gauge("cluster.service.membership_total", 1);
  fe_gauge("cluster.service.membership_healthy", 0);
  fe_gauge("cluster.service.membership_degraded", 1);
}

void CALLBACK(bootstrap_extension_iterate_gauges)(void *of, hg_visitor visit, void *context) {
  __atomic_add_fetch(&fe_passes, 1, __ATOMIC_SEQ_CST);
  for (int i = 0; i < GAUGES; i++) {
    if (gauges[i].name[0] == 0) continue;
    visit((hg_envoy_buffer){gauges[i].name, strlen(gauges[i].name)}, gauges[i].value, context);
    if (after.gauge == NULL || strcmp(after.gauge, gauges[i].name) != 0) continue;
    after.gauge = NULL;
    after.act();
  }
}

void fe_reset(void) {
  memset(gauges, 0, sizeof gauges);
  memset(extension.values, 0, sizeof extension.values);
  fe_passes = 0;
  free(lines);
  lines = NULL;
  lines_length = 0;
}

// ---- the bootstrap extension

void CALLBACK(bootstrap_extension_config_signal_init_complete)(void *config) { fe_initialized++; }
void *CALLBACK(bootstrap_extension_timer_new)(void *config) { return ++fe_timers, &fe_timers; }
void CALLBACK(bootstrap_extension_timer_enable)(void *timer, uint64_t ms) { fe_timer_ms = ms; }
void CALLBACK(bootstrap_extension_timer_delete)(void *timer) { fe_timers--; }
#ifndef FE_WITHOUT_LIFECYCLE
bool CALLBACK(bootstrap_extension_enable_cluster_lifecycle)(void *config) { return ++fe_lifecycle == 1; }
#endif
#ifdef FE_OF_1_40
void CALLBACK(bootstrap_extension_get_active_resource_names)(void) {}
#endif
