// What is done with an open file of another island. Model: file.h. A regular file's long read or
// write is as many calls as it takes, and ends with the first that is not full; what waits for an
// event (EAGAIN from the home) is asked again until a signal comes, unless O_NONBLOCK.
#include "shim/file.h"

#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "call/file_write.h"
#include "shim/file_cache.h"
#include "shim/locks.h"
#include "shim/send.h"
#include "shim/stream.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 max_file_write = max_listed_file_chunks * chunk_bytes;
constexpr size_t copy_buffer_bytes = 16'384;

void put_position(Call& c, off_t position) {
  c.flags = position >= 0 ? 1 : 0;
  c.a[1] = position >= 0 ? static_cast<u64>(position) : 0;
}

// Copies what a reply lists, and gives the chunks back; false if it lists what cannot be. The list
// lies in memory that only the kernel writes.
bool take_listed(Arena* arena, const Reply& reply, u32 bytes, Pieces& into) {
  const auto list = static_cast<u32>(reply.value[0]);
  if (list >= receive_chunks) return false;
  const u32 chunks = (bytes + receive_chunk_payload - 1) / receive_chunk_payload;
  u32 chunk[max_listed_read_chunks];
  memcpy(chunk, arena->kernel->chunk[list] + sizeof(ChunkHeader), chunks * sizeof *chunk);
  for (u32 i = 0; i < chunks; ++i) {
    if (chunk[i] >= receive_chunks) return false;
    const u32 n = bytes < receive_chunk_payload ? bytes : receive_chunk_payload;
    into.copy_in(arena->kernel->chunk[chunk[i]] + sizeof(ChunkHeader), n);
    bytes -= n;
  }
  constexpr u32 most = 10;  // a post
  Call give{.op = Op::free_receive};
  for (u32 left = chunks + 1; left > 0; --left) {  // the last one first, and then the list
    const u64 one = left > 1 ? chunk[left - 2] : list;
    give.a[1 + give.a[0] / 2] |= one << (give.a[0] % 2 * 32);
    if (++give.a[0] < most && left > 1) continue;
    post(arena, give);
    give = Call{.op = Op::free_receive};
  }
  return true;
}

// `asked`: what of `bytes` this call could do.
long read_once(int number, size_t bytes, off_t position, Pieces& into, size_t& asked) {
  const HeldFile held(number);
  if (!held.is_file()) return -EBADF;
  size_t before = 0;
  if (position >= 0 && is_live(held.get())) {
    const CachedRead cached = cached_read(held.get(), bytes, position, into);
    if (cached.all) return static_cast<long>(cached.bytes);
    before = cached.bytes;
    position += static_cast<off_t>(before);
    bytes -= before;
  }
  Call c{.op = Op::file_read};
  c.a[0] = bytes < max_listed_file_read ? bytes : max_listed_file_read;
  asked = before + c.a[0];
  put_position(c, position);
  c.flags |= file_read_listed;
  const Reply reply = file_call(held.get(), c);
  if (reply.result <= 0 && before > 0) return static_cast<long>(before);
  if (reply.result <= 0) return reply.result;
  const auto got = static_cast<u32>(reply.result);
  if (got > c.a[0]) return -EPROTO;
  const bool taken = got > max_file_read ? take_listed(held.get()->arena, reply, got, into)
                                         : take_loan(held.get()->arena, reply, got, &into);
  return taken ? static_cast<long>(before + got) : -EPROTO;
}

// Chunks for so many bytes, or fewer if there are fewer; 0: the kernel has ended.
u32 take_some(Arena* arena, u32* chunk, u32 wanted) {
  u32 got = take_chunks(arena, chunk, wanted);
  Patience patience;
  while (got == 0) {
    if (note_no_chunks(arena)) got = take_chunks(arena, chunk, wanted);
    if (got == 0 && !patience.nap(arena)) return 0;
  }
  return got;
}

// What does not fit into the slot is listed in a chunk of its own.
void name_chunks(Arena* arena, Call& c, u32* chunk, u32& count) {
  if (count > chunks_in_file_write) {
    u32 list = 0;
    if (take_chunks(arena, &list, 1) == 1) {
      memcpy(arena->program->chunk[list], chunk, count * sizeof *chunk);
      c.flags |= file_write_listed;
      c.a[2] = list;
      return;
    }
    return_chunks(arena, chunk + chunks_in_file_write, count - chunks_in_file_write);
    count = chunks_in_file_write;
  }
  for (u32 i = 0; i < count; ++i) c.a[2 + i / 2] |= u64{chunk[i]} << (i % 2 * 32);
}

