// What is counted. Envoy 1.38 lets only a stream write a stat: what is written without one is owed until the next answer.
#include <stdlib.h>

#include "healthgate.h"

hg_metric *hg_metric_define(hg_filter *filter, hg_buffer name, bool gauge) {
  size_t id = 0;
  unsigned result =
      gauge ? envoy_dynamic_module_callback_http_filter_config_define_gauge(filter->envoy, name, NULL, 0, &id)
            : envoy_dynamic_module_callback_http_filter_config_define_counter(filter->envoy, name, NULL, 0, &id);
  if (result != HG_METRIC_SUCCESS) return NULL;
  hg_metric *metric = hg_new(sizeof *metric);
  metric->id = id;
  metric->gauge = gauge;
  metric->next = filter->metrics;
  filter->metrics = metric;
  return metric;
}

static void owe(hg_filter *filter, hg_metric *metric) {
  atomic_store(&metric->due, true);
  atomic_store(&filter->indebted, true);
}

void hg_metric_add(hg_filter *filter, hg_metric *metric, uint64_t by) {
  if (envoy_dynamic_module_callback_http_filter_config_increment_counter != NULL) {
    envoy_dynamic_module_callback_http_filter_config_increment_counter(filter->envoy, metric->id, NULL, 0, by);
    return;
  }
  atomic_fetch_add(&metric->owed, by);
  owe(filter, metric);
}

void hg_metric_set(hg_filter *filter, hg_metric *metric, uint64_t value) {
  if (envoy_dynamic_module_callback_http_filter_config_set_gauge != NULL) {
    envoy_dynamic_module_callback_http_filter_config_set_gauge(filter->envoy, metric->id, NULL, 0, value);
    return;
  }
  atomic_store(&metric->owed, value);
  owe(filter, metric);
}

void hg_count(void *stream, const hg_metric *metric) {
  if (metric != NULL) envoy_dynamic_module_callback_http_filter_increment_counter(stream, metric->id, NULL, 0, 1);
}

void hg_gauge_move(void *stream, const hg_metric *metric, bool up) {
  if (metric == NULL) return;
  if (up)
    envoy_dynamic_module_callback_http_filter_increment_gauge(stream, metric->id, NULL, 0, 1);
  else
    envoy_dynamic_module_callback_http_filter_decrement_gauge(stream, metric->id, NULL, 0, 1);
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
