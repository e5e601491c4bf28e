#include "config.h"

#include <set>

#include <unistd.h>

// From Envoy 1.39 on; the header is of 1.38.
extern "C" {
envoy_dynamic_module_type_metrics_result
envoy_dynamic_module_callback_http_filter_config_increment_counter(contribhost::EnvoyFilterConfig, size_t id,
                                                                   contribhost::ModuleBuffer*, size_t, uint64_t value);
envoy_dynamic_module_type_metrics_result
envoy_dynamic_module_callback_http_filter_config_set_gauge(contribhost::EnvoyFilterConfig, size_t id,
                                                           contribhost::ModuleBuffer*, size_t, uint64_t value);
}

namespace contribhost {

namespace {

enum Type : uint32_t { Counter = 0, Gauge = 1 }; // the golang extension's MetricType

// The plugin's own stats begin with this.
constexpr std::string_view own_prefix = "healthgate.";

// Envoy's stats that a living configuration has defined, counters and gauges, and these configurations.
struct {
  std::mutex lock;
  std::map<std::string, std::weak_ptr<Stat>, std::less<>> by_name[2];
  std::set<Metrics*> metrics;
  std::atomic<uint64_t> refresh{0}, finished{0}; // the number of the last refresh that has begun, and that is complete
} stats;

template <int type>
envoy_dynamic_module_type_stats_iteration_action visit(Buffer name, uint64_t value, void*) {
  if (auto it = stats.by_name[type].find(view(name)); it != stats.by_name[type].end()) {
    if (auto stat = it->second.lock()) {
      stat->value = stat->before + value;
      stat->refresh = stats.refresh;
      stat->found = true;
    }
  }
  return envoy_dynamic_module_type_stats_iteration_action_Continue;
}

} // namespace

void refresh_stats() {
  if (bootstrap.extension == nullptr) {
    return;
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  for (Metrics* metrics : stats.metrics) {
    metrics->flush();
  }
  stats.refresh++;
  if (!stats.by_name[Counter].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_counters(bootstrap.extension, visit<Counter>, nullptr);
  }
  if (!stats.by_name[Gauge].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(bootstrap.extension, visit<Gauge>, nullptr);
  }
  for (uint32_t type : {Counter, Gauge}) {
    auto& by_name = stats.by_name[type];
    for (auto it = by_name.begin(); it != by_name.end();) {
      auto stat = it->second.lock();
      if (stat == nullptr) {
        it = by_name.erase(it);
        continue;
      }
      if (stat->refresh != stats.refresh) {
        if (stat->found && type == Counter) {
          stat->before = stat->value; // a later counter of that name begins at 0 here, and continues in the golang extension
        }
        stat->found = false;
      }
      stat->copied = true;
      ++it;
    }
  }
  stats.finished = stats.refresh.load();
}

void await_refresh() {
  uint64_t before = stats.refresh;
  for (int i = 0; i < 1000 && stats.finished <= before; i++) {
    usleep(1000);
  }
}

uint64_t refresh_milliseconds() {
  static const char* set = getenv("CONTRIB_HOST_REFRESH_MILLISECONDS");
  static const uint64_t milliseconds = set != nullptr && atoi(set) > 0 ? atoi(set) : 5;
  return milliseconds;
}

Metrics::Metrics(EnvoyFilterConfig envoy, StatsMatcher matcher) : envoy_(envoy), matcher_(std::move(matcher)) {
  // If the name of a stat and the key of its label are empty, the full name is the label's value.
  auto nothing = buffer("");
  if (envoy_dynamic_module_callback_http_filter_config_define_counter(envoy, nothing, &nothing, 1, &named_[Counter]) ||
      envoy_dynamic_module_callback_http_filter_config_define_gauge(envoy, nothing, &nothing, 1, &named_[Gauge])) {
    die("can't define stats");
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  stats.metrics.insert(this);
}

Metrics::~Metrics() { detach(); }

void Metrics::detach() {
  std::lock_guard<std::mutex> guard(stats.lock);
  if (envoy_ == nullptr) {
    return;
  }
  flush();
  envoy_ = nullptr;
  stats.metrics.erase(this);
}

void Metrics::flush() {
  for (uint32_t type : {Counter, Gauge}) {
    for (auto& [name, own] : own_[type]) {
      if (!own->rejected && own->changed.exchange(false)) {
        auto label = buffer(name);
        auto* labels = own->by_label ? &label : nullptr;
        if (type == Counter
                ? envoy_dynamic_module_callback_http_filter_config_increment_counter(envoy_, own->id, labels, own->by_label,
                                                                                     own->value.exchange(0))
                : envoy_dynamic_module_callback_http_filter_config_set_gauge(envoy_, own->id, labels, own->by_label,
                                                                             own->value)) {
          die("can't write " + name);
        }
      }
    }
  }
}

uint32_t Metrics::define(uint32_t type, const std::string& name) {
  if (!on_envoy_thread) {
    die("defined " + name + " off Envoy's threads, which crashes the golang extension");
  }
  if (type > Gauge) {
    die("a histogram was defined");
  }
  const bool rejected = matcher_.rejects(name);
  size_t id = named_[type];
  if (!frozen_ && !rejected) { // as in the golang extension, Envoy has the stat from now on
    auto define = type == Counter ? envoy_dynamic_module_callback_http_filter_config_define_counter
                                  : envoy_dynamic_module_callback_http_filter_config_define_gauge;
    if (define(envoy_, buffer(name), nullptr, 0, &id)) {
      die("can't define " + name);
    }
  }
  Metric metric;
  metric.type = type;
  {
    std::lock_guard<std::mutex> guard(stats.lock);
    if (name.rfind(own_prefix, 0) == 0) {
      auto& own = own_[type][name];
      if (own == nullptr) {
        own = std::make_unique<OwnStat>();
        own->id = id;
        own->by_label = frozen_;
        own->rejected = rejected;
        own->changed = type == Counter; // a gauge keeps the value that another configuration has set
      }
      metric.own = own.get();
    } else if (!rejected) {
      auto& by_name = stats.by_name[type][name];
      metric.stat = by_name.lock();
      if (metric.stat == nullptr) {
        by_name = metric.stat = std::make_shared<Stat>();
      }
    }
  }
  std::lock_guard<std::mutex> guard(lock_);
  metrics_.push_back(metric);
  return metrics_.size() - 1;
}

const Metric& Metrics::at(uint32_t id) {
  std::lock_guard<std::mutex> guard(lock_);
  if (id >= metrics_.size()) {
    die("a metric that is not defined");
  }
  return metrics_[id];
}

void Metrics::increment(uint32_t id, int64_t offset) {
  const Metric& metric = at(id);
  if (metric.own == nullptr || metric.type != Counter || offset < 0) {
    die("a stat that is not an own counter was incremented, or by a negative number");
  }
  metric.own->value += offset;
  if (!metric.own->changed) { // a store for each probe would move the cache line between workers
    metric.own->changed = true;
  }
}

uint64_t Metrics::get(uint32_t id) {
  const Metric& metric = at(id);
  if (metric.own != nullptr) {
    die("an own stat was read");
  }
  if (metric.stat == nullptr) {
    return 0; // rejected
  }
  if (!metric.stat->copied) {
    on_main_thread ? refresh_stats() : await_refresh();
  }
  return metric.stat->value;
}

void Metrics::record(uint32_t id, uint64_t value) {
  const Metric& metric = at(id);
  if (metric.own == nullptr || metric.type != Gauge) {
    die("a stat that is not an own gauge was set");
  }
  metric.own->value = value;
  metric.own->changed = true;
}

} // namespace contribhost

using namespace contribhost;

// with_metrics calls call unless the configuration is destroyed.
template <class F> static CAPIStatus with_metrics(void* c, F call) {
  auto config = lock_config(c);
  if (config == nullptr) {
    return CAPIFilterIsGone;
  }
  call(config->metrics);
  return CAPIOK;
}

extern "C" {

CAPIStatus envoyGoFilterHttpDefineMetric(void* c, uint32_t metric_type, void* name_data, int name_len,
                                         uint32_t* metric_id) {
  return with_metrics(c, [&](Metrics& m) { *metric_id = m.define(metric_type, copy(name_data, name_len)); });
}

CAPIStatus envoyGoFilterHttpIncrementMetric(void* c, uint32_t metric_id, int64_t offset) {
  return metrics_gone ? CAPIFilterIsGone : with_metrics(c, [&](Metrics& m) { m.increment(metric_id, offset); });
}

CAPIStatus envoyGoFilterHttpGetMetric(void* c, uint32_t metric_id, uint64_t* value) {
  return metrics_gone ? CAPIFilterIsGone : with_metrics(c, [&](Metrics& m) { *value = m.get(metric_id); });
}

CAPIStatus envoyGoFilterHttpRecordMetric(void* c, uint32_t metric_id, uint64_t value) {
  return metrics_gone ? CAPIFilterIsGone : with_metrics(c, [&](Metrics& m) { m.record(metric_id, value); });
}

} // extern "C"