long write_once(int number, size_t bytes, off_t position, Pieces& from, size_t& asked) {
  const HeldFile held(number);
  if (!held.is_file()) return -EBADF;
  Socket* file = held.get();
  if (!is_live(file)) return -ESTALE;
  Arena* arena = file->arena;
  Call c{.op = Op::file_write};
  put_position(c, position);
  if (bytes > max_file_write) bytes = max_file_write;
  const auto wanted = static_cast<u32>((bytes + chunk_bytes - 1) / chunk_bytes);
  u32 chunk[max_listed_file_chunks];
  u32 got = wanted > 0 ? take_some(arena, chunk, wanted) : 0;
  if (got == 0 && wanted > 0) return -ESTALE;
  name_chunks(arena, c, chunk, got);
  if (bytes > size_t{got} * chunk_bytes) bytes = size_t{got} * chunk_bytes;
  Pieces look = from;
  for (u32 i = 0; i < got; ++i) {
    const size_t left = bytes - size_t{i} * chunk_bytes;
    look.copy_out(arena->program->chunk[chunk[i]], left < chunk_bytes ? left : chunk_bytes);
  }
  c.a[0] = asked = bytes;
  const Reply reply = file_call(file, c);
  if (reply.result > 0) from.skip(static_cast<size_t>(reply.result));
  return static_cast<size_t>(reply.result) > bytes && reply.result > 0 ? -EPROTO : reply.result;
}

bool is_nonblocking_file(int number) {
  const Socket* file = lookup_file(number);
  return file == nullptr || (status_flags_of(number, file) & O_NONBLOCK) != 0;
}

// Whether it was opened for that: O_RDONLY or O_WRONLY. Errors come before anything else, also of
// no bytes.
bool is_open_for(int number, int access) {
  const Socket* file = lookup_file(number);
  if (file == nullptr) return false;
  const int opened = file->status_flags & O_ACCMODE;
  return (file->status_flags & O_PATH) == 0 && (opened == access || opened == O_RDWR);
}

bool is_stream(int number) {
  const Socket* file = lookup_file(number);
  return file != nullptr && file->stream;
}

// Calls `once` for as long as there is more to do and each call does all it can. To a stream all is
// written; of it what there is is read. `events`: for what it may have to wait.
template <typename Once>
ssize_t repeat(int number, size_t total, off_t position, u32 events, Once once) {
  const u32 seen = signals_seen();
  const u32 breaking = signals_breaking();
  const bool stream = is_stream(number);
  const bool writes_all = stream && events == POLLOUT;
  i64 nap_ns = 1'000'000;
  size_t done = 0;
  for (;;) {
    const size_t left = total - done;
    const off_t at = position < 0 ? -1 : position + static_cast<off_t>(done);
    size_t asked = left;
    const long n = once(left, at, asked);
    if (n == -EAGAIN && stream && (done == 0 || writes_all) && !is_nonblocking_file(number)) {
      const int waited = wait_for_stream(number, events, seen, breaking);
      if (waited == 0) continue;
      return done > 0 ? static_cast<ssize_t>(done) : waited;
    }
    if (n == -EAGAIN && done == 0 && !is_nonblocking_file(number)) {
      const timespec time{0, nap_ns};
      raw::call(SYS_nanosleep, raw::at(&time), 0);
      if (nap_ns < 20'000'000) nap_ns *= 2;
      if (signals_breaking() != breaking) return -EINTR;
      continue;
    }
    if (n == -EPIPE) raise_sigpipe(0);
    if (n < 0) return done > 0 ? static_cast<ssize_t>(done) : n;
    done += static_cast<size_t>(n);
    if (done == total || (static_cast<size_t>(n) < asked && !writes_all))
      return static_cast<ssize_t>(done);
  }
}

}  // namespace

bool is_path(int number) {
  const Socket* file = lookup_file(number);
  return file != nullptr && (file->status_flags & O_PATH) != 0;
}

