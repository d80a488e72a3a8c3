// sendfile: a file's bytes into send chunks. sendfile(2); docs/calls.md, "Sending". Model: a read
// may wait for a disk, and who has a socket's seat keeps others waiting: so the file is read into
// chunks first, as many bytes as the socket seems to have room for; then the seat is entered for
// the post alone. What the socket did not take is read again. Any thread.

#include <poll.h>
#include <sys/sendfile.h>

#include "shim/file.h"
#include "shim/send.h"

namespace cob::shim {

using namespace call;

namespace {

struct Source {
  int fd;
  off_t position;
};

// Fills chunks from the file's position on. Bytes, 0 at the file's end, -errno; -EAGAIN: no chunk
// is free now.
ssize_t read_chunks(Socket* socket, Arena* arena, const Source& file, size_t most, Filled& filled) {
  u32 got = take_post_chunks(arena, most, filled.chunk);
  if (got == 0 && note_starved(socket, arena)) got = take_post_chunks(arena, most, filled.chunk);
  if (got == 0) return -EAGAIN;
  iovec part[chunks_in_post];
  size_t left = most;
  for (u32 i = 0; i < got; ++i) {
    part[i] = {arena->program->chunk[filled.chunk[i]], left < chunk_bytes ? left : chunk_bytes};
    left -= part[i].iov_len;
  }
  const long n = got == 1 ? raw::pread(file.fd, part[0].iov_base, part[0].iov_len, file.position)
                          : raw::call(SYS_preadv, file.fd, raw::at(part), got, file.position, 0);
  if (n > 0) {
    filled.bytes = static_cast<size_t>(n);
    filled.chunks = chunks_for(filled.bytes);
  }
  give_post_chunks(arena, filled.chunk + filled.chunks, got - filled.chunks);
  return n;
}

// How much to read ahead of the seat; 0: look with the seat first.
size_t room_ahead(Socket* socket) {
  if (acquire(socket->stage) != Stage::stream || !is_live(socket) || !begun(socket)) return 0;
  constexpr size_t most = size_t{chunks_in_post} * chunk_bytes;
  if ((acquire(socket->kernel->flags) & flag_shared) != 0) return most;
  const u32 room = send_room(socket);
  return room < most ? room : most;
}

// REQUIRES: the seat. What was read goes out, as far as there is room.
ssize_t post_read(Socket* socket, Arena* arena, const Filled& filled, ssize_t read, bool more,
                  bool first) {
  const int error = refused(socket, first);
  const u32 room = error == 0 ? room_or_ask(socket) : 0;
  if (error != 0 || room == 0 || filled.bytes == 0 || socket->arena != arena) {
    give_post_chunks(arena, filled.chunk, filled.chunks);
    if (error != 0) return -error;
    if (room == 0) return -EAGAIN;
    return filled.bytes == 0 && read != -ERESTART ? read : -ERESTART;
  }
  const size_t bytes = filled.bytes < room ? filled.bytes : room;
  if (!post_chunks(socket, filled, bytes, more || bytes < filled.bytes)) return -ECONNRESET;
  return static_cast<ssize_t>(bytes);
}

// One post's worth: bytes, 0 at the file's end, -errno.
ssize_t send_part(Socket* socket, int out, const Source& file, size_t bytes, bool first) {
  Critical critical;
  Arena* arena = acquire(socket->arena);
  Filled filled;
  size_t ahead = room_ahead(socket);
  if (ahead > bytes) ahead = bytes;
  const ssize_t read = ahead > 0 ? read_chunks(socket, arena, file, ahead, filled) : -ERESTART;
  const bool more = filled.bytes < bytes;
  switch (enter_seat(socket, out)) {
    case Turn::mine: {
      const ssize_t n = post_read(socket, arena, filled, read, more, first);
      leave_seat(socket);
      return n;
    }
    case Turn::shared:
      if (filled.bytes > 0 && socket->arena == arena) return call_chunks(socket, filled, more);
      give_post_chunks(arena, filled.chunk, filled.chunks);
      return read == -ERESTART || filled.bytes > 0 ? -ERESTART : read;
    case Turn::not_connected:
      if (filled.chunks > 0) give_post_chunks(arena, filled.chunk, filled.chunks);
      return -refused_unconnected(socket, first);
    case Turn::dead:
      return -ECONNRESET;
    case Turn::moved:
      break;
  }
  if (filled.chunks > 0) give_post_chunks(arena, filled.chunk, filled.chunks);
  return -ERESTART;
}

ssize_t send_file(Socket* socket, int out, Source& file, size_t bytes, bool first) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = send_part(socket, out, file, bytes - done, first && done == 0);
    if (n <= 0) return done > 0 ? static_cast<ssize_t>(done) : n;
    file.position += n;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

// Whether it is a pipe of the host that nobody reads: said also when there is nothing to send.
bool is_broken_pipe(int fd) {
  struct stat status{};
  if (is_cob(fd) || cob_fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode)) return false;
  pollfd look{.fd = fd, .events = POLLOUT, .revents = 0};
  timespec none{0, 0};
  return raw::ppoll(&look, 1, &none) > 0 && (look.revents & POLLERR) != 0;
}

// Of or to a file of another island: in the order in which Linux looks. 0: it may be done.
int copy_refused(int out, int in, const off_t* offset, size_t bytes) {
  const int in_flags = cob_fcntl(in, F_GETFL, nullptr);
  if (in_flags < 0 || (in_flags & O_PATH) != 0 || (in_flags & O_ACCMODE) == O_WRONLY) return EBADF;
  struct stat from{};
  if (cob_fstat(in, &from) < 0) return errno;
  if (offset != nullptr && !S_ISREG(from.st_mode) && !S_ISBLK(from.st_mode)) return ESPIPE;
  const int out_flags = cob_fcntl(out, F_GETFL, nullptr);
  if (out_flags < 0 || (out_flags & O_PATH) != 0 || (out_flags & O_ACCMODE) == O_RDONLY) {
    // Looked at before: a directory's position may be as far as SEEK_HOLE leads, its file system's.
    const off_t at = offset != nullptr ? *offset : cob_lseek(in, 0, SEEK_CUR);
    return at > 0 && bytes > static_cast<u64>(INT64_MAX - at) ? EINVAL : EBADF;
  }
  if (S_ISDIR(from.st_mode) || S_ISFIFO(from.st_mode)) return EINVAL;
  struct stat to{};
  const bool to_pipe = cob_fstat(out, &to) == 0 && S_ISFIFO(to.st_mode);
  return (out_flags & O_APPEND) != 0 && !to_pipe ? EINVAL : 0;
}

}  // namespace

