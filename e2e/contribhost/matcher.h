#pragma once

#include "contribhost.h"

#include <functional>
#include <vector>

namespace contribhost {

// StatsMatcher is the class in source/common/stats/stats_matcher_impl.cc, for the same message.
class StatsMatcher {
public:
  StatsMatcher() = default; // rejects nothing
  explicit StatsMatcher(std::string_view serialized);

  bool rejects(const std::string& name) const;

private:
  std::vector<std::function<bool(const std::string& name)>> patterns_;
  bool rejects_others_ = false; // names that match no pattern
};

} // namespace contribhost