Reply file_call(const Socket* file, Call& c) {
  Reply reply;
  reply.result = -ESTALE;
  if (!is_live(file)) return reply;
  c.socket = file->slot;
  c.generation = file->generation;
  reply = call_kernel(file->arena, c);
  if (reply.result == -ENETDOWN) reply.result = -ESTALE;
  return reply;
}

int status_flags_of(int number, const Socket* file) {
  constexpr int shared = O_NONBLOCK | O_APPEND | O_NOATIME;
  if (!file->inherited_flags || (file->status_flags & O_PATH) != 0) return file->status_flags;
  const HeldFile held(number);
  Call c{.op = Op::file_control};
  c.a[0] = static_cast<u64>(FileControl::status_flags);
  c.a[2] = 1;
  if (!held.is_file() || held.get() != file) return file->status_flags;
  const Reply reply = file_call(file, c);
  if (reply.result < 0) return file->status_flags;
  return (file->status_flags & ~shared) | (reply.result & shared);
}

void give_back_chunk(Arena* arena, u64 chunk) {
  if (chunk >= receive_chunks) return;
  Call give{.op = Op::free_receive};
  give.a[0] = 1;
  give.a[1] = chunk;
  post(arena, give);
}

bool take_loan(Arena* arena, const Reply& reply, u32 bytes, Pieces* into) {
  constexpr u32 most = 12;
  const u32 chunks = (bytes + receive_chunk_payload - 1) / receive_chunk_payload;
  if (chunks > most) return false;
  Call give{.op = Op::free_receive};
  for (u32 i = 0; i < chunks; ++i) {
    const auto chunk = static_cast<u32>(reply.value[i / 2] >> (i % 2 * 32));
    if (chunk >= receive_chunks) return false;
    const u32 n = bytes < receive_chunk_payload ? bytes : receive_chunk_payload;
    if (into != nullptr) into->copy_in(arena->kernel->chunk[chunk] + sizeof(ChunkHeader), n);
    bytes -= n;
    give.a[1 + give.a[0] / 2] |= static_cast<u64>(chunk) << (give.a[0] % 2 * 32);
    if (++give.a[0] == 10 || i + 1 == chunks) {
      post(arena, give);
      give = Call{.op = Op::free_receive};
    }
  }
  return true;
}

void remember_file(Socket* file) {
  if (!is_live(file)) return;
  Call c{.op = Op::remember};
  c.a[0] = static_cast<u32>(file->status_flags) | u64{file->share} << 32;
  c.a[1] = file->stream ? file_is_stream : 0;
  post_on(file, c);
}

void recall_file(Socket* file) {
  file->status_flags = O_RDWR;
  if (!is_live(file)) return;
  Call c{.op = Op::recall};
  const Reply reply = call_on(file, c);
  if (reply.result != 1) return;
  file->status_flags = static_cast<int>(static_cast<u32>(reply.value[0]));
  file->share = static_cast<u32>(reply.value[0] >> 32);
  file->stream = (reply.value[1] & file_is_stream) != 0;
  note_passed_file(file->share);
}

ssize_t file_read(int number, const iovec* parts, size_t count, off_t offset) {
  if (!is_open_for(number, O_RDONLY)) return fail(EBADF);
  const ssize_t total = Pieces::total(parts, count);
  if (total < 0) return fail(EINVAL);
  if (total == 0 && count > 1) return 0;  // readv(2) of no bytes does not even look
  Pieces into(parts, count);
  return libc_result(repeat(number, static_cast<size_t>(total), offset, POLLIN,
                            [&](size_t left, off_t at, size_t& asked) {
                              return read_once(number, left, at, into, asked);
                            }));
}

ssize_t file_write(int number, const iovec* parts, size_t count, off_t offset) {
  if (!is_open_for(number, O_WRONLY)) return fail(EBADF);
  const ssize_t total = Pieces::total(parts, count);
  if (total < 0) return fail(EINVAL);
  Pieces from(parts, count);
  return libc_result(repeat(number, static_cast<size_t>(total), offset, POLLOUT,
                            [&](size_t left, off_t at, size_t& asked) {
                              return write_once(number, left, at, from, asked);
                            }));
}

off_t file_seek(int number, off_t offset, int whence) {
  const HeldFile held(number);
  if (!held.is_file() || is_path(number)) return fail(EBADF);
  Call c{.op = Op::file_seek};
  c.a[0] = static_cast<u64>(offset);
  c.a[1] = static_cast<u64>(whence);
  const Reply reply = file_call(held.get(), c);
  return reply.result < 0 ? fail(-reply.result) : static_cast<off_t>(reply.value[0]);
}

