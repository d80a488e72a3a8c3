// Sockets, urgent data: the peer's mark in the stream, the byte at it, and who is told;
// docs/calls.md, "Urgent data". RFC 9293 section 3.8.5, RFC 6093, tcp(7); Linux tcp_check_urg,
// tcp_recv_urg. Model: bytes at and behind the mark stay in `kept`, so that a program that has the
// seat finds nothing beyond the mark until it passes it. Kernel's loop only.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"
#include "kernel/process_credentials.h"
#include "kernel/sockets.h"

namespace cob::kernel {

using State = UrgentMark::State;

namespace {

// Signals to others' processes are bounded by what their sender may do, not the kernel: kill(2).
bool may_signal(u32 user, u32 pid) {
  fs::Credentials unused;
  std::array<u32, 4> users{};  // real, effective, saved, file system
  return credentials_of_process(pid, unused, users) && (user == users[0] || user == users[2]);
}

void signal_checked(u32 user, i32 pid, bool thread) {
  // What has the number while the descriptor is open is what was looked at.
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid() && !thread) return;
  if (!may_signal(user, static_cast<u32>(pid))) return;
  if (thread) {
    ::syscall(SYS_tkill, pid, SIGURG);
  } else {
    ::syscall(SYS_pidfd_send_signal, process.get(), SIGURG, nullptr, 0);
  }
}

}  // namespace

void Sockets::set_owner(const Program& program, Description& d, i32 id, bool thread) {
  // Signals of a kernel without privileges are bounded by the host.
  const u32 own = ::geteuid();
  const u32 user = own != 0 ? own : credentials_of(program.liveness(), program.pid()).uid;
  d.shared.make().owner = {.id = id, .thread = thread, .user = user};
}

// As Linux's send_sigurg.
void Sockets::tell_owner(const Description& d) {
  const UrgentOwner owner = d.shared->owner;
  if (owner.id == 0 || owner.id == -1 || owner.id == INT32_MIN) return;
  const bool checked = ::geteuid() == 0 && owner.user != 0;
  if (owner.id < 0) {
    if (!checked) {
      ::kill(owner.id, SIGURG);
      return;
    }
    for (const Holder& h : d.holders) {
      const i32 pid = static_cast<i32>(h.program->pid());
      if (pid > 0 && ::getpgid(pid) == -owner.id) signal_checked(owner.user, pid, false);
    }
  } else if (checked) {
    signal_checked(owner.user, owner.id, owner.thread);
  } else if (owner.thread) {
    ::syscall(SYS_tkill, owner.id, SIGURG);
  } else {
    ::kill(owner.id, SIGURG);
  }
}

bool Sockets::at_mark(const Description& d) const {
  const UrgentMark& mark = d.shared->mark;
  return d.urgent && mark.state != State::none && mark.ahead == 0 && unread_in_chunks(d) == 0;
}

std::span<const std::byte> Sockets::kept_to_mark(const Description& d) const {
  const auto all = d.kept.bytes();
  const UrgentMark& mark = d.shared->mark;
  if (!d.urgent || mark.state == State::none) return all;
  return all.first(static_cast<std::size_t>(std::min<u64>(mark.ahead, all.size())));
}

u64 Sockets::readable_bytes(const Description& d) const {
  const u64 in_chunks = unread_in_chunks(d);
  const u64 all = in_chunks + d.kept.size();
  const UrgentMark& mark = d.shared->mark;
  if (!d.urgent || mark.state == State::none || d.settings->urgent_inline) return all;
  return std::min(all, in_chunks + mark.ahead);
}

// So many bytes have left the front of `kept`.
void Sockets::leave_bytes_before_mark(Description& d, u64 bytes) {
  UrgentMark& mark = d.shared.make().mark;
  if (mark.state == State::none) return;
  if (bytes > mark.ahead) {  // thrown away with what lay behind it
    mark = {};
    return settle_mark(d);
  }
  mark.ahead -= bytes;
}

// Whether anything is left of it, and what the seat's holder sees.
void Sockets::settle_mark(Description& d) {
  const UrgentMark& mark = d.shared->mark;
  const bool marked = mark.state != State::none;
  d.urgent = marked || (d.seat >= 0 && d.kept.size() > 0);
  d.flags = static_cast<u8>((d.flags & ~call::flag_urgent) | (d.urgent ? call::flag_urgent : 0));
  if (d.seat < 0) return;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  call::KernelSocket& line = h.program->ours(h.slot);
  publish(line.urgent_behind, static_cast<u32>(d.kept.size()));
  publish(line.urgent, static_cast<u8>((mark.state == State::here ? call::urgent_here : 0) |
                                       (marked && mark.ahead == 0 ? call::urgent_mark : 0) |
                                       (d.settings->urgent_inline ? call::urgent_in_line : 0)));
  publish(line.flags, static_cast<u8>(d.flags | (line.flags & call::flag_wants_consumed)));
}

void Sockets::look_for_mark(Description& d) {
  if (d.shared->mark.state != State::awaited || d.kept.size() <= d.shared->mark.ahead) return;
  UrgentMark& mark = d.shared.make().mark;
  mark.byte = d.kept.bytes()[static_cast<std::size_t>(mark.ahead)];
  mark.state = State::here;
}

