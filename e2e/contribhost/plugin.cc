#include "plugin.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace contribhost {

namespace {

// Libraries by their id, loaded once and never unloaded, which a Go runtime does not support. As in the golang extension's DsoManager, a
// filter finds its plugin by the library, and a route by the plugin's name.
std::mutex plugins_lock;
std::map<std::string, std::unique_ptr<Plugin>> libraries;
std::map<std::string, Plugin*> plugins;

// The same as dlsymInternal in contrib/golang/common/dso/dso.cc, with the same log line.
template <class F> bool find_symbol(F& function, void* library, const std::string& path, const char* name) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) {
    log_error("lib: " + path + ", cannot find symbol: " + name + ", err: " + dlerror());
  }
  return function != nullptr;
}

// find_functions finds the ten functions that HttpFilterDsoImpl in dso.cc needs. It logs each missing one.
bool find_functions(Plugin& plugin, void* library, const std::string& path) {
  bool found = true;
  found &= find_symbol(plugin.new_config, library, path, "envoyGoFilterNewHttpPluginConfig");
  found &= find_symbol(plugin.merge_config, library, path, "envoyGoFilterMergeHttpPluginConfig");
  found &= find_symbol(plugin.destroy_config, library, path, "envoyGoFilterDestroyHttpPluginConfig");
  found &= find_symbol(plugin.on_header, library, path, "envoyGoFilterOnHttpHeader");
  found &= find_symbol(plugin.on_data, library, path, "envoyGoFilterOnHttpData");
  found &= find_symbol(plugin.on_log, library, path, "envoyGoFilterOnHttpLog");
  found &= find_symbol(plugin.on_stream_complete, library, path, "envoyGoFilterOnHttpStreamComplete");
  found &= find_symbol(plugin.on_destroy, library, path, "envoyGoFilterOnHttpDestroy");
  // Not called here: the first resumes a request that waits in Go, and contrib's own tests call the second.
  void *request_sema_dec, *clean_up;
  found &= find_symbol(request_sema_dec, library, path, "envoyGoRequestSemaDec");
  found &= find_symbol(clean_up, library, path, "envoyGoFilterCleanUp");
  return found;
}

std::unique_ptr<Plugin> open_plugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_LAZY);
  if (library == nullptr) {
    log_error("cannot load : " + path + " error: " + dlerror());
    return nullptr;
  }
  auto plugin = std::make_unique<Plugin>();
  if (!find_functions(*plugin, library, path)) {
    dlclose(library);
    return nullptr;
  }
  return plugin;
}

} // namespace

const std::string* intern(const std::string& name) {
  static std::mutex lock;
  static std::set<std::string> names; // which does not move its elements
  std::lock_guard<std::mutex> guard(lock);
  return &*names.insert(name).first;
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
  auto plugin = open_plugin(path);
  if (plugin == nullptr) {
    // In contrib an exception, which Envoy shows; a module can only log it.
    log_error("golang_filter: load library failed: " + library_id + " " + path);
    return nullptr;
  }
  return plugins[name] = (libraries[library_id] = std::move(plugin)).get();
}

} // namespace contribhost
