// What the owners of a description control beside its bytes. fstat(2), fallocate(2), fcntl(2),
// getdents64(2), fsetxattr(2), copy_file_range(2).
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <algorithm>

#include "fs/entries.h"
#include "fs/host_object.h"
#include "fs/host_object_ways.h"
#include "fs/open_flags.h"

namespace cob::fs {
namespace {

using descriptor::Position;

bool is_c_string(const std::string& name) { return name.find('\0') == std::string::npos; }

Result<u64> read_entries(int fd, Position at, std::span<std::byte> into) {
  if (at && ::lseek(fd, static_cast<off_t>(*at), SEEK_SET) < 0) return Error::from_errno("lseek");
  const long got = ::syscall(SYS_getdents64, fd, into.data(), into.size());
  if (got < 0) return Error::from_errno("getdents64");
  return u64{pack_host_entries(into.first(static_cast<std::size_t>(got)))};
}

}  // namespace

void HostObject::status(Answer<Status> done) {
  if (!waits_.for_status) return done(status_of(fd_.ref()));
  auto status = std::make_shared<Status>();
  by_worker(
      [fd = fd_.ref(), status]() -> Result<u64> {
        *status = TRY(status_of(fd));
        return u64{0};
      },
      0,
      [status, then = std::move(done)](Result<u64> result) mutable {
        result.is_error() ? then(result.error()) : then(*status);
      });
}

void HostObject::truncate(u64 bytes, Done done) {
  here_or_by_worker(
      [fd = fd_.get(), bytes] { return moved(::ftruncate(fd, static_cast<off_t>(bytes))); },
      std::move(done));
}

void HostObject::allocate(u32 mode, u64 offset, u64 bytes, Done done) {
  by_ring(
      [&](io_uring_sqe* sqe) {
        ::io_uring_prep_fallocate(sqe, fd_.get(), static_cast<int>(mode),
                                  static_cast<off_t>(offset), static_cast<off_t>(bytes));
      },
      0, std::move(done));
}

void HostObject::sync(bool data_only, Done done) {
  if (!waits_.for_storage) return done(moved(::fsync(fd_.get())));
  by_ring(
      [&](io_uring_sqe* sqe) {
        ::io_uring_prep_fsync(sqe, fd_.get(), data_only ? IORING_FSYNC_DATASYNC : 0);
      },
      0, std::move(done));
}

Result<u32> HostObject::flags() const {
  const int flags = ::fcntl(fd_.get(), F_GETFL) & (nonblocking_ ? ~O_NONBLOCK : ~0);
  if (flags < 0) return Error::from_errno("F_GETFL");
  return neutral_flags(flags);
}

Result<void> HostObject::set_flags(u32 flags) {
  constexpr u32 changeable = open_flag::append | open_flag::async | open_flag::direct |
                             open_flag::no_access_time | open_flag::nonblock;
  const int wanted = *fs::host_flags(flags & changeable);
  if (::fcntl(fd_.get(), F_SETFL, wanted) != 0) return Error::from_errno("F_SETFL");
  nonblocking_ = false;
  if (flags_ >= 0) flags_ = ::fcntl(fd_.get(), F_GETFL);
  return {};
}

void HostObject::entries(Position at, std::span<std::byte> into, Done done) {
  if (into.size() < min_entries_bytes) return done(Error::of(EINVAL, "too little room"));
  here_or_by_worker([fd = fd_.get(), at, into] { return read_entries(fd, at, into); },
                    std::move(done));
}

void HostObject::change_mode(u32 mode, Done done) {
  here_or_by_worker([fd = fd_.get(), mode] { return moved(::fchmod(fd, mode)); }, std::move(done));
}

void HostObject::change_owner(u32 uid, u32 gid, Done done) {
  here_or_by_worker([fd = fd_.get(), uid, gid] { return moved(::fchown(fd, uid, gid)); },
                    std::move(done));
}

void HostObject::get_attribute(std::string name, std::span<std::byte> into, Done done) {
  if (!is_c_string(name)) return done(Error::of(EINVAL, "a name with a NUL"));
  here_or_by_worker(
      [fd = fd_.get(), name = std::move(name), into] {
        return moved(::fgetxattr(fd, name.c_str(), into.data(), into.size()));
      },
      std::move(done));
}

void HostObject::list_attributes(std::span<std::byte> into, Done done) {
  here_or_by_worker(
      [fd = fd_.get(), into] {
        return moved(::flistxattr(fd, reinterpret_cast<char*>(into.data()), into.size()));
      },
      std::move(done));
}

void HostObject::set_attribute(std::string name, std::span<const std::byte> value, u32 flags,
                               Done done) {
  if (!is_c_string(name)) return done(Error::of(EINVAL, "a name with a NUL"));
  here_or_by_worker(
      [fd = fd_.get(), name = std::move(name), value, flags] {
        return moved(
            ::fsetxattr(fd, name.c_str(), value.data(), value.size(), static_cast<int>(flags)));
      },
      std::move(done));
}

void HostObject::remove_attribute(std::string name, Done done) {
  if (!is_c_string(name)) return done(Error::of(EINVAL, "a name with a NUL"));
  here_or_by_worker(
      [fd = fd_.get(), name = std::move(name)] { return moved(::fremovexattr(fd, name.c_str())); },
      std::move(done));
}

void HostObject::copy_range(HostObject& to, const Range& range, Done done) {
  to.settle();
  by_worker(
      [from = fd_.get(), into = to.fd_.get(), range] {
        loff_t from_at = static_cast<loff_t>(range.from.value_or(0));
        loff_t to_at = static_cast<loff_t>(range.to.value_or(0));
        return moved(::copy_file_range(from, range.from ? &from_at : nullptr, into,
                                       range.to ? &to_at : nullptr,
                                       std::min(range.bytes, max_copy_bytes), 0));
      },
      0, std::move(done));
}

u32 HostObject::ready(u32 events) { return is_stream() ? stream_events(events) : events; }

Result<u64> HostObject::when_ready(u32 events, ReadyDone done) {
  // The end of the object forgets the operation; what is left of those that ended goes here.
  std::erase_if(watches_, [&](OperationId id) { return !ring_.is_under_way(id); });
  const OperationId id =
      TRY(ring_.when_ready(fd_.ref(), events, [then = std::move(done)](i32 r) mutable {
        then(r > 0 ? static_cast<u32>(r) : 0);
      }));
  watches_.push_back(id);
  return u64{id.index} << 32 | id.generation;
}

void HostObject::cancel_ready(u64 number) {
  ring_.cancel({.index = static_cast<u32>(number >> 32), .generation = static_cast<u32>(number)});
  ring_.submit();
}

}  // namespace cob::fs
