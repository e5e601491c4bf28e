// An Envoy for tests: it defines the ABI's functions that the module calls, and calls the module's hooks on the thread of the test.
#pragma once

#include <pthread.h>

#include "../abi.h"

typedef struct fe_filter {
  const void *module;
  bool frozen;
  size_t metrics;
  char names[128][64];
  uint64_t values[128];
  pthread_mutex_t lock; // of values
} fe_filter;

// fe_stream is one request and its response.
typedef struct fe_stream {
  fe_filter *filter;
  const void *module, *route;
  const char *method, *path, *type, *accept, *authority, *timeout; // headers; NULL for none
  const char *chunk;                                               // of the body, during the hook
  size_t chunk_length;
  size_t chunks; // the number of pieces in which the hook gets it

  int replies; // complete ones
  uint32_t status;
  char body[8192], details[64], headers[1024], trailers[256], data[8192];
  size_t data_length;
  bool destroyed;
  int destroyed_at; // the send that destroys the stream, counted from 1; 0 for none
  int sends;
  int events; // scheduled ones
} fe_stream;

// Envoy's own gauges, Healthgate's stats, the log, and counts of calls.
void fe_gauge(const char *name, uint64_t value);
void fe_remove_gauge(const char *name);
int64_t fe_metric(fe_filter *filter, const char *name); // of the filter or the bootstrap extension, -1 if there is none
char *fe_log(void);                                     // all lines so far; the caller frees it
void fe_reset(void);                                    // the gauges, the bootstrap extension's stats and the log
extern int fe_passes;                                   // over the gauges
extern uint64_t fe_timer_ms;                            // the timer's last delay
extern int fe_timers, fe_lifecycle, fe_initialized, fe_schedulers, fe_ended;
// fe_after calls act during the next pass, once the pass has read a gauge.
void fe_after(const char *gauge, void (*act)(void));
void fe_service_degrades(void); // the one host of the cluster service

// The hooks, in Envoy's order. fe_filter_new and fe_route_new return NULL if the module refuses, fe_bootstrap returns false.
const char *fe_load(void);
bool fe_bootstrap(const char *config);
void fe_stop_bootstrap(void);
void fe_server_initialized(void);
void fe_timer_fires(void);
void fe_shutdown(void);
void fe_cluster(const char *name, bool removed);
fe_filter *fe_filter_new(const char *config, size_t length);
void fe_filter_free(fe_filter *filter);
const void *fe_route_new(const char *config, size_t length);
void fe_route_free(const void *route);
fe_stream *fe_stream_new(fe_filter *filter, const void *route, const char *method, const char *path, const char *type, const char *accept);
void fe_destroy(fe_stream *stream);
void fe_stream_free(fe_stream *stream); // also destroys it
unsigned fe_headers(fe_stream *stream, bool end);
unsigned fe_body(fe_stream *stream, const char *bytes, size_t length, bool end);
unsigned fe_trailers(fe_stream *stream);
void fe_watermark(fe_stream *stream, bool above);
int fe_run(fe_stream *stream); // runs the scheduled events, and returns their number
