// The configurations of filters and of routes.

#include "standin.h"

namespace standin {

// GoConfig is what Go holds of a FilterConfig: httpConfigInternal there. Go's garbage collector frees it.
struct GoConfig : httpConfig {
  std::weak_ptr<FilterConfig> filter_config;

  GoConfig() { live_configurations++; }
  ~GoConfig() { live_configurations--; }
};

void fill(httpConfig& c, const std::string* plugin_name, std::string_view any, int is_route_config) {
  c.plugin_name_ptr = reinterpret_cast<uint64_t>(plugin_name->data());
  c.plugin_name_len = plugin_name->size();
  c.config_ptr = reinterpret_cast<uint64_t>(any.data());
  c.config_len = any.size();
  c.is_route_config = is_route_config;
}

// RouteConfig is RoutePluginConfig there: parsed at once where the plugin is loaded, else at the first request.
struct RouteConfig {
  const std::string* plugin_name;
  std::string any;
  httpConfig c{};
  Plugin* plugin = nullptr;
  uint64_t id = 0;

  std::mutex lock;
  uint64_t merged = 0, parent = 0;

  uint64_t parse() {
    if (plugin == nullptr && (plugin = find_plugin(*plugin_name)) == nullptr) {
      die("a route's configuration was used before its plugin was loaded");
    }
    fill(c, plugin_name, any, 1);
    return plugin->new_config(&c);
  }

  uint64_t merge(uint64_t parent_id) {
    std::lock_guard<std::mutex> guard(lock);
    if (merged > 0 && parent == parent_id) {
      return merged;
    }
    if (merged > 0) {
      plugin->destroy_config(merged, 1);
    }
    if (id == 0 && (id = parse()) == 0) {
      die("RELEASE_ASSERT: a route's configuration was refused at a request"); // as the contrib host does
    }
    merged = plugin->merge_config(reinterpret_cast<uint64_t>(plugin_name->data()), plugin_name->size(), parent_id, id);
    parent = parent_id;
    return merged;
  }

  ~RouteConfig() {
    if (id > 0) {
      plugin->destroy_config(id, 0);
    }
    if (merged > 0 && merged != id) {
      plugin->destroy_config(merged, 0);
    }
  }
};

FilterConfig::~FilterConfig() {
  if (id > 0) {
    plugin->destroy_config(id, 0);
  }
}

std::shared_ptr<FilterConfig> lock_config(void* c) { return static_cast<GoConfig*>(c)->filter_config.lock(); }

uint64_t route_config_id(const FilterConfig& config, envoy_dynamic_module_type_http_filter_envoy_ptr stream) {
  auto* route = const_cast<RouteConfig*>(
      static_cast<const RouteConfig*>(envoy_dynamic_module_callback_get_most_specific_route_config(stream)));
  if (route == nullptr || route->plugin_name != config.plugin_name) {
    return config.id;
  }
  return route->merge(config.id);
}

} // namespace standin

using namespace standin;

extern "C" {

void envoyGoConfigHttpFinalize(void* c) { delete static_cast<GoConfig*>(static_cast<httpConfig*>(c)); }

// name is "<plugin_name>@<library_path>"; config is the serialized google.protobuf.Any of plugin_config.
envoy_dynamic_module_type_http_filter_config_module_ptr envoy_dynamic_module_on_http_filter_config_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer any) {
  std::string_view both = view(name);
  size_t at = both.find('@');
  if (at == std::string_view::npos) {
    log_line(envoy_dynamic_module_type_log_level_Error, "stand-in: filter_name is not <plugin_name>@<library_path>");
    return nullptr;
  }
  auto config = std::make_shared<FilterConfig>();
  config->plugin_name = intern(std::string(both.substr(0, at)));
  config->plugin = load_plugin(*config->plugin_name, std::string(both.substr(at + 1)));
  if (config->plugin == nullptr) {
    return nullptr;
  }
  auto* go = new GoConfig(); // freed by Go
  go->filter_config = config;
  fill(*go, config->plugin_name, view(any), 0);
  go->concurrency = envoy_dynamic_module_callback_get_concurrency();
  config->envoy = envoy;
  config->id = config->plugin->new_config(go);
  config->envoy = nullptr;
  if (config->id == 0) {
    return nullptr;
  }
  return new FilterConfigHolder{config};
}

void envoy_dynamic_module_on_http_filter_config_destroy(
    envoy_dynamic_module_type_http_filter_config_module_ptr config) {
  delete static_cast<const FilterConfigHolder*>(config);
}

// name is "<plugin_name>".
envoy_dynamic_module_type_http_filter_per_route_config_module_ptr
envoy_dynamic_module_on_http_filter_per_route_config_new(envoy_dynamic_module_type_envoy_buffer name,
                                                         envoy_dynamic_module_type_envoy_buffer any) {
  auto route = std::make_unique<RouteConfig>();
  route->plugin_name = intern(std::string(view(name)));
  route->any = std::string(view(any));
  route->plugin = find_plugin(*route->plugin_name);
  if (route->plugin != nullptr && (route->id = route->parse()) == 0) {
    return nullptr;
  }
  return route.release();
}

void envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    envoy_dynamic_module_type_http_filter_per_route_config_module_ptr config) {
  delete static_cast<const RouteConfig*>(config);
}

} // extern "C"
