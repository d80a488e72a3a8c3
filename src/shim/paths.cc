// Paths and the working directory. Model: paths.h.

#include "shim/paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim/file.h"

namespace cob::shim {

using namespace call;

u32 remote_shares;

namespace {

struct Share {
  u32 number;
  u32 bytes;
  char path[sizeof(RemoteShare::path) + 1];
};
Share shares[max_remote_shares];

// Descriptors of another island were passed to the program, or an image before: it has files where
// there are no shares. No path that is looked at has two slashes in a row.
bool any_passed;
constexpr Share below_nothing{passed_share, 9, "//passed/"};

void begin_with(u32 count);

Lock directory_lock;
char working_directory[path_room];  // absolute; guarded by directory_lock
bool is_virtual;                    // it is in a share

// The share that `text` is at or below, or null.
const Share* share_of(const char* text) {
  for (u32 i = 0; i < load(remote_shares); ++i) {
    const Share& s = shares[i];
    if (strncmp(text, s.path, s.bytes) == 0 && (text[s.bytes] == '/' || text[s.bytes] == 0))
      return &s;
  }
  return nullptr;
}

const Share* share_numbered(u32 number) {
  for (u32 i = 0; i < load(remote_shares); ++i)
    if (shares[i].number == number) return &shares[i];
  return load(remote_shares) == 1 ? &shares[0] : nullptr;
}

// Puts `rest` behind `out`, an absolute path: "." and "//" go, ".." takes a component away outside
// of shares, and in one with `climbs` as long as `rest` begins with them. False: too long.
bool append(char* out, const char* rest, bool climbs) {
  size_t end = strlen(out);
  while (end > 0 && out[end - 1] == '/') out[--end] = 0;
  bool within = !climbs && share_of(out) != nullptr;
  while (*rest != 0) {
    const size_t n = strcspn(rest, "/");
    const bool dots = n == 2 && rest[0] == '.' && rest[1] == '.';
    if (dots && !within) {
      while (end > 0 && out[end - 1] != '/') --end;
      if (end > 0) --end;
      out[end] = 0;
    } else if (n > 0 && !(n == 1 && rest[0] == '.')) {
      if (end + n + 2 >= path_room) return false;
      out[end++] = '/';
      memcpy(out + end, rest, n);
      out[end += n] = 0;
      within = within || share_of(out) != nullptr;
    } else if (n == 1 && rest[1] == 0) {  // "x/." is a directory, and not to be made or removed
      if (end + 3 > path_room) return false;
      strcpy(out + end, within ? "/." : "/");
    }
    rest += n;
    if (*rest == '/') {
      while (*rest == '/') ++rest;
      if (*rest == 0) {
        out[end] = '/';
        out[end + 1] = 0;
      }
    }
  }
  if (out[0] == 0) strcpy(out, "/");
  return true;
}

// A path behind a directory of the host can only come to a share through one of its components.
bool may_come_to_share(const char* path) {
  while (path[0] == '.' && path[1] == '/') path += 2;
  const size_t n = strcspn(path, "/");
  if (n <= 2 && path[0] == '.') return true;
  for (u32 i = 0; i < load(remote_shares); ++i) {
    for (const char* at = shares[i].path; *at == '/';) {
      ++at;
      const size_t component = strcspn(at, "/");
      if (component == n && memcmp(at, path, n) == 0) return true;
      at += component;
    }
  }
  return false;
}

bool name_of_number(int number, char* name) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", number);
  const long n = raw::call(SYS_readlinkat, AT_FDCWD, raw::at(link), raw::at(name), path_room - 1);
  if (n <= 0) return false;
  name[n] = 0;
  return name[0] == '/';
}

void read_host_directory() {
  const long n = raw::call(SYS_getcwd, raw::at(working_directory), path_room);
  if (n <= 0 || working_directory[0] != '/') strcpy(working_directory, "/");
  is_virtual = share_of(working_directory) != nullptr;
}

}  // namespace

void learn_shares(const Arena* arena) {
  u32 count = 0;
  for (const RemoteShare& from : arena->kernel->remote_share) {
    if (from.path_bytes == 0) break;
    Share& to = shares[count];
    if (from.path_bytes > sizeof from.path || from.path[0] != '/') continue;
    to.number = from.number;
    to.bytes = from.path_bytes;
    memcpy(to.path, from.path, from.path_bytes);
    to.path[to.bytes] = 0;
    ++count;
  }
  if (count == 0 && any_passed) shares[count++] = below_nothing;
  begin_with(count);
}

