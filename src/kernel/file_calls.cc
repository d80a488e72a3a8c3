// FileCalls: copying, checking, asking, answering; see file_calls.h.
#include "kernel/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "call/file_write.h"
#include "fs/entries.h"
#include "fs/open_flags.h"

namespace cob::kernel {

namespace {

using call::CallSlot;
using call::Op;

constexpr u32 chunk_room = call::receive_chunk_payload;
constexpr u32 chunks_for_a_path = 2;  // that leads out
constexpr u64 long_write = 65'536;
constexpr std::size_t max_spare = 4;

// As a program hears it: links and kernels are none of its business.
i32 code_for_names(int code, bool behind_a_handle) {
  switch (code) {
    case ENETDOWN:
    case ECONNRESET:
    case EPROTO:
    case EPROTONOSUPPORT:
      return -EHOSTDOWN;
    case ENOSYS:  // nobody serves shares there
      return -ENODEV;
    case EBADF:
      return behind_a_handle ? -ESTALE : -EBADF;
    default:
      return -code;
  }
}

bool is_text(std::string_view text) { return text.find('\0') == std::string_view::npos; }

}  // namespace

i32 FileCalls::code_for_files(int code) {
  switch (code) {
    case ENETDOWN:
    case ECONNRESET:
    case EHOSTDOWN:
    case EPROTO:
    case ENOENT:  // the home does not know that we hold it
      return -ESTALE;
    default:
      return -code;
  }
}

// What a FileAsk said, copied and checked.
struct FileCalls::Names {
  call::FileAsk ask{};
  std::string path, second, value;
};

FileCalls::FileCalls(Files* files, Sockets& sockets, Sockets::Programs& programs,
                     const std::vector<Program*>& attached)
    : files_(files), sockets_(sockets), programs_(programs), cache_(attached) {
  if (files_ == nullptr) return;
  files_->holder().on_lease(
      {.ended = [this](KernelId home, u64 number) { cache_.ended(home, number); },
       .extended = [this](KernelId home, Time until) { cache_.extended(home, until); }});
}

// ---- Calls under way.

FileCalls::Shared FileCalls::begin(Program& program, u32 thread, const CallSlot& call) {
  auto pending = std::make_shared<Pending>();
  pending->program = program.id();
  pending->image = program.image();
  pending->thread = thread;
  pending->sequence = call.sequence;
  ++program.file_calls;
  ++under_way_;
  ++asked_;
  // It waits; what it was told last is long past (Program::busy).
  program.threads()[thread].resting_when_told = 0;
  return pending;
}

Program* FileCalls::caller(const Pending& pending) {
  Program* program = programs_.find(pending.program);
  const bool is_same =
      program != nullptr && program->attached() && program->image() == pending.image;
  return is_same ? program : nullptr;
}

bool FileCalls::reserve(Program& program, const Shared& pending, u32 chunks, bool slot) {
  if (slot && (pending->slot = program.take_slot()) == 0) {
    answer(pending, -ENFILE);
    return false;
  }
  Arena& arena = program.arena();
  while (pending->chunks.size() < chunks && arena.fair_share() > 0) {
    const u32 chunk = arena.take_chunk();
    if (chunk == call::no_chunk) break;
    pending->chunks.push_back(chunk);
  }
  return true;
}

void FileCalls::answer(const Shared& pending, i32 result, std::span<const u64> values,
                       u32 chunks_used) {
  --under_way_;
  Program* program = caller(*pending);
  if (program == nullptr) return;  // its arena has taken the chunks along
  --program->file_calls;
  for (u32 i = 0; i < pending->chunks.size(); ++i) {
    if (i < chunks_used) {
      program->lend_chunk(pending->chunks[i]);
    } else {
      program->arena().give_chunk(pending->chunks[i]);
    }
  }
  if (pending->slot != 0) program->give_slot(pending->slot);
  program->reply(pending->thread, pending->sequence, result, values.data(),
                 static_cast<u32>(values.size()));
}

u32 FileCalls::tell(const Pending& pending, std::span<const std::byte> bytes,
                    std::span<u64> values) {
  Program* program = caller(pending);
  if (program == nullptr) return 0;
  u32 used = 0;
  for (; !bytes.empty(); ++used) {
    const u32 chunk = pending.chunks[used];
    const auto part = bytes.first(std::min<std::size_t>(bytes.size(), chunk_room));
    std::memcpy(program->arena().chunk_payload(chunk), part.data(), part.size());
    values[used / 2] |= u64{chunk} << (used % 2 == 0 ? 0 : 32);
    bytes = bytes.subspan(part.size());
  }
  return used;
}

void FileCalls::tell_and_answer(const Shared& pending, std::span<const std::byte> bytes,
                                i32 result) {
  u64 values[6] = {};
  const u32 used = tell(*pending, bytes, values);
  answer(pending, result, values, used);
}

void FileCalls::leads_out(const Shared& pending, const std::string& path, bool second) {
  if (path.size() > pending->chunks.size() * chunk_room) return answer(pending, -ENAMETOOLONG);
  u64 values[6] = {};
  const u32 used = tell(*pending, std::as_bytes(std::span(path)), values);
  values[1] = path.size();
  values[2] = second ? 1 : 0;
  answer(pending, -EXDEV, values, used);
}

void FileCalls::ask_until_sent(const Shared& pending, std::move_only_function<Result<void>()> ask) {
  const auto asked = ask();
  if (!asked.is_error()) return;
  if (asked.error().code == EAGAIN) return unsent_.push_back({pending, std::move(ask)});
  answer(pending, code_for_names(asked.error().code, false));
}

void FileCalls::poll() {
  while (!unsent_.empty()) {
    Unsent& first = unsent_.front();
    const bool is_wanted = caller(*first.pending) != nullptr;
    const auto asked = is_wanted ? first.ask() : Error::of(ECANCELED, "its program has ended");
    if (asked.is_error() && asked.error().code == EAGAIN) return;
    const Shared pending = std::move(first.pending);
    unsent_.pop_front();
    if (asked.is_error()) answer(pending, code_for_names(asked.error().code, false));
  }
}

// ---- What a program says.

bool FileCalls::gather(Program& program, const call::u64* ids, u32 most, u64 bytes,
                       std::vector<std::byte>& into) {
  if (bytes > u64{most} * call::chunk_bytes) {
    programs_.fault(program, "more bytes than chunks");
    return false;
  }
  std::array<u32, call::chunks_in_file_write> chunks{};
  for (u32 i = 0; i < most; ++i) chunks[i] = static_cast<u32>(ids[i / 2] >> (i % 2 == 0 ? 0 : 32));
  return gather_chunks(program, chunks, bytes, into);
}

bool FileCalls::gather_chunks(Program& program, std::span<const u32> chunks, u64 bytes,
                              std::vector<std::byte>& into) {
  Arena& arena = program.arena();
  chunks = chunks.first((bytes + call::chunk_bytes - 1) / call::chunk_bytes);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (arena.claim_send_chunk(chunks[i])) continue;
    while (i > 0) arena.unclaim_send_chunk(chunks[--i]);
    programs_.fault(program, "chunks that are not the program's");
    return false;
  }
  into.resize(bytes);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const u64 at = i * call::chunk_bytes;
    std::memcpy(into.data() + at, arena.send_chunk(chunks[i]),
                std::min<u64>(call::chunk_bytes, bytes - at));
    arena.give_send_chunk(chunks[i]);
  }
  return true;
}

