// One request on its worker: a probe, or a call of grpc.health.v1.Health.
#pragma once

#include "gate.h"

typedef struct hg_stream {
  hg_filter *filter;
  void *envoy;
  hg_gate *gate;           // NULL if the filter passes the request on
  bool gate_referenced;    // by this stream
  bool override_unusable;  // the route's; the gate is the filter's own
  bool sending, destroyed; // Envoy may destroy a stream while it sends something
  unsigned blocked;        // the number of full buffers between the stream and its client
  struct hg_call *call;    // NULL for a probe, and once a Watch has begun
  struct hg_watcher *watcher;
} hg_stream;

// ---- stream.c: the headers of a request, and the parts of a gRPC response

hg_envoy_buffer hg_request_header(void *stream, hg_buffer key);
bool hg_request_is_grpc(void *stream);

enum { HG_SERVING = 1, HG_NOT_SERVING = 2, HG_SERVICE_UNKNOWN = 3 }; // HealthCheckResponse.ServingStatus
hg_buffer hg_response_of(int status);                                 // a HealthCheckResponse

// Sending one may destroy the stream, and a destroyed stream is sent nothing.
void hg_response_send_headers(hg_stream *stream);
void hg_response_send_data(hg_stream *stream, hg_buffer data);
void hg_response_send_trailers(hg_stream *stream, const char *grpc_status);

// ---- probe.c: GET, HEAD or gRPC requests for a path of the gate

bool hg_is_probe(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_probe_answer(hg_stream *stream);

// ---- message.c: the request of a call, one protobuf message with gRPC's prefix

enum { HG_PREFIX = 5, HG_MESSAGE_MAX = 65536, HG_NAME_MAX = 2048, HG_GROUPS_MAX = 100 }; // bytes, bytes, bytes, nested groups

typedef struct {
  char *bytes; // as far as they have arrived
  size_t length, capacity;
  bool too_long; // the rest was dropped
} hg_message;

void hg_message_append(hg_message *message, hg_envoy_buffer bytes);
// hg_message_parse parses a complete HealthCheckRequest, and sets the service's name, or a HealthListRequest, which has none, if name is
// NULL. It returns NULL if the request is one well-formed message, else the error.
const char *hg_message_parse(const hg_message *message, hg_envoy_buffer *name);

// ---- group.c: how many calls of Watch are open, and whether they are still answered by their configuration

// hg_origin has a call's filter and :authority, and the configuration that answers it.
typedef struct {
  const hg_filter *filter;
  uint64_t authority;   // a hash of :authority
  uint64_t config_hash; // of the gate; 0 if it does not answer the call
  uint64_t serial;      // of the route that has an override; 0 if it has none
} hg_origin;

typedef struct hg_group hg_group;
extern atomic_size_t hg_group_count;
typedef struct {
  hg_group *limited, *addressed; // of one configuration, of one :authority
} hg_groups;

// hg_groups_join returns false if there are max watchers already.
bool hg_groups_join(hg_groups *groups, const hg_origin *origin, size_t max);
void hg_groups_leave(hg_groups *groups);
// hg_groups_observe records a call, and returns whether it shows that watchers are outdated.
bool hg_groups_observe(const hg_origin *origin);
// hg_groups_outdated returns whether the observed calls show that config_hash no longer answers.
bool hg_groups_outdated(const hg_groups *groups, uint64_t config_hash);

// ---- watch.c: open calls of Watch

// hg_watch_start begins a call's response; known is whether the gate has the service. It returns false, and sends nothing, if the gate has
// watchers_max watchers already.
bool hg_watch_start(hg_stream *stream, const hg_origin *origin, int64_t deadline, bool known);
void hg_watch_end(hg_stream *stream);
void hg_watch_resume(hg_stream *stream);                    // sends what hg_watch_notify has scheduled
void hg_watch_set_blocked(hg_stream *stream, bool blocked); // one more buffer is full, or one less

// On any thread, also Go's.
// hg_watch_notify schedules each watcher that has an update or has to end. It returns how many watchers there are.
size_t hg_watch_notify(void);
void hg_watch_stop_all(void); // the next hg_watch_notify ends all watchers; later ones end as they start
// hg_watch_supersede makes the next hg_watch_notify end the gate's watchers, because a newer configuration replaces it.
void hg_watch_supersede(hg_gate *gate);

// ---- grpc.c: calls of grpc.health.v1.Health

// hg_call is a call whose request is still arriving.
typedef struct hg_call {
  enum hg_method { HG_CHECK, HG_LIST, HG_WATCH, HG_UNKNOWN_METHOD } method;
  int64_t deadline; // a time of hg_now
  hg_origin origin;
  hg_message message;
} hg_call;

// hg_call_create returns NULL if the request is no call of grpc.health.v1.Health, or the gate does not answer it.
hg_call *hg_call_create(const hg_stream *stream, const hg_gate *gate, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_call_answer(hg_stream *stream); // once the request is complete
void hg_call_destroy(hg_call *call);    // NULL is ignored
