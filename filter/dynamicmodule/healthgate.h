// What the files of C share with each other, and with Go; those of grpc.health.v1.Health share more, in grpc.h.
//
//   bootstrap.c  what Envoy calls of the bootstrap extension: the clock, the clusters' life, the end
//   http.c       what Envoy calls of the filter: configurations, and each stream's request
//   stats.c      what is sampled
//   age.c        how old the samples are
//   gate.c       the replies of a gate, and which is sent now
//   metric.c     what is counted
//   route.c      which gate a stream has, by its route
//   probe.c      what a probe is sent
//   grpc.c       what a call of grpc.health.v1.Health asks, and what it is sent
//   message.c    the request of such a call, read as it comes in
//   watch.c      the calls of Watch
//   group.c      how many of them there are, and whether their configuration is still in use
//   unused.c     what Envoy looks up, and never needs of a health check
//
// "Any thread" is one of Envoy's: the main thread, or a worker.
#ifndef HEALTHGATE_H
#define HEALTHGATE_H

#include <stdatomic.h>

#include "abi.h"

#define HG_TEXT(text) {text, sizeof(text) - 1}
#define HG_BUFFER(text) ((hg_buffer)HG_TEXT(text))
#define HG_HEADER(key, value) {key, sizeof(key) - 1, value, sizeof(value) - 1}

static inline bool hg_equal(hg_buffer a, hg_envoy_buffer b) {
  if (a.length != b.length) return false;
  for (size_t i = 0; i < a.length; i++)
    if (a.ptr[i] != b.ptr[i]) return false;
  return true;
}

void hg_log(unsigned level, hg_buffer line);
void *hg_new(size_t size);         // zeroed; ends the process where memory is out, as Envoy does
hg_buffer hg_copy(hg_buffer text); // to be freed

// ---- stats.c, on any thread

// hg_index is the names of the gauges that are sampled.
typedef struct hg_index hg_index;

// hg_index_new makes an index for a number of names, which have so many bytes together.
hg_index *hg_index_new(size_t names, size_t bytes);
// hg_index_add adds a name; offset is the length of those before it.
void hg_index_add(hg_index *index, hg_buffer name, size_t offset);
void hg_index_free(hg_index *index);

// hg_sample is one gauge, as a pass has found it; all zero if Envoy does not have it.
typedef struct {
  uint64_t value;
  bool found;
} hg_sample;

// hg_hashes are the hashes of the stat names of all clusters.
typedef struct {
  uint64_t *hashes;
  size_t count, capacity;
} hg_hashes;

uint64_t hg_hash(hg_buffer text); // FNV-1a
// hg_pass reads all of Envoy's gauges, and fills samples in the order of the index's names. It adds the clusters that have stats to
// clusters, if that is not NULL. It returns false once Envoy's side of the bootstrap extension has ended.
bool hg_pass(const hg_index *index, hg_sample *samples, hg_hashes *clusters);
void hg_hashes_free(hg_hashes *hashes);
void hg_count_sample(void); // all gates have been evaluated by a sample
// hg_stats_set_extension sets Envoy's side of the bootstrap extension, NULL once it has ended, and waits for passes under way.
void hg_stats_set_extension(void *extension);
bool hg_stats_available(void);
int64_t hg_now(void);      // nanoseconds, monotonic; a few milliseconds coarse
int64_t hg_cpu_time(void); // nanoseconds of this thread

// ---- age.c

typedef struct hg_gate hg_gate;

void hg_main_thread_runs(void); // now
void hg_sampled(int64_t at); // when the pass began by which all gates have been evaluated
// hg_set_sample_limit sets how old a sample may be whatever a gate says: the time between passes grows with their cost.
void hg_set_sample_limit(int64_t limit);
int64_t hg_sampled_at(void); // 0 before the first
// hg_is_stale reports whether the main thread or the last sample is too old for a gate, and was so 100 ms ago.
bool hg_is_stale(const hg_gate *gate);
// hg_suspect begins these 100 ms if one of them is older than limit.
void hg_suspect(int64_t limit);

// ---- bootstrap.c

void hg_bootstrap_count_sample(void); // on any thread, while there is a bootstrap extension

// ---- metric.c

typedef struct hg_filter hg_filter;

// hg_metric is a stat of the module's own.
typedef struct hg_metric {
  size_t id; // Envoy's
  bool gauge;
  bool shared; // of the bootstrap extension, not of the filter
  atomic_bool due; // written without a stream, and Envoy does not know yet
  _Atomic uint64_t owed;
  struct hg_metric *next;
} hg_metric;

// hg_metrics_share begins to define the stats that all filters share, and hg_metric_share defines one; while the configuration of the
// bootstrap extension is made.
void hg_metrics_share(void *extension_config);
void hg_metric_share(hg_buffer name, bool gauge);
void hg_metrics_unshare(void); // at the end of the bootstrap extension: the sampler may still be at work
// hg_metric_define returns NULL where Envoy defines none: once the filter's configuration has been made.
hg_metric *hg_metric_define(hg_filter *filter, hg_buffer name, bool gauge);
// Without a stream, on any thread.
void hg_metric_add(hg_filter *filter, hg_metric *metric, uint64_t by);
void hg_metric_set(hg_filter *filter, hg_metric *metric, uint64_t value);
// By a stream of the filter's; a metric that Envoy has not defined is NULL.
void hg_count(void *stream, const hg_metric *metric);
void hg_gauge_move(void *stream, const hg_metric *metric, bool up); // by one
void hg_metrics_pay(hg_filter *filter, void *stream);