// What a file_write says: its chunks stand in the slot, or in the one that it names.
bool FileCalls::gather_data(Program& program, const CallSlot& call, std::vector<std::byte>& into) {
  if ((call.flags & call::file_write_listed) == 0)
    return gather(program, &call.a[2], call::chunks_in_file_write, call.a[0], into);
  if (call.a[0] > u64{call::max_listed_file_chunks} * call::chunk_bytes) {
    programs_.fault(program, "more bytes than chunks");
    return false;
  }
  std::array<u32, call::max_listed_file_chunks> chunks;
  const std::array<u32, 1> list{static_cast<u32>(call.a[2])};
  std::vector<std::byte> listed;
  if (!gather_chunks(program, list, sizeof chunks, listed)) return false;
  std::memcpy(chunks.data(), listed.data(), sizeof chunks);
  return gather_chunks(program, chunks, call.a[0], into);
}

bool FileCalls::take_ask(Program& program, const Shared& pending, const CallSlot& call,
                         Names& into) {
  if (!gather(program, &call.a[1], 4, call.a[0], pending->bytes)) return false;
  const auto& bytes = pending->bytes;
  const auto refuse = [&] {
    programs_.fault(program, "a path or value that cannot be");
    return false;
  };
  if (bytes.size() < sizeof into.ask) return refuse();
  std::memcpy(&into.ask, bytes.data(), sizeof into.ask);
  const call::FileAsk& ask = into.ask;
  const u64 said = u64{ask.path_bytes} + ask.second_bytes + ask.value_bytes;
  if (ask.path_bytes > fs::max_path_bytes || ask.second_bytes > fs::max_path_bytes ||
      said != bytes.size() - sizeof ask || ask.umask > 0777 || ask.directory >= call::max_sockets ||
      ask.second_directory >= call::max_sockets || ask.for_others > 1)
    return refuse();
  if (call.op == Op::file_name && !fs::known(static_cast<fs::NameCall>(ask.call))) return refuse();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof ask, said);
  into.path = text.substr(0, ask.path_bytes);
  into.second = text.substr(ask.path_bytes, ask.second_bytes);
  into.value = text.substr(u64{ask.path_bytes} + ask.second_bytes);
  return (is_text(into.path) && is_text(into.second)) || refuse();
}

