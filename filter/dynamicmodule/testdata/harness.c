// Tests the C of the module without Go, under ASan, UBSan and TSan. The functions of Go are replaced here.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../fakeenvoy/fake_envoy.h"
#include "../stream.h"

#define CHECK(is)                                                                  \
  do {                                                                             \
    if (!(is)) {                                                                   \
      fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #is); \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)

// ---- the clock, instead of libc's

static _Atomic int64_t ahead; // of the real clock, in seconds

int clock_gettime(clockid_t clock, struct timespec *now) {
  long failed = syscall(SYS_clock_gettime, clock, now);
  now->tv_sec += ahead;
  return (int)failed;
}

// refresh lets the main thread run and takes samples.
static void refresh(void) {
  hg_age_main_thread_runs();
  hg_age_sampled(hg_now());
}

// ---- Go

// go_calls counts the calls of Go that could delay a worker: all but those for configurations.
static atomic_int go_calls, merges, first_probes;
static hg_reply *kept[3];
static bool refuses;
static hg_gate *last_merged;

static hg_reply *make(hg_filter *filter, hg_gate *gate, uint32_t status, const char *details) {
  hg_reply *reply = hg_reply_create(status, status < 300, HG_BUFFER("body\n"), hg_buffer_of(details));
  hg_reply_add_header(reply, HG_BUFFER("content-type"), HG_BUFFER("text/plain"));
  hg_reply_add_header(reply, HG_BUFFER("cache-control"), HG_BUFFER("no-store"));
  if (filter != NULL) reply->counters[0] = filter->metrics.first;
  hg_gate_add_reply(gate, reply);
  return reply;
}

enum { OK, FAILS, STALE };

static hg_gate *make_gate(hg_filter *filter, const char *path) {
  hg_gate *gate = hg_gate_create();
  hg_list_add(&gate->paths, hg_buffer_of(path));
  gate->age_limit = INT64_C(5000000000);
  hg_reply *replies[3] = {make(filter, gate, 200, "ok"), make(filter, gate, 503, "fails"), make(filter, gate, 503, "stale")};
  gate->stale = gate->error = replies[STALE];
  if (kept[OK] == NULL) memcpy(kept, replies, sizeof kept);
  gate->handle = (uintptr_t)replies[OK];
  hg_gate_publish(gate, replies[OK]);
  return gate;
}

bool healthgateFilterCreate(hg_filter *filter, char *config, size_t length) {
  hg_metric_define(&filter->metrics, HG_BUFFER("healthy"), true);
  hg_metric_define(&filter->metrics, HG_BUFFER("watchers"), true);
  hg_metric_define(&filter->metrics, HG_BUFFER("answers"), false);
  filter->handle = (uintptr_t)filter;
  return !refuses;
}
hg_gate *healthgateFilterGate(uintptr_t handle) {
  hg_filter *filter = (hg_filter *)handle;
  hg_gate *gate = make_gate(filter, "/");
  gate->list_responses[false] = hg_copy(HG_BUFFER("not"));
  gate->list_responses[true] = hg_copy(HG_BUFFER("serving"));
  hg_list_add(&gate->services, HG_BUFFER(""));
  hg_list_add(&gate->services, HG_BUFFER("a.Service"));
  gate->watchers = filter->metrics.first->next;
  return gate;
}
void healthgateFilterDestroy(uintptr_t filter) {}
bool healthgateRouteCreate(hg_route *route, char *config, size_t length) {
  route->overrides = length > 0;
  return !refuses;
}
void healthgateRouteDestroy(uintptr_t route) {}
hg_gate *healthgateMergedGate(uintptr_t filter, uintptr_t route) {
  go_calls++;
  merges++;
  return refuses ? NULL : (last_merged = make_gate(NULL, "/route"));
}
hg_reply *healthgateReport(uintptr_t gate, char *accept, size_t length) {
  go_calls++;
  if (length != 16 || memcmp(accept, "application/json", 16) != 0) return NULL;
  hg_reply *report = hg_reply_create(200, true, HG_BUFFER("{}\n"), HG_BUFFER("report"));
  report->single_use = true;
  return report;
}
static hg_index *names;
static void sample(void) {
  hg_sample samples[2] = {{0}};
  hg_hashes clusters = {0};
  CHECK(hg_sample_gauges(names, samples, &clusters));
  CHECK(!samples[0].found || (samples[0].value == 7 && clusters.count == 1));
  hg_hashes_free(&clusters);
  hg_metrics_count_sample();
}
void healthgateStart(void) {
  go_calls++;
  sample();
  hg_age_sampled(hg_now());
}
static hg_gate *probed;
void healthgateFirstProbe(uintptr_t ok) {
  first_probes++;
  sample();
  if (!refuses) hg_gate_publish(probed, (hg_reply *)ok);
}
void healthgateLoad(void) {}
void healthgateDefineShared(void) { hg_metric_share(HG_BUFFER("shared"), false); }
void healthgateCluster(char *name, size_t length, bool removed) {
  go_calls++;
}
void healthgateStop(void) { go_calls++; }

// ---- probes

static fe_filter *filter;

static hg_filter *module_filter(void) { return (hg_filter *)filter->module; }

static fe_stream *ask_of(fe_filter *of, const void *route, const char *method, const char *path, const char *type, const char *accept) {
  fe_stream *stream = fe_stream_new(of, route, method, path, type, accept);
  CHECK((fe_headers(stream, true) == HG_HEADERS_STOP) == (stream->replies == 1));
  return stream;
}
static fe_stream *ask(const char *method, const char *path, const char *type) {
  return ask_of(filter, NULL, method, path, type, NULL);
}

static void probes(void) {
  const struct {
    const char *method, *path, *type;
    bool mine;
  } all[] = {
      {"GET", "/", NULL, true},      {"HEAD", "/", NULL, true},       {"GET", "/?a=b", NULL, true},
      {"GET", "/?", NULL, true},     {"GET", "//", NULL, false},      {"GET", "", NULL, false},
      {"POST", "/", NULL, false},    {"POST", "/", "text/a", false},  {"POST", "/", "application/grpc", true},
      {"PUT", "/", NULL, false},     {"GET", NULL, NULL, false},      {"POST", "/", "application/grpc+a", true},
      {NULL, "/", NULL, false},      {"get", "/", NULL, false},       {"POST", "/", "application/grpc-web", false},
      {"GET", "/a", NULL, false},    {"GE", "/", NULL, false},        {"POST", "/", "application/grp", false},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    fe_stream *stream = ask(all[i].method, all[i].path, all[i].type);
    CHECK(stream->replies == all[i].mine);
    if (all[i].mine) CHECK(stream->status == 200 && strcmp(stream->details, "ok") == 0);
    CHECK((strstr(stream->headers, "grpc-status: 0") != NULL) == (all[i].mine && all[i].type != NULL));
    fe_stream_free(stream);
  }
}

static bool is_stale(void) {
  fe_stream *stream = ask("GET", "/", NULL);
  bool stale = strcmp(stream->details, "stale") == 0;
  CHECK(stale == (stream->status == 503));
  fe_stream_free(stream);
  return stale;
}

// Go evaluates a gate at its first probe and publishes the reply.
static void first_probe(void) {
  probed = hg_filter_gate(module_filter());
  hg_gate_publish(probed, NULL);
  CHECK(!is_stale() && !is_stale() && first_probes == 1);
  hg_gate_publish(probed, NULL);
  refuses = true;
  fe_stream *stream = ask("GET", "/", NULL);
  CHECK(stream->status == 503 && first_probes == 2);
  fe_stream_free(stream);
  refuses = false;
  CHECK(!is_stale() && first_probes == 3);
}

static void probe_ends_with_its_body(void) {
  fe_stream *stream = fe_stream_new(filter, NULL, "GET", "/", NULL, NULL);
  CHECK(fe_headers(stream, false) == HG_HEADERS_STOP && fe_body(stream, "abc", 3, false) == HG_BODY_STOP_NO_BUFFER && stream->replies == 0);
  CHECK(fe_trailers(stream) == HG_TRAILERS_STOP && stream->replies == 1);
  fe_stream_free(stream);
  stream = fe_stream_new(filter, NULL, "PUT", "/", NULL, NULL);
  CHECK(fe_headers(stream, false) == HG_HEADERS_CONTINUE && fe_body(stream, "abc", 3, true) == HG_BODY_CONTINUE);
  CHECK(fe_trailers(stream) == HG_TRAILERS_CONTINUE && stream->replies == 0);
  fe_stream_free(stream);
}

static const int64_t second = INT64_C(1000000000);

static void hang(void) { // until it is noticed
  hg_age_sampled(hg_now() - 6 * second);
  CHECK(!is_stale()); // not confirmed yet
  while (!is_stale()) usleep(1000);
}

static void old_samples_fail(void) {
  int64_t began = hg_now();
  hang();
  CHECK(hg_now() - began >= second / 10 - second / 100); // the clock is coarse
  CHECK(is_stale());
  char *log = fe_log(), *line = strstr(log, "have not been sampled");
  CHECK(line != NULL && strstr(line + 1, "have not been sampled") == NULL);
  free(log);
  hg_age_set_sample_limit(7 * second); // passes that are so far apart
  CHECK(!is_stale());
  hg_age_set_sample_limit(0);
  CHECK(is_stale());
  hg_age_sampled(hg_now());
  CHECK(!is_stale());
  // After SIGSTOP and SIGCONT the workers may run first.
  ahead += 60;
  CHECK(!is_stale());
  hg_age_main_thread_runs();
  hg_age_sampled(hg_now());
  usleep(150000);
  CHECK(!is_stale());
  // Go's thread runs while the main thread hangs, and has seen the old time before the first probe.
  hg_age_sampled(hg_now() - 6 * second);
  hg_age_check(7 * second, false); // not old enough
  hg_age_check(5 * second, false);
  usleep(150000);
  CHECK(is_stale());
  hg_age_sampled(hg_now());
  // The main thread hangs, but samples are taken.
  ahead += 6;
  hg_age_sampled(hg_now());
  CHECK(!is_stale());
  while (!is_stale()) {
    usleep(1000);
    hg_age_sampled(hg_now());
  }
  log = fe_log();
  CHECK(strstr(log, "main thread hangs") != NULL);
  free(log);
  hg_age_main_thread_runs();
  CHECK(!is_stale());
}

// The main thread works on an update: it does not hang, but checks no host either.
static void long_updates_fail_with_stale_after_only(void) {
  for (int i = 0; i < 4; i++) {
    ahead += 6;
    if (i < 2)
      fe_cluster("c", i);
    else if (i == 2)
      fe_route_free(fe_route_new("", 0));
    else
      fe_filter_free(fe_filter_new("", 0));
    for (int strict = 0; strict < 2; strict++) {
      hg_age_sampled(hg_now());
      module_filter()->gate->strict_age = strict;
      CHECK(!is_stale());
      usleep(150000);
      CHECK(is_stale() == strict);
    }
    module_filter()->gate->strict_age = false;
    ahead += 6;
    hg_age_sampled(hg_now());
    CHECK(!is_stale());
    usleep(150000);
    CHECK(is_stale());
    hg_age_main_thread_runs();
    CHECK(!is_stale());
  }
}

static void reports(void) {
  module_filter()->gate->details = true;
  const char *accepts[] = {NULL, "*/*", "application/json"}, *want[] = {"ok", "ok", "report"};
  for (int i = 0; i < 3; i++) {
    fe_stream *stream = ask_of(filter, NULL, "GET", "/", NULL, accepts[i]);
    CHECK(strcmp(stream->details, want[i]) == 0);
    fe_stream_free(stream);
  }
  CHECK(go_calls == 2);
  // While samples are old, there is no report.
  module_filter()->gate->details = false;
  hang();
  module_filter()->gate->details = true;
  fe_stream *stream = ask_of(filter, NULL, "GET", "/", NULL, "application/json");
  CHECK(strcmp(stream->details, "stale") == 0 && go_calls == 2);
  fe_stream_free(stream);
  hg_age_sampled(hg_now());
  go_calls = 0;
  module_filter()->gate->details = false;
}

static void routes(void) {
  const void *route = fe_route_new("x", 1), *plain = fe_route_new("", 0);
  fe_filter *other = fe_filter_new("", 0);
  fe_stream *waiting = fe_stream_new(filter, route, "GET", "/route", NULL, NULL);
  CHECK(fe_headers(waiting, false) == HG_HEADERS_STOP);
  const struct {
    fe_filter *filter;
    const void *route;
    const char *path;
    int replies, merges;
  } all[] = {{filter, route, "/route", 1, 1}, {filter, route, "/", 0, 1}, {filter, plain, "/", 1, 1},
             {other, route, "/route", 1, 2},  {other, plain, "/", 1, 2},  {filter, route, "/route", 1, 2}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    fe_stream *stream = ask_of(all[i].filter, all[i].route, "GET", all[i].path, NULL, NULL);
    CHECK(stream->replies == all[i].replies && merges == all[i].merges);
    fe_stream_free(stream);
  }
  fe_filter_free(other); // before its route
  other = fe_filter_new("", 0);
  for (int i = 0; i < 2; i++) { // the first filter keeps its gate, and the new one gets its own
    fe_stream_free(ask_of(i == 0 ? filter : other, route, "GET", "/route", NULL, NULL));
    CHECK(merges == 2 + i);
  }
  fe_filter_free(other);
  fe_route_free(route); // before a stream that has its gate
  fe_body(waiting, "", 0, true);
  CHECK(waiting->replies == 1);
  fe_stream_free(waiting);
  fe_route_free(plain);

  refuses = true; // Go fails
  CHECK(fe_route_new("x", 1) == NULL && fe_filter_new("", 0) == NULL);
  refuses = false;
  route = fe_route_new("x", 1);
  refuses = true;
  fe_stream *stream = ask_of(filter, route, "GET", "/", NULL, NULL);
  CHECK(stream->status == 503);
  fe_stream_free(stream);
  fe_route_free(route);
  refuses = false;
}

#include "harness_grpc.c"

// Workers answer probes and calls of Watch, and merge overrides, while the main thread publishes replies and creates and destroys routes.
static atomic_bool done;
static pthread_mutex_t defining = PTHREAD_MUTEX_INITIALIZER; // as in Go
static void *work(void *route) {
  while (!done) {
    fe_stream *probe = fe_stream_new(filter, route, "GET", route != NULL ? "/route" : "/", NULL, NULL);
    fe_headers(probe, true);
    CHECK(probe->replies == 1);
    fe_stream_free(probe);
    // A worker looks up the stats of an override while another one flushes the stats of the filter.
    pthread_mutex_lock(&defining);
    CHECK(hg_metric_define(&module_filter()->metrics, HG_BUFFER("shared"), false) != NULL);
    pthread_mutex_unlock(&defining);
    fe_stream *watch = call("Watch");
    fe_body(watch, one_message, sizeof one_message, true);
    for (int i = 0; i < 20; i++) fe_run(watch);
    fe_stream_free(watch);
  }
  return NULL;
}
static void threads(void) {
  const void *route = fe_route_new("x", 1);
  pthread_t workers[4];
  for (size_t i = 0; i < 4; i++) pthread_create(&workers[i], NULL, work, i % 2 == 0 ? (void *)route : NULL);
  hg_reply *replies[3];
  memcpy(replies, kept, sizeof kept);
  hg_gate *gate = module_filter()->gate;
  for (int i = 0; i < 2000; i++) {
    hg_gate_publish(gate, replies[i % 2]);
    hg_metric_write(&module_filter()->metrics, module_filter()->metrics.first->next->next, (uint64_t)i);
    fe_timer_fires();
    hg_watch_notify();
    fe_route_free(fe_route_new("x", 1));
  }
  done = true;
  for (size_t i = 0; i < 4; i++) pthread_join(workers[i], NULL);
  hg_gate_publish(gate, replies[OK]);
  fe_route_free(route);
}

static void end_of_envoy(void) {
  fe_stream *watch = call("Watch");
  fe_body(watch, one_message, sizeof one_message, true);
  fe_shutdown();
  CHECK(fe_ended == 0 && fe_timer_ms == 10);
  fe_timer_fires();
  CHECK(fe_ended == 0);
  fe_run(watch);
  CHECK(strcmp(watch->trailers, "grpc-status: 14\n") == 0);
  fe_timer_fires();
  CHECK(fe_ended == 1 && fe_timers == 0);
  fe_stream_free(watch);
  watch = call("Watch"); // after the shutdown has begun
  fe_body(watch, one_message, sizeof one_message, true);
  CHECK(strcmp(watch->trailers, "grpc-status: 14\n") == 0);
  fe_stream_free(watch);
}

int main(void) {
#ifdef FE_WITHOUT_LIFECYCLE
  CHECK(fe_load() == NULL);
  char *line = fe_log();
  CHECK(strstr(line, "bootstrap_extension_enable_cluster_lifecycle; the module needs Envoy 1.38") != NULL);
  free(line);
  fe_reset();
  return 0;
#endif
#ifdef FE_OF_1_40
  CHECK(strcmp(fe_load(), "v0.2.0") == 0);
#else
  CHECK(strcmp(fe_load(), "v0.1.0") == 0);
#endif
  names = hg_index_create(2);
  hg_index_add(names, HG_BUFFER("cluster.a.membership_total"));
  hg_index_add(names, HG_BUFFER("none"));
  fe_gauge("cluster.a.membership_total", 7);
  CHECK(!fe_bootstrap("{\"a\": 1}") && fe_bootstrap("{}") && !fe_bootstrap(""));
  CHECK(fe_initialized == 1);
  // Before Envoy is ready, it configures filters, and the main thread gives no sign of life.
  hg_age_main_thread_updates();
  ahead += 6;
  hg_age_sampled(hg_now());
  hg_age_check(5 * second, false);
  usleep(150000);
  CHECK(!hg_age_is_stale(5 * second, false));
#ifdef FE_OF_1_38
  fe_lifecycle = 1; // this Envoy does not report
#endif
  fe_server_initialized();
  char *log = fe_log();
  CHECK((strstr(log, "does not report which clusters") != NULL) == (fe_lifecycle == 2));
  free(log);
  CHECK(fe_timers == 1 && fe_timer_ms == 100);
  filter = fe_filter_new("", 0);
  CHECK(fe_metric(filter, "looks") == 1);
  first_probe();
  go_calls = 0;
  probes();
  probe_ends_with_its_body();
  old_samples_fail();
  CHECK(go_calls == 0);
  long_updates_fail_with_stale_after_only();
  go_calls = 0;
  reports();
  routes();
  CHECK(go_calls == merges);
  go_calls = 0;
  grpc();
  CHECK(go_calls == 0);
  threads();
  pending_metrics();
  end_of_envoy();
  CHECK(fe_metric(filter, "watchers") == 0 && fe_schedulers == 0);
  fe_filter_free(filter);
  fe_stop_bootstrap();
  hg_sample samples[2] = {{0}};
  CHECK(!hg_sample_gauges(names, samples, NULL) && !samples[0].found); // the bootstrap extension has ended
  hg_index_destroy(names);
  fe_reset();
  return 0;
}
