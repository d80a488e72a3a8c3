// Images that lie on a share of another island. execve(2), memfd_create(2). Model: share_image.h.
#include "shim/share_image.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "glue.h"
#include "shim/names.h"

namespace cob::shim {

namespace {

// "#! interpreter [argument]". False: the line is none, or too long.
bool read_line(ShareImage& image, long bytes) {
  if (bytes < 3 || image.line[0] != '#' || image.line[1] != '!') return false;
  image.line[bytes] = 0;
  char* end = image.line + strcspn(image.line, "\n");
  if (*end == 0 && bytes == sizeof image.line - 1) return false;
  while (end > image.line && (end[-1] == ' ' || end[-1] == '\t')) --end;
  *end = 0;
  char* at = image.line + 2 + strspn(image.line + 2, " \t");
  if (*at == 0) return false;
  image.interpreter = at;
  at += strcspn(at, " \t");
  if (*at == 0) return true;
  *at++ = 0;
  image.argument = at + strspn(at, " \t");
  return true;
}

int copy_to_memory(int file) {
  const int memory = static_cast<int>(raw::call(SYS_memfd_create, raw::at("image"), MFD_CLOEXEC));
  if (memory < 0) return memory;
  fresh(memory);
  struct stat status{};
  int error = file_stat(file, &status) < 0 ? errno : 0;
  off_t offset = 0;
  while (error == 0 && offset < status.st_size) {
    const ssize_t n = copy_file(memory, nullptr, file, &offset, 1 << 20);
    if (n < 0) error = errno;
    if (n == 0) break;
  }
  if (error == 0) return memory;
  raw::close(memory);
  return -error;
}

}  // namespace

bool is_on_share(const char* file, bool search, char (&found)[PATH_MAX]) {
  if (load(remote_shares) == 0 || strlen(file) >= PATH_MAX) return false;
  if (!search || strchr(file, '/') != nullptr) {
    strcpy(found, file);
    return leads_to_share(AT_FDCWD, file);
  }
  const char* path = getenv("PATH");
  for (path = path == nullptr ? "/bin:/usr/bin" : path; *path != 0;) {
    const size_t n = strcspn(path, ":");
    if (n + strlen(file) + 2 < PATH_MAX) {
      memcpy(found, path, n);
      found[n] = 0;
      if (n > 0) strcat(found, "/");
      strcat(found, file);
      if (own_faccessat(AT_FDCWD, found, X_OK, AT_EACCESS) == 0)
        return leads_to_share(AT_FDCWD, found);
    }
    path += n;
    if (*path == ':') ++path;
  }
  return false;
}

int ShareImage::load(const char* path) {
  const Critical critical;
  host_gives_number();
  if (own_faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) return errno;
  const int file = own_open(path, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) return errno;
  struct stat status{};
  int error = glue_fstat(file, &status) < 0 ? errno : 0;
  if (error == 0 && !S_ISREG(status.st_mode)) error = EACCES;
  const ssize_t n = error == 0 ? glue_pread(file, line, sizeof line - 1, 0) : 0;
  if (n < 0) error = errno;
  if (error == 0 && !read_line(*this, n)) {
    const bool is_elf = n > 4 && memcmp(line, "\177ELF", 4) == 0;
    memory_ = is_elf ? copy_to_memory(file) : -ENOEXEC;
    if (memory_ < 0) error = -memory_;
  }
  glue_close(file);
  if (error == 0 && memory_ >= 0) snprintf(path_, sizeof path_, "/proc/self/fd/%d", memory_);
  return error;
}

ShareImage::~ShareImage() {
  if (memory_ >= 0) raw::close(memory_);
}

size_t ShareImage::arguments(char* const* from, const char* path, const char** to) const {
  size_t count = 0;
  to[count++] = interpreter;
  if (argument != nullptr) to[count++] = argument;
  to[count++] = path;
  for (size_t i = 1; from != nullptr && from[0] != nullptr && from[i] != nullptr; ++i)
    to[count++] = from[i];
  to[count] = nullptr;
  return count;
}

}  // namespace cob::shim
