// Healthgate's own stats in Envoy.
#pragma once

#include "base.h"

typedef struct hg_metric {
  size_t id; // Envoy's
  bool gauge;
  bool shared;          // defined by the bootstrap extension, for all filters
  atomic_bool pending;  // value was written without a stream, and is not in Envoy yet
  _Atomic uint64_t value;
  struct hg_metric *next;
} hg_metric;

// hg_metrics are the stats that one filter has defined.
typedef struct {
  void *envoy; // the filter's configuration
  hg_metric *first;
  atomic_bool pending; // at least one of them is pending
} hg_metrics;

// The stats of the bootstrap extension: hg_metrics_share begins to define them, hg_metric_share defines one, hg_metrics_unshare ends them.
void hg_metrics_share(void *extension_config);
void hg_metric_share(hg_buffer name, bool gauge);
void hg_metrics_unshare(void);

// hg_metric_define returns a shared stat, or a new one of the filter. It returns NULL if there is none and Envoy defines no more, because
// the filter's configuration is complete.
hg_metric *hg_metric_define(hg_metrics *metrics, hg_buffer name, bool gauge);
void hg_metrics_free(hg_metrics *metrics);

// On any thread, without a stream.
void hg_metric_add(hg_metrics *metrics, hg_metric *metric, uint64_t by);
void hg_metric_set(hg_metrics *metrics, hg_metric *metric, uint64_t value);
void hg_metrics_count_sample(void);
// With a stream of the filter. A metric that is NULL is ignored.
void hg_metric_increment(void *stream, const hg_metric *metric);
void hg_metric_decrement(void *stream, const hg_metric *metric);
void hg_metrics_flush(hg_metrics *metrics, void *stream); // hands pending values to Envoy
