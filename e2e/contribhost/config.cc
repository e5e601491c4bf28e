#include "config.h"
#include "wire.h"

#include <sstream>

namespace contribhost {

namespace {

// GoConfig is what Go holds of a FilterConfig: httpConfigInternal there. Go's garbage collector frees it.
struct GoConfig : httpConfig {
  std::weak_ptr<FilterConfig> filter_config;

  GoConfig() { live_configurations++; }
  ~GoConfig() { live_configurations--; }
};

// Status is the message that configures the contrib host. Any Envoy knows it, and it holds a text and a list of other messages.
struct Status {
  std::string_view message;
  std::vector<std::string_view> details; // each a serialized google.protobuf.Any, for a plugin

  explicit Status(std::string_view serialized) {
    for (Fields fields(serialized); fields.next();) {
      if (fields.number == 2) {
        message = fields.bytes;
      } else if (fields.number == 3) {
        details.push_back(fields.bytes);
      }
    }
  }

  std::string_view detail(size_t i) const { return i < details.size() ? details[i] : std::string_view(); }
};

void fill(httpConfig& c, const std::string* plugin_name, std::string_view any, int is_route_config) {
  c.plugin_name_ptr = reinterpret_cast<uint64_t>(plugin_name->data());
  c.plugin_name_len = plugin_name->size();
  c.config_ptr = reinterpret_cast<uint64_t>(any.data());
  c.config_len = any.size();
  c.is_route_config = is_route_config;
}

// Level is the golang extension's RoutePluginConfig: the configuration of one level of the routes for a plugin. It is parsed at once if the
// plugin is loaded, else at the first request. It remembers one merged configuration.
class Level {
public:
  Level(const std::string& plugin_name, const std::string& key, std::string_view any)
      : plugin_name_(intern(plugin_name)), key_(key), any_(any), plugin_(find_plugin(plugin_name)) {
    if (plugin_ != nullptr) {
      id_ = parse();
    }
  }
  ~Level();
  Level(const Level&) = delete;

  const std::string* plugin_name() const { return plugin_name_; }
  bool refused() const { return plugin_ != nullptr && id_ == 0; }

  uint64_t merge(uint64_t parent_id) {
    std::lock_guard<std::mutex> guard(lock_);
    if (merged_ > 0 && parent_ == parent_id) {
      return merged_;
    }
    if (merged_ > 0) {
      plugin_->destroy_config(merged_, 1);
    }
    if (id_ == 0 && (id_ = parse()) == 0) {
      die("RELEASE_ASSERT: a route's configuration was refused at a request"); // as the golang extension does
    }
    merged_ = plugin_->merge_config(reinterpret_cast<uint64_t>(plugin_name_->data()), plugin_name_->size(), parent_id, id_);
    parent_ = parent_id;
    merges++;
    return merged_;
  }

private:
  const std::string* plugin_name_;
  const std::string key_, any_;
  httpConfig c_{};
  Plugin* plugin_;
  uint64_t id_ = 0;

  std::mutex lock_;
  uint64_t merged_ = 0, parent_ = 0;

