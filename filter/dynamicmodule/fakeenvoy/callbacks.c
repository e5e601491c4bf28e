// The ABI's functions for streams, and the log.
#include "fake_envoy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../abi_types.h"

// It is weak so that this file links alone.
__attribute__((weak)) extern void envoy_dynamic_module_on_http_filter_destroy(const void *);

int fe_schedulers;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char *lines;
static size_t lines_length;

char *fe_log(void) {
  pthread_mutex_lock(&log_lock);
  char *copy = strdup(lines != NULL ? lines : "");
  pthread_mutex_unlock(&log_lock);
  return copy;
}
void fe_clear_log(void) {
  pthread_mutex_lock(&log_lock);
  free(lines);
  lines = NULL;
  lines_length = 0;
  pthread_mutex_unlock(&log_lock);
}

// ---- the ABI

void envoy_dynamic_module_callback_log(unsigned level, hg_buffer line) {
  pthread_mutex_lock(&log_lock);
  lines = realloc(lines, lines_length + line.length + 16);
  lines_length += (size_t)sprintf(lines + lines_length, "%u %.*s\n", level, (int)line.length, line.ptr);
  pthread_mutex_unlock(&log_lock);
}

bool envoy_dynamic_module_callback_http_get_header(void *envoy, unsigned type, hg_buffer key, hg_envoy_buffer *value, size_t index,
                                                   size_t *count) {
  fe_stream *stream = envoy;
  const char *found = NULL;
  if (type != HG_REQUEST_HEADER || index != 0 || count != NULL || stream->destroyed) abort();
  if (strncmp(key.ptr, ":method", key.length) == 0) found = stream->method;
  if (strncmp(key.ptr, ":path", key.length) == 0) found = stream->path;
  if (strncmp(key.ptr, "content-type", key.length) == 0) found = stream->type;
  if (strncmp(key.ptr, "accept", key.length) == 0) found = stream->accept;
  if (strncmp(key.ptr, ":authority", key.length) == 0) found = stream->authority;
  if (strncmp(key.ptr, "grpc-timeout", key.length) == 0) found = stream->timeout;
  *value = (hg_envoy_buffer){found, found != NULL ? strlen(found) : 0};
  return found != NULL;
}

size_t envoy_dynamic_module_callback_http_get_body_chunks_size(void *envoy, unsigned type) {
  fe_stream *stream = envoy;
  return stream->chunk_length == 0 ? 0 : stream->chunks;
}

bool envoy_dynamic_module_callback_http_get_body_chunks(void *envoy, unsigned type, hg_envoy_buffer *chunks) {
  fe_stream *stream = envoy;
  size_t each = stream->chunk_length / stream->chunks;
  for (size_t i = 0; i < stream->chunks; i++)
    chunks[i] = (hg_envoy_buffer){stream->chunk + i * each, i + 1 < stream->chunks ? each : stream->chunk_length - i * each};
  return true;
}

const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *envoy) { return ((fe_stream *)envoy)->route; }

void fe_destroy(fe_stream *stream) {
  if (stream->destroyed) return;
  stream->destroyed = true;
  envoy_dynamic_module_on_http_filter_destroy(stream->module);
}

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

void envoy_dynamic_module_callback_http_send_response(void *envoy, uint32_t status, hg_header *headers, size_t count, hg_buffer body,
                                                      hg_buffer details) {
  fe_stream *stream = envoy;
  if (!send(stream)) return;
  stream->replies++;
  stream->status = status;
  print_headers(stream->headers, sizeof stream->headers, headers, count);
  snprintf(stream->body, sizeof stream->body, "%.*s", (int)body.length, body.ptr);
  snprintf(stream->details, sizeof stream->details, "%.*s", (int)details.length, details.ptr);
}

void envoy_dynamic_module_callback_http_send_response_headers(void *envoy, hg_header *headers, size_t count, bool end) {
  fe_stream *stream = envoy;
  if (send(stream) && !end) print_headers(stream->headers, sizeof stream->headers, headers, count);
}

void envoy_dynamic_module_callback_http_send_response_data(void *envoy, hg_buffer data, bool end) {
  fe_stream *stream = envoy;
  if (!send(stream) || end || stream->data_length + data.length > sizeof stream->data) return;
  memcpy(stream->data + stream->data_length, data.ptr, data.length);
  stream->data_length += data.length;
}

void envoy_dynamic_module_callback_http_send_response_trailers(void *envoy, hg_header *trailers, size_t count) {
  fe_stream *stream = envoy;
  if (!send(stream)) return;
  print_headers(stream->trailers, sizeof stream->trailers, trailers, count);
  stream->replies++;
  fe_destroy(stream); // as Envoy may if the client has ended its side
}

void *envoy_dynamic_module_callback_http_filter_scheduler_new(void *envoy) {
  fe_stream **scheduler = malloc(sizeof *scheduler);
  *scheduler = envoy;
  __atomic_add_fetch(&fe_schedulers, 1, __ATOMIC_SEQ_CST);
  return scheduler;
}

// The scheduled events of each stream, until a test runs them.
enum { EVENTS = 4096 };
static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  fe_stream *stream;
  int events;
} events[EVENTS];
static int events_count;

void envoy_dynamic_module_callback_http_filter_scheduler_commit(void *committed, uint64_t event) {
  fe_stream *stream = *(fe_stream **)committed;
  pthread_mutex_lock(&events_lock);
  int i = 0;
  while (i < events_count && events[i].stream != stream) i++;
  if (i == EVENTS) abort();
  if (i == events_count) {
    events[events_count++].stream = stream;
    events[i].events = 0;
  }
  events[i].events++;
  pthread_mutex_unlock(&events_lock);
}

void envoy_dynamic_module_callback_http_filter_scheduler_delete(void *deleted) {
  fe_stream *stream = *(fe_stream **)deleted;
  pthread_mutex_lock(&events_lock);
  for (int i = 0; i < events_count; i++)
    if (events[i].stream == stream) events[i--] = events[--events_count];
  pthread_mutex_unlock(&events_lock);
  free(deleted);
  __atomic_sub_fetch(&fe_schedulers, 1, __ATOMIC_SEQ_CST);
}

int fe_take_events(fe_stream *stream) {
  pthread_mutex_lock(&events_lock);
  int taken = 0;
  for (int i = 0; i < events_count; i++)
    if (events[i].stream == stream) {
      taken = events[i].events;
      events[i] = events[--events_count];
      break;
    }
  pthread_mutex_unlock(&events_lock);
  return taken;
}
