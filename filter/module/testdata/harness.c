// The C of the module without Go: run by a test under the sanitizers of addresses, of undefined behaviour and of threads. What Go
// would decide is said here.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../fakeenvoy/fake_envoy.h"
#include "../go.h"

#define CHECK(is)                                                                  \
  do {                                                                             \
    if (!(is)) {                                                                   \
      fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #is); \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)

// ---- the clock, in the place of libc's

static _Atomic int64_t ahead; // seconds by which it is put forward

int clock_gettime(clockid_t clock, struct timespec *now) {
  long failed = syscall(SYS_clock_gettime, clock, now);
  now->tv_sec += ahead;
  return (int)failed;
}

// ---- Go

// into_go counts the calls of Go by which a worker could be held up: all but those for configurations.
static atomic_int into_go, laid, ticks, looked;
static hg_reply *kept[3];
static bool refuses;
static hg_gate *last_laid;

static hg_reply *make(hg_filter *filter, hg_gate *gate, uint32_t status, const char *details) {
  hg_reply *reply = hg_reply_new(status, status < 300, HG_BUFFER("body\n"), (hg_buffer){details, strlen(details)});
  hg_reply_header(reply, HG_BUFFER("content-type"), HG_BUFFER("text/plain"));
  hg_reply_header(reply, HG_BUFFER("cache-control"), HG_BUFFER("no-store"));
  if (filter != NULL) reply->counters[0] = filter->metrics;
  hg_gate_keep(gate, reply);
  return reply;
}

enum { OK, FAILS, STALE };

static hg_gate *make_gate(hg_filter *filter, const char *path) {
  hg_gate *gate = hg_gate_new();
  hg_gate_path(gate, (hg_buffer){path, strlen(path)});
  gate->oldest = INT64_C(5000000000);
  hg_reply *replies[3] = {make(filter, gate, 200, "ok"), make(filter, gate, 503, "fails"), make(filter, gate, 503, "stale")};
  gate->stale = gate->error = replies[STALE];
  if (kept[OK] == NULL) memcpy(kept, replies, sizeof kept);
  hg_gate_publish(gate, replies[OK]);
  return gate;
}

bool healthgateFilterNew(hg_filter *filter, char *config, size_t length) {
  (void)config, (void)length;
  hg_metric_define(filter, HG_BUFFER("healthy"), true);
  hg_metric_define(filter, HG_BUFFER("watchers"), true);
  hg_metric_define(filter, HG_BUFFER("answers"), false);
  if (refuses) return false;
  filter->gate = make_gate(filter, "/");
  hg_gate_services(filter->gate, 2, HG_BUFFER("not"), HG_BUFFER("serving"));
  hg_gate_service(filter->gate, 0, HG_BUFFER(""));
  hg_gate_service(filter->gate, 1, HG_BUFFER("a.Service"));
  filter->gate->watchers = filter->metrics->next;
  return true;
}
void healthgateFilterEnd(uintptr_t filter) { (void)filter; }
bool healthgateRouteNew(hg_route *route, char *config, size_t length) {
  (void)config;
  route->overrides = length > 0;
  return !refuses;
}
void healthgateRouteEnd(uintptr_t route) { (void)route; }
hg_gate *healthgateLay(uintptr_t filter, uintptr_t route) {
  (void)filter, (void)route;
  into_go++;
  laid++;
  return refuses ? NULL : (last_laid = make_gate(NULL, "/route"));
}
hg_reply *healthgateReport(uintptr_t gate, char *accept, size_t length) {
  (void)gate;
  into_go++;
  if (length != 16 || memcmp(accept, "application/json", 16) != 0) return NULL;
  hg_reply *report = hg_reply_new(200, true, HG_BUFFER("{}\n"), HG_BUFFER("report"));
  report->once = true;
  return report;
}
uint64_t healthgateTick(void) {
  into_go++;
  ticks++;
  hg_stats_pass(false);
  hg_sampled(hg_now());
  return 50;
}
void healthgateLook(void) {
  into_go++;
  looked++;
}
void healthgateCluster(char *name, size_t length, bool removed) {
  (void)name, (void)length, (void)removed;
  into_go++;
}
void healthgateStop(void) { into_go++; }

// ---- what is asked

static fe_filter *filter;

static fe_stream *ask(const char *method, const char *path, const char *type) {
  fe_stream *stream = fe_stream_new(filter, NULL, method, path, type, NULL);
  if (fe_headers(stream, true) == HG_HEADERS_CONTINUE) CHECK(stream->replies == 0);
  return stream;
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

static void old_samples_fail(void) {
  hg_sampled(hg_now() - INT64_C(6000000000));
  for (int i = 0; i < 2; i++) {
    fe_stream *stream = ask("GET", "/", NULL);
    CHECK(stream->status == 503 && strcmp(stream->details, "stale") == 0);
    fe_stream_free(stream);
  }
  char *log = fe_log(), *line = strstr(log, "main thread has not looked");
  CHECK(line != NULL && strstr(line + 1, "main thread has not looked") == NULL);
  free(log);
  hg_sampled(hg_now());
}

static void reports(void) {
  ((hg_filter *)filter->module)->gate->details = true;
  const char *accepts[] = {NULL, "*/*", "application/json"}, *want[] = {"ok", "ok", "report"};
  for (int i = 0; i < 3; i++) {
    fe_stream *stream = fe_stream_new(filter, NULL, "GET", "/", NULL, accepts[i]);
    fe_headers(stream, true);
    CHECK(strcmp(stream->details, want[i]) == 0);
    fe_stream_free(stream);
  }
  CHECK(into_go == 2);
  // Where the main thread hangs, a report would tell of what was.
  hg_sampled(hg_now() - INT64_C(6000000000));
  fe_stream *stream = fe_stream_new(filter, NULL, "GET", "/", NULL, "application/json");
  fe_headers(stream, true);
  CHECK(strcmp(stream->details, "stale") == 0 && into_go == 2);
  fe_stream_free(stream);
  hg_sampled(hg_now());
  into_go = 0;
  ((hg_filter *)filter->module)->gate->details = false;
}

static void routes(void) {
  const void *route = fe_route_new("x", 1), *plain = fe_route_new("", 0);
  fe_filter *other = fe_filter_new("", 0);
  fe_stream *waiting = fe_stream_new(filter, route, "GET", "/route", NULL, NULL);
  CHECK(fe_headers(waiting, false) == HG_HEADERS_STOP);
  for (int i = 0; i < 3; i++) {
    fe_stream *stream = fe_stream_new(i == 1 ? other : filter, route, "GET", "/route", NULL, NULL);
    fe_headers(stream, true);
    CHECK(stream->replies == 1);
    fe_stream_free(stream);
    stream = fe_stream_new(filter, route, "GET", "/", NULL, NULL);
    CHECK(fe_headers(stream, true) == HG_HEADERS_CONTINUE);
    fe_stream_free(stream);
    stream = fe_stream_new(filter, plain, "GET", "/", NULL, NULL);
    CHECK(fe_headers(stream, true) == HG_HEADERS_STOP);
    fe_stream_free(stream);
  }
  CHECK(laid == 2);
  fe_filter_free(other); // before its route
  other = fe_filter_new("", 0);
  for (int i = 0; i < 2; i++) { // what the first filter has stays, and the new one has its own
    fe_stream *stream = fe_stream_new(i == 0 ? filter : other, route, "GET", "/route", NULL, NULL);
    fe_headers(stream, true);
    CHECK(laid == 2 + i);
    fe_stream_free(stream);
  }
  fe_filter_free(other);
  fe_route_free(route);  // before a stream that has its gate
  fe_body(waiting, "", 0, true);
  CHECK(waiting->replies == 1);
  fe_stream_free(waiting);
  fe_route_free(plain);

  refuses = true; // Go fails
  CHECK(fe_route_new("x", 1) == NULL && fe_filter_new("", 0) == NULL);
  refuses = false;
  route = fe_route_new("x", 1);
  refuses = true;
  fe_stream *stream = fe_stream_new(filter, route, "GET", "/", NULL, NULL);
  fe_headers(stream, true);
  CHECK(stream->status == 503);
  fe_stream_free(stream);
  fe_route_free(route);
  refuses = false;
}

#include "harness_grpc.c"

// Workers probe, watch, and are laid over, while the main thread publishes, and configurations come and go.
static atomic_bool done;
static void *work(void *route) {
  while (!done) {
    fe_stream *probe = fe_stream_new(filter, route, "GET", route != NULL ? "/route" : "/", NULL, NULL);
    fe_headers(probe, true);
    CHECK(probe->replies == 1);
    fe_stream_free(probe);
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
  hg_gate *gate = ((hg_filter *)filter->module)->gate;
  for (int i = 0; i < 2000; i++) {
    hg_gate_publish(gate, replies[i % 2]);
    hg_metric_set((hg_filter *)filter->module, ((hg_filter *)filter->module)->metrics->next->next, (uint64_t)i);
    fe_timer_fires();
    hg_watch_tell();
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
  watch = call("Watch"); // that comes late
  fe_body(watch, one_message, sizeof one_message, true);
  CHECK(strcmp(watch->trailers, "grpc-status: 14\n") == 0);
  fe_stream_free(watch);
}

extern const char *envoy_dynamic_module_on_program_init(void);

int main(void) {
#ifdef FE_WITHOUT_COUNTERS
  CHECK(envoy_dynamic_module_on_program_init() == NULL);
  char *line = fe_log();
  CHECK(strstr(line, "bootstrap_extension_iterate_counters; it needs Envoy 1.38") != NULL);
  free(line);
  fe_clear_log();
  return 0;
#endif
  CHECK(strcmp(envoy_dynamic_module_on_program_init(), "v0.1.0") == 0);
  CHECK(!fe_bootstrap("{\"a\": 1}") && fe_bootstrap("{}") && !fe_bootstrap(""));
  CHECK(fe_initialized == 1);
  fe_server_initialized();
  CHECK(fe_timers == 1 && fe_lifecycle == 1 && fe_timer_ms == 50 && ticks == 1 && fe_looks == 1);
  filter = fe_filter_new("", 0);
  fe_stream_free(ask("GET", "/", NULL)); // while Envoy starts, a probe has all looked at
  CHECK(looked == 1 && into_go == 2); // that, and the first tick
  hg_has_started();
  into_go = 0;
  probes();
  probe_ends_with_its_body();
  old_samples_fail();
  CHECK(into_go == 0);
  reports();
  routes();
  CHECK(into_go == laid);
  into_go = 0;
  grpc();
  CHECK(into_go == 0);
  threads();
  owed();
  end_of_envoy();
  CHECK(fe_metric(filter, "watchers") == 0 && fe_schedulers == 0);
  fe_filter_free(filter);
  fe_stop_bootstrap();
  fe_clear_log();
  return 0;
}
