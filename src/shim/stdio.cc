// Streams over cob sockets. Model: stdio.h; fopencookie(3) and glibc's struct _IO_FILE
// (bits/types/struct_FILE.h).
#include "shim/stdio.h"

#include <errno.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#include "glue.h"
#include "shim/placeholder.h"
#include "shim/process.h"
#include "shim/raw.h"

namespace cob::shim {

u32 standard_cob;

namespace {

struct Cookie {
  int fd;
  u32 left;  // bytes that the standard stream had read ahead before it was replaced
  u32 left_at;
  char* left_data;
};

ssize_t read_cookie(void* context, char* data, size_t bytes) {
  auto* cookie = static_cast<Cookie*>(context);
  if (cookie->left > 0) {
    const size_t count = bytes < cookie->left ? bytes : cookie->left;
    memcpy(data, cookie->left_data + cookie->left_at, count);
    cookie->left_at += static_cast<u32>(count);
    cookie->left -= static_cast<u32>(count);
    return static_cast<ssize_t>(count);
  }
  return glue_read(cookie->fd, data, bytes);
}

ssize_t write_cookie(void* context, const char* data, size_t bytes) {
  const auto* cookie = static_cast<Cookie*>(context);
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = glue_write(cookie->fd, data + done, bytes - done);
    if (count < 0)
      return done > 0 ? static_cast<ssize_t>(done) : 0;  // fopencookie(3): 0 is the error
    done += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(done);
}

int seek_cookie(void* context, off64_t* position, int whence) {
  auto* cookie = static_cast<Cookie*>(context);
  if (cookie->left > 0 && whence == SEEK_CUR) *position -= cookie->left;
  const off_t at = glue_lseek(cookie->fd, *position, whence);
  if (at < 0) return -1;
  cookie->left = 0;
  *position = at;
  return 0;
}

int close_cookie(void* context) {
  auto* cookie = static_cast<Cookie*>(context);
  const int fd = cookie->fd;
  free(cookie->left_data);
  free(cookie);
  return glue_close(fd);
}

constexpr cookie_io_functions_t functions{read_cookie, write_cookie, seek_cookie, close_cookie};

// What libc lays behind a cookie stream's FILE; the function pointers are mangled, the same way all
// through a process.
struct CookieStream {
  FILE file;
  const void* jumps;
  void* cookie;
  void* mangled[4];
};
const void* known_jumps;
void* known_read;

const CookieStream* as_ours(const FILE* stream) {
  if (known_jumps == nullptr) return nullptr;
  const auto* ours = reinterpret_cast<const CookieStream*>(stream);
  return ours->jumps == known_jumps && ours->mangled[0] == known_read ? ours : nullptr;
}

FILE* open_cookie(int fd, const char* mode) {
  auto* cookie = static_cast<Cookie*>(calloc(1, sizeof(Cookie)));
  if (cookie == nullptr) return nullptr;
  cookie->fd = fd;
  FILE* stream = fopencookie(cookie, mode, functions);
  if (stream == nullptr) {
    free(cookie);
    return nullptr;
  }
  const auto* ours = reinterpret_cast<const CookieStream*>(stream);
  known_jumps = ours->jumps;
  known_read = ours->mangled[0];
  return stream;
}

bool is_legal_mode(const char* mode) { return mode[0] == 'r' || mode[0] == 'w' || mode[0] == 'a'; }

// fopen(3)'s mode as open(2)'s flags; -1: none.
int open_flags_of(const char* mode) {
  const bool both = strchr(mode, '+') != nullptr;
  int flags = both ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
  if (mode[0] == 'w') flags |= O_CREAT | O_TRUNC;
  if (mode[0] == 'a') flags |= O_CREAT | O_APPEND;
  if (strchr(mode, 'x') != nullptr) flags |= O_EXCL;
  if (strchr(mode, 'e') != nullptr) flags |= O_CLOEXEC;
  return is_legal_mode(mode) ? flags : -1;
}

// ---- stdin, stdout, stderr

FILE* original[3];
FILE** variable(int fd) { return fd == 0 ? &stdin : fd == 1 ? &stdout : &stderr; }

// Unwritten output goes over to the stream that now stands for the number.
void move_output(FILE* from, FILE* to) {
  const size_t bytes = __fpending(from);
  if (bytes > 0) fwrite(from->_IO_write_base, 1, bytes, to);
  __fpurge(from);
}

void replace_standard(int fd) {
  FILE* stream = open_cookie(fd, fd == 0 ? "r" : "w");
  if (stream == nullptr) return;
  FILE** place = variable(fd);
  original[fd] = *place;
  if (fd == 2) setvbuf(stream, nullptr, _IONBF, 0);
  if (fd == 0) {
    FILE* old = *place;
    const auto ahead = static_cast<size_t>(old->_IO_read_end - old->_IO_read_ptr);
    auto* cookie = static_cast<Cookie*>(as_ours(stream)->cookie);
    if (ahead > 0 && (cookie->left_data = static_cast<char*>(malloc(ahead))) != nullptr) {
      memcpy(cookie->left_data, old->_IO_read_ptr, ahead);
      cookie->left = static_cast<u32>(ahead);
    }
    __fpurge(old);
  } else {
    move_output(*place, stream);
  }
  *place = stream;
}

void restore_standard(int fd) {
  FILE** place = variable(fd);
  FILE* ours = *place;
  if (original[fd] == nullptr) return;
  if (as_ours(ours) != nullptr) {
    if (fd != 0) move_output(ours, original[fd]);
    clearerr(original[fd]);
    *place = original[fd];
    // The replaced stream stays allocated: the program may have kept the pointer; it reads and
    // writes the number still.
  }
  original[fd] = nullptr;
}

int print(int fd, const char* format, va_list arguments) {
  char buffer[1'024];
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(buffer, sizeof buffer, format, arguments);
  char* text = buffer;
  if (length >= static_cast<int>(sizeof buffer)) {
    text = static_cast<char*>(malloc(static_cast<size_t>(length) + 1));
    if (text != nullptr) vsnprintf(text, static_cast<size_t>(length) + 1, format, again);
  }
  va_end(again);
  if (length < 0 || text == nullptr) return -1;
  int done = 0;
  while (done < length) {
    const ssize_t count = glue_write(fd, text + done, static_cast<size_t>(length - done));
    if (count < 0) break;
    done += static_cast<int>(count);
  }
  if (text != buffer) free(text);
  return done == length ? length : -1;
}

// The file takes the number of stdin, stdout or stderr, whose variable follows it. Another stream
// is libc's, and goes past every interposed name.
FILE* reopen_on_share(const char* path, const char* mode, FILE* stream, int fd) {
  const int flags = open_flags_of(mode);
  if (flags < 0 || fd < 0 || fd > 2 || stream != *variable(fd)) {
    errno = flags < 0 ? EINVAL : EOPNOTSUPP;
    return nullptr;
  }
  fflush(stream);
  const int file = glue_open(path, flags, 0666);
  if (file < 0) return nullptr;
  glue_dup2(file, fd);
  if (file != fd) glue_close(file);
  follow_standard_streams();
  return *variable(fd);
}

FILE* reopen(decltype(&::freopen) real, const char* path, const char* mode, FILE* stream) {
  if (!attached()) return real(path, mode, stream);
  const int fd = own_fileno(stream);
  if (leads_to_share(AT_FDCWD, path)) return reopen_on_share(path, mode, stream, fd);
  if (as_ours(stream) != nullptr && fd >= 0 && fd <= 2 && original[fd] != nullptr &&
      *variable(fd) == stream) {
    fflush(stream);
    standard_cob &= ~(1U << fd);
    FILE* mine = original[fd];
    restore_standard(fd);
    stream = mine;
  }
  const bool replaces_ours =
      as_ours(stream) != nullptr;  // libc does not close a cookie it reopens over
  if (fd >= 0 && is_cob(fd) && !replaces_ours) forget(fd);
  FILE* result = real(path, mode, stream);
  if (result != nullptr && replaces_ours) glue_close(fd);
  if (result != nullptr) fresh(own_fileno(result));
  follow_standard_streams();
  return result;
}

}  // namespace

void follow_standard_streams_slow(u32 now) {
  const int saved = errno;
  const u32 changed = now ^ standard_cob;
  standard_cob = now;
  for (int fd = 0; fd <= 2; ++fd) {
    if ((changed >> fd & 1) == 0) continue;
    if ((now >> fd & 1) != 0) {
      replace_standard(fd);
    } else {
      restore_standard(fd);
    }
  }
  errno = saved;
}

FILE* own_fopen(const char* path, const char* mode) {
  if (!leads_to_share(AT_FDCWD, path)) {
    host_gives_number();
    return real_fopen(path, mode);
  }
  const int flags = open_flags_of(mode);
  if (flags < 0) {
    errno = EINVAL;
    return nullptr;
  }
  const int fd = glue_open(path, flags, 0666);
  if (fd < 0) return nullptr;
  FILE* stream = own_fdopen(fd, mode);
  if (stream == nullptr) glue_close(fd);
  return stream;
}

FILE* own_fdopen(int fd, const char* mode) {
  if (!is_cob(fd)) {
    if (is_hidden(fd)) {
      errno = EBADF;
      return nullptr;
    }
    return real_fdopen(fd, mode);
  }
  if (!is_legal_mode(mode)) {
    errno = EINVAL;
    return nullptr;
  }
  if (strchr(mode, 'e') != nullptr) glue_fcntl(fd, F_SETFD, reinterpret_cast<void*>(FD_CLOEXEC));
  return open_cookie(fd, mode);
}

int own_fclose(FILE* stream) {
  if (!attached()) return real_fclose(stream);
  bool was_piped = false;
  const int status = close_piped(stream, was_piped);
  if (was_piped) return status;
  int freed = -1;
  if (as_ours(stream) == nullptr) {
    const int fd = own_fileno(stream);
    freed = fd;
    if (fd >= 0 && is_cob(fd)) {
      fflush(stream);
      forget(fd);
    }
  }
  for (int fd = 0; fd <= 2; ++fd) {
    if (*variable(fd) == stream) original[fd] = nullptr;  // the program closes the stream for good
  }
  const int result = real_fclose(stream);
  if (freed >= 0) number_freed(freed);
  follow_standard_streams();
  return result;
}

FILE* own_freopen(const char* path, const char* mode, FILE* stream) {
  return reopen(real_freopen, path, mode, stream);
}
FILE* own_freopen64(const char* path, const char* mode, FILE* stream) {
  return reopen(real_freopen64, path, mode, stream);
}

int own_fileno(FILE* stream) {
  if (const CookieStream* ours = as_ours(stream); ours != nullptr)
    return static_cast<Cookie*>(ours->cookie)->fd;
  const int saved = errno;
  const int fd = real_fileno(stream);
  if (fd >= 0) errno = saved;
  return fd;
}

int own_vdprintf(int fd, const char* format, va_list arguments) {
  if (is_hidden(fd)) return hidden_number();
  if (!is_cob(fd)) return real_vdprintf(fd, format, arguments);
  return print(fd, format, arguments);
}

int own___vdprintf_chk(int fd, int level, const char* format, va_list arguments) {
  if (is_hidden(fd)) return hidden_number();
  if (!is_cob(fd)) return real___vdprintf_chk(fd, level, format, arguments);
  return print(fd, format, arguments);
}

}  // namespace cob::shim
