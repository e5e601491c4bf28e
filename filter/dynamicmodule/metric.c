#include <pthread.h>
#include <stdlib.h>

#include "gate.h"

// The stats of stat_prefix "default" are defined once, in the scope of the bootstrap extension: they have the same names for all filters,
// and another filter chain adds no stats. The array does not change while there are filters.
enum { SHARED_MAX = 24 };
static struct {
  hg_buffer name;
  hg_metric metric;
} shared[SHARED_MAX];
static size_t shared_count;
static void *extension_config; // NULL once it has ended
static size_t samples_counter;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; // keeps extension_config alive for calls without a stream

// Functions of Envoy for a stat of a filter, and for a shared one.
typedef unsigned (*define_function)(HG_DEFINE);
typedef unsigned (*write_function)(HG_WRITE);
#define OWN(action) envoy_dynamic_module_callback_http_filter_##action
#define SHARED(action) envoy_dynamic_module_callback_bootstrap_extension_config_##action

void hg_metrics_share(void *config) {
  extension_config = config;
  shared_count = 0;
  SHARED(define_counter)(config, HG_BUFFER("looks"), NULL, 0, &samples_counter);
}

void hg_metrics_unshare(void) {
  pthread_rwlock_wrlock(&lock);
  extension_config = NULL;
  pthread_rwlock_unlock(&lock);
}

void hg_metric_share(hg_buffer name, bool gauge) {
  if (shared_count == SHARED_MAX) abort();
  size_t id = 0;
  define_function define = gauge ? SHARED(define_gauge) : SHARED(define_counter);
  if (define(extension_config, name, NULL, 0, &id) != HG_METRIC_SUCCESS) return;
  shared[shared_count].name = hg_copy(name);
  shared[shared_count].metric = (hg_metric){.id = id, .gauge = gauge, .shared = true};
  shared_count++;
}

hg_metric *hg_metric_define(hg_metrics *metrics, hg_buffer name, bool gauge) {
  for (size_t i = 0; i < shared_count; i++)
    if (shared[i].metric.gauge == gauge && hg_equal(shared[i].name, (hg_envoy_buffer){name.ptr, name.length})) return &shared[i].metric;
  size_t id = 0;
  define_function define = gauge ? OWN(config_define_gauge) : OWN(config_define_counter);
  if (define(metrics->envoy, name, NULL, 0, &id) != HG_METRIC_SUCCESS) return NULL;
  hg_metric *metric = hg_alloc(sizeof *metric);
  metric->id = id;
  metric->gauge = gauge;
  metric->next = metrics->first;
  return metrics->first = metric;
}

void hg_metrics_free(hg_metrics *metrics) {
  for (hg_metric *metric = metrics->first, *next; metric != NULL; metric = next) {
    next = metric->next;
    free(metric);
  }
}

static void write_shared(size_t id, bool gauge, uint64_t value) {
  pthread_rwlock_rdlock(&lock);
  if (extension_config != NULL) (gauge ? SHARED(set_gauge) : SHARED(increment_counter))(extension_config, id, NULL, 0, value);
  pthread_rwlock_unlock(&lock);
}

void hg_metrics_count_sample(void) { write_shared(samples_counter, false, 1); }

void hg_metric_write(hg_metrics *metrics, hg_metric *metric, uint64_t value) {
  write_function write = metric->gauge ? OWN(config_set_gauge) : OWN(config_increment_counter);
  if (metric->shared) {
    write_shared(metric->id, metric->gauge, value);
  } else if (write != NULL) {
    write(metrics->envoy, metric->id, NULL, 0, value);
  } else { // Envoy 1.38 lets only a stream write the stats of a filter: the next reply does
    if (metric->gauge)
      atomic_store(&metric->value, value);
    else
      atomic_fetch_add(&metric->value, value);
    atomic_store(&metric->pending, true);
    atomic_store(&metrics->pending, true);
  }
}

// add_one adds 1 to a stat, or subtracts it, through a stream.
static void add_one(void *stream, const hg_metric *metric, write_function own, write_function of_extension) {
  if (metric->shared)
    of_extension(extension_config, metric->id, NULL, 0, 1);
  else
    own(stream, metric->id, NULL, 0, 1);
}

void hg_metric_increment(void *stream, const hg_metric *metric) {
  if (metric == NULL) return;
  if (metric->gauge)
    add_one(stream, metric, OWN(increment_gauge), SHARED(increment_gauge));
  else
    add_one(stream, metric, OWN(increment_counter), SHARED(increment_counter));
}

void hg_metric_decrement(void *stream, const hg_metric *metric) {
  if (metric != NULL) add_one(stream, metric, OWN(decrement_gauge), SHARED(decrement_gauge));
}

void hg_metrics_flush(hg_metrics *metrics, void *stream) {
  if (!atomic_load_explicit(&metrics->pending, memory_order_relaxed) || !atomic_exchange(&metrics->pending, false)) return;
  for (hg_metric *metric = metrics->first; metric != NULL; metric = metric->next) {
    if (!atomic_exchange(&metric->pending, false)) continue;
    if (metric->gauge)
      OWN(set_gauge)(stream, metric->id, NULL, 0, atomic_load(&metric->value));
    else
      OWN(increment_counter)(stream, metric->id, NULL, 0, atomic_exchange(&metric->value, 0));
  }
}