  uint64_t parse() {
    if (plugin_ == nullptr && (plugin_ = find_plugin(*plugin_name_)) == nullptr) {
      die("a route's configuration was used before its plugin was loaded");
    }
    fill(c_, plugin_name_, any_, 1);
    return plugin_->new_config(&c_);
  }
};

// The levels by their keys. Only the main thread creates them; any thread frees them.
std::mutex levels_lock;
std::map<std::string, std::weak_ptr<Level>> levels;

Level::~Level() {
  if (id_ > 0) {
    plugin_->destroy_config(id_, 0);
  }
  if (merged_ > 0 && merged_ != id_) {
    plugin_->destroy_config(merged_, 0);
  }
  std::lock_guard<std::mutex> guard(levels_lock);
  if (auto it = levels.find(key_); it != levels.end() && it->second.expired()) {
    levels.erase(it);
  }
}

std::shared_ptr<Level> level(const std::string& plugin_name, const std::string& key, std::string_view any) {
  {
    std::lock_guard<std::mutex> guard(levels_lock);
    if (auto known = levels[key].lock()) {
      return known;
    }
  }
  auto made = std::make_shared<Level>(plugin_name, key, any);
  std::lock_guard<std::mutex> guard(levels_lock);
  levels[key] = made;
  return made;
}

// RouteConfig is what Envoy holds of a route's configuration: its level and all wider ones, the widest first.
struct RouteConfig {
  std::vector<std::shared_ptr<Level>> levels;
};

} // namespace

FilterConfig::~FilterConfig() {
  if (id > 0) {
    plugin->destroy_config(id, 0);
  }
}

SharedFilterConfig lock_config(void* c) { return static_cast<GoConfig*>(c)->filter_config.lock(); }

uint64_t route_config_id(const FilterConfig& config, EnvoyFilter stream) {
  uint64_t id = config.id;
  auto* route = static_cast<const RouteConfig*>(envoy_dynamic_module_callback_get_most_specific_route_config(stream));
  if (route != nullptr) {
    for (auto& level : route->levels) {
      if (level->plugin_name() == config.plugin_name) {
        id = level->merge(id);
      }
    }
  }
  return id;
}

} // namespace contribhost

using namespace contribhost;

extern "C" {

void envoyGoConfigHttpFinalize(void* c) { delete static_cast<GoConfig*>(static_cast<httpConfig*>(c)); }

// name is "<plugin_name>@<library_id>@<library_path>". configured is a google.rpc.Status: its first detail is plugin_config, and the second
// the listener's own stats matcher, if any; its message is "logs start" if the access log is flushed on new requests.
ModuleFilterConfig envoy_dynamic_module_on_http_filter_config_new(EnvoyFilterConfig envoy, Buffer name, Buffer configured) {
  std::string_view all = view(name);
  size_t first = all.find('@'), second = all.find('@', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) {
    log_error("contrib host: filter_name is not <plugin_name>@<library_id>@<library_path>");
    return nullptr;
  }
  Status status(view(configured));
  StatsMatcher matcher = bootstrap.matcher;
  for (Fields any(status.detail(1)); any.next();) {
    matcher = any.number == 2 ? StatsMatcher(any.bytes) : StatsMatcher(); // its value, after its type
  }
  auto config = std::make_shared<FilterConfig>(envoy, std::move(matcher));
  config->logs_start = status.message == "logs start";
  config->plugin_name = intern(std::string(all.substr(0, first)));
  config->plugin = load_plugin(*config->plugin_name, std::string(all.substr(first + 1, second - first - 1)),
                               std::string(all.substr(second + 1)));
  if (config->plugin == nullptr) {
    return nullptr;
  }
  auto* go = new GoConfig(); // freed by Go
  go->filter_config = config;
  fill(*go, config->plugin_name, status.detail(0), 0);
  go->concurrency = envoy_dynamic_module_callback_get_concurrency();
  config->id = config->plugin->new_config(go);
  config->metrics.freeze();
  if (config->id == 0) {
    return nullptr;
  }
  return new SharedFilterConfig(config);
}

void envoy_dynamic_module_on_http_filter_config_destroy(ModuleFilterConfig config) {
  auto* shared = static_cast<const SharedFilterConfig*>(config);
  (*shared)->metrics.detach();
  delete shared;
}

// configured is a google.rpc.Status with a detail for each level, the widest first; its message has a line "<plugin_name> <key>" for each.
ModuleRouteConfig envoy_dynamic_module_on_http_filter_per_route_config_new(Buffer, Buffer configured) {
  Status status(view(configured));
  auto route = std::make_unique<RouteConfig>();
  std::istringstream lines{std::string(status.message)};
  std::string plugin_name, key;
  for (size_t i = 0; lines >> plugin_name >> key; i++) {
    route->levels.push_back(level(plugin_name, key, status.detail(i)));
    if (route->levels.back()->refused()) {
      return nullptr;
    }
  }
  return route.release();
}

void envoy_dynamic_module_on_http_filter_per_route_config_destroy(ModuleRouteConfig config) {
  delete static_cast<const RouteConfig*>(config);
}

} // extern "C"