Description* FileCalls::file_at(Program& program, u32 number, u32 generation) {
  if (number == 0 || !program.slot_open(number)) return nullptr;
  const Slot& slot = program.slot(number);
  const bool is_file =
      slot.generation == generation && slot.description->state == call::SocketState::file;
  return is_file ? slot.description : nullptr;
}

// EBADF; ENODEV: no share of another island.
Result<fs::Asker::Base> FileCalls::base_of(Program& program, u32 directory, u32 generation,
                                           u32 share) {
  if (directory != 0) {
    const Description* d = file_at(program, directory, generation);
    if (d == nullptr) return Error::of(EBADF, "no such directory");
    return fs::Asker::Base{.entry = files_->holder().home(d->file->ref),
                           .share = d->file->share,
                           .directory = files_->holder().handle(d->file->ref)};
  }
  const auto entry = files_->entry_of(share);
  if (!entry) return Error::of(ENODEV, "no such share");
  return fs::Asker::Base{.entry = *entry, .share = share, .directory = {}};
}

// ---- Calls.

void FileCalls::run(Program& program, u32 thread, const CallSlot& call, Time now) {
  if (program.file_calls >= call::max_threads)
    return programs_.fault(program, "more calls than threads");
  const Shared pending = begin(program, thread, call);
  if (call.op == Op::file_open) return open(program, pending, call, now);
  if (call.op == Op::file_name) return name(program, pending, call, now);
  if (call.op == Op::file_lock && (call.a[0] & 0xff) == static_cast<u64>(call::FileLock::settled))
    return settle(pending);
  if (call.socket == 0 || call.socket >= call::max_sockets) {
    programs_.fault(program, "socket slot out of range");
    return answer(pending, -EBADF);
  }
  switch (call.op) {
    case Op::file_read:
      return read(program, pending, call);
    case Op::file_write:
      return write(program, pending, call);
    case Op::file_seek:
      return seek(program, pending, call);
    case Op::file_lock:
      return lock(program, pending, call);
    default:
      return control(program, pending, call);
  }
}

void FileCalls::open(Program& program, const Shared& pending, const CallSlot& call, Time now) {
  auto said = std::make_shared<Names>();
  if (!take_ask(program, pending, call, *said)) return answer(pending, -EPROTO);
  if (files_ == nullptr) return answer(pending, -ENODEV);
  const call::FileAsk& ask = said->ask;
  const auto base = base_of(program, ask.directory, ask.directory_generation, ask.share);
  if (base.is_error()) return answer(pending, -base.error().code);
  const auto as = as_whom(program, ask, now);
  if (as.is_error()) return answer(pending, -as.error().code);
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  if (!reserve(program, pending, chunks_for_a_path, true)) return;
  if (pending->chunks.size() < chunks_for_a_path) return answer(pending, -EAGAIN);
  ask_until_sent(pending, [this, pending, said, base = base.value(), as = as.value()] {
    const Time asked = files_->clock();
    return files_->asker().open(base, as, said->path, said->ask.flags, said->ask.mode,
                                [this, pending, base, flags = said->ask.flags,
                                 asked](Result<fs::Asker::OpenedFile> result) {
                                  opened(pending, base, flags, asked, std::move(result));
                                });
  });
}

