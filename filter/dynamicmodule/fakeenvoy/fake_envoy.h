// An Envoy for tests: it has the functions of the ABI that the module calls, and calls the module's hooks. It counts what it is
// called, and a test says from which thread.
#ifndef FAKE_ENVOY_H
#define FAKE_ENVOY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fe_filter {
  const void *module;
  bool frozen;
  int metrics;
  char names[128][64];
  uint64_t values[128];
  pthread_mutex_t lock; // of values
} fe_filter;

// fe_stream is one request, and what it is sent.
typedef struct fe_stream {
  fe_filter *filter;
  const void *module, *route;
  const char *method, *path, *type, *accept;
  const char *authority, *timeout; // NULL where the request has none
  const char *chunk; // of the body, during the hook
  size_t chunk_length;
  size_t chunks; // in how many pieces it is handed over

  int replies; // that were sent whole
  uint32_t status;
  char body[8192], details[64], headers[1024], trailers[256], data[8192];
  size_t data_length;
  bool destroyed;
  int dies_at; // the call that sends something during which the stream is destroyed; 0 for none
  int sends;
} fe_stream;

// What Envoy has.
void fe_gauge(const char *name, uint64_t value);
void fe_remove_stat(const char *name);
void fe_reset(void);
extern int fe_passes;           // over the gauges
extern uint64_t fe_timer_ms;    // what the timer was set to last
extern int fe_looks, fe_timers, fe_lifecycle, fe_initialized, fe_schedulers, fe_ended;

char *fe_log(void); // all lines so far, to be freed
void fe_clear_log(void);

// The order in which Envoy calls. fe_filter_new returns NULL where the module refuses.
void fe_start(void);
bool fe_load(void); // the module; false if it refuses
bool fe_bootstrap(const char *config); // a bootstrap extension comes; false where it is refused
void fe_stop_bootstrap(void);
void fe_server_initialized(void);
void fe_timer_fires(void);
void fe_shutdown(void);
void fe_cluster(const char *name, bool removed);
fe_filter *fe_filter_new(const char *config, size_t length);
void fe_filter_free(fe_filter *filter);
uint64_t fe_metric(fe_filter *filter, const char *name); // UINT64_MAX where there is none
int64_t fe_shared_metric(const char *name); // of the bootstrap extension, -1 where there is none
const void *fe_route_new(const char *config, size_t length);
void fe_route_free(const void *route);

fe_stream *fe_stream_new(fe_filter *filter, const void *route, const char *method, const char *path, const char *type, const char *accept);
void fe_stream_free(fe_stream *stream); // destroys it first
unsigned fe_headers(fe_stream *stream, bool end);
unsigned fe_body(fe_stream *stream, const char *bytes, size_t length, bool end);
unsigned fe_trailers(fe_stream *stream);
void fe_watermark(fe_stream *stream, bool above);
void fe_destroy(fe_stream *stream);
int fe_due(fe_stream *stream); // how many events were scheduled for it, which are then forgotten
int fe_run(fe_stream *stream); // the events that were scheduled for it

void fe_after(const char *read, void (*act)(void));
void fe_service_degrades(void);
#endif