int file_control(int number, u32 control, u64 first, u64 second, u16 flags) {
  const HeldFile held(number);
  if (!held.is_file()) return fail(EBADF);
  Call c{.op = Op::file_control};
  c.flags = flags;
  c.a[0] = control;
  c.a[1] = first;
  c.a[2] = second;
  if (is_path(number)) return fail(EBADF);
  return static_cast<int>(libc_result(file_call(held.get(), c).result));
}

int file_fcntl(int number, int command, long value) {
  constexpr int settable = O_NONBLOCK | O_APPEND | O_NOATIME | O_DIRECT;
  const bool is_of_number = command == F_GETFD || command == F_SETFD || command == F_GETFL;
  if (!is_of_number && is_path(number)) return fail(EBADF);
  switch (command) {
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return file_lock(number, command, reinterpret_cast<struct flock*>(value));
    default:
      break;
  }
  const HeldFile held(number);
  if (!held.is_file()) return fail(EBADF);
  Socket* file = held.get();
  switch (command) {
    case F_SETFD:
      file->first_number = -1;
      [[fallthrough]];
    case F_GETFD:
      return static_cast<int>(libc_result(raw::fcntl(number, command, value)));
    case F_GETFL:
      if ((file->status_flags & O_PATH) != 0)
        return file->status_flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW);
      return status_flags_of(number, file) | 0100000;  // O_LARGEFILE, as Linux shows it
    case F_SETFL: {
      const auto control = static_cast<u32>(FileControl::status_flags);
      const auto flags = static_cast<int>(value) & settable;
      constexpr u64 direct = 040000;  // fs/open_flags.h's
      const u64 asked =
          static_cast<u64>(flags & ~O_DIRECT) | ((flags & O_DIRECT) != 0 ? direct : 0);
      if (file_control(number, control, asked, 0) < 0) return -1;
      file->status_flags = (file->status_flags & ~settable) | flags;
      if (file->inherited_flags) remember_file(file);
      return 0;
    }
    default:
      return fail(EINVAL);
  }
}

void fill_stat(const WireStatus& from, struct stat* to) {
  memset(to, 0, sizeof *to);
  to->st_dev = makedev(static_cast<u32>(from.device >> 32), static_cast<u32>(from.device));
  to->st_ino = from.inode;
  to->st_mode = from.mode;
  to->st_nlink = from.links;
  to->st_uid = from.uid;
  to->st_gid = from.gid;
  to->st_rdev =
      makedev(static_cast<u32>(from.special_device >> 32), static_cast<u32>(from.special_device));
  to->st_size = static_cast<off_t>(from.size);
  to->st_blksize = static_cast<blksize_t>(from.block_bytes);
  to->st_blocks = static_cast<blkcnt_t>(from.blocks);
  to->st_atim = {from.accessed.seconds, from.accessed.nanoseconds};
  to->st_mtim = {from.modified.seconds, from.modified.nanoseconds};
  to->st_ctim = {from.changed.seconds, from.changed.nanoseconds};
}

int file_stat(int number, struct stat* status) {
  Target target(number);
  if (!target.remote) return fail(EBADF);
  WireStatus told{};
  Ask asked;
  asked.told = &told;
  asked.told_room = sizeof told;
  const long result = ask(target, asked);
  if (result < 0) return fail(static_cast<int>(-result));
  if (result < static_cast<long>(sizeof told)) return fail(EPROTO);
  fill_stat(told, status);
  return 0;
}

namespace {

struct HostEntry {  // linux_dirent64
  u64 inode;
  i64 next;
  u16 bytes;
  u8 type;
};
constexpr u32 host_head = 19, wire_head = 19;

// Entries as they travel (fs/entries.h) to what getdents64 gives. Bytes written; `last`: the
// position behind what fitted, when not all did.
long unpack(const u8* from, size_t bytes, u8* to, size_t room, i64* last, bool& all) {
  size_t at = 0;
  size_t used = 0;
  all = true;
  while (bytes - at > wire_head) {
    HostEntry entry{};
    u16 name_bytes = 0;
    memcpy(&entry.inode, from + at, 8);
    memcpy(&entry.next, from + at + 8, 8);
    entry.type = from[at + 16];
    memcpy(&name_bytes, from + at + 17, 2);
    if (name_bytes > bytes - at - wire_head) return -EPROTO;
    const size_t whole = (host_head + name_bytes + 1 + 7) & ~size_t{7};
    if (whole > room - used) {
      all = false;
      return used == 0 ? -EINVAL : static_cast<long>(used);
    }
    entry.bytes = static_cast<u16>(whole);
    memset(to + used, 0, whole);
    memcpy(to + used, &entry, host_head);
    memcpy(to + used + host_head, from + at + wire_head, name_bytes);
    *last = entry.next;
    used += whole;
    at += wire_head + name_bytes;
  }
  return static_cast<long>(used);
}

}  // namespace