void FileCalls::opened(const Shared& pending, const fs::Asker::Base& base, u32 flags, Time asked,
                       Result<fs::Asker::OpenedFile> result) {
  if (result.is_error())
    return answer(pending, code_for_names(result.error().code, base.directory.generation != 0));
  if (!result.value().outside.empty()) return leads_out(pending, result.value().outside, false);
  const fs::Opened& file = result.value().opened;
  const KernelId home(file.home);
  if (!files_->together(home, base.entry)) return answer(pending, -EHOSTDOWN);
  const u32 mode = file.status.mode;
  const auto ref = files_->holder().opened({.home = home,
                                            .handle = descriptor::handle_of(file.handle),
                                            .grant = descriptor::Grant(file.grant),
                                            .offset = 0,
                                            .appends = (flags & fs::open_flag::append) != 0,
                                            .has_offset = S_ISREG(mode) || S_ISDIR(mode),
                                            .file_lease = file.file_lease},
                                           asked);
  if (ref.is_error()) return answer(pending, code_for_names(ref.error().code, false));
  Program* program = caller(*pending);
  const auto description = program == nullptr
                               ? Result<Description*>(Error::of(ECANCELED, "the program has ended"))
                               : sockets_.open();
  if (description.is_error()) {
    files_->holder().drop(ref.value(), [](const Result<u64>&) {});
    return answer(pending, -description.error().code);
  }
  const u32 number = std::exchange(pending->slot, 0);
  sockets_.hold_file(*program, number, *description.value(), ref.value(), base.share);
  u64 chunk[6] = {};
  const u32 used = tell(*pending, std::as_bytes(std::span(&file.status, 1)), chunk);
  const u64 values[] = {number, program->slot(number).generation, chunk[0]};
  answer(pending, 0, values, used);
}

void FileCalls::name(Program& program, const Shared& pending, const CallSlot& call, Time now) {
  auto said = std::make_shared<Names>();
  if (!take_ask(program, pending, call, *said)) return answer(pending, -EPROTO);
  if (files_ == nullptr) return answer(pending, -ENODEV);
  const call::FileAsk& ask = said->ask;
  const auto what = static_cast<fs::NameCall>(ask.call);
  const auto base = base_of(program, ask.directory, ask.directory_generation, ask.share);
  if (base.is_error()) return answer(pending, -base.error().code);
  fs::Asker::Base second{.entry = base.value().entry, .share = base.value().share, .directory = {}};
  if (what == fs::NameCall::rename || what == fs::NameCall::link) {
    const auto other =
        base_of(program, ask.second_directory, ask.second_generation, ask.second_share);
    if (other.is_error()) return answer(pending, -other.error().code);
    second = other.value();
    if (second.entry != base.value().entry) return answer(pending, -EXDEV);
  }
  const auto as = as_whom(program, ask, now);
  if (as.is_error()) return answer(pending, -as.error().code);
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  u64 room = 0;
  u32 chunks = chunks_for_a_path;
  if (what == fs::NameCall::read_link || what == fs::NameCall::name)
    chunks = chunks_for(fs::max_path_bytes);
  if (what == fs::NameCall::get_attribute || what == fs::NameCall::list_attributes) {
    room = std::min<u64>(ask.number, call::max_file_read);
    chunks = std::max(chunks, chunks_for(room));
  } else {
    room = ask.number;
  }
  if (!reserve(program, pending, chunks)) return;
  if (pending->chunks.size() < chunks) return answer(pending, -EAGAIN);
  ask_until_sent(
      pending, [this, pending, said, what, room, second, base = base.value(), as = as.value()] {
        const call::FileAsk& a = said->ask;
        const fs::Asker::NameRequest request{.call = what,
                                             .path = said->path,
                                             .second = said->second,
                                             .value = said->value,
                                             .second_base = second,
                                             .flags = a.flags,
                                             .mode = a.mode,
                                             .uid = a.uid,
                                             .gid = a.gid,
                                             .number = room};
        const bool behind = base.directory.generation != 0 || second.directory.generation != 0;
        return files_->asker().call(
            base, as, request, [this, pending, behind](Result<fs::Asker::Answer> result) {
              if (result.is_error())
                return answer(pending, code_for_names(result.error().code, behind));
              const fs::Asker::Answer& told = result.value();
              if (!told.outside.empty()) return leads_out(pending, told.outside, told.second);
              if (told.value.size() > pending->chunks.size() * chunk_room)
                return answer(pending, -E2BIG);
              const u64 number = told.value.empty() ? told.number : told.value.size();
              tell_and_answer(pending, std::as_bytes(std::span(told.value)),
                              static_cast<i32>(std::min<u64>(number, INT32_MAX)));
            });
      });
}

