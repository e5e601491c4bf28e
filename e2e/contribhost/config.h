#pragma once

#include "contribhost.h"
#include "plugin.h"
#include "stats.h"

namespace contribhost {

// For tests of leaks: the configurations and requests that Go holds, and how often a plugin has merged.
inline std::atomic<int64_t> live_configurations{0}, live_requests{0};
inline std::atomic<int64_t> merges{0};

// FilterConfig is the golang extension's class of that name.
struct FilterConfig {
  const std::string* plugin_name = nullptr;
  Plugin* plugin = nullptr;
  uint64_t id = 0;
  bool logs_start = false; // the access log is flushed on new requests
  Metrics metrics;

  FilterConfig(EnvoyFilterConfig envoy, StatsMatcher matcher) : metrics(envoy, std::move(matcher)) {}
  ~FilterConfig();
};

// SharedFilterConfig is what Envoy holds of a FilterConfig.
using SharedFilterConfig = std::shared_ptr<FilterConfig>;

// lock_config returns the filter configuration of a call from Go, or null if it is destroyed.
SharedFilterConfig lock_config(void* c);

// route_config_id returns the id of the configuration that a stream of the filter has by its route.
uint64_t route_config_id(const FilterConfig& config, EnvoyFilter stream);

} // namespace contribhost
