// The stats that a plugin reads and writes.

#include "contribhost.h"
#include "wire.h"

#include <algorithm>
#include <functional>
#include <map>
#include <regex>
#include <set>

#include <strings.h>
#include <unistd.h>

// Of Envoy 1.39, whose header is not to be had; see module.cc for an Envoy without them.
extern "C" {
__attribute__((weak)) envoy_dynamic_module_type_metrics_result
envoy_dynamic_module_callback_http_filter_config_increment_counter(envoy_dynamic_module_type_http_filter_config_envoy_ptr,
                                                                   size_t id, envoy_dynamic_module_type_module_buffer*,
                                                                   size_t, uint64_t value);
__attribute__((weak)) envoy_dynamic_module_type_metrics_result
envoy_dynamic_module_callback_http_filter_config_set_gauge(envoy_dynamic_module_type_http_filter_config_envoy_ptr,
                                                           size_t id, envoy_dynamic_module_type_module_buffer*, size_t,
                                                           uint64_t value);
}

namespace contribhost {

namespace {

enum Type : uint32_t { Counter = 0, Gauge = 1 }; // the golang extension's MetricType

// The plugin's own stats begin with this.
constexpr std::string_view own_prefix = "healthgate.";

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// All stats of another's that a living configuration has defined, by name, counters and gauges apart; and the configurations.
struct {
  std::mutex lock;
  std::map<std::string, std::weak_ptr<Stat>, std::less<>> by_name[2];
  std::set<Metrics*> metrics;
  std::atomic<uint64_t> round{0}, finished{0}; // the number of the last copy that was begun, and that is whole
} stats;

template <int type>
envoy_dynamic_module_type_stats_iteration_action visit(envoy_dynamic_module_type_envoy_buffer name, uint64_t value,
                                                       void*) {
  if (auto it = stats.by_name[type].find(view(name)); it != stats.by_name[type].end()) {
    if (auto stat = it->second.lock()) {
      stat->value = stat->before + value;
      stat->round = stats.round;
      stat->there = true;
    }
  }
  return envoy_dynamic_module_type_stats_iteration_action_Continue;
}

} // namespace

bool can_have_stats() {
  return envoy_dynamic_module_callback_http_filter_config_increment_counter != nullptr &&
         envoy_dynamic_module_callback_http_filter_config_set_gauge != nullptr;
}

void refresh_stats() {
  if (bootstrap.extension == nullptr) {
    return;
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  for (Metrics* metrics : stats.metrics) {
    metrics->hand_on();
  }
  stats.round++;
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
      if (stat->round != stats.round) {
        if (stat->defined > 0) {
          die("Envoy has no " + it->first + ", which the contrib host has defined: it takes a stats matcher for another than Envoy");
        }
        if (stat->there && type == Counter) {
          stat->before = stat->value; // what comes by that name later is a new one here, and the same there
        }
        stat->there = false;
      }
      stat->copied = true;
      ++it;
    }
  }
  stats.finished = stats.round.load();
}

void await_refresh() {
  uint64_t before = stats.round;
  for (int i = 0; i < 1000 && stats.finished <= before; i++) {
    usleep(1000);
  }
}

uint64_t refresh_milliseconds() {
  static const char* set = getenv("STAND_IN_REFRESH_MILLISECONDS");
  static const uint64_t milliseconds = set != nullptr && atoi(set) > 0 ? atoi(set) : 5;
  return milliseconds;
}

// ---------------------------------------------------------------------------------------------------------------------
// StatsMatcher
// ---------------------------------------------------------------------------------------------------------------------

namespace {

using Match = std::function<bool(const std::string& name)>;

// Reads an envoy.type.matcher.v3.StringMatcher.
Match string_matcher(std::string_view serialized) {
  uint64_t kind = 0;
  std::string pattern;
  bool ignore_case = false;
  for (Fields fields(serialized); fields.next();) {
    switch (fields.number) {
    case 1: // exact
    case 2: // prefix
    case 3: // suffix
    case 7: // contains
      kind = fields.number;
      pattern = std::string(fields.bytes);
      break;
    case 5: // safe_regex
      kind = fields.number;
      for (Fields regex(fields.bytes); regex.next();) {
        if (regex.number == 2) {
          pattern = std::string(regex.bytes);
        }
      }
      break;
    case 6:
      ignore_case = fields.value != 0;
      break;
    default:
      die("a stats matcher is of a kind that the contrib host does not know");
    }
  }
  auto same = [ignore_case](char a, char b) { return ignore_case ? tolower(a) == tolower(b) : a == b; };
  switch (kind) {
  case 1:
    return [=](const std::string& name) { return std::equal(name.begin(), name.end(), pattern.begin(), pattern.end(), same); };
  case 2:
    return [=](const std::string& name) {
      // A prefix with a dot at its end is one of Envoy's tokens, and so matches the name that ends before the dot.
      std::string whole = !ignore_case && pattern.size() > 1 && pattern.back() == '.' ? name + "." : name;
      return whole.size() >= pattern.size() && std::equal(pattern.begin(), pattern.end(), whole.begin(), same);
    };
  case 3:
    return [=](const std::string& name) {
      return name.size() >= pattern.size() && std::equal(pattern.rbegin(), pattern.rend(), name.rbegin(), same);
    };
  case 5:
    return [regex = std::regex(pattern)](const std::string& name) { return std::regex_match(name, regex); };
  case 7:
    return [=](const std::string& name) {
      return std::search(name.begin(), name.end(), pattern.begin(), pattern.end(), same) != name.end();
    };
  }
  die("a stats matcher without a pattern");
}

} // namespace

