// The configurations of filters and of routes.

#include "contribhost.h"
#include "wire.h"

#include <map>
#include <sstream>

namespace contribhost {

namespace {

// GoConfig is what Go holds of a FilterConfig: httpConfigInternal there. Go's garbage collector frees it.
struct GoConfig : httpConfig {
  std::weak_ptr<FilterConfig> filter_config;

  GoConfig() { live_configurations++; }
  ~GoConfig() { live_configurations--; }
};

// Status is the message that the contrib host is configured with: one that any Envoy knows, of a text and a list of others.
struct Status {
  std::string_view message;
  std::vector<std::string_view> details; // each a serialized google.protobuf.Any, which is what a plugin is given

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

// Level is RoutePluginConfig there: what one level of the routes configures for a plugin. It is parsed at once where the
// plugin is loaded, else at the first request; merged with one configuration above it at a time.
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

// The levels by their keys. They are made on the main thread alone, and freed on any.
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

// RouteConfig is what Envoy holds of a route's configuration: with it those that are above it, the widest first.
struct RouteConfig {
  std::vector<std::shared_ptr<Level>> levels;
};

} // namespace

FilterConfig::~FilterConfig() {
  if (id > 0) {
    plugin->destroy_config(id, 0);
  }
}

std::shared_ptr<FilterConfig> lock_config(void* c) { return static_cast<GoConfig*>(c)->filter_config.lock(); }

uint64_t route_config_id(const FilterConfig& config, envoy_dynamic_module_type_http_filter_envoy_ptr stream) {
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

// name is "<plugin_name>@<library_id>@<library_path>"; config is a google.rpc.Status of which the first detail is
// plugin_config, and the second the listener's own stats matcher, where it has one. Its message is "logs start" where the
// access log is flushed on new requests.
envoy_dynamic_module_type_http_filter_config_module_ptr envoy_dynamic_module_on_http_filter_config_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer configured) {
  std::string_view all = view(name);
  size_t first = all.find('@'), second = all.find('@', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) {
    log_line(envoy_dynamic_module_type_log_level_Error,
             "contrib host: filter_name is not <plugin_name>@<library_id>@<library_path>");
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
  config->metrics.made();
  if (config->id == 0) {
    return nullptr;
  }
  return new FilterConfigHolder{config};
}

void envoy_dynamic_module_on_http_filter_config_destroy(
    envoy_dynamic_module_type_http_filter_config_module_ptr config) {
  auto* holder = static_cast<const FilterConfigHolder*>(config);
  holder->config->metrics.gone();
  delete holder;
}

// configured is a google.rpc.Status with a level for each detail, the widest first, and a line of the message, which is
// "<plugin_name> <key>".
envoy_dynamic_module_type_http_filter_per_route_config_module_ptr
envoy_dynamic_module_on_http_filter_per_route_config_new(envoy_dynamic_module_type_envoy_buffer,
                                                         envoy_dynamic_module_type_envoy_buffer configured) {
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

void envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    envoy_dynamic_module_type_http_filter_per_route_config_module_ptr config) {
  delete static_cast<const RouteConfig*>(config);
}

} // extern "C"
