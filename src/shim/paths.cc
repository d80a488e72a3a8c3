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
int directory_number = -1;          // where it is open then; hidden

// The share that `text` is at or below, or null.
const Share* share_of(const char* text) {
  for (u32 i = 0; i < load(remote_shares); ++i) {
    const Share& s = shares[i];
    if (strncmp(text, s.path, s.bytes) == 0 && (text[s.bytes] == '/' || text[s.bytes] == 0))
      return &s;
  }
  return nullptr;
}

bool is_share(u32 number) {
  for (u32 i = 0; i < load(remote_shares); ++i)
    if (shares[i].number == number && number != passed_share) return true;
  return false;
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

void learn_shares_anew(const Arena* arena) {
  const bool had_none = load(remote_shares) == 0;
  learn_shares(arena);
  const Guard guard(directory_lock);
  if (had_none && load(remote_shares) != 0) return;     // it was just read
  if (is_virtual && working_directory[0] == 0) return;  // one without a name stays open
  if (!is_virtual || share_of(working_directory) == nullptr) read_host_directory();
}

bool is_in_shares_of(const Arena* arena, const char* name) {
  for (const RemoteShare& share : arena->kernel->remote_share) {
    if (share.path_bytes == 0) return false;
    const size_t bytes = share.path_bytes;
    if (bytes <= sizeof share.path && strncmp(name, share.path, bytes) == 0 &&
        (name[bytes] == '/' || name[bytes] == 0))
      return true;
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

void note_passed_file(u32 share) {
  if (any_passed || is_share(share)) return;
  any_passed = true;
  if (load(remote_shares) != 0) return;
  shares[0] = below_nothing;
  begin_with(1);
}

namespace {

bool take_directory(const char* given);

void begin_with(u32 count) {
  const bool first = load(remote_shares) == 0 && count > 0;
  store(remote_shares, count);
  if (!first) return;
  const Guard guard(directory_lock);
  const char* given = getenv(directory_variable);
  if (given == nullptr || !take_directory(given)) read_host_directory();
}

// What the image before says. The number is adopted with all others.
bool take_directory(const char* given) {
  char* name = const_cast<char*>(given);
  const long number = *given == '/' ? -1 : strtol(given, &name, 10);
  if (number >= 0 && *name == ':') ++name;
  const bool is_open =
      number > 2 && number < table_entries && read_token(static_cast<int>(number)) != 0;
  const bool is_nameless = is_open && *name == 0 && shares[0].number != passed_share;
  if (strlen(name) >= path_room || (share_of(name) == nullptr && !is_nameless)) return false;
  strcpy(working_directory, name);
  is_virtual = true;
  if (!is_open) return true;
  directory_number = static_cast<int>(number);
  hide(directory_number);
  return true;
}

}  // namespace

const char* virtual_directory() { return load(is_virtual) ? working_directory : nullptr; }

namespace {

void close_directory(int number) {
  if (number < 0) return;
  Object* object = take_out(number);
  close_hidden(number);
  if (object != nullptr) drop(object);
}

}  // namespace

int enter_virtual_directory(int number, const char* name) {
  const Critical critical;
  if (strlen(name) >= path_room) return ENAMETOOLONG;
  Object* object = hold(number);
  const int copy = object == nullptr ? -EBADF : make_hidden_copy(number);
  if (copy < 0) {
    if (object != nullptr) drop(object);
    return -copy;
  }
  raw::fcntl(copy, F_SETFD, 0);  // images have it too
  install(copy, object);
  int before = -1;
  {
    const Guard guard(directory_lock);
    before = directory_number;
    strcpy(working_directory, name);
    store(directory_number, copy);
    store(is_virtual, true);
  }
  close_directory(before);
  return 0;
}

void note_virtual_directory(const char* name) {
  const Guard guard(directory_lock);
  if (is_virtual && strlen(name) < path_room) strcpy(working_directory, name);
}

void leave_virtual_directory() {
  const Critical critical;
  int before = -1;
  {
    const Guard guard(directory_lock);
    before = directory_number;
    store(directory_number, -1);
    read_host_directory();
  }
  close_directory(before);
}

Object* hold_virtual_directory() {
  Object* object = hold(load(directory_number));
  if (object == nullptr) return nullptr;
  auto* file = reinterpret_cast<Socket*>(object);
  if (object->kind == Kind::file) settle(file);
  if (object->kind == Kind::file && is_live(file)) return object;
  drop(object);
  return nullptr;
}

int open_virtual_directory() {
  if (Object* open = hold_virtual_directory()) {
    drop(open);
    return 0;
  }
  const char* here = virtual_directory();
  if (here == nullptr || here[0] == 0) return ENOENT;
  char name[path_room];
  strcpy(name, here);
  Target target(AT_FDCWD, name);
  if (!target.remote) return ENOENT;
  const int number = open_target(target, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  if (number < 0) return number == -EXDEV ? ENOENT : -number;
  const int error = enter_virtual_directory(number, name);
  cob_close(number);
  return error;
}

int virtual_directory_number() { return load(directory_number); }

void rename_virtual_directory(int from, int to) {
  if (load(directory_number) != from) return;
  if (Object* object = take_out(from)) install(to, object);
  raw::fcntl(to, F_SETFD, 0);
  store(directory_number, to);
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
    const bool is_here = number == AT_FDCWD && load(is_virtual);
    const Socket* at = number == AT_FDCWD ? nullptr : lookup_file(number);
    if (is_here || (at != nullptr && (!at->twin || (name[0] == 0 && empty_is_place)))) {
      if (is_here) error = open_virtual_directory();
      held_ = is_here ? hold_virtual_directory() : hold(number);
      if (!is_here && (held_ == nullptr || held_->kind != Kind::file)) return;
      remote = true;
      path = name;
      bytes = static_cast<u32>(strlen(name));
      if (held_ == nullptr) {  // what it is behind has gone
        if (error == 0) error = ESTALE;
        return;
      }
      file = reinterpret_cast<Socket*>(held_);
      settle(file);
      share = file->share;
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
    passage_.leave();
  }
  return true;
}

void Target::be_empty_beside(const Target& first) {
  if (held_ != nullptr) drop(held_);
  held_ = nullptr;
  file = nullptr;
  remote = true;
  share = first.share;
  path = "";
  bytes = 0;
  error = 0;
}

const char* path_of_share(u32 number) {
  const Share* s = share_numbered(number);
  return s == nullptr ? nullptr : s->path;
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
