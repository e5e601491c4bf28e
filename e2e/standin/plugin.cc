// What loads plugins.

#include "standin.h"

#include <map>

#include <dlfcn.h>

namespace standin {

namespace {

// Libraries by their id, loaded once and never unloaded: a Go runtime can't be. As in the contrib host's DsoManager, a
// filter finds its plugin by the library, and a route by the plugin's name.
std::mutex plugins_lock;
std::map<std::string, std::unique_ptr<Plugin>> libraries;
std::map<std::string, Plugin*> plugins;

template <class F> bool symbol(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

} // namespace

// Returns a plugin name that lives for ever, since requests of any age point at it.
const std::string* intern(const std::string& name) {
  static std::mutex lock;
  static std::map<std::string, std::unique_ptr<std::string>> names;
  std::lock_guard<std::mutex> guard(lock);
  auto& slot = names[name];
  if (slot == nullptr) {
    slot = std::make_unique<std::string>(name);
  }
  return slot.get();
}

Plugin* find_plugin(const std::string& name) {
  std::lock_guard<std::mutex> guard(plugins_lock);
  auto it = plugins.find(name);
  return it == plugins.end() ? nullptr : it->second;
}

Plugin* load_plugin(const std::string& name, const std::string& library_id, const std::string& path) {
  std::lock_guard<std::mutex> guard(plugins_lock);
  if (auto it = libraries.find(library_id); it != libraries.end()) {
    return plugins[name] = it->second.get();
  }
  void* library = dlopen(path.c_str(), RTLD_LAZY);
  if (library == nullptr) {
    log_line(envoy_dynamic_module_type_log_level_Error, std::string("stand-in: can't load the plugin: ") + dlerror());
    return nullptr;
  }
  auto plugin = std::make_unique<Plugin>();
  if (!symbol(library, "envoyGoFilterNewHttpPluginConfig", plugin->new_config) ||
      !symbol(library, "envoyGoFilterDestroyHttpPluginConfig", plugin->destroy_config) ||
      !symbol(library, "envoyGoFilterMergeHttpPluginConfig", plugin->merge_config) ||
      !symbol(library, "envoyGoFilterOnHttpHeader", plugin->on_header) ||
      !symbol(library, "envoyGoFilterOnHttpData", plugin->on_data) ||
      !symbol(library, "envoyGoFilterOnHttpLog", plugin->on_log) ||
      !symbol(library, "envoyGoFilterOnHttpStreamComplete", plugin->on_stream_complete) ||
      !symbol(library, "envoyGoFilterOnHttpDestroy", plugin->on_destroy)) {
    log_line(envoy_dynamic_module_type_log_level_Error, "stand-in: " + path + " is not a golang filter plugin");
    return nullptr;
  }
  return plugins[name] = (libraries[library_id] = std::move(plugin)).get();
}

} // namespace standin
