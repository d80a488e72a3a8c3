// Kernel, calls: takes slots from call rings, checks each copy, and runs it; docs/calls.md,
// "Calls". Model: a slot is copied once and only the copy is believed; a post that names what does
// not exist is ignored (its socket was closed meanwhile), one that cannot come from an honest shim
// ends the program.
#include <algorithm>
#include <cstring>

#include "base/passing.h"
#include "kernel/kernel.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

using call::CallSlot;
using call::Op;

namespace {

// Of what sockets are asked, what files are too; a relay is refused where it is made.
constexpr bool is_for_files(Op op) { return op == Op::open || op == Op::recall || op == Op::relay; }

}  // namespace

Program* Kernel::find(u32 id) {
  const auto found = programs_.find(id);
  return found == programs_.end() || found->second->dead ? nullptr : found->second.get();
}

std::size_t Kernel::take_calls(Program& program, u32 thread, std::size_t budget) {
  if (program.faulty) return 0;
  std::size_t taken = 0;
  while (taken < budget) {
    // Read anew each time: a call may have drained this ring, ended the program or its image.
    if (thread >= program.threads().size()) break;
    Program::Thread& state = program.threads()[thread];
    const CallSlot& shared =
        program.arena().theirs().ring[thread][state.position % call::ring_slots];
    if (load(shared.sequence) != state.position + 1) break;
    CallSlot call;
    std::memcpy(&call, &shared, sizeof call);
    call.sequence = ++state.position;
    state.last_active = now_;
    ++taken;
    publish(program.arena().ours().consumed[thread].consumed, state.position);
    run_call(program, thread, call);
    if (program.dead || program.faulty) break;
  }
  calls_ += taken;
  return taken;
}

// What lies in its rings now; a program that goes on posting meanwhile does not keep us. A call may
// drain another program, and so on: bounded, for the stack is. Deeper than programs that keep the
// protocol get, a seat is then taken before what its holder has posted.
void Kernel::drain(Program& program) {
  constexpr u32 deepest = 8;
  if (draining_ == deepest) return;
  ++draining_;
  for (u32 t = 0; t < program.threads().size() && !program.dead; ++t)
    take_calls(program, t, call::ring_slots);
  --draining_;
}

void Kernel::execute(Program& program, u32 thread, const CallSlot& call) {
  if (!program.faulty) run_call(program, thread, call);
}

// The description that the call names, opened if the shim begins a slot of its own with it;
// nullptr: a stale name.
Description* Kernel::slot_for(Program& program, const CallSlot& call) {
  const u32 number = call.socket;
  if (number == 0 || number >= call::max_sockets) {
    fault(program, "socket slot out of range");
    return nullptr;
  }
  if (program.slot_open(number)) {
    Slot& slot = program.slot(number);
    return slot.generation == call.generation ? slot.description : nullptr;
  }
  if (number >= call::first_kernel_socket) return nullptr;
  const auto opened = sockets_->open();
  if (opened.is_error()) return nullptr;
  sockets_->hold(program, number, *opened.value(), call.generation);
  return opened.value();
}

void Kernel::run_call(Program& program, u32 thread, const CallSlot& call) {
  if (call.op < Op::open) {
    if (!run_post(program, thread, call)) fault(program, "unknown call");
  } else if (call.op <= Op::relay) {
    run_synchronous(program, thread, call);
  } else if (call.op <= Op::file_lock) {
    file_calls_->run(program, thread, call, now_);
  } else if (call.op == Op::give) {
    take_in_given(program, {program.id(), thread, call.sequence}, call.a[0]);
  } else if (call.op == Op::hand_over) {
    hand_over_locks(program, {program.id(), thread, call.sequence}, call.a[0], call.a[1]);
  } else {
    fault(program, "unknown call");
  }
}

// An address of a call; its bytes are those of ipv6_elsewhere.
net::Ipv4Address Kernel::named(u64 address, u64 first, u64 second) {
  return from_call(stack_->names(), address, first, second);
}

