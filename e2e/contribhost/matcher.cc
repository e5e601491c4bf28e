#include "matcher.h"
#include "wire.h"

#include <algorithm>

namespace contribhost {

namespace {

enum : uint64_t { Exact = 1, Prefix = 2, Suffix = 3 };

bool matches(uint64_t kind, std::string_view pattern, std::string_view name) {
  switch (kind) {
  case Exact:
    return name == pattern;
  case Prefix:
    // Envoy takes a prefix that ends with a dot as a token, which also matches a name that ends before the dot.
    return name.substr(0, pattern.size()) == pattern ||
           (pattern.size() > 1 && pattern.back() == '.' && name == pattern.substr(0, pattern.size() - 1));
  case Suffix:
    return name.size() >= pattern.size() && name.substr(name.size() - pattern.size()) == pattern;
  }
  die("unsupported stats matcher");
}

} // namespace

StatsMatcher::StatsMatcher(std::string_view serialized) {
  for (Fields fields(serialized); fields.next();) {
    switch (fields.number) {
    case 1: // reject_all
      rejects_others_ = fields.value != 0;
      continue;
    case 2: // exclusion_list
      break;
    case 3: // inclusion_list
      rejects_others_ = true;
      break;
    default:
      die("unsupported stats matcher");
    }
    for (Fields list(fields.bytes); list.next();) {
      for (Fields pattern(list.bytes); pattern.next();) {
        patterns_.emplace_back(pattern.number, pattern.bytes);
      }
    }
  }
}

bool StatsMatcher::rejects(std::string_view name) const {
  return rejects_others_ != std::any_of(patterns_.begin(), patterns_.end(), [&](auto& p) { return matches(p.first, p.second, name); });
}

} // namespace contribhost
