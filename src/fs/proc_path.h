// ProcPath: the name by which a process reaches what one of its descriptors is, O_PATH or not, as a
// link that leads there whatever has become of the file's own name. proc(5). A value.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "base/fd.h"

namespace cob::fs {

class ProcPath {
 public:
  explicit ProcPath(FdRef fd) {
    constexpr std::string_view directory = "/proc/self/fd/";
    char* const number = std::copy(directory.begin(), directory.end(), text_.begin());
    *std::to_chars(number, text_.end() - 1, fd.get()).ptr = '\0';
  }
  const char* c_str() const { return text_.data(); }

 private:
  std::array<char, 32> text_{};
};

}  // namespace cob::fs
