#pragma once

#include "contribhost.h"

namespace contribhost {

// Plugin holds the functions that a plugin exports.
struct Plugin {
  uint64_t (*new_config)(httpConfig*);
  void (*destroy_config)(uint64_t id, int need_delay);
  uint64_t (*merge_config)(uint64_t name, uint64_t name_length, uint64_t parent, uint64_t child);
  uint64_t (*on_header)(processState*, uint64_t end_stream, uint64_t header_num, uint64_t header_bytes);
  uint64_t (*on_data)(processState*, uint64_t end_stream, uint64_t buffer, uint64_t length);
  void (*on_log)(httpRequest*, uint64_t type, processState* decoding, processState* encoding, uint64_t, uint64_t,
                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
  void (*on_stream_complete)(httpRequest*);
  void (*on_destroy)(httpRequest*, uint64_t reason);
};

// intern returns a plugin's name that is never freed, because requests of any age point to it.
const std::string* intern(const std::string& name);

// find_plugin returns the plugin of a name that was loaded last, or null.
Plugin* find_plugin(const std::string& name);

// load_plugin loads a library, unless one with its id is loaded, and makes its plugin the one of that name. It returns null if the library
// can't be loaded, after logging why.
Plugin* load_plugin(const std::string& name, const std::string& library_id, const std::string& path);

} // namespace contribhost
