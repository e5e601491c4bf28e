#pragma once

#include "contribhost.h"
#include "matcher.h"

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

namespace contribhost {

// The bootstrap extension. It lives as long as Envoy serves, and is used only on the main thread.
struct Bootstrap {
  EnvoyExtensionConfig config = nullptr;
  EnvoyExtension extension = nullptr;
  StatsMatcher matcher; // of stats_config
};
inline Bootstrap bootstrap;

// If set by a test, every call about metrics fails as if its configuration were destroyed.
inline std::atomic<bool> metrics_gone{false};

// Stat is a copy of one of Envoy's stats. Envoy finds a stat by name only by iterating all of them under a lock that a worker must not
// hold: if the worker then drops the last reference to a scope, it deadlocks. So only the main thread iterates them.
//
// In the golang extension a definition keeps its stat alive. So a stat that Envoy no longer has keeps its last value here, as long as a
// configuration that has defined it lives.
struct Stat {
  std::atomic<uint64_t> value{0};  // 0 if Envoy does not have it, as in the golang extension
  std::atomic<bool> copied{false}; // at least once
  uint64_t refresh = 0;            // the last refresh that found it
  bool found = false;              // by the last refresh
  uint64_t before = 0;             // of a counter: the sum of earlier counters of the name
};

// OwnStat is a stat that the plugin defines itself. Any thread writes it, and the main thread hands it to Envoy.
struct OwnStat {
  size_t id = 0;
  bool by_label = false;           // its name is a label of named_
  bool rejected = false;           // by a stats matcher
  std::atomic<uint64_t> value{0};  // of a gauge, or the increments of a counter since the last refresh
  std::atomic<bool> changed{true}; // so that Envoy has it from the start, as in the golang extension
};

struct Metric {
  uint32_t type = 0;
  std::shared_ptr<Stat> stat; // Envoy's
  OwnStat* own = nullptr;     // the plugin's; if both are null, a stats matcher rejects it
};

// Metrics are the stats that one filter configuration has defined: the golang extension's MetricStore.
class Metrics {
public:
  Metrics(EnvoyFilterConfig envoy, StatsMatcher matcher);
  ~Metrics();
  Metrics(const Metrics&) = delete;

  void freeze() { frozen_ = true; } // the configuration is complete: Envoy refuses new stats from now on
  void detach();                    // before Envoy destroys its configuration
  void flush();                     // hands changes to Envoy; for refresh_stats

  uint32_t define(uint32_t type, const std::string& name);
  void increment(uint32_t id, int64_t offset);
  uint64_t get(uint32_t id);
  void record(uint32_t id, uint64_t value);

private:
  EnvoyFilterConfig envoy_; // null once detached
  const StatsMatcher matcher_;
  bool frozen_ = false;
  size_t named_[2]; // a counter and a gauge whose label is their name
  std::map<std::string, std::unique_ptr<OwnStat>> own_[2];

  std::mutex lock_;
  std::deque<Metric> metrics_; // a deque does not move its elements

  const Metric& at(uint32_t id);
};

// refresh_stats flushes the plugin's own stats, and copies all others. On the main thread.
void refresh_stats();

// await_refresh waits on a worker, for a second at most, until the main thread has refreshed the copies once more. Envoy's clusters were
// checked before its workers started; copies may be older.
void await_refresh();

// refresh_milliseconds is the time between refreshes. A benchmark sets it higher, because a refresh iterates all stats.
uint64_t refresh_milliseconds();

} // namespace contribhost
