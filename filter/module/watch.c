// The calls of Watch. The main thread, or Go, tells those that have something to be sent, and each sends it on its own worker.
#include <pthread.h>
#include <stdlib.h>

#include "healthgate.h"

// An update a watcher is sent although nothing has changed: idle timeouts, of Envoy's and others', would end it.
static const int64_t repeated_every = INT64_C(30) * 1000000000;

struct hg_watcher {
  hg_watcher *next, **at;
  hg_gate *gate;
  void *scheduler;
  bool known;   // the service that it asked for
  bool blocked; // its client does not read; on its worker
  bool ended;   // on its worker
  _Atomic int sent;
  _Atomic int64_t sent_at;
};

// lock is of the list. A watcher is told while it is held, and leaves the list first when its stream ends: Envoy 1.38 reads of a
// stream what its end frees. Telling may end other things of this thread's, so it is recursive.
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static hg_watcher *watchers;
static size_t count;
static atomic_bool stopped;

static int status_of(const hg_watcher *watcher) {
  if (!watcher->known) return HG_SERVICE_UNKNOWN;
  return hg_gate_now(watcher->gate)->passing ? HG_SERVING : HG_NOT_SERVING;
}

static bool is_due(const hg_watcher *watcher) {
  return atomic_load(&watcher->sent) != status_of(watcher) || hg_now() - atomic_load(&watcher->sent_at) > repeated_every;
}

static void send_update(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  int status = status_of(watcher);
  atomic_store(&watcher->sent, status);
  atomic_store(&watcher->sent_at, hg_now());
  hg_send_status(stream, status);
}

static void end(hg_stream *stream) {
  stream->watcher->ended = true;
  hg_send_trailers(stream, HG_BUFFER("14")); // UNAVAILABLE
}

void hg_watch_begin(hg_stream *stream, bool known) {
  hg_count(stream->envoy, stream->gate->watches);
  hg_gauge_move(stream->envoy, stream->gate->watchers, true);
  hg_watcher *watcher = hg_new(sizeof *watcher);
  watcher->gate = stream->gate;
  watcher->known = known;
  watcher->scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(stream->envoy);
  stream->watcher = watcher;

  pthread_mutex_lock(&lock);
  watcher->next = watchers;
  watcher->at = &watchers;
  if (watchers != NULL) watchers->at = &watcher->next;
  watchers = watcher;
  count++;
  pthread_mutex_unlock(&lock);

  hg_send_headers(stream);
  if (!stream->gone) send_update(stream);
  if (!stream->gone && atomic_load(&stopped)) end(stream);
}

void hg_watch_end(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  pthread_mutex_lock(&lock);
  *watcher->at = watcher->next;
  if (watcher->next != NULL) watcher->next->at = watcher->at;
  count--;
  pthread_mutex_unlock(&lock);
  envoy_dynamic_module_callback_http_filter_scheduler_delete(watcher->scheduler);
  hg_gauge_move(stream->envoy, stream->gate->watchers, false);
}

void hg_watch_go_on(hg_stream *stream) {
  hg_watcher *watcher = stream->watcher;
  if (watcher == NULL || watcher->ended) return;
  if (atomic_load(&stopped))
    end(stream);
  else if (!watcher->blocked && is_due(watcher))
    send_update(stream);
}

void hg_watch_block(hg_stream *stream, bool blocked) {
  hg_watcher *watcher = stream->watcher;
  if (watcher == NULL) return;
  watcher->blocked = blocked;
  // Nothing is sent here and now: Envoy is going through all streams of the connection to tell them this, and one that encodes changes
  // places in that list, so that another is passed over and stays blocked (ConnectionImpl::onUnderlyingConnectionBelowWriteBufferLowWatermark
  // in source/common/http/http2/codec_impl.cc of v1.39.1).
  if (!blocked && is_due(watcher)) envoy_dynamic_module_callback_http_filter_scheduler_commit(watcher->scheduler, 0);
}

size_t hg_watch_tell(void) {
  pthread_mutex_lock(&lock);
  for (hg_watcher *watcher = watchers; watcher != NULL; watcher = watcher->next)
    if (atomic_load(&stopped) || is_due(watcher)) envoy_dynamic_module_callback_http_filter_scheduler_commit(watcher->scheduler, 0);
  size_t there = count;
  pthread_mutex_unlock(&lock);
  return there;
}

void hg_watch_stop(void) { atomic_store(&stopped, true); }
void hg_gate_supersede(hg_gate *gate) { (void)gate; }