ssize_t cob_sendfile(int out, int in, off_t* offset, size_t bytes) {
  if (lookup_file(in) != nullptr || lookup_file(out) != nullptr) {
    const int error = copy_refused(out, in, offset, bytes);
    if (error == 0 && is_broken_pipe(out)) {
      raise_sigpipe(0);
      return fail(EPIPE);
    }
    return error != 0 ? fail(error) : copy_file(out, nullptr, in, offset, bytes);
  }
  if (lookup_socket(in) != nullptr) return fail(EINVAL);
  if (lookup_socket(out) == nullptr) {
    return libc_result(raw::call(SYS_sendfile, out, in, raw::at(offset), static_cast<long>(bytes)));
  }
  Source file{in, offset != nullptr ? *offset : raw::call(SYS_lseek, in, 0, SEEK_CUR)};
  if (offset == nullptr && file.position < 0) {
    return fail(file.position == -ESPIPE ? EINVAL : static_cast<int>(-file.position));
  }
  constexpr size_t most = 0x7ffff000;
  const size_t total = bytes < most ? bytes : most;
  const ssize_t n = send_by({out, total, 0}, [&](Socket* socket, size_t left) {
    return send_file(socket, out, file, left, left == total);
  });
  if (n > 0 && offset != nullptr) *offset = file.position;
  if (n > 0 && offset == nullptr) raw::call(SYS_lseek, in, file.position, SEEK_SET);
  if (n == -ENOTSOCK) return fail(EBADF);
  return libc_result(n);
}

ssize_t cob_splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t bytes, unsigned) {
  if (lookup_socket(in) != nullptr || lookup_socket(out) != nullptr) return fail(EINVAL);
  return copy_file(out, out_offset, in, in_offset, bytes);
}

}  // namespace cob::shim