void note_passed_file(u32 share) {
  if (share != passed_share || any_passed) return;
  any_passed = true;
  if (load(remote_shares) != 0) return;
  shares[0] = below_nothing;
  begin_with(1);
}

namespace {

void begin_with(u32 count) {
  const bool first = load(remote_shares) == 0 && count > 0;
  store(remote_shares, count);
  if (!first) return;
  names_start();
  const Guard guard(directory_lock);
  const char* given = getenv(directory_variable);
  if (given != nullptr && strlen(given) < path_room && share_of(given) != nullptr) {
    strcpy(working_directory, given);
    is_virtual = true;
  } else {
    read_host_directory();
  }
}

}  // namespace

const char* virtual_directory() { return load(is_virtual) ? working_directory : nullptr; }

void enter_virtual_directory(const char* name) {
  const Guard guard(directory_lock);
  if (strlen(name) >= path_room) return;
  strcpy(working_directory, name);
  store(is_virtual, true);
}

void leave_virtual_directory() {
  const Guard guard(directory_lock);
  read_host_directory();
}

void Target::settle_text() {
  const Share* s = share_of(text_);
  remote = s != nullptr;
  file = nullptr;
  if (s == nullptr) return;
  share = s->number;
  path = text_ + s->bytes;
  while (*path == '/') ++path;
  if (*path == 0) path = ".";
  bytes = static_cast<u32>(strlen(path));
  if (bytes > 4'095) error = ENAMETOOLONG;
}

void Target::aim(int number, const char* name, bool empty_is_place) {
  directory = number;
  path = name;
  if (load(remote_shares) == 0) return;
  if (name == nullptr) {
    if (!empty_is_place) return;
    name = "";
  }
  if (name[0] != '/') {
    if (number != AT_FDCWD && lookup_file(number) != nullptr) {
      held_ = hold(number);
      if (held_ == nullptr || held_->kind != Kind::file) return;
      file = reinterpret_cast<Socket*>(held_);
      settle(file);
      remote = true;
      share = file->share;
      path = name;
      bytes = static_cast<u32>(strlen(name));
      if (bytes == 0 && !empty_is_place) error = ENOENT;
      if (bytes > 4'095) error = ENAMETOOLONG;
      return;
    }
    if (name[0] == 0 && !(empty_is_place && number == AT_FDCWD)) return;
    if (number == AT_FDCWD) {
      const Guard guard(directory_lock);
      strcpy(text_, working_directory);
    } else if (!may_come_to_share(name) || !name_of_number(number, text_)) {
      return;
    }
  } else {
    text_[0] = 0;
  }
  const bool fits = strlen(name) < 4'096 && append(text_, name, false);
  if (!fits) {
    remote = share_of(name[0] == '/' ? name : text_) != nullptr;
    error = ENAMETOOLONG;
    return;
  }
  settle_text();
  if (!remote) path = name;
}

bool Target::follow(const char* tail, u32 tail_bytes) {
  char rest[4'096];
  error = ELOOP;
  if (++turns_ > most_turns) return false;
  error = ENAMETOOLONG;
  if (tail_bytes >= sizeof rest) return false;
  memcpy(rest, tail, tail_bytes);
  rest[tail_bytes] = 0;
  bool climbs = false;
  text_[0] = 0;
  if (rest[0] != '/') {
    const Share* s = share_numbered(share);
    error = EXDEV;
    if (s == nullptr) return false;
    strcpy(text_, s->path);
    climbs = true;
  }
  error = ENAMETOOLONG;
  if (!append(text_, rest, climbs)) return false;
  error = 0;
  settle_text();
  if (!remote) {
    directory = AT_FDCWD;
    path = text_;
  }
  return true;
}

const char* Target::absolute_name() {
  if (!remote) return nullptr;
  if (file == nullptr) return text_;
  const char* name = name_of(file);
  if (name[0] == 0) return nullptr;
  char begin[path_room];
  strcpy(begin, name);
  strcpy(text_, begin);
  return bytes == 0 || append(text_, path, false) ? text_ : nullptr;
}

u32 share_bytes(const char* name) {
  const Share* s = share_of(name);
  return s == nullptr ? 0 : s->bytes;
}

bool leads_to_share(int number, const char* name) {
  if (load(remote_shares) == 0 || name == nullptr) return false;
  const Target target(number, name);
  return target.remote;
}

}  // namespace cob::shim
