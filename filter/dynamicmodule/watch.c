#include <pthread.h>
#include <stdlib.h>

#include "stream.h"

// An idle timeout would end a stream without updates, so the last update is sent again after this long.
static const int64_t repeated_every = INT64_C(30) * 1000000000;

// Only a watcher this old is ended by hg_groups_outdated: it may have begun on a worker that got an update later than others.
static const int64_t outdated_after = INT64_C(1000000000);

// The client of a superseded gate may reach the same gate again: on a worker that gets the update later, or on a connection of an old
// filter chain, to which Envoy sends GOAWAY only with the next response. For this long, its watchers are ended again.
static const int64_t superseded_for = INT64_C(3000000000);

typedef struct hg_watcher {
  LIST_ENTRY(hg_watcher) link;
  hg_gate *gate;
  void *scheduler;
  hg_groups groups;
  int64_t began, deadline;
  bool known;             // the gate has the service
  bool ended;             // its trailers were sent
  _Atomic int end_status; // the gRPC status to end with; 0 if the watcher continues
  _Atomic int sent;
  _Atomic int64_t sent_at;
} hg_watcher;

// lock guards the list. It is held while watchers are scheduled, and a watcher leaves the list before its stream ends, because Envoy 1.38
// reads a part of the stream that is freed when the stream ends. It is recursive, because scheduling may release the last reference to
// another object of the same thread.
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static LIST_HEAD(, hg_watcher) watchers = LIST_HEAD_INITIALIZER(watchers);
static size_t count;
static atomic_bool stopped;

static int status_of(const hg_watcher *watcher) {
  if (!watcher->known) return HG_SERVICE_UNKNOWN;
  return hg_gate_reply(watcher->gate)->passing ? HG_SERVING : HG_NOT_SERVING;
}

static bool has_update(const hg_watcher *watcher) {
  return atomic_load(&watcher->sent) != status_of(watcher) || hg_now() - atomic_load(&watcher->sent_at) > repeated_every;
}

enum { DEADLINE_EXCEEDED = 4, UNAVAILABLE = 14 };

// reason_to_end returns the gRPC status with which a watcher has to end, 0 if it does not. Envoy never reports that a stream's
// configuration was replaced, so two rules find that out:
//   - A newer configuration has the stat_prefix of the watcher's gate (supersede.go). That is noticed without any call.
//   - Another configuration answers calls of the same filter and :authority (group.c). Only that shows that an override was removed.
static int reason_to_end(const hg_watcher *watcher) {
  if (atomic_load(&stopped)) return UNAVAILABLE;
  int64_t now = hg_now(), superseded_at = atomic_load(&watcher->gate->superseded_at);
  if (superseded_at != 0 && watcher->began < superseded_at + superseded_for) return UNAVAILABLE;
  if (now >= watcher->deadline) return DEADLINE_EXCEEDED;
  if (now - watcher->began > outdated_after && hg_groups_outdated(&watcher->groups, watcher->gate->config_hash)) return UNAVAILABLE;
  return 0;
}

static void send_update(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  int status = status_of(watcher);
  atomic_store(&watcher->sent, status);
  atomic_store(&watcher->sent_at, hg_now());
  hg_response_send_data(stream, hg_response_of(status));
}

static void end_call(hg_stream *stream, int status) {
  stream->watcher->ended = true;
  hg_response_send_trailers(stream, status == DEADLINE_EXCEEDED ? "4" : "14");
}

bool hg_watch_start(hg_stream *stream, const hg_origin *origin, int64_t deadline, bool known) {
  hg_groups groups;
  if (!hg_groups_join(&groups, origin, stream->gate->watchers_max)) return false;
  hg_watcher *watcher = hg_alloc(sizeof *watcher);
  watcher->gate = stream->gate;
  watcher->groups = groups;
  watcher->began = hg_now();
  watcher->deadline = deadline;
  watcher->known = known;
  watcher->scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(stream->envoy);
  stream->watcher = watcher;
  hg_metric_increment(stream->envoy, stream->gate->watchers);

  pthread_mutex_lock(&lock);
  LIST_INSERT_HEAD(&watchers, watcher, link);
  count++;
  pthread_mutex_unlock(&lock);

  hg_response_send_headers(stream);
  if (!stream->destroyed && stream->blocked == 0) send_update(stream);
  if (!stream->destroyed && atomic_load(&stopped)) end_call(stream, UNAVAILABLE);
  return true;
}

void hg_watch_end(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  pthread_mutex_lock(&lock);
  LIST_REMOVE(watcher, link);
  count--;
  pthread_mutex_unlock(&lock);
  hg_groups_leave(&watcher->groups);
  envoy_dynamic_module_callback_http_filter_scheduler_delete(watcher->scheduler);
  hg_metric_decrement(stream->envoy, stream->gate->watchers);
}

void hg_watch_resume(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  if (watcher == NULL || watcher->ended) return;
  int status = atomic_load(&watcher->end_status);
  if (status != 0)
    end_call(stream, status);
  else if (stream->blocked == 0 && has_update(watcher))
    send_update(stream);
}

void hg_watch_set_blocked(hg_stream *stream, bool blocked) {
  if (blocked)
    stream->blocked++;
  else if (stream->blocked > 0)
    stream->blocked--;
  hg_watcher *watcher = stream->watcher;
  if (watcher == NULL || stream->blocked > 0) return;
  // Nothing is sent here, because Envoy iterates the streams of the connection. A stream that encodes moves in that list, so that another
  // one would be skipped and stay blocked: ConnectionImpl::onUnderlyingConnectionBelowWriteBufferLowWatermark in
  // source/common/http/http2/codec_impl.cc of v1.39.1.
  if (has_update(watcher)) envoy_dynamic_module_callback_http_filter_scheduler_commit(watcher->scheduler, 0);
}

size_t hg_watch_notify(void) {
  pthread_mutex_lock(&lock);
  hg_watcher *watcher;
  LIST_FOREACH(watcher, &watchers, link) {
    int status = reason_to_end(watcher);
    if (status != 0) atomic_store(&watcher->end_status, status);
    if (status != 0 || has_update(watcher)) envoy_dynamic_module_callback_http_filter_scheduler_commit(watcher->scheduler, 0);
  }
  size_t open = count;
  pthread_mutex_unlock(&lock);
  return open;
}

void hg_watch_stop_all(void) { atomic_store(&stopped, true); }

void hg_watch_supersede(hg_gate *gate) { atomic_store(&gate->superseded_at, hg_now()); }
