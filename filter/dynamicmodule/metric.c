// What is counted. The stats of the prefix "default" are defined once, in the scope of the bootstrap extension: they have the same names
// wherever a filter is configured, and a filter chain more costs no stats. Those of another prefix are defined by each filter. Of these
// Envoy 1.38 lets only a stream write one: what is written without a stream is pending until the next reply.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "healthgate.h"

// shared are the stats of the prefix "default".
enum { SHARED_MOST = 24 };
static struct {
  hg_buffer name;
  size_t id;
  bool gauge;
} shared[SHARED_MOST];
static size_t shared_count;
static void *shared_by; // the bootstrap extension's configuration; NULL once it has ended
static pthread_rwlock_t shared_lock = PTHREAD_RWLOCK_INITIALIZER; // of shared_by, where no stream keeps it alive

void hg_metrics_share(void *extension_config) {
  shared_by = extension_config;
  shared_count = 0;
}

void hg_metrics_unshare(void) {
  pthread_rwlock_wrlock(&shared_lock);
  shared_by = NULL;
  pthread_rwlock_unlock(&shared_lock);
}

void hg_metric_share(hg_buffer name, bool gauge) {
  if (shared_count == SHARED_MOST) abort();
  size_t id = 0;
  unsigned result = gauge ? envoy_dynamic_module_callback_bootstrap_extension_config_define_gauge(shared_by, name, NULL, 0, &id)
                          : envoy_dynamic_module_callback_bootstrap_extension_config_define_counter(shared_by, name, NULL, 0, &id);
  if (result != HG_METRIC_SUCCESS) return;
  shared[shared_count].name = hg_copy(name);
  shared[shared_count].id = id;
  shared[shared_count++].gauge = gauge;
}

static hg_metric *keep(hg_filter *filter, size_t id, bool gauge, bool is_shared) {
  hg_metric *metric = hg_new(sizeof *metric);
  metric->id = id;
  metric->gauge = gauge;
  metric->shared = is_shared;
  metric->next = filter->metrics;
  filter->metrics = metric;
  return metric;
}

hg_metric *hg_metric_define(hg_filter *filter, hg_buffer name, bool gauge) {
  for (size_t i = 0; i < shared_count; i++)
    if (shared[i].gauge == gauge && shared[i].name.length == name.length && memcmp(shared[i].name.ptr, name.ptr, name.length) == 0)
      return keep(filter, shared[i].id, gauge, true);
  size_t id = 0;
  unsigned result =
      gauge ? envoy_dynamic_module_callback_http_filter_config_define_gauge(filter->envoy, name, NULL, 0, &id)
            : envoy_dynamic_module_callback_http_filter_config_define_counter(filter->envoy, name, NULL, 0, &id);
  return result == HG_METRIC_SUCCESS ? keep(filter, id, gauge, false) : NULL;
}

static void owe(hg_filter *filter, hg_metric *metric) {
  atomic_store(&metric->due, true);
  atomic_store(&filter->indebted, true);
}

void hg_metric_add(hg_filter *filter, hg_metric *metric, uint64_t by) {
  if (metric->shared) {
    pthread_rwlock_rdlock(&shared_lock);
    if (shared_by != NULL)
      envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(shared_by, metric->id, NULL, 0, by);
    pthread_rwlock_unlock(&shared_lock);
    return;
  }
  if (envoy_dynamic_module_callback_http_filter_config_increment_counter != NULL) {
    envoy_dynamic_module_callback_http_filter_config_increment_counter(filter->envoy, metric->id, NULL, 0, by);
    return;
  }
  atomic_fetch_add(&metric->owed, by);
  owe(filter, metric);
}

void hg_metric_set(hg_filter *filter, hg_metric *metric, uint64_t value) {
  if (metric->shared) {
    pthread_rwlock_rdlock(&shared_lock);
    if (shared_by != NULL)
      envoy_dynamic_module_callback_bootstrap_extension_config_set_gauge(shared_by, metric->id, NULL, 0, value);
    pthread_rwlock_unlock(&shared_lock);
    return;
  }
  if (envoy_dynamic_module_callback_http_filter_config_set_gauge != NULL) {
    envoy_dynamic_module_callback_http_filter_config_set_gauge(filter->envoy, metric->id, NULL, 0, value);
    return;
  }
  atomic_store(&metric->owed, value);
  owe(filter, metric);
}

void hg_count(void *stream, const hg_metric *metric) {
  if (metric == NULL) return;
  if (metric->shared)
    envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(shared_by, metric->id, NULL, 0, 1);
  else
    envoy_dynamic_module_callback_http_filter_increment_counter(stream, metric->id, NULL, 0, 1);
}

void hg_gauge_move(void *stream, const hg_metric *metric, bool up) {
  if (metric == NULL) return;
  if (metric->shared)
    (up ? envoy_dynamic_module_callback_bootstrap_extension_config_increment_gauge
        : envoy_dynamic_module_callback_bootstrap_extension_config_decrement_gauge)(shared_by, metric->id, NULL, 0, 1);
  else
    (up ? envoy_dynamic_module_callback_http_filter_increment_gauge
        : envoy_dynamic_module_callback_http_filter_decrement_gauge)(stream, metric->id, NULL, 0, 1);
}

void hg_metrics_pay(hg_filter *filter, void *stream) {
  if (!atomic_load_explicit(&filter->indebted, memory_order_relaxed) || !atomic_exchange(&filter->indebted, false)) return;
  for (hg_metric *metric = filter->metrics; metric != NULL; metric = metric->next) {
    if (!atomic_exchange(&metric->due, false)) continue;
    if (metric->gauge)
      envoy_dynamic_module_callback_http_filter_set_gauge(stream, metric->id, NULL, 0, atomic_load(&metric->owed));
    else
      envoy_dynamic_module_callback_http_filter_increment_counter(stream, metric->id, NULL, 0, atomic_exchange(&metric->owed, 0));
  }
}