void FileCalls::write(Program& program, const Shared& pending, const CallSlot& call) {
  // New memory costs a long write more than its copy.
  if (call.a[0] >= long_write && !spare_.empty()) {
    pending->bytes = std::move(spare_.back());
    spare_.pop_back();
  }
  if (!gather_data(program, call, pending->bytes)) return answer(pending, -EPROTO);
  const Description* d = file_at(program, call.socket, call.generation);
  if (d == nullptr) return answer(pending, -EBADF);
  if (pending->bytes.empty()) return answer(pending, 0);
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  const bool there = (call.flags & 1) != 0;
  files_->holder().write(d->file->ref, there ? descriptor::Position(call.a[1]) : std::nullopt,
                         pending->bytes, [this, pending](const Result<u64>& result) {
                           if (result.is_error())
                             return answer(pending, code_for_files(result.error().code));
                           const u64 bytes = pending->bytes.size();
                           if (bytes >= long_write && spare_.size() < max_spare)
                             spare_.push_back(std::move(pending->bytes));
                           answer(pending, static_cast<i32>(std::min(result.value(), bytes)));
                         });
}

void FileCalls::seek(Program& program, const Shared& pending, const CallSlot& call) {
  const Description* d = file_at(program, call.socket, call.generation);
  if (d == nullptr) return answer(pending, -EBADF);
  const u64 whence = call.a[1];
  if (whence > SEEK_HOLE) return answer(pending, -EINVAL);
  files_->holder().seek(d->file->ref, static_cast<i64>(call.a[0]), static_cast<int>(whence),
                        [this, pending](const Result<u64>& result) {
                          if (result.is_error())
                            return answer(pending, code_for_files(result.error().code));
                          const u64 values[] = {result.value()};
                          answer(pending, 0, values);
                        });
}

void FileCalls::control(Program& program, const Shared& pending, const CallSlot& call) {
  const Description* d = file_at(program, call.socket, call.generation);
  if (d == nullptr) return answer(pending, -EBADF);
  fs::Control what{};
  u32 chunks = 0;
  switch (static_cast<call::FileControl>(static_cast<u32>(call.a[0]))) {
    case call::FileControl::sync:
      what.kind = fs::ControlKind::sync;
      break;
    case call::FileControl::data_sync:
      what.kind = fs::ControlKind::data_sync;
      break;
    case call::FileControl::allocate:
      what.kind = fs::ControlKind::allocate;
      what.offset = call.a[1];
      what.bytes = call.a[2];
      what.mode = u32{call.flags};
      break;
    case call::FileControl::entries:
      what.kind = fs::ControlKind::entries;
      chunks = chunks_for(descriptor::max_tail_bytes);
      break;
    case call::FileControl::status_flags:
      what.kind = call.a[2] != 0 ? fs::ControlKind::look_at_flags : fs::ControlKind::flags;
      what.mode = static_cast<u32>(call.a[1]);
      break;
    case call::FileControl::terminal:
      return terminal(pending, *d, call);
    case call::FileControl::watch:
      return watch(pending, *d, static_cast<u32>(call.a[1]));
    default:
      return answer(pending, -EINVAL);
  }
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  if (!reserve(program, pending, chunks)) return;
  const u64 room = std::min<u64>(pending->chunks.size() * chunk_room, descriptor::max_tail_bytes);
  if (chunks > 0) {
    if (room < fs::min_entries_bytes) return answer(pending, -EAGAIN);
    what.bytes = room;
  }
  const u32 handle = d->handle;
  ask_until_sent(pending, [this, pending, what, handle]() -> Result<void> {
    const Description* file = sockets_.at_handle(handle);
    if (file == nullptr) return Error::of(EBADF, "closed meanwhile");
    auto asked = files_->control(
        file->file->ref, what,
        [this, pending](Result<u64> result, std::span<const std::byte> bytes) {
          if (result.is_error()) return answer(pending, code_for_files(result.error().code));
          if (bytes.size() > pending->chunks.size() * chunk_room) return answer(pending, -ESTALE);
          tell_and_answer(pending, bytes,
                          static_cast<i32>(std::min<u64>(result.value(), INT32_MAX)));
        });
    if (asked.is_error() && asked.error().code == ENETDOWN)
      return Error::of(ESTALE, "the home has ended");
    return asked;
  });
}

}  // namespace cob::kernel
