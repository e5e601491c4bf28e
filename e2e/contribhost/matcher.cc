#include "matcher.h"
#include "wire.h"

#include <algorithm>
#include <regex>

namespace contribhost {

namespace {

using Match = std::function<bool(const std::string& name)>;

// string_matcher parses an envoy.type.matcher.v3.StringMatcher.
Match string_matcher(std::string_view serialized) {
  uint64_t kind = 0;
  std::string pattern;
  bool ignore_case = false;
  for (Fields fields(serialized); fields.next();) {
    switch (fields.number) {
    case 1: // exact
    case 2: // prefix
    case 3: // suffix
    case 7: // contains
      kind = fields.number;
      pattern = std::string(fields.bytes);
      break;
    case 5: // safe_regex
      kind = fields.number;
      for (Fields regex(fields.bytes); regex.next();) {
        if (regex.number == 2) {
          pattern = std::string(regex.bytes);
        }
      }
      break;
    case 6:
      ignore_case = fields.value != 0;
      break;
    default:
      die("unsupported stats matcher");
    }
  }
  auto same = [ignore_case](char a, char b) { return ignore_case ? tolower(a) == tolower(b) : a == b; };
  switch (kind) {
  case 1:
    return [=](const std::string& name) { return std::equal(name.begin(), name.end(), pattern.begin(), pattern.end(), same); };
  case 2:
    return [=](const std::string& name) {
      // Envoy takes a prefix that ends with a dot as a token, which also matches a name that ends before the dot.
      std::string whole = !ignore_case && pattern.size() > 1 && pattern.back() == '.' ? name + "." : name;
      return whole.size() >= pattern.size() && std::equal(pattern.begin(), pattern.end(), whole.begin(), same);
    };
  case 3:
    return [=](const std::string& name) {
      return name.size() >= pattern.size() && std::equal(pattern.rbegin(), pattern.rend(), name.rbegin(), same);
    };
  case 5:
    return [regex = std::regex(pattern)](const std::string& name) { return std::regex_match(name, regex); };
  case 7:
    return [=](const std::string& name) {
      return std::search(name.begin(), name.end(), pattern.begin(), pattern.end(), same) != name.end();
    };
  }
  die("a stats matcher without a pattern");
}

} // namespace

StatsMatcher::StatsMatcher(std::string_view serialized) {
  for (Fields fields(serialized); fields.next();) {
    patterns_.clear();
    switch (fields.number) {
    case 1: // reject_all
      rejects_others_ = fields.value != 0;
      continue;
    case 2: // exclusion_list
      rejects_others_ = false;
      break;
    case 3: // inclusion_list
      rejects_others_ = true;
      break;
    default:
      die("unsupported stats matcher");
    }
    for (Fields list(fields.bytes); list.next();) {
      patterns_.push_back(string_matcher(list.bytes));
    }
  }
}

bool StatsMatcher::rejects(const std::string& name) const {
  bool matches = std::any_of(patterns_.begin(), patterns_.end(), [&](const Match& match) { return match(name); });
  return matches != rejects_others_;
}

} // namespace contribhost
