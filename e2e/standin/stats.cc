// The stats that a plugin reads and writes.

#include "standin.h"

#include <map>

#include <unistd.h>

namespace standin {

// The plugin's own stats begin with this, which is the bootstrap extension's metrics_namespace too.
constexpr std::string_view own_prefix = "healthgate.";

// The stats of clusters begin with this, which is the HTTP filter's metrics_namespace too.
constexpr std::string_view cluster_prefix = "cluster.";

bool has_prefix(const std::string& name, std::string_view prefix) {
  return name.compare(0, prefix.size(), prefix) == 0;
}

// Stat is a copy of a stat of Envoy's. Envoy finds one by its name only by going through all of them, which takes a lock
// that a worker must not hold: if it is left with the last reference to a scope that the main thread has just dropped, it
// waits for itself. So the main thread goes through them, every few milliseconds, and whenever admin is asked to.
struct Stat {
  std::atomic<uint64_t> value{0}; // what a stat reads that is not there, in the contrib host too
  uint64_t seen = 0;              // the round in which the main thread has last met it
};

// OwnStat is a stat of the plugin's own. Any thread writes it, and the main thread hands it on.
struct OwnStat {
  std::atomic<uint64_t> value{0};    // of a gauge, or what has been added to a counter since it was handed on
  std::atomic<bool> changed{true};   // so that it is in Envoy from the start, as in the contrib host
};

// Stats are by name, counters and gauges apart; once asked for, one is kept for ever.
struct Stats {
  std::mutex lock;
  std::map<std::string, std::unique_ptr<Stat>, std::less<>> by_name[2];
  std::map<std::string, std::unique_ptr<OwnStat>> own[2];
  std::atomic<uint64_t> round{0};
};
Stats stats;

template <int type>
envoy_dynamic_module_type_stats_iteration_action visit(envoy_dynamic_module_type_envoy_buffer name, uint64_t value,
                                                       void*) {
  auto it = stats.by_name[type].find(view(name));
  if (it != stats.by_name[type].end()) {
    it->second->value = value;
    it->second->seen = stats.round;
  }
  return envoy_dynamic_module_type_stats_iteration_action_Continue;
}

// Hands on the plugin's own stats, and copies all others that were asked for. On the main thread alone.
void refresh_stats() {
  if (bootstrap.extension == nullptr) {
    return;
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  for (auto& [name, stat] : stats.own[0]) {
    if (stat->changed.exchange(false)) {
      auto label = buffer(name);
      envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(bootstrap.config, bootstrap.counters,
                                                                                 &label, 1, stat->value.exchange(0));
    }
  }
  for (auto& [name, stat] : stats.own[1]) {
    if (stat->changed.exchange(false)) {
      auto label = buffer(name);
      envoy_dynamic_module_callback_bootstrap_extension_config_set_gauge(bootstrap.config, bootstrap.gauges, &label, 1,
                                                                         stat->value);
    }
  }
  stats.round++;
  if (!stats.by_name[0].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_counters(bootstrap.extension, visit<0>, nullptr);
  }
  if (!stats.by_name[1].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(bootstrap.extension, visit<1>, nullptr);
  }
  for (auto& names : stats.by_name) {
    for (auto& [name, stat] : names) {
      if (stat->seen != stats.round) {
        stat->value = 0;
      }
    }
  }
}

template <class T, class M> T* find_stat(M& by_name, const std::string& name) {
  std::lock_guard<std::mutex> guard(stats.lock);
  auto& slot = by_name[name];
  if (slot == nullptr) {
    slot = std::make_unique<T>();
  }
  return slot.get();
}

// Waits, on a worker and for a second at most, until the main thread has copied once more. Envoy's clusters have been checked
// before its workers start; copies may be from before that.
void await_refresh() {
  uint64_t before = stats.round;
  for (int i = 0; i < 1000 && stats.round == before; i++) {
    usleep(1000);
  }
}

// How often the main thread does the above. A benchmark sets it higher, since it goes through all of Envoy's stats.
uint64_t refresh_milliseconds() {
  static const char* set = getenv("STAND_IN_REFRESH_MILLISECONDS");
  static const uint64_t milliseconds = set != nullptr && atoi(set) > 0 ? atoi(set) : 5;
  return milliseconds;
}

} // namespace standin

using namespace standin;

extern "C" {

CAPIStatus envoyGoFilterHttpDefineMetric(void* c, uint32_t metric_type, void* name_data, int name_len,
                                         uint32_t* metric_id) {
  auto config = lock_config(c);
  if (config == nullptr) {
    return CAPIFilterIsGone;
  }
  if (metric_type > 1) {
    die("a histogram was defined");
  }
  std::string name = copy(name_data, name_len);
  Metric metric{metric_type, nullptr, nullptr};
  if (has_prefix(name, own_prefix)) {
    metric.own = find_stat<OwnStat>(stats.own[metric_type], name.substr(own_prefix.size()));
  } else {
    metric.stat = find_stat<Stat>(stats.by_name[metric_type], name);
  }
  if (metric.stat != nullptr && has_prefix(name, cluster_prefix) && config->envoy != nullptr) {
    // As in the contrib host, the stat is there from now on, and stays when its cluster goes.
    std::string_view in_cluster = std::string_view(name).substr(cluster_prefix.size());
    size_t id;
    if (metric_type == 0 ? envoy_dynamic_module_callback_http_filter_config_define_counter(
                               config->envoy, buffer(in_cluster), nullptr, 0, &id)
                         : envoy_dynamic_module_callback_http_filter_config_define_gauge(
                               config->envoy, buffer(in_cluster), nullptr, 0, &id)) {
      die("can't define " + name);
    }
  }
  if (metric.stat != nullptr && config->envoy != nullptr) {
    refresh_stats(); // this is the main thread
  }
  std::lock_guard<std::mutex> guard(config->lock);
  *metric_id = config->metrics.size();
  config->metrics.push_back(metric);
  return CAPIOK;
}

// Finds a metric, or says that its configuration has gone.
static CAPIStatus find_metric(void* c, uint32_t metric_id, Metric& metric) {
  auto config = lock_config(c);
  if (config == nullptr || metrics_gone) {
    return CAPIFilterIsGone;
  }
  std::lock_guard<std::mutex> guard(config->lock);
  metric = config->metrics.at(metric_id);
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpIncrementMetric(void* c, uint32_t metric_id, int64_t offset) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.own == nullptr || metric.type != 0) {
    die("a stat that is not a counter of the plugin's own was incremented");
  }
  metric.own->value += offset;
  if (!metric.own->changed) { // a store a probe would bounce the cache line between workers
    metric.own->changed = true;
  }
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpGetMetric(void* c, uint32_t metric_id, uint64_t* value) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.stat == nullptr) {
    die("a stat of the plugin's own was read");
  }
  *value = metric.stat->value;
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpRecordMetric(void* c, uint32_t metric_id, uint64_t value) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.own == nullptr || metric.type != 1) {
    die("a stat that is not a gauge of the plugin's own was set");
  }
  metric.own->value = value;
  metric.own->changed = true;
  return CAPIOK;
}

} // extern "C"
