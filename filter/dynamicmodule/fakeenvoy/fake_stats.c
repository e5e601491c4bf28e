// The ABI's functions for stats, and for the bootstrap extension.
#include "fake_envoy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../abi_types.h"

enum { STATS = 256 };
static struct {
  char name[64];
  uint64_t value;
  bool there;
} stats[STATS];
int fe_passes, fe_timers, fe_lifecycle, fe_initialized, fe_ended;
uint64_t fe_timer_ms;

void fe_gauge(const char *name, uint64_t value) {
  int at = STATS;
  for (int i = STATS - 1; i >= 0; i--)
    if (!stats[i].there) at = i;
  for (int i = 0; i < STATS; i++)
    if (stats[i].there && strcmp(stats[i].name, name) == 0) at = i;
  if (at == STATS) abort();
  snprintf(stats[at].name, sizeof stats[at].name, "%s", name);
  stats[at].value = value;
  stats[at].there = true;
}
void fe_remove_stat(const char *name) {
  for (int i = 0; i < STATS; i++)
    if (strcmp(stats[i].name, name) == 0) stats[i].there = false;
}
void fe_reset_shared(void);
void fe_reset(void) {
  memset(stats, 0, sizeof stats);
  fe_passes = 0;
  fe_reset_shared();
  fe_clear_log();
}

static unsigned define(void *config, hg_buffer name, size_t *id) {
  fe_filter *filter = config;
  if (filter->frozen) return 3;
  snprintf(filter->names[filter->metrics], sizeof filter->names[0], "%.*s", (int)name.length, name.ptr);
  *id = (size_t)++filter->metrics;
  return HG_METRIC_SUCCESS;
}
unsigned envoy_dynamic_module_callback_http_filter_config_define_counter(void *config, hg_buffer name, hg_buffer *labels, size_t count,
                                                                         size_t *id) {
  return define(config, name, id);
}
unsigned envoy_dynamic_module_callback_http_filter_config_define_gauge(void *config, hg_buffer name, hg_buffer *labels, size_t count,
                                                                       size_t *id) {
  return define(config, name, id);
}

static unsigned write(fe_filter *filter, size_t id, uint64_t add, bool to, uint64_t value) {
  if (id == 0 || id > (size_t)filter->metrics) abort();
  pthread_mutex_lock(&filter->lock);
  filter->values[id - 1] = to ? value : filter->values[id - 1] + add;
  pthread_mutex_unlock(&filter->lock);
  return HG_METRIC_SUCCESS;
}
#define BY_STREAM(name) \
  unsigned envoy_dynamic_module_callback_http_filter_##name(void *stream, size_t id, hg_buffer *labels, size_t count, uint64_t by)
BY_STREAM(increment_counter) { return write(((fe_stream *)stream)->filter, id, by, false, 0); }
BY_STREAM(set_gauge) { return write(((fe_stream *)stream)->filter, id, 0, true, by); }
BY_STREAM(increment_gauge) { return write(((fe_stream *)stream)->filter, id, by, false, 0); }
BY_STREAM(decrement_gauge) { return write(((fe_stream *)stream)->filter, id, -by, false, 0); }
#ifndef FE_OF_1_38
#define BY_CONFIG(name) \
  unsigned envoy_dynamic_module_callback_http_filter_config_##name(void *config, size_t id, hg_buffer *labels, size_t count, uint64_t by)
BY_CONFIG(increment_counter) { return write(config, id, by, false, 0); }
BY_CONFIG(set_gauge) { return write(config, id, 0, true, by); }
#endif

void envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(void *config) { fe_initialized++; }
// The stats of the bootstrap extension.
static fe_filter shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
int64_t fe_shared_metric(const char *name) {
  for (int i = 0; i < shared.metrics; i++)
    if (strcmp(shared.names[i], name) == 0) return (int64_t)shared.values[i];
  return -1;
}
void fe_reset_shared(void) {
  pthread_mutex_lock(&shared.lock);
  memset(shared.values, 0, sizeof shared.values);
  pthread_mutex_unlock(&shared.lock);
}
#define EXTENSION_CALLBACK(name, ...) unsigned envoy_dynamic_module_callback_bootstrap_extension_config_##name(void *config, __VA_ARGS__)
#define DEFINE(name) EXTENSION_CALLBACK(define_##name, hg_buffer name, hg_buffer *labels, size_t count, size_t *id)
DEFINE(counter) { return define(&shared, counter, id); }
DEFINE(gauge) { return define(&shared, gauge, id); }
#define BY_EXTENSION(name) EXTENSION_CALLBACK(name, size_t id, hg_buffer *labels, size_t count, uint64_t by)
BY_EXTENSION(increment_counter) { return write(&shared, id, by, false, 0); }
BY_EXTENSION(set_gauge) { return write(&shared, id, 0, true, by); }
BY_EXTENSION(increment_gauge) { return write(&shared, id, by, false, 0); }
BY_EXTENSION(decrement_gauge) { return write(&shared, id, -by, false, 0); }
void *envoy_dynamic_module_callback_bootstrap_extension_timer_new(void *config) { fe_timers++; return &fe_timers; }
void envoy_dynamic_module_callback_bootstrap_extension_timer_enable(void *timer, uint64_t ms) { fe_timer_ms = ms; }
void envoy_dynamic_module_callback_bootstrap_extension_timer_delete(void *timer) { fe_timers--; }
#ifndef FE_WITHOUT_LIFECYCLE
bool envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(void *config) { return ++fe_lifecycle == 1; }
#endif

static struct {
  const char *read;
  void (*act)(void);
} after;
void fe_after(const char *read, void (*act)(void)) {
  after.read = read;
  after.act = act;
}
void fe_service_degrades(void) {
  fe_gauge("cluster.service.membership_total", 1);
  fe_gauge("cluster.service.membership_healthy", 0);
  fe_gauge("cluster.service.membership_degraded", 1);
}

void envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(void *of, hg_visitor visit, void *context) {
  __atomic_add_fetch(&fe_passes, 1, __ATOMIC_SEQ_CST);
  for (int i = 0; i < STATS; i++) {
    if (!stats[i].there) continue;
    visit((hg_envoy_buffer){stats[i].name, strlen(stats[i].name)}, stats[i].value, context);
    if (after.read == NULL || strcmp(after.read, stats[i].name) != 0) continue;
    after.read = NULL;
    after.act();
  }
}
#ifdef FE_OF_1_40
void envoy_dynamic_module_callback_bootstrap_extension_get_active_resource_names(void) {}
#endif