// ---- gate.c

enum { HG_HEADERS_MOST = 7, HG_PATHS_MOST = 2 };

// hg_reply is what a probe is sent.
typedef struct hg_reply {
  uint32_t status;
  bool passing;
  bool once; // made for one probe, which frees it
  size_t count;
  hg_header headers[HG_HEADERS_MOST + 1]; // headers[count] is grpc-status
  hg_buffer body, details;
  const hg_metric *counters[2];
  struct hg_reply *next; // of its gate's
} hg_reply;

hg_reply *hg_reply_new(uint32_t status, bool passing, hg_buffer body, hg_buffer details);
void hg_reply_header(hg_reply *reply, hg_buffer key, hg_buffer value);
void hg_reply_free(hg_reply *reply);

// hg_gate answers the probes of one configuration. It lives while it is referenced.
struct hg_gate {
  atomic_int holders;
  uintptr_t handle; // Go's
  hg_buffer paths[HG_PATHS_MOST];
  size_t path_count;
  bool details;       // to clients that accept JSON
  int64_t oldest;     // how old a sample may be, in nanoseconds
  hg_reply *replies;  // all of them
  const hg_reply *stale, *error;
  _Atomic(const hg_reply *) now; // by the last evaluation; NULL before the first probe

  // grpc.health.v1.Health; nothing of it is set where it is not answered.
  hg_buffer *services;
  size_t service_count;
  hg_buffer listed[2]; // the message that List sends: not serving, serving
  const hg_metric *checks, *watches, *watchers;
  uint64_t content;              // a hash of its configuration: gates of the same one answer alike
  size_t watchers_max;           // calls of Watch at a time, of all gates of the same filter and content
  _Atomic int64_t superseded_at; // by hg_gate_supersede; 0 before
};

hg_gate *hg_gate_new(void); // held once
void hg_gate_hold(hg_gate *gate);
void hg_gate_release(hg_gate *gate);
// While a gate is made.
void hg_gate_path(hg_gate *gate, hg_buffer path);
void hg_gate_services(hg_gate *gate, size_t count, hg_buffer not_serving, hg_buffer serving);
void hg_gate_service(hg_gate *gate, size_t i, hg_buffer name);
void hg_gate_keep(hg_gate *gate, hg_reply *reply);
// From then on.
void hg_gate_publish(hg_gate *gate, const hg_reply *reply);
const hg_reply *hg_gate_now(hg_gate *gate);

// ---- route.c

// hg_filter is a filter's configuration. Its streams keep it alive.
struct hg_filter {
  void *envoy;
  uintptr_t handle; // Go's
  _Atomic(hg_gate *) gate; // its own, referenced; NULL before its first stream
  hg_metric *metrics;
  atomic_bool indebted; // a metric is due
};

// hg_route is a route's configuration.
typedef struct hg_route {
  uintptr_t handle;  // Go's
  bool overrides;  // it says more than that the filter is enabled
  uint64_t serial; // of two routes, the one that was made later has the greater one
  struct hg_laid *laid;
  struct hg_route *next;
} hg_route;

void hg_route_add(hg_route *route);
void hg_route_remove(hg_route *route); // drops what was laid over filters by it
void hg_filter_remove(hg_filter *filter);
hg_gate *hg_filter_gate(hg_filter *filter); // its own
// hg_gate_of returns the gate of a stream; held is set where the stream has to release it.
hg_gate *hg_gate_of(hg_filter *filter, void *stream, bool *held);

// ---- http.c

typedef struct hg_watcher hg_watcher;
typedef struct hg_call hg_call;

// hg_stream is one request.
typedef struct {
  hg_filter *filter;
  void *envoy;
  hg_gate *gate;    // NULL where the request is not for it
  bool held;        // the gate, by this stream
  bool broken;      // by what should have given it its gate
  bool busy, gone;  // Envoy may destroy a stream while it is sent something
  unsigned blocked; // how many buffers before its client are full
  hg_call *call;    // NULL where the request is a plain probe, and once a Watch has begun
  hg_watcher *watcher;
} hg_stream;

// ---- probe.c

hg_envoy_buffer hg_request_header(void *stream, hg_buffer key);
bool hg_calls_itself_grpc(void *stream);
bool hg_is_probe(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_answer(hg_stream *stream);

// ---- watch.c

void hg_watch_end(hg_stream *stream);
void hg_watch_go_on(hg_stream *stream); // on its worker, when it was told to
void hg_watch_block(hg_stream *stream, bool blocked); // where its client does not read
// hg_watch_tell has each watcher go on that has something to be sent, and returns how many watchers there are. It may be
// called on a thread of Go's too.
size_t hg_watch_tell(void);
// hg_watch_stop has the watchers end, those that are still to come too.
void hg_watch_stop(void);
// hg_gate_supersede has the gate's watchers end at the next hg_watch_tell, because a newer configuration has taken its place.
// Any thread.
void hg_gate_supersede(hg_gate *gate);

#endif