ssize_t file_entries(int number, void* data, size_t room) {
  u8 packed[max_file_read];
  long bytes = 0;
  {
    const HeldFile held(number);
    if (!held.is_file()) return fail(EBADF);
    Call c{.op = Op::file_control};
    c.a[0] = static_cast<u64>(FileControl::entries);
    c.a[1] = room / 4 * 3 < sizeof packed ? room / 4 * 3
                                          : sizeof packed;  // they grow by a third at most
    const Reply reply = file_call(held.get(), c);
    bytes = reply.result;
    const iovec part{packed, sizeof packed};
    Pieces into(&part, 1);
    if (bytes > static_cast<long>(sizeof packed)) bytes = -EPROTO;
    if (bytes > 0 && !take_loan(held.get()->arena, reply, static_cast<u32>(bytes), &into))
      bytes = -EPROTO;
  }
  if (bytes <= 0) return libc_result(bytes);
  i64 last = 0;
  bool all = true;
  const long used =
      unpack(packed, static_cast<size_t>(bytes), static_cast<u8*>(data), room, &last, all);
  if (!all && used > 0 && file_seek(number, last, SEEK_SET) < 0) return -1;
  return libc_result(used);
}

namespace {

ssize_t move_in(int fd, off_t* offset, void* data, size_t bytes) {
  if (offset == nullptr) return is_cob(fd) ? cob_read(fd, data, bytes) : real_read(fd, data, bytes);
  const ssize_t n = is_cob(fd) ? cob_pread(fd, data, bytes, *offset)
                               : libc_result(raw::pread(fd, data, bytes, *offset));
  if (n > 0) *offset += n;
  return n;
}

ssize_t move_out(int fd, off_t* offset, const void* data, size_t bytes) {
  if (offset == nullptr)
    return is_cob(fd) ? cob_write(fd, data, bytes) : real_write(fd, data, bytes);
  const ssize_t n = is_cob(fd) ? cob_pwrite(fd, data, bytes, *offset)
                               : libc_result(raw::call(SYS_pwrite64, fd, raw::at(data),
                                                       static_cast<long>(bytes), *offset));
  if (n > 0) *offset += n;
  return n;
}

// What was read and not written goes back, where there is an offset to put back.
void put_back(int in, off_t* offset, size_t bytes) {
  const auto back = -static_cast<off_t>(bytes);
  if (offset != nullptr) {
    *offset += back;
  } else if (lookup_file(in) != nullptr) {
    file_seek(in, back, SEEK_CUR);
  } else if (!is_cob(in)) {
    raw::call(SYS_lseek, in, back, SEEK_CUR);
  }
}

}  // namespace

ssize_t copy_file(int out, off_t* out_offset, int in, off_t* in_offset, size_t bytes) {
  char buffer[copy_buffer_bytes];
  size_t done = 0;
  while (done < bytes) {
    const size_t left = bytes - done;
    const ssize_t got = move_in(in, in_offset, buffer, left < sizeof buffer ? left : sizeof buffer);
    if (got <= 0) return done > 0 ? static_cast<ssize_t>(done) : got;
    ssize_t put = 0;
    while (put < got) {
      const ssize_t n = move_out(out, out_offset, buffer + put, static_cast<size_t>(got - put));
      if (n <= 0) break;
      put += n;
    }
    done += static_cast<size_t>(put);
    if (put < got) {
      const int saved = errno;
      put_back(in, in_offset, static_cast<size_t>(got - put));
      errno = saved;
      return done > 0 ? static_cast<ssize_t>(done) : -1;
    }
  }
  return static_cast<ssize_t>(done);
}

}  // namespace cob::shim
