// Open directories: entries in the order and at the positions of their home. Model: getdents64(2)
// into a buffer of the open directory, handed on as the host asks. getdents(2), fuse_lowlevel.h.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <mutex>
#include <vector>

#include "mount/server.h"

namespace cob::mount {

namespace {

struct Listing {
  explicit Listing(Fd directory) : fd(std::move(directory)) {}
  Fd fd;
  std::mutex lock;
  off_t at = 0;  // of the next entry in the buffer
  std::size_t used = 0, filled = 0;
  alignas(dirent64) std::array<char, std::size_t{16} * 1'024> buffer{};

  // The entry at `position`, or nullptr: none is left, or `error`.
  const dirent64* entry(off_t position, int& error) {
    if (position != at) {
      if (::lseek(fd.get(), position, SEEK_SET) < 0) {
        error = errno;
        return nullptr;
      }
      used = filled = 0;
      at = position;
    }
    if (used == filled) {
      const ssize_t got = ::getdents64(fd.get(), buffer.data(), buffer.size());
      if (got < 0) error = errno;
      if (got <= 0) return nullptr;
      used = 0;
      filled = static_cast<std::size_t>(got);
    }
    return reinterpret_cast<const dirent64*>(buffer.data() + used);
  }
  void pass(const dirent64& entry) {
    at = entry.d_off;
    used += entry.d_reclen;
  }
};

Listing& listing_of(const fuse_file_info* file) { return *reinterpret_cast<Listing*>(file->fh); }

// Entries from `at` on, as many as there is room for.
void list(fuse_req_t request, Listing& listing, off_t at, std::vector<char>& told,
          std::size_t& used, int& error) {
  const std::scoped_lock lock(listing.lock);
  while (const dirent64* entry = listing.entry(at, error)) {
    struct stat is{};
    is.st_ino = entry->d_ino;
    is.st_mode = static_cast<mode_t>(entry->d_type) << 12;  // DTTOIF
    const std::size_t takes = fuse_add_direntry(request, told.data() + used, told.size() - used,
                                                entry->d_name, &is, entry->d_off);
    if (takes > told.size() - used) break;
    used += takes;
    listing.pass(*entry);
    at = listing.at;
  }
}

}  // namespace

void open_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  Fd fd;
  const int error = [&] {
    const Asking sender(request);
    return tree_of(request).open(number, O_RDONLY | O_DIRECTORY, fd);
  }();
  if (error != 0) return reply_error(request, error);
  auto* const listing = new Listing(std::move(fd));  // `release_directory` deletes it
  file->fh = reinterpret_cast<u64>(listing);
  if (fuse_reply_open(request, file) != 0) delete listing;
}

void read_directory(fuse_req_t request, fuse_ino_t, std::size_t bytes, off_t at,
                    fuse_file_info* file) {
  std::vector<char> told(bytes);
  std::size_t used = 0;
  int error = 0;
  list(request, listing_of(file), at, told, used, error);
  // Whoever is answered may have closed it by now.
  if (error != 0 && used == 0) return reply_error(request, error);
  fuse_reply_buf(request, told.data(), used);
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  delete &listing_of(file);
  reply_error(request, 0);
}

void sync_directory(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* file) {
  const int fd = listing_of(file).fd.get();
  reply_error(request, error_of(data_only != 0 ? ::fdatasync(fd) : ::fsync(fd)));
}

}  // namespace cob::mount
