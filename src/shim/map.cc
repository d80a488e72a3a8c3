// mmap(2) of files of another island: the bytes of that moment, as memory; what would write through
// is refused. Model: names_ways.h. Any thread.
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "glue.h"
#include "shim/names.h"

namespace cob::shim {

namespace {

// In the order in which Linux looks. 0: it may be had.
int map_refused(size_t bytes, int protection, int flags, int fd, off_t offset) {
  constexpr off_t page = 4'096;
  if (offset % page != 0) return EINVAL;
  const int status_flags = cob_fcntl(fd, F_GETFL, nullptr);
  if (status_flags < 0 || (status_flags & O_PATH) != 0) return EBADF;
  if (bytes == 0) return EINVAL;
  const int access = status_flags & O_ACCMODE;
  const bool writes_through = (flags & MAP_TYPE) != MAP_PRIVATE && (protection & PROT_WRITE) != 0;
  if (access == O_WRONLY || (writes_through && access == O_RDONLY)) return EACCES;
  struct stat status{};
  if (cob_fstat(fd, &status) < 0) return errno;
  return S_ISREG(status.st_mode) && !writes_through ? 0 : ENODEV;
}

}  // namespace

void* own_mmap(void* place, size_t bytes, int protection, int flags, int fd, off_t offset) {
  const Socket* file = (flags & MAP_ANONYMOUS) != 0 ? nullptr : lookup_file(fd);
  if (file == nullptr || file->twin) return real_mmap(place, bytes, protection, flags, fd, offset);
  const int error = map_refused(bytes, protection, flags, fd, offset);
  if (error != 0) {
    errno = error;
    return MAP_FAILED;
  }
  const int kind = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) | MAP_PRIVATE | MAP_ANONYMOUS;
  void* memory = real_mmap(place, bytes, PROT_READ | PROT_WRITE, kind, -1, 0);
  if (memory == MAP_FAILED) return memory;
  size_t done = 0;
  while (done < bytes) {
    const iovec part{static_cast<char*>(memory) + done, bytes - done};
    const ssize_t n = file_read(fd, &part, 1, offset + static_cast<off_t>(done));
    if (n < 0) {
      const int saved = errno;
      raw::call(SYS_munmap, raw::at(memory), static_cast<long>(bytes));
      errno = saved;
      return MAP_FAILED;
    }
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  if (protection != (PROT_READ | PROT_WRITE))
    raw::call(SYS_mprotect, raw::at(memory), static_cast<long>(bytes), protection);
  return memory;
}

}  // namespace cob::shim
