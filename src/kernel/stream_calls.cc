// FileCalls, of pipes, terminals, sockets and devices: what is ready, who waits, terminals'
// requests. docs/calls.md, "Files". Model: file_calls.h.
#include <cstring>

#include "fs/terminal.h"
#include "kernel/file_calls.h"

namespace cob::kernel {

using call::CallSlot;

// ---- Readiness.

namespace {
u64 key_of(descriptor::Holder::Ref ref) { return u64{ref.slot} << 32 | ref.generation; }
}  // namespace

void FileCalls::watch(const Shared& pending, const Description& d, u32 events) {
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  watched_[key_of(d.file->ref)] = d.handle;
  files_->watcher().watch(d.file->ref, events, [this, pending](const Result<u32>& ready) {
    if (ready.is_error()) return answer(pending, -ready.error().code);
    answer(pending, static_cast<i32>(ready.value()));
  });
}

void FileCalls::woken(descriptor::Holder::Ref file) {
  const auto found = watched_.find(key_of(file));
  if (found == watched_.end()) return;
  const Description* d = sockets_.at_handle(found->second);
  watched_.erase(found);
  if (d == nullptr || d->file == nullptr) return;
  for (const Holder& h : d->holders) {
    call::KernelSocket& line = h.program->ours(h.slot);
    __atomic_store_n(&line.change, line.change + 1, __ATOMIC_RELEASE);
    h.program->touch(h.slot);
  }
}

// ---- Terminals.

void FileCalls::terminal(const Shared& pending, const Description& d, const CallSlot& call) {
  const auto request = fs::terminal_request(static_cast<u32>(call.a[0] >> 32));
  if (!request) return answer(pending, -ENOTTY);
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  std::array<std::byte, fs::most_terminal_bytes> in{};
  static_assert(fs::most_terminal_bytes == sizeof call.a - sizeof call.a[0]);
  std::memcpy(in.data(), &call.a[1], in.size());
  fs::Control what{};
  what.kind = fs::ControlKind::terminal;
  what.mode = request->number;
  const u32 handle = d.handle;
  ask_until_sent(pending,
                 [this, pending, what, handle, in, bytes = request->reads]() -> Result<void> {
                   const Description* file = sockets_.at_handle(handle);
                   if (file == nullptr) return Error::of(EBADF, "closed meanwhile");
                   const auto asked = files_->control(
                       file->file->ref, what,
                       [this, pending](Result<u64> result, std::span<const std::byte> told) {
                         if (result.is_error()) return answer(pending, -result.error().code);
                         std::array<u64, 5> values{};
                         if (told.size() > sizeof values) return answer(pending, -EPROTO);
                         std::memcpy(values.data(), told.data(), told.size());
                         answer(pending, static_cast<i32>(told.size()), values);
                       },
                       std::span(in).first(bytes));
                   if (asked.is_error() && asked.error().code == ENETDOWN)
                     return Error::of(ESTALE, "the home has ended");
                   return asked;
                 });
}

}  // namespace cob::kernel
