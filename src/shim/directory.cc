// Directories of a share: opendir(3) and its family, glob(3), realpath(3), mkstemp(3). Model: a DIR
// of ours has a mark where libc's has a number; libc's own stay libc's. A DIR is one thread's at a
// time, as POSIX lets it.
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "glue.h"
#include "shim/names.h"

namespace cob::shim {

namespace {

constexpr u64 stream_mark = 0x7269'6462'6f63'ffffull;  // libc's begins with a descriptor and a lock

struct Stream {
  u64 mark;
  int fd;
  u32 at, bytes;
  i64 position;  // behind the entry given last
  alignas(8) char buffer[32'768];
};

Stream* as_ours(DIR* stream) {
  auto* ours = reinterpret_cast<Stream*>(stream);
  return load(remote_shares) != 0 && ours != nullptr && ours->mark == stream_mark ? ours : nullptr;
}

DIR* make_stream(int fd) {
  auto* stream = static_cast<Stream*>(malloc(sizeof(Stream)));
  if (stream == nullptr) return nullptr;
  stream->mark = stream_mark;
  stream->fd = fd;
  stream->at = stream->bytes = 0;
  stream->position = 0;
  return reinterpret_cast<DIR*>(stream);
}

dirent* next_entry(Stream* stream) {
  if (stream->at == stream->bytes) {
    const int saved = errno;
    const ssize_t n = file_entries(stream->fd, stream->buffer, sizeof stream->buffer);
    stream->at = 0;
    stream->bytes = n > 0 ? static_cast<u32>(n) : 0;
    if (n == 0) errno = saved;
    if (n <= 0) return nullptr;
  }
  auto* entry = reinterpret_cast<dirent*>(stream->buffer + stream->at);
  stream->at += entry->d_reclen;
  stream->position = entry->d_off;
  return entry;
}

void move_stream(Stream* stream, i64 position) {
  file_seek(stream->fd, position, SEEK_SET);
  stream->at = stream->bytes = 0;
  stream->position = position;
}

}  // namespace

DIR* own_opendir(const char* path) {
  if (load(remote_shares) != 0) {
    Target target(AT_FDCWD, path);
    if (target.remote) {
      constexpr int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK;
      const int fd = open_target(target, flags, 0);
      if (target.remote) {
        if (fd < 0) {
          errno = -fd;
          return nullptr;
        }
        DIR* stream = make_stream(fd);
        if (stream == nullptr) cob_close(fd);
        return stream;
      }
    }
    host_gives_number();
    return real_opendir(target.path);
  }
  host_gives_number();
  return real_opendir(path);
}

DIR* own_fdopendir(int fd) {
  if (lookup_file(fd) == nullptr) return real_fdopendir(fd);
  struct stat status{};
  if (file_stat(fd, &status) < 0) return nullptr;
  if (!S_ISDIR(status.st_mode)) {
    errno = ENOTDIR;
    return nullptr;
  }
  return make_stream(fd);
}

dirent* own_readdir(DIR* stream) {
  Stream* ours = as_ours(stream);
  return ours == nullptr ? real_readdir(stream) : next_entry(ours);
}

int own_readdir_r(DIR* stream, dirent* entry, dirent** result) {
  Stream* ours = as_ours(stream);
  if (ours == nullptr) return real_readdir_r(stream, entry, result);
  const int saved = errno;
  errno = 0;
  const dirent* found = next_entry(ours);
  const int error = errno;
  errno = saved;
  *result = nullptr;
  if (found == nullptr) return error;
  memcpy(static_cast<void*>(entry), found,
         found->d_reclen < sizeof *entry ? found->d_reclen : sizeof *entry);
  *result = entry;
  return 0;
}

int own_closedir(DIR* stream) {
  Stream* ours = as_ours(stream);
  if (ours == nullptr) {
    const int fd = attached() ? real_dirfd(stream) : -1;
    const int result = real_closedir(stream);
    if (fd >= 0) number_freed(fd);
    return result;
  }
  const int fd = ours->fd;
  ours->mark = 0;
  free(ours);
  return cob_close(fd);
}

int own_dirfd(DIR* stream) {
  const Stream* ours = as_ours(stream);
  return ours == nullptr ? real_dirfd(stream) : ours->fd;
}
void own_rewinddir(DIR* stream) {
  Stream* ours = as_ours(stream);
  if (ours == nullptr) return real_rewinddir(stream);
  move_stream(ours, 0);
}
void own_seekdir(DIR* stream, long position) {
  Stream* ours = as_ours(stream);
  if (ours == nullptr) return real_seekdir(stream, position);
  move_stream(ours, position);
}
long own_telldir(DIR* stream) {
  const Stream* ours = as_ours(stream);
  return ours == nullptr ? real_telldir(stream) : ours->position;
}

int own_scandir(const char* path, dirent*** list, int (*filter)(const dirent*),
                int (*compare)(const dirent**, const dirent**)) {
  if (!leads_to_share(AT_FDCWD, path)) return real_scandir(path, list, filter, compare);
  DIR* stream = own_opendir(path);
  if (stream == nullptr) return -1;
  dirent** names = nullptr;
  size_t count = 0;
  int error = 0;
  for (;;) {
    errno = 0;
    const dirent* entry = own_readdir(stream);
    if (entry == nullptr) {
      error = errno;
      break;
    }
    if (filter != nullptr && filter(entry) == 0) continue;
    auto* copy = static_cast<dirent*>(malloc(entry->d_reclen));
    auto** more =
        static_cast<dirent**>(realloc(static_cast<void*>(names), (count + 1) * sizeof *names));
    if (more != nullptr) names = more;
    if (copy == nullptr || more == nullptr) {
      free(copy);
      error = ENOMEM;
      break;
    }
    memcpy(static_cast<void*>(copy), entry, entry->d_reclen);
    names[count++] = copy;
  }
  own_closedir(stream);
  if (error != 0) {
    for (size_t i = 0; i < count; ++i) free(names[i]);
    free(static_cast<void*>(names));
    return fail(error);
  }
  if (compare != nullptr && count > 1)
    qsort(static_cast<void*>(names), count, sizeof *names,
          reinterpret_cast<int (*)(const void*, const void*)>(compare));
  *list = names;
  return static_cast<int>(count);
}

// libc's search, which looks at each directory and name by our calls (GLOB_ALTDIRFUNC), wherever it
// leads; a caller's own functions of that kind are asked as they are.
int own_glob(const char* pattern, int flags, GlobError error, glob_t* found) {
  if (load(remote_shares) == 0 || (flags & GLOB_ALTDIRFUNC) != 0)
    return real_glob(pattern, flags, error, found);
  found->gl_opendir = [](const char* path) -> void* { return own_opendir(path); };
  found->gl_readdir = [](void* stream) { return own_readdir(static_cast<DIR*>(stream)); };
  found->gl_closedir = [](void* stream) { own_closedir(static_cast<DIR*>(stream)); };
  found->gl_stat = [](const char* __restrict path, struct stat* __restrict status) {
    return own_stat(path, status);
  };
  found->gl_lstat = [](const char* __restrict path, struct stat* __restrict status) {
    return own_lstat(path, status);
  };
  return real_glob(pattern, flags | GLOB_ALTDIRFUNC, error, found);
}

// ---- realpath

namespace {

// Takes links out of `path`, absolute, one component after the other. 0 or an errno.
int resolve(const char* path, char* out) {
  char rest[path_room];
  char link[4'096];
  char again[path_room];
  if (strlen(path) >= 4'096) return ENAMETOOLONG;
  strcpy(rest, path);
  u32 links = 0;
  size_t end = 0;
  out[0] = 0;
  const char* at = rest;
  while (*at != 0) {
    if (at == rest && end == 0 && share_bytes(rest) != 0) {  // that path is canonical
      end = share_bytes(rest);
      memcpy(out, rest, end);
      out[end] = 0;
      at += end;
      continue;
    }
    const size_t n = strcspn(at, "/");
    const char* behind = at + n;
    if (n == 2 && at[0] == '.' && at[1] == '.') {
      while (end > 0 && out[end - 1] != '/') --end;
      if (end > 0) --end;
      out[end] = 0;
    } else if (n > 0 && !(n == 1 && at[0] == '.')) {
      if (end + n + 1 >= 4'096) return ENAMETOOLONG;
      const size_t before = end;
      out[end++] = '/';
      memcpy(out + end, at, n);
      out[end += n] = 0;
      const ssize_t length = own_readlinkat(AT_FDCWD, out, link, sizeof link - 1);
      if (length >= 0) {
        if (++links > most_turns) return ELOOP;
        link[length] = 0;
        if (strlen(link) + strlen(behind) + 1 >= path_room) return ENAMETOOLONG;
        strcpy(again, link);
        strcat(again, behind);
        strcpy(rest, again);
        out[end = link[0] == '/' ? 0 : before] = 0;
        at = rest;
        continue;
      }
      if (errno != EINVAL) return errno;
      if (*behind == '/') {
        struct stat status{};
        if (shared_fstatat(AT_FDCWD, out, &status, 0) < 0) return errno;
        if (!S_ISDIR(status.st_mode)) return ENOTDIR;
      }
    }
    at = behind;
    while (*at == '/') ++at;
  }
  if (end == 0) strcpy(out, "/");
  return 0;
}

}  // namespace

char* own_realpath(const char* path, char* resolved) {
  const Target target(AT_FDCWD, path);
  if (!target.remote) return real_realpath(path, resolved);
  char whole[path_room] = "";
  char found[path_room];
  int error = target.error;
  const bool behind = path[0] != '/';
  if (error == 0 && behind && own_getcwd(whole, sizeof whole) == nullptr) error = errno;
  if (error == 0 && strlen(whole) + strlen(path) + 2 > sizeof whole) error = ENAMETOOLONG;
  if (error == 0) {
    if (behind) strcat(whole, "/");
    strcat(whole, path);
    error = resolve(whole, found);
  }
  if (error != 0) {
    errno = error;
    return nullptr;
  }
  if (resolved == nullptr) return strdup(found);
  return strcpy(resolved, found);
}
char* own___realpath_chk(const char* path, char* resolved, size_t room) {
  if (resolved != nullptr && room < PATH_MAX) __chk_fail();
  return own_realpath(path, resolved);
}
char* own_canonicalize_file_name(const char* path) { return own_realpath(path, nullptr); }

// ---- mkstemp(3)

namespace {

// Six letters in place of the X before the suffix. False: there are not six.
bool fill_template(char* path, int suffix) {
  const size_t length = strlen(path);
  if (suffix < 0 || length < 6 + static_cast<size_t>(suffix)) return false;
  char* place = path + length - 6 - static_cast<size_t>(suffix);
  for (int i = 0; i < 6; ++i)
    if (place[i] != 'X') return false;
  constexpr char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  u64 random = 0;
  raw::call(SYS_getrandom, raw::at(&random), sizeof random, 0);
  for (int i = 0; i < 6; ++i, random /= 62) place[i] = letters[random % 62];
  return true;
}

template <typename Make>
int make_unique(char* path, int suffix, Make make) {
  const size_t length = strlen(path);
  char original[4'096];
  if (length >= sizeof original) return fail(ENAMETOOLONG);
  strcpy(original, path);
  for (int turn = 0; turn < 100; ++turn) {
    strcpy(path, original);
    if (!fill_template(path, suffix)) return fail(EINVAL);
    const int result = make();
    if (result >= 0 || errno != EEXIST) return result;
  }
  return -1;
}

int make_file(char* path, int suffix, int flags) {
  return make_unique(path, suffix, [&] {
    return open_at(AT_FDCWD, path, (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL, 0600);
  });
}

}  // namespace

int own_mkstemp(char* path) {
  if (leads_to_share(AT_FDCWD, path)) return make_file(path, 0, 0);
  host_gives_number();
  return fresh(real_mkstemp(path));
}
int own_mkostemp(char* path, int flags) {
  if (leads_to_share(AT_FDCWD, path)) return make_file(path, 0, flags);
  host_gives_number();
  return fresh(real_mkostemp(path, flags));
}
int own_mkstemps(char* path, int suffix) {
  if (leads_to_share(AT_FDCWD, path)) return make_file(path, suffix, 0);
  host_gives_number();
  return fresh(real_mkstemps(path, suffix));
}
int own_mkostemps(char* path, int suffix, int flags) {
  if (leads_to_share(AT_FDCWD, path)) return make_file(path, suffix, flags);
  host_gives_number();
  return fresh(real_mkostemps(path, suffix, flags));
}
char* own_mkdtemp(char* path) {
  if (!leads_to_share(AT_FDCWD, path)) return real_mkdtemp(path);
  return make_unique(path, 0, [&] { return own_mkdirat(AT_FDCWD, path, 0700); }) < 0 ? nullptr
                                                                                     : path;
}

}  // namespace cob::shim
