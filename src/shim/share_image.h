// Images that lie on a share of another island: what the host is given to execute instead. Model: a
// script is its interpreter with the script's path, which the interpreter opens as any file; an ELF
// image is copied into memory, and the host executes that. The calling thread.
#pragma once

#include <limits.h>

#include "shim/contract.h"

namespace cob::shim {

class ShareImage {
 public:
  ShareImage() = default;
  ~ShareImage();
  ShareImage(const ShareImage&) = delete;
  ShareImage& operator=(const ShareImage&) = delete;

  int load(const char* path);  // 0 or an errno
  bool is_script() const { return interpreter != nullptr; }
  const char* path() const { return path_; }  // of an ELF image's copy

  // Of a script: the interpreter's arguments, at most three more than those in `from`.
  size_t arguments(char* const* from, const char* path, const char** to) const;

  const char* interpreter = nullptr;
  const char* argument = nullptr;
  char line[256] = {};

 private:
  int memory_ = -1;
  char path_[32] = {};
};

// The path of an image that lies on a share, which `search` looks for in PATH; false: the host's.
bool is_on_share(const char* file, bool search, char (&found)[PATH_MAX]);

inline constexpr int most_interpreters = 4;  // a script's interpreter that is a script, and so on

inline size_t count_of(char* const* list) {
  size_t count = 0;
  while (list != nullptr && list[count] != nullptr) ++count;
  return count;
}

}  // namespace cob::shim