StatsMatcher::StatsMatcher(std::string_view serialized) {
  for (Fields fields(serialized); fields.next();) {
    patterns_.clear();
    switch (fields.number) {
    case 1: // reject_all
      rejects_others_ = fields.value != 0;
      continue;
    case 2: // exclusion_list
      rejects_others_ = false;
      break;
    case 3: // inclusion_list
      rejects_others_ = true;
      break;
    default:
      die("a stats matcher is of a kind that the contrib host does not know");
    }
    for (Fields list(fields.bytes); list.next();) {
      patterns_.push_back(string_matcher(list.bytes));
    }
  }
}

bool StatsMatcher::rejects(const std::string& name) const {
  bool matches = std::any_of(patterns_.begin(), patterns_.end(), [&](const Match& match) { return match(name); });
  return matches != rejects_others_;
}

// ---------------------------------------------------------------------------------------------------------------------
// Metrics
// ---------------------------------------------------------------------------------------------------------------------

Metrics::Metrics(envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, StatsMatcher matcher)
    : envoy_(envoy), matcher_(std::move(matcher)) {
  // A stat of two parts of which one is the label: with all else empty, its name is the label's value.
  auto nothing = buffer("");
  if (envoy_dynamic_module_callback_http_filter_config_define_counter(envoy, nothing, &nothing, 1, &named_[Counter]) ||
      envoy_dynamic_module_callback_http_filter_config_define_gauge(envoy, nothing, &nothing, 1, &named_[Gauge])) {
    die("can't define stats");
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  stats.metrics.insert(this);
}

Metrics::~Metrics() { gone(); }

void Metrics::gone() {
  std::lock_guard<std::mutex> guard(stats.lock);
  if (envoy_ == nullptr) {
    return;
  }
  hand_on();
  envoy_ = nullptr;
  stats.metrics.erase(this);
  for (auto& stat : defined_) {
    stat->defined--;
  }
  defined_.clear();
}

void Metrics::hand_on() {
  for (uint32_t type : {Counter, Gauge}) {
    for (auto& [name, own] : own_[type]) {
      if (!own->left_out && own->changed.exchange(false)) {
        auto label = buffer(name);
        auto* labels = own->named ? &label : nullptr;
        if (type == Counter
                ? envoy_dynamic_module_callback_http_filter_config_increment_counter(envoy_, own->id, labels, own->named,
                                                                                     own->value.exchange(0))
                : envoy_dynamic_module_callback_http_filter_config_set_gauge(envoy_, own->id, labels, own->named,
                                                                             own->value)) {
          die("can't write " + name);
        }
      }
    }
  }
}

uint32_t Metrics::define(uint32_t type, const std::string& name) {
  if (!on_envoys_thread) {
    die("defined " + name + " off Envoy's threads, which the golang extension's scope does not survive");
  }
  if (type > Gauge) {
    die("a histogram was defined");
  }
  const bool rejected = matcher_.rejects(name);
  size_t id = named_[type];
  if (making_ && !rejected) { // as in the golang extension, the stat is there from now on
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
    if (starts_with(name, own_prefix)) {
      auto& own = own_[type][name];
      if (own == nullptr) {
        own = std::make_unique<OwnStat>();
        own->id = id;
        own->named = !making_;
        own->left_out = rejected;
        own->changed = type == Counter; // a gauge that others have set keeps its value
      }
      metric.own = own.get();
    } else if (!rejected) {
      auto& by_name = stats.by_name[type][name];
      metric.stat = by_name.lock();
      if (metric.stat == nullptr) {
        by_name = metric.stat = std::make_shared<Stat>();
      }
      if (making_) {
        metric.stat->defined++;
        defined_.push_back(metric.stat);
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
    die("a metric that was never defined");
  }
  return metrics_[id];
}

void Metrics::increment(uint32_t id, int64_t offset) {
  const Metric& metric = at(id);
  if (metric.own == nullptr || metric.type != Counter || offset < 0) {
    die("a stat that is not a counter of the plugin's own was incremented, or by less than nothing");
  }
  metric.own->value += offset;
  if (!metric.own->changed) { // a store a probe would bounce the cache line between workers
    metric.own->changed = true;
  }
}

uint64_t Metrics::get(uint32_t id) {
  const Metric& metric = at(id);
  if (metric.own != nullptr) {
    die("a stat of the plugin's own was read");
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
    die("a stat that is not a gauge of the plugin's own was set");
  }
  metric.own->value = value;
  metric.own->changed = true;
}

} // namespace contribhost

using namespace contribhost;

// Calls what a plugin asks for, or says that the configuration has gone.
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
