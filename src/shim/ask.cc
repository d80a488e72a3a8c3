// Names on a share of another island: file_open and file_name. docs/calls.md, "Files". Model: a
// FileAsk, the paths and the value in send chunks, which come back on the freed ring; what is told
// in receive chunks. A path that leads out of the share is asked again where it goes on.
#include <stdlib.h>

#include "shim/file.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 chunks_in_ask = 4;
u32 known_umask = ~0U;
thread_local bool asks_as_told __attribute__((tls_model("initial-exec")));
thread_local AskAs told_as __attribute__((tls_model("initial-exec")));
thread_local WireStatus last_opened __attribute__((tls_model("initial-exec")));

// What is to be sent, as one run of bytes that fills chunks.
struct Sending {
  Arena* arena;
  u32 chunk[chunks_in_ask];
  u32 bytes = 0;

  void add(const void* data, u32 count) {
    const auto* from = static_cast<const u8*>(data);
    while (count > 0) {
      u32 n = chunk_bytes - bytes % chunk_bytes;
      if (n > count) n = count;
      memcpy(arena->program->chunk[chunk[bytes / chunk_bytes]] + bytes % chunk_bytes, from, n);
      from += n;
      bytes += n;
      count -= n;
    }
  }
};

bool take_all(Arena* arena, u32* chunk, u32 count) {
  Patience patience;
  u32 got = take_chunks(arena, chunk, count);
  while (got < count) {
    if (note_no_chunks(arena)) got += take_chunks(arena, chunk + got, count - got);
    if (got < count && !patience.nap(arena)) return false;
  }
  return true;
}

// Where a path begins. 0 or an errno.
int place(const Target& target, const Arena* arena, u32& slot, u32& generation, u32& share) {
  share = target.share;
  slot = generation = 0;
  if (target.file == nullptr) return 0;
  if (!is_live(target.file) || target.file->arena != arena) return ESTALE;
  slot = target.file->slot;
  generation = target.file->generation;
  return 0;
}

struct Question {
  Op op;
  FileAsk head;
  Target* first;
  Target* second;
  const char* second_text;
  const void* value;
};

Reply send_question(Arena* arena, Question& q) {
  Reply reply;
  FileAsk& head = q.head;
  head.umask = current_umask();
  if (asks_as_told) {
    head.umask = told_as.umask;
    head.for_others = told_as.others ? 1 : 0;
    head.as_uid = told_as.uid;
    head.as_gid = told_as.gid;
    head.as_pid = told_as.pid;
  }
  int error = place(*q.first, arena, head.directory, head.directory_generation, head.share);
  head.path_bytes = static_cast<u16>(q.first->bytes);
  const char* second = q.second_text;
  if (q.second != nullptr && error == 0) {
    error =
        place(*q.second, arena, head.second_directory, head.second_generation, head.second_share);
    second = q.second->path;
    head.second_bytes = static_cast<u16>(q.second->bytes);
  } else if (second != nullptr) {
    head.second_bytes = static_cast<u16>(strlen(second));
  }
  const u64 total = sizeof head + head.path_bytes + head.second_bytes + u64{head.value_bytes};
  if (error == 0 && total > u64{chunks_in_ask} * chunk_bytes)
    error = head.value_bytes > 4'096 ? E2BIG : ENAMETOOLONG;
  reply.result = -error;
  if (error != 0) return reply;
  Sending sending{arena, {}};
  const auto chunks = static_cast<u32>((total + chunk_bytes - 1) / chunk_bytes);
  reply.result = -ENETDOWN;
  if (!take_all(arena, sending.chunk, chunks)) return reply;
  sending.add(&head, sizeof head);
  sending.add(q.first->path, head.path_bytes);
  sending.add(second, head.second_bytes);
  sending.add(q.value, head.value_bytes);
  Call c{.op = q.op};
  c.a[0] = total;
  for (u32 i = 0; i < chunks; ++i) c.a[1 + i / 2] |= u64{sending.chunk[i]} << (i % 2 * 32);
  return call_kernel(arena, c);
}

// -EXDEV with a path to go on with. False: an error, which the target has if the path was there.
bool go_on(Arena* arena, const Reply& reply, Question& q) {
  const u64 bytes = reply.value[1];
  Reply loan;
  loan.value[0] = reply.value[0];  // one chunk or two
  char tail[2 * receive_chunk_payload];
  const iovec part{tail, sizeof tail};
  Pieces into(&part, 1);
  if (bytes == 0 || bytes > sizeof tail) return false;
  if (!take_loan(arena, loan, static_cast<u32>(bytes), &into)) return false;
  if (asks_as_told) return false;  // the host's tree is this program's own
  Target* target = reply.value[2] == 1 && q.second != nullptr ? q.second : q.first;
  return target->follow(tail, static_cast<u32>(bytes));
}

// Asks until there is an answer other than a path to go on with, or a target is the host's.
Reply put_question(Question& q, Arena*& arena) {
  Reply reply;
  for (;;) {
    if (q.first->error != 0 || (q.second != nullptr && q.second->error != 0)) {
      reply.result = -(q.first->error != 0 ? q.first->error : q.second->error);
      return reply;
    }
    arena = attach();
    if (arena == nullptr) {
      reply.result = -EHOSTDOWN;
      return reply;
    }
    reply = send_question(arena, q);
    if (reply.result == -ENETDOWN) reply.result = -EHOSTDOWN;
    if (reply.result != -EXDEV || reply.value[1] == 0) return reply;
    if (!go_on(arena, reply, q)) {
      if (q.first->error == 0 && (q.second == nullptr || q.second->error == 0)) return reply;
      continue;
    }
    if (!q.first->remote || (q.second != nullptr && !q.second->remote)) return reply;
  }
}