bool Kernel::run_post(Program& program, u32 thread, const CallSlot& call) {
  if (call.op == Op::free_receive) {
    const u64 count = call.a[0];
    if (count > 10) return false;
    for (u32 i = 0; i < count; ++i)
      if (!program.return_chunk(static_cast<u32>(call.a[1 + i / 2] >> (i % 2 == 0 ? 0 : 32))))
        return false;
    return true;
  }
  if (call.op == Op::close) {
    // Closing what the kernel never knew needs nothing.
    if (call.socket == 0 || call.socket >= call::max_sockets) return false;
    if (program.slot_open(call.socket) && program.slot(call.socket).generation == call.generation) {
      Description& closed = *program.slot(call.socket).description;
      if (Sockets::is_away(closed) && !closed.shared->far->waiting.empty()) {  // they come first
        far_seats_->park(closed, {.program = program.id(), .thread = thread, .slot = call});
        return true;
      }
      if (closed.state == call::SocketState::file) file_calls_->left(program, call.socket, closed);
      sockets_->let_go(program, call.socket, call.a[0] == 1);
    }
    return true;
  }
  Description* d = slot_for(program, call);
  if (d == nullptr) {
    // Chunks of a send to a socket that is gone would be lost to the program: give them back.
    if (!program.faulty) sockets_->refuse_send(program, call);
    return true;
  }
  if (d->state == call::SocketState::file && call.op != Op::remember) {
    sockets_->refuse_send(program, call);
    return call.op <= Op::send_urgent;
  }
  if (Sockets::is_away(*d) && call.op != Op::consumed && call.op != Op::released) {
    if (call.op > Op::send_urgent) return false;
    far_seats_->park(*d, {.program = program.id(), .thread = thread, .slot = call});
    return true;
  }
  const u32 number = call.socket;
  switch (call.op) {
    case Op::connect:
      sockets_->connect(program, number,
                        {named(call.a[0], call.a[4], call.a[5]), Port(static_cast<u16>(call.a[1]))},
                        {named(call.a[2], 0, 0), Port(static_cast<u16>(call.a[2] >> 32))},
                        (call.a[3] & 1) != 0);
      return true;
    case Op::send:
      sockets_->send(program, number, call);
      return true;
    case Op::consumed:
      sockets_->consumed(program, number);
      return true;
    case Op::shutdown:
      relays_->before_call(*d, false);
      sockets_->shutdown(program, number, static_cast<u32>(call.a[0]));
      return true;
    case Op::set_option:
      sockets_->set_option(program, number, call);
      return true;
    case Op::released:
      sockets_->released(program, number);
      return true;
    case Op::want_accept:
      sockets_->want_accept(program, number);
      return true;
    case Op::send_to:
      sockets_->send_to(program, number, call);
      return true;
    case Op::send_urgent:
      sockets_->send_urgent(program, number, call);
      return true;
    case Op::remember:
      sockets_->remember(*d, call.a);
      return true;
    default:
      return false;
  }
}

