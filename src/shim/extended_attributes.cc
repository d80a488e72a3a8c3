// Extended attributes: getxattr(2) to removexattr(2), by path and of open files. Model:
// names_ways.h. Any thread.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "glue.h"
#include "shim/names.h"
#include "shim/names_ways.h"

namespace cob::shim {

namespace {

constexpr size_t most_value = size_t{64} * 1024;

template <typename Host>
ssize_t get_attribute(Target& target, NameCall call, const char* name, void* value, size_t room,
                      int flags, Host host) {
  if (!target.remote) return host();
  Ask asked;
  asked.call = call;
  asked.flags = static_cast<u32>(flags);
  asked.value = name;
  asked.value_bytes = name == nullptr ? 0 : static_cast<u32>(strlen(name));
  asked.number = room < most_value ? room : most_value;
  asked.told = value;
  asked.told_room = static_cast<u32>(asked.number);
  const long result = ask(target, asked);
  if (!target.remote) return host();
  return libc_result(result);
}

template <typename Host>
int set_attribute(Target& target, const char* name, const void* value, size_t bytes, int own,
                  int flags, Host host) {
  if (target.remote && bytes > most_value) return fail(E2BIG);
  Ask asked;
  asked.call = NameCall::set_attribute;
  asked.flags = static_cast<u32>(own) | static_cast<u32>(flags);
  asked.second_text = name;
  asked.value = value;
  asked.value_bytes = static_cast<u32>(bytes);
  return on_name(target, asked, host);
}

template <typename Host>
int remove_attribute(Target& target, const char* name, int flags, Host host) {
  Ask asked;
  asked.call = NameCall::remove_attribute;
  asked.flags = static_cast<u32>(flags);
  asked.value = name;
  asked.value_bytes = static_cast<u32>(strlen(name));
  return on_name(target, asked, host);
}

}  // namespace

ssize_t own_getxattr(const char* path, const char* name, void* value, size_t room) {
  Target target(AT_FDCWD, path);
  return get_attribute(target, NameCall::get_attribute, name, value, room, 0,
                       [&] { return real_getxattr(target.path, name, value, room); });
}
ssize_t own_lgetxattr(const char* path, const char* name, void* value, size_t room) {
  Target target(AT_FDCWD, path);
  return get_attribute(target, NameCall::get_attribute, name, value, room, no_follow,
                       [&] { return real_lgetxattr(target.path, name, value, room); });
}
ssize_t cob_fgetxattr(int fd, const char* name, void* value, size_t room) {
  if (lookup_file(fd) == nullptr) return real_fgetxattr(fd, name, value, room);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return get_attribute(target, NameCall::get_attribute, name, value, room, 0, lost);
}
ssize_t own_listxattr(const char* path, char* list, size_t room) {
  Target target(AT_FDCWD, path);
  return get_attribute(target, NameCall::list_attributes, nullptr, list, room, 0,
                       [&] { return real_listxattr(target.path, list, room); });
}
ssize_t own_llistxattr(const char* path, char* list, size_t room) {
  Target target(AT_FDCWD, path);
  return get_attribute(target, NameCall::list_attributes, nullptr, list, room, no_follow,
                       [&] { return real_llistxattr(target.path, list, room); });
}
ssize_t cob_flistxattr(int fd, char* list, size_t room) {
  if (lookup_file(fd) == nullptr) return real_flistxattr(fd, list, room);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return get_attribute(target, NameCall::list_attributes, nullptr, list, room, 0, lost);
}
int own_setxattr(const char* path, const char* name, const void* value, size_t bytes, int flags) {
  Target target(AT_FDCWD, path);
  return set_attribute(target, name, value, bytes, flags, 0,
                       [&] { return real_setxattr(target.path, name, value, bytes, flags); });
}
int own_lsetxattr(const char* path, const char* name, const void* value, size_t bytes, int flags) {
  Target target(AT_FDCWD, path);
  return set_attribute(target, name, value, bytes, flags, no_follow,
                       [&] { return real_lsetxattr(target.path, name, value, bytes, flags); });
}
int cob_fsetxattr(int fd, const char* name, const void* value, size_t bytes, int flags) {
  if (lookup_file(fd) == nullptr) return real_fsetxattr(fd, name, value, bytes, flags);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return set_attribute(target, name, value, bytes, flags, 0, lost);
}
int own_removexattr(const char* path, const char* name) {
  Target target(AT_FDCWD, path);
  return remove_attribute(target, name, 0, [&] { return real_removexattr(target.path, name); });
}
int own_lremovexattr(const char* path, const char* name) {
  Target target(AT_FDCWD, path);
  return remove_attribute(target, name, no_follow,
                          [&] { return real_lremovexattr(target.path, name); });
}
int cob_fremovexattr(int fd, const char* name) {
  if (lookup_file(fd) == nullptr) return real_fremovexattr(fd, name);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return remove_attribute(target, name, 0, lost);
}

}  // namespace cob::shim
