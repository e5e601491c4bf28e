// A reader of serialized protocol buffers, for the few messages that the contrib host is configured with.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace contribhost {

// Fields goes through the fields of a message, in the order in which they were written.
class Fields {
public:
  explicit Fields(std::string_view message) : rest_(message) {}

  uint64_t number = 0;
  std::string_view bytes; // of a field that has a length
  uint64_t value = 0;     // of a varint

  // Moves to the next field, and says whether there was one. A field of another kind ends the message: none here has one.
  bool next() {
    if (rest_.empty()) {
      return false;
    }
    uint64_t tag = varint();
    number = tag >> 3;
    value = varint();
    bytes = {};
    if ((tag & 7) == 2) {
      bytes = rest_.substr(0, value);
      rest_.remove_prefix(bytes.size());
      return true;
    }
    return (tag & 7) == 0;
  }

private:
  std::string_view rest_;

  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; !rest_.empty() && shift < 64; shift += 7) {
      auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        break;
      }
    }
    return result;
  }
};

} // namespace contribhost