// Flags as they travel: x86-64's numbers.
u32 travelling(int flags) {
#if defined(__x86_64__)
  return static_cast<u32>(flags) & ~u32{0100000};
#else
  u32 out = static_cast<u32>(flags);
  constexpr u32 pairs[][2] = {{O_DIRECTORY, 0200000}, {O_NOFOLLOW, 0400000}, {O_DIRECT, 040000}};
  for (const auto& pair : pairs) out &= ~pair[0];
  for (const auto& pair : pairs)
    if ((static_cast<u32>(flags) & pair[0]) != 0) out |= pair[1];
  return out;
#endif
}

// What waits for an event at the home is asked again, later and later. False: a signal came.
bool wait_a_little(i64& nap_ns, u32 breaking) {
  const timespec time{0, nap_ns};
  raw::call(SYS_nanosleep, raw::at(&time), 0);
  if (nap_ns < 20'000'000) nap_ns *= 2;
  return signals_breaking() == breaking;
}

Socket* begin_file(int flags, int& number) {
  Socket* file = new_socket();
  if (file == nullptr) return nullptr;
  file->kind = Kind::file;
  file->stage = Stage::file;
  number = take_placeholder(file->placeholder, flags & O_CLOEXEC);
  file->first_number = number;
  file->close_on_exec = (flags & O_CLOEXEC) != 0;
  file->status_flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
  return file;
}

void abandon(Socket* file, int number) {
  if (number >= 0) {
    if (!park_number(number, file->placeholder, file->close_on_exec)) {
      raw::close(number);
      number_freed(number);
    }
  } else {
    file->placeholder.pool_index = no_pool_entry;
  }
  drop(object_of(file));
}

int open_once(Target& target, int flags, mode_t mode) {
  const Critical critical;
  int number = -1;
  Socket* file = begin_file(flags, number);
  if (file == nullptr) return -ENFILE;
  if (number < 0) {
    abandon(file, number);
    return number;
  }
  Question q{Op::file_open, {}, &target, nullptr, nullptr, nullptr};
  q.head.call = 0;
  q.head.flags = travelling(flags & ~O_CLOEXEC);
  q.head.mode = mode & 07777;
  Arena* arena = nullptr;
  const Reply reply = put_question(q, arena);
  const u64 slot = reply.value[0];
  if (reply.result < 0 || slot < first_kernel_socket || slot >= max_sockets) {
    abandon(file, number);
    return reply.result < 0 ? reply.result : -EPROTO;
  }
  WireStatus status{};
  if (reply.value[2] < receive_chunks)
    memcpy(&status, arena->kernel->chunk[reply.value[2]] + sizeof(ChunkHeader), sizeof status);
  give_back_chunk(arena, reply.value[2]);
  last_opened = status;
  file->stream = S_ISFIFO(status.mode);
  occupy_slot(file, arena, static_cast<u32>(slot));
  file->handle = load(file->kernel->handle);
  file->share = target.share;
  if (!install(number, object_of(file))) {
    raw::close(number);
    return -EMFILE;
  }
  return number;
}

}  // namespace

int open_target(Target& target, int flags, mode_t mode) {
  const u32 breaking = signals_breaking();
  i64 nap_ns = 1'000'000;
  for (;;) {
    const int number = open_once(target, flags, mode);
    if (number != -EAGAIN || (flags & O_NONBLOCK) != 0) return number;
    if (!wait_a_little(nap_ns, breaking)) return -EINTR;
  }
}

namespace {

long ask_once(Target& target, const Ask& asked) {
  const Critical critical;
  Question q{Op::file_name, {}, &target, asked.second, asked.second_text, asked.value};
  q.head.call = static_cast<u32>(asked.call);
  q.head.flags = asked.flags;
  q.head.mode = asked.mode;
  q.head.uid = asked.uid;
  q.head.gid = asked.gid;
  q.head.number = asked.number;
  q.head.value_bytes = asked.value_bytes;
  Arena* arena = nullptr;
  const Reply reply = put_question(q, arena);
  if (reply.result <= 0) return reply.result;
  const auto told = static_cast<u32>(reply.result);
  if (asked.told == nullptr || asked.told_room == 0) return told;  // a number, in no chunk
  const iovec part{asked.told, asked.told_room};
  Pieces pieces(&part, 1);
  if (!take_loan(arena, reply, told, &pieces)) return -EPROTO;
  return told > asked.told_room ? asked.told_room : told;
}

}  // namespace

long ask(Target& target, const Ask& asked) {
  i64 nap_ns = 1'000'000;
  for (;;) {
    const long result = ask_once(target, asked);
    if (result != -EAGAIN) return result;  // that: the kernel or the home is out of room for now
    wait_a_little(nap_ns, 0);
  }
}

void ask_as(const AskAs* whom) {
  asks_as_told = whom != nullptr;
  if (whom != nullptr) told_as = *whom;
}
const WireStatus& opened_status() { return last_opened; }

void note_umask(u32 mask) { store(known_umask, mask & 0777); }

// Read without changing it: another thread may create a file meanwhile.
u32 current_umask() {
  if (load(known_umask) != ~0U) return load(known_umask);
  u32 mask = 022;
  const int fd = static_cast<int>(
      raw::call(SYS_openat, AT_FDCWD, raw::at("/proc/self/status"), O_RDONLY | O_CLOEXEC));
  if (fd < 0) return mask;
  char text[1'024];
  const long n = raw::read(fd, text, sizeof text - 1);
  raw::close(fd);
  text[n < 0 ? 0 : n] = 0;
  const char* found = strstr(text, "Umask:");
  if (found != nullptr) mask = static_cast<u32>(strtoul(found + 6, nullptr, 8));
  note_umask(mask);
  return mask;
}

}  // namespace cob::shim