// REQUIRES: a program has the seat. What lies before the mark goes into its chunks, as far as there
// are any.
void Sockets::pour_kept(Description& d) {
  const auto bytes = kept_to_mark(d);
  if (bytes.empty()) return;
  const std::size_t done = append_to_arena(d, bytes);
  d.kept.drop(done);
  leave_bytes_before_mark(d, done);
}

void Sockets::on_urgent(net::TcbId, u64 cookie, u32 ahead, std::optional<std::byte> byte) {
  if (cookie == 0) return;
  Description& d = from_cookie(cookie);
  if (d.references == 0) return;
  UrgentMark& mark = d.shared.make().mark;
  const bool pending = d.urgent && mark.state != State::none;
  u64 at = d.kept.size() + ahead;
  if (pending && at < mark.ahead) return;
  const bool fresh = !pending || at > mark.ahead;
  if (fresh) {
    // The urgent byte of the mark before is ordinary now, unless the reader stands there (Linux
    // tcp_check_urg).
    if (pending && at_mark(d) && d.kept.size() > 0 && !d.settings->urgent_inline) {
      take_kept(d, 1);
      --at;
    }
    mark = {};
    mark.state = State::awaited;
    mark.ahead = at;
    d.urgent = true;
    if (d.seat >= 0) pour_kept(d);
  }
  if (byte.has_value() && mark.state == State::awaited) {
    mark.byte = *byte;
    mark.state = State::here;
  }
  settle_mark(d);
  write_flags(d);            // every holder may ask
  if (fresh) tell_owner(d);  // who is told finds it
}

// Of a connection with a mark, whose seat a program has.
std::size_t Sockets::keep_behind_mark(Description& d, std::span<const std::byte> payload) {
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  const u64 newly = take_consumed(d);
  if (newly > 0) {
    free_passed_chunks(d);
    stack_->receive_consumed(d.tcb, newly);
  }
  call::KernelSocket& line = h.program->ours(h.slot);
  const u64 held = line.received - d.consumed + d.kept.size();
  const u64 room = d.receive_limit - std::min<u64>(d.receive_limit, held);
  const auto taken = payload.first(static_cast<std::size_t>(std::min<u64>(room, payload.size())));
  d.kept.append(taken);
  look_for_mark(d);
  pour_kept(d);
  if (line.received - d.consumed > receive_buffer(d) / 4) line.flags |= call::flag_wants_consumed;
  settle_mark(d);
  ++line.change;
  h.program->touch(h.slot);
  return taken.size();
}

// A reader that stands at the mark goes on behind it, without the urgent byte unless that is in
// line; one that only peeks: how many of the bytes kept it leaves out.
std::size_t Sockets::step_over_mark(Description& d, bool peek) {
  if (!at_mark(d) || d.kept.size() == 0) return 0;
  const bool leaves_out = !d.settings->urgent_inline;
  if (peek) return leaves_out ? 1 : 0;
  d.shared.make().mark = {};
  if (leaves_out) take_kept(d, 1);
  settle_mark(d);
  return 0;
}

bool Sockets::has_seat(const Description& d, const Program& program, u32 number) const {
  if (d.seat < 0) return false;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  return h.program == &program && h.slot == number;
}

i32 Sockets::peek_behind_mark(Program& program, u32 number, u64 max_bytes, u64* chunks) {
  const Description& d = *program.slot(number).description;
  if (!has_seat(d, program, number) || unread_in_chunks(d) > 0 || d.kept.size() == 0)
    return -ERESTART;
  return receive_shared(program, number, max_bytes, true, chunks, false);
}

i32 Sockets::pass_mark(Program& program, u32 number) {
  Description& d = *program.slot(number).description;
  if (!d.urgent || !has_seat(d, program, number)) return -ERESTART;
  consumed(program, number);
  const call::KernelSocket& line = program.ours(number);
  if (line.received != d.consumed) return -ERESTART;
  step_over_mark(d, false);
  pour_kept(d);
  const bool stuck = line.received == d.consumed && !kept_to_mark(d).empty();
  settle_mark(d);
  return stuck ? -ENOMEM : 0;
}

i32 Sockets::urgent_byte(Description& d, bool peek) {
  if (!d.urgent || d.settings->urgent_inline) return -EINVAL;
  const State state = d.shared->mark.state;
  if (state == State::none || state == State::taken) return -EINVAL;
  if ((d.flags & call::flag_reset) != 0 && !d.shared->mark.ended) return -ENOTCONN;
  if (state == State::awaited)
    return (d.flags & call::flag_peer_closed) != 0 ? call::urgent_end : -EAGAIN;
  const auto byte = std::to_integer<i32>(d.shared->mark.byte);
  if (peek) return byte;
  d.shared.make().mark.state = State::taken;
  settle_mark(d);
  if (d.seat < 0) write_flags(d);
  return byte;
}

i32 Sockets::urgent(Program& program, u32 number, call::UrgentCall what, u64* values) {
  Description& d = *program.slot(number).description;
  switch (what) {
    case call::UrgentCall::take:
    case call::UrgentCall::peek:
      return urgent_byte(d, what == call::UrgentCall::peek);
    case call::UrgentCall::pass:
      return pass_mark(program, number);
    case call::UrgentCall::look:
      values[0] = at_mark(d) ? 1 : 0;
      values[1] = readable_bytes(d);
      return 0;
  }
  return -EINVAL;
}

}  // namespace cob::kernel
