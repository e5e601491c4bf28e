#pragma once

#include "contribhost.h"

#include <utility>
#include <vector>

namespace contribhost {

// StatsMatcher is the class in source/common/stats/stats_matcher_impl.cc, for the same message.
class StatsMatcher {
public:
  StatsMatcher() = default; // rejects nothing
  explicit StatsMatcher(std::string_view serialized);

  bool rejects(std::string_view name) const;

private:
  std::vector<std::pair<uint64_t, std::string>> patterns_; // by their kinds, the fields of a StringMatcher
  bool rejects_others_ = false;                            // names that match no pattern
};

} // namespace contribhost
