// The working directory: chdir(2), fchdir(2), getcwd(3). Model: one in a share is open at its home
// (paths.h), so it stays the same directory, whatever becomes of its name; the host's own stays
// where it was meanwhile. Any thread.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "glue.h"
#include "shim/names.h"

namespace cob::shim {

namespace {

// The absolute name of what is open at the target, a directory, now. 0 or an errno.
int name_of(Target& target, char (&name)[path_room]) {
  char behind[path_room] = "";
  Ask asked;
  asked.call = NameCall::name;
  asked.told = behind;
  asked.told_room = sizeof behind - 1;
  const long bytes = ask(target, asked);
  if (bytes < 0) return static_cast<int>(-bytes);
  behind[bytes] = 0;
  const char* share = path_of_share(target.share);
  if (share == nullptr) return ENOENT;
  if (strlen(share) + static_cast<size_t>(bytes) + 2 > sizeof name) return ENAMETOOLONG;
  strcpy(name, share);
  if (bytes > 0) strcat(strcat(name, "/"), behind);
  return 0;
}

// What is open at the number becomes the working directory. libc's result.
int enter(int number) {
  Target target(number);
  if (!target.remote) return fail(EBADF);
  if (target.share == passed_share) return fail(EOPNOTSUPP);  // nothing behind it can be reached
  Ask asked;
  asked.call = NameCall::access;
  asked.mode = X_OK;
  const long allowed = ask(target, asked);
  if (allowed < 0) return fail(static_cast<int>(-allowed));
  char name[path_room];
  int error = name_of(target, name);
  if (error == ENOENT) {  // it is removed
    name[0] = 0;
    error = 0;
  }
  if (error == 0) error = enter_virtual_directory(number, name);
  return error == 0 ? 0 : fail(error);
}

int enter_host(int result) {
  if (result == 0 && load(remote_shares) != 0) leave_virtual_directory();
  return result;
}

}  // namespace

int own_chdir(const char* path) {
  if (load(remote_shares) == 0) return real_chdir(path);
  Target target(AT_FDCWD, path);
  if (!target.remote) return enter_host(real_chdir(path));
  const int number = open_target(target, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  if (!target.remote) return enter_host(real_chdir(target.path));
  if (number < 0) return fail(-number);
  const int result = enter(number), saved = errno;
  cob_close(number);
  errno = saved;
  return result;
}

int own_fchdir(int fd) {
  if (is_hidden(fd)) return fail(EBADF);
  if (lookup_file(fd) == nullptr) return enter_host(real_fchdir(fd));
  struct stat status{};
  if (cob_fstat(fd, &status) < 0) return -1;
  return S_ISDIR(status.st_mode) ? enter(fd) : fail(ENOTDIR);
}

char* own_getcwd(char* buffer, size_t room) {
  if (virtual_directory() == nullptr) return real_getcwd(buffer, room);
  if (buffer != nullptr && room == 0) {
    errno = EINVAL;
    return nullptr;
  }
  char here[path_room];
  Target target(AT_FDCWD, nullptr, true);
  const int error = target.error != 0 ? target.error : name_of(target, here);
  if (error != 0) {
    errno = error;
    return nullptr;
  }
  note_virtual_directory(here);
  const size_t needed = strlen(here) + 1;
  if (buffer == nullptr) {
    if (room != 0 && room < needed) {
      errno = ERANGE;
      return nullptr;
    }
    buffer = static_cast<char*>(malloc(room > needed ? room : needed));
    if (buffer == nullptr) return nullptr;
  } else if (room < needed) {
    errno = ERANGE;
    return nullptr;
  }
  return strcpy(buffer, here);
}
char* own_get_current_dir_name() {
  return virtual_directory() == nullptr ? real_get_current_dir_name() : own_getcwd(nullptr, 0);
}
char* own_getwd(char* buffer) {
  return virtual_directory() == nullptr ? real_getcwd(buffer, PATH_MAX)
                                        : own_getcwd(buffer, PATH_MAX);
}

}  // namespace cob::shim