void Kernel::run_synchronous(Program& program, u32 thread, const CallSlot& call) {
  u64 values[6] = {};
  i32 result = 0;
  const CallOrigin origin{.program = program.id(), .thread = thread, .sequence = call.sequence};
  const bool names_socket = call.op <= Op::membership || call.op == Op::recall ||
                            call.op == Op::info || call.op == Op::relay;
  Description* d = nullptr;
  if (names_socket) {
    d = slot_for(program, call);
    if (program.faulty) return;
    if (d == nullptr) {
      program.reply(thread, call.sequence, -EBADF, values, 0);
      return;
    }
    if (d->state == call::SocketState::file && !is_for_files(call.op)) {
      program.reply(thread, call.sequence, -ENOTSOCK, values, 0);
      return;
    }
    if (Sockets::is_away(*d) && call.op != Op::open)
      return far_seats_->park(*d, {.program = program.id(), .thread = thread, .slot = call});
  }
  const u32 number = call.socket;
  switch (call.op) {
    case Op::open:
      values[0] = d->handle;
      break;
    case Op::bind: {
      const net::Endpoint local{named(call.a[0], call.a[3], call.a[4]),
                                Port(static_cast<u16>(call.a[1]))};
      const bool reuse_address = (call.a[2] & 1) != 0, reuse_port = (call.a[2] & 2) != 0;
      if ((call.a[2] & 4) != 0) {
        sockets_->bind_datagram(program, number, local, reuse_address, reuse_port, origin);
      } else {
        sockets_->bind(program, number, local, reuse_address, reuse_port, origin);
      }
      return;
    }
    case Op::connect_datagram:
      result = sockets_->connect_datagram(
          program, number,
          {named(call.a[0], call.a[4], call.a[5]), Port(static_cast<u16>(call.a[1]))},
          static_cast<call::DatagramConnect>(static_cast<u32>(call.a[2])),
          net::Ipv4Address{static_cast<u32>(call.a[3])});
      break;
    case Op::membership:
      result = sockets_->change_membership(
          program, number, net::Ipv4Address{static_cast<u32>(call.a[0])}, call.a[1] == 1);
      break;
    case Op::listen:
      sockets_->listen(program, number, static_cast<u32>(std::min<u64>(call.a[0], 65'535)),
                       net::Ipv4Address{static_cast<u32>(call.a[1])}, origin);
      return;
    case Op::connect_local:
      result = sockets_->connect_local(
          program, number,
          {named(call.a[0], call.a[4], call.a[5]), Port(static_cast<u16>(call.a[1]))},
          {named(call.a[2], 0, 0), Port(static_cast<u16>(call.a[2] >> 32))}, (call.a[3] & 1) != 0);
      break;
    case Op::use:
    case Op::send_shared:
    case Op::receive_shared:
    case Op::receive_datagram:
      if (!sockets_->take_seat(*d, program, number, thread, call)) {
        if (!program.slot_open(number)) break;
        return;  // parked: answered when the seat comes
      }
      relays_->before_call(*d, call.op != Op::send_shared);
      if (call.op == Op::receive_shared && (call.a[1] & 4) != 0) {
        result = sockets_->peek_behind_mark(program, number, call.a[0], values);
      } else if (d->seat >= 0 || sockets_->give_seat_back(*d)) {
        // The seat is the caller's own: it does the rest itself.
        result = call.op == Op::use ? 0 : -ERESTART;
      } else if (call.op == Op::send_shared) {
        result = sockets_->send_shared(program, number, call);
      } else if (call.op == Op::receive_shared) {
        result = sockets_->receive_shared(program, number, call.a[0], (call.a[1] & 1) != 0, values,
                                          (call.a[1] & 2) != 0);
      } else if (call.op == Op::receive_datagram) {
        result = sockets_->receive_datagram(program, number, (call.a[0] & 1) != 0, &values[0]);
      }
      break;
    case Op::urgent:
      result = sockets_->urgent(program, number, static_cast<call::UrgentCall>(call.a[0]), values);
      break;
    case Op::fork:
      result = fork_program(program, call.a[0] == 1, values);
      break;
    case Op::publish:
      result = publish_tokens(program, call);
      break;
    case Op::adopt:
      if ((call.flags & 1) != 0 && join_listener(program, call, origin)) return;
      if (finding_ != nullptr && sockets_->at_token(call.a[0]) == nullptr)
        return seek(program, origin, call.a[0]);
      result = adopt(program, sockets_->at_token(call.a[0]), false, values);
      break;
    case Op::adopt_handle:
      result = adopt(program, sockets_->at_handle(program.handle_now(static_cast<u32>(call.a[0]))),
                     true, values);
      break;
    case Op::adopted:
      drop_unadopted(program);
      break;
    case Op::recall:
      result = d->shared->memory == nullptr ? -ENOENT : 1;
      if (result == 1) std::copy_n(d->shared->memory->begin(), 6, values);
      break;
    case Op::info:
      if (call.a[0] == static_cast<u64>(call::InfoKind::tcp)) {
        result = sockets_->tcp_info(program, number, call.a[1], values);
      } else if (call.a[0] == static_cast<u64>(call::InfoKind::path_mtu)) {
        result = sockets_->path_mtu(*d, values);
      } else {
        values[0] = d->send_buffered;
        values[1] = sockets_->readable_bytes(*d);
      }
      break;
    case Op::relay:
      result = relay(program, *d, call.a[0], values);
      break;
    default:
      break;
  }
  if (program.attached()) program.reply(thread, call.sequence, result, values, 6);
}

// The child's liveness socket has come, or comes before this call.
Program* Kernel::add_child(Program& program) {
  if (program.child == 0) read_hellos(program, call::Hello::child);
  Program* child = find(std::exchange(program.child, 0));
  if (child == nullptr || program.dead || !program.attached()) return nullptr;
  if (!child->attached()) child->set_identity(0, program.command());
  return child;
}

// A program that cannot be attached is to have the connection; relay.h. Its liveness socket shows
// its end.
i32 Kernel::relay(Program& program, Description& wanted, u64 child_id, u64* values) {
  const u32 handle = wanted.handle;
  Program* child = child_id == 0 ? add_child(program) : find(static_cast<u32>(child_id));
  if (child == nullptr) return -EPROTO;
  Description* d = sockets_->at_handle(handle);  // an exec among the hellos may have closed it
  if (d == nullptr) return -EBADF;
  if (child_id == 0) child->lent_by = program.id();
  if (child->lent_by != program.id()) return -EPERM;
  values[0] = child->id();
  const auto lent = relays_->lend(*d);
  if (lent.is_error()) return -lent.error().code;
  const auto known = std::find(child->lent.begin(), child->lent.end(), lent.value().id);
  if (known == child->lent.end()) {
    child->lent.push_back(lent.value().id);
  } else {
    relays_->returned(lent.value().id);
  }
  const call::AttachReply reply{.kind = static_cast<u32>(call::Hello::relay), .result = 0};
  const FdRef fds[] = {lent.value().end};
  const auto sent = send_struct(child->liveness(), reply, fds, Blocking::never);
  return sent.is_error() ? -sent.error().code : 0;
}

i32 Kernel::publish_tokens(Program& program, const CallSlot& call) {
  const u64 count = call.a[0];
  if (count == 0 || count > 2) return -EINVAL;
  for (u32 i = 0; i < count; ++i) {
    const u64 number = call.a[1 + 2 * i];
    const u64 token = call.a[2 + 2 * i];
    if (number >= call::max_sockets || !program.slot_open(static_cast<u32>(number))) return -EBADF;
    if ((token & call::token_mark_mask) != call::token_mark) return -EINVAL;
    Description& d = *program.slot(static_cast<u32>(number)).description;
    const Description* named = sockets_->at_token(token);
    if ((call.flags & 4) != 0 && named != nullptr && named != &d) return -EEXIST;
    sockets_->publish_token(d, token);
    if ((call.flags & 1) != 0) return begin_flight(program, d);
  }
  return 0;
}

i32 Kernel::adopt(Program& program, Description* d, bool from_ticket, u64* values) {
  if (d == nullptr) return -ENOENT;
  const auto held = std::find(program.unadopted.begin(), program.unadopted.end(), d);
  if (held == program.unadopted.end() && from_ticket) return -ENOENT;
  const u32 number = program.take_slot();
  if (number == 0) return -ENFILE;
  sockets_->hold(program, number, *d, program.slot(number).generation + 1);
  publish(program.theirs(number).seat, static_cast<u32>(call::seat_idle));
  if (held != program.unadopted.end()) {
    program.unadopted.erase(held);
    sockets_->release(*d);
  }
  values[0] = number;
  if (d->state == call::SocketState::file && files_ != nullptr)
    values[1] =
        files_->together(files_->holder().home(d->file->ref), KernelId(config_.kernel)) ? 1 : 0;
  return 0;
}

}  // namespace cob::kernel
