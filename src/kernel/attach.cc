// Kernel, programs' comings and goings: hellos on liveness sockets, arenas, exec, death;
// docs/calls.md, "Attach", "Deaths".
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "base/doorbell.h"
#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

namespace {

// A connected SOCK_SEQPACKET whose other end no kernel of this cob holds: a program that hands over
// both ends of a pair (its own, say) would never be seen to end. The ends that kernels hold have
// names, so that their peers can be told; unix(7), "Autobind feature".
bool is_liveness_end(FdRef fd) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  auto* address = reinterpret_cast<sockaddr*>(&name);
  if (::bind(fd.get(), address, sizeof name.sun_family) != 0 && errno != EINVAL)  // has one
    return false;
  int type = 0;
  socklen_t bytes = sizeof type;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET)
    return false;
  bytes = sizeof name;
  return ::getpeername(fd.get(), address, &bytes) == 0 && name.sun_family == AF_UNIX &&
         bytes == sizeof name.sun_family;
}

// What a kernel may hold of a program that is to end: not, say, an end of its own liveness socket.
bool is_file(FdRef fd) {
  struct stat status{};
  return ::fstat(fd.get(), &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
}

}  // namespace

// 0: it could not be; closing the socket tells whoever holds its other end.
u32 Kernel::add_program(u32 pid, Fd liveness) {
  if (!is_liveness_end(liveness.ref())) return 0;
  const u32 id = next_program_++;
  if (watch(liveness.ref(), id).is_error()) return 0;
  Program& program =
      *programs_.emplace(id, std::make_unique<Program>(id, pid, std::move(liveness))).first->second;
  if (!luggage_.empty()) give_luggage(program);
  return id;
}

void Kernel::on_program(Program& program) {
  if (!program.dead) read_hellos(program);
}

// Reads what lies on the liveness socket; its end is the program's. One that sends without end has
// no more of our time than the others. `until`: stops when such a one has come.
void Kernel::read_hellos(Program& program, call::Hello until) {
  for (int budget = until != call::Hello{} ? 512 : 16; budget > 0; --budget) {
    std::byte bytes[sizeof(call::AttachRequest)] = {};
    auto received = receive_datagram(program.liveness(), bytes, Blocking::never);
    if (received.is_error() && received.error().code == EAGAIN) return;
    if (received.is_error() || received.value().bytes == 0) {
      end(program);
      return;
    }
    std::vector<Fd>& fds = received.value().descriptors;
    u32 kind = 0;
    std::memcpy(&kind, bytes, sizeof kind);
    switch (static_cast<call::Hello>(kind)) {
      case call::Hello::attach: {
        call::AttachRequest request;
        std::memcpy(&request, bytes, sizeof request);
        attach(program, request);
        if (until == call::Hello{}) return;  // the costliest of hellos: one a turn
        break;
      }
      case call::Hello::thread: {
        call::ThreadRequest request;
        std::memcpy(&request, bytes, sizeof request);
        add_thread(program, request.thread);
        break;
      }
      case call::Hello::child:
        if (fds.size() == 1) program.child = add_program(program.pid(), std::move(fds[0]));
        break;
      case call::Hello::flight:
        if (fds.size() == 1 && is_liveness_end(fds[0].ref())) program.flight = std::move(fds[0]);
        break;
      case call::Hello::give:
        if (fds.size() == 1 && is_file(fds[0].ref())) program.given = std::move(fds[0]);
        break;
      case call::Hello::leave:
        begin_leaving(program);
        break;
      case call::Hello::left: {
        call::LeftNotice notice;
        static_assert(sizeof notice <= sizeof bytes);
        std::memcpy(&notice, bytes, sizeof notice);
        end_leaving(program, notice);
        break;
      }
      default:
        fault(program, "unknown hello");
        return;
    }
    if (program.dead || static_cast<call::Hello>(kind) == until) return;
  }
}

// Without descriptors to spare the thread gets no bell and looks by itself.
void Kernel::add_thread(Program& program, u32 index) {
  call::AttachReply reply{.kind = static_cast<u32>(call::Hello::thread), .result = -EPROTO};
  Fd bell;
  if (program.attached() && index < call::max_threads) {
    Program::Thread& thread = program.add_thread(index);
    auto doorbell = make_doorbell();
    if (doorbell.is_error()) {
      COB_LOG(warn, "kernel {}: thread of program {} without a doorbell: {}", config_.kernel,
              program.pid(), std::strerror(doorbell.error().code));
    } else {
      thread.button = std::move(doorbell.value().button);
      bell = std::move(doorbell.value().bell);
    }
    reply.result = 0;
  }
  const FdRef fds[] = {bell.ref()};
  if (bell.valid() && !send_struct(program.liveness(), reply, fds, Blocking::never).is_error())
    return;
  (void)send_struct(program.liveness(), reply, {}, Blocking::never);
}

// Programs are shown what they may bind to, and what stands behind the names of it.
void Kernel::show_own_addresses(call::ArenaHeader& header) const {
  for (u32 place = 0; place < call::most_ipv6_own; ++place) {
    const net::Ipv6Address address = stack_->own_address(place).address;
    std::memcpy(header.own_ipv6[place], address.bytes.data(), sizeof header.own_ipv6[place]);
  }
}

void Kernel::show_own_addresses() {
  own_addresses_shown_ = stack_->own_addresses_version();
  directory_.renew_names();
  for (Program* program : attached_) show_own_addresses(program->arena().ours().header);
}

void Kernel::fill_header(Program& program, call::ArenaHeader& header) {
  header.magic = call::arena_magic;
  header.version = call::protocol_version;
  header.layout_bytes_kernel = sizeof(call::KernelSide);
  header.layout_bytes_program = sizeof(call::ProgramSide);
  header.epoch = config_.epoch;
  header.cob_address = config_.address;
  header.cob_prefix_bits = config_.prefix_bits;
  header.kernel = config_.kernel;
  header.kernels = config_.kernels;
  header.core = config_.core;
  header.program = program.id();
  header.default_send_limit = SocketsOptions{}.send_limit;
  header.way_out = sockets_->has_uplink() ? 1 : 0;
  header.default_congestion = 1u + config_.congestion;
  header.ipv6 = config_.ipv6_on;
  header.uplink_index = config_.uplink_index;
  header.islands = files_ != nullptr ? 1 : 0;
  for (u16 k = 0; k < config_.kernels && k < 64; ++k)
    if (islands_.together(KernelId(k), KernelId(config_.kernel))) header.neighbours |= u64{1} << k;
  show_own_addresses(header);
  std::memcpy(header.cob_name, config_.cob_name, sizeof header.cob_name);
}

Result<void> Kernel::give_arena(Program& program) {
  if (!program.doorbell.valid()) {
    Fd doorbell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!doorbell.valid()) return Error::from_errno("eventfd");
    TRY(watch(doorbell.ref(), event_doorbell));
    program.doorbell = std::move(doorbell);
  }
  auto arena = std::move(spare_arena_);
  if (arena == nullptr) arena = TRY(Arena::create());
  arena->count_in(sockets_->memory());
  fill_header(program, arena->ours().header);
  if (files_ != nullptr) files_->show_shares(arena->ours().remote_share);
  const call::AttachReply reply{.kind = static_cast<u32>(call::Hello::attach), .result = 0};
  const FdRef fds[] = {arena->ours_fd(), arena->theirs_fd(), program.doorbell.ref()};
  TRY(send_struct(program.liveness(), reply, fds, Blocking::never));
  arena->close_descriptors();
  program.set_arena(std::move(arena));
  attached_.push_back(&program);
  if (files_ != nullptr) next_board_ = now_;  // it may have come from another island
  return {};
}

void Kernel::attach(Program& program, const call::AttachRequest& request) {
  Result<void> done = Error::of(EPROTONOSUPPORT, "protocol version of the shim");
  if (request.version == call::protocol_version) {
    if (program.attached()) {
      // An exec: the old image's posts come first, then its seats; its descriptions wait for
      // adoption.
      drain(program);
      if (program.dead) return;
    }
    if (program.attached()) {  // a call may have read another attach, which failed
      let_go_all(program, true);
      std::erase(attached_, &program);
      sockets_->arena_orphaned(program.drop_arena());
    }
    const auto* text = request.command;
    program.goes_elsewhere = false;
    program.set_identity(request.pid, std::string(text, ::strnlen(text, sizeof request.command)));
    done = give_arena(program);
  }
  if (done.is_error()) {
    COB_LOG(warn, "kernel {}: program {} not attached: {}", config_.kernel, request.pid,
            done.error().what);
    const call::AttachReply reply{.kind = static_cast<u32>(call::Hello::attach),
                                  .result = -done.error().code};
    (void)send_struct(program.liveness(), reply, {}, Blocking::never);
  }
}

namespace {

// Why a child that is to go to another kernel cannot have it there.
BoardStay why_stays(const Description& d) {
  if (d.state == call::SocketState::file) return BoardStay::file;
  if (d.state == call::SocketState::listening)
    return d.shared->relays.empty() ? BoardStay::no : BoardStay::connection;
  if (d.state == call::SocketState::undecided) return BoardStay::undecided;
  return d.datagram != nullptr ? BoardStay::datagram : BoardStay::connection;
}

}  // namespace

// The child gets a reference to all that the parent holds. `spreads`: it is to go to the kernel
// that is due, if that can have all of it; until it is there it keeps the references.
i32 Kernel::fork_program(Program& program, bool spreads, u64* values) {
  Program* child = add_child(program);
  if (child == nullptr) return -EPROTO;
  program.for_each_slot([&](u32 number, Slot& slot) {
    // A connection offered and not accepted is nobody's yet.
    if (load(program.theirs(number).seat) == call::seat_offered) return;
    sockets_->retain(*slot.description);
    child->unadopted.push_back(slot.description);
  });
  for (Description* d : program.unadopted) {
    sockets_->retain(*d);
    child->unadopted.push_back(d);
  }
  child->former_handles = program.former_handles;
  values[0] = child->id();
  if (!spreads) return 0;
  for (const Description* d : child->unadopted)
    if (child->stays == BoardStay::no) child->stays = why_stays(*d);
  child->goes_elsewhere = child->stays == BoardStay::no;
  ++(child->goes_elsewhere ? children_spread_ : children_kept_);
  values[1] = child->goes_elsewhere ? 1 : 0;
  return 0;
}

// What is adopted is known to other kernels only: a listener of theirs, of which this one is to
// have a part. False: there is nothing to be asked.
bool Kernel::join_listener(Program& program, const call::CallSlot& call, const CallOrigin& origin) {
  const u64 token = call.a[0];
  if (sockets_->at_token(token) != nullptr && !parts_->joining(token)) return false;
  std::optional<KernelId> first;
  if (call.a[1] != 0 && call.a[1] <= config_.kernels)
    first = KernelId(static_cast<u16>(call.a[1] - 1));
  parts_->join(token, first, now_,
               [this, origin, token, image = program.image()](Description* part, i32 error) {
                 Program* adopter = find(origin.program);
                 if (adopter == nullptr || !adopter->attached() || adopter->image() != image)
                   return;
                 if (part == nullptr && error == ENOENT)
                   return bring_socket(origin, token, image, std::nullopt);
                 u64 values[6] = {};
                 const i32 result = part == nullptr ? -error : adopt(*adopter, part, false, values);
                 adopter->reply(origin.thread, origin.sequence, result, values, 6);
               });
  return true;
}

// No listener: a socket that comes here from another kernel, or a file.
void Kernel::bring_socket(const CallOrigin& origin, u64 token, u32 image,
                          std::optional<KernelId> first) {
  far_seats_->find(token, first, [this, origin, token, image](Description* d, i32 error) {
    Program* adopter = find(origin.program);
    if (adopter == nullptr || !adopter->attached() || adopter->image() != image) return;
    if (d == nullptr && error == ENOENT && finding_ != nullptr)
      return seek(*adopter, origin, token);
    u64 values[6] = {};
    const i32 result = d == nullptr ? -error : adopt(*adopter, d, false, values);
    adopter->reply(origin.thread, origin.sequence, result, values, 6);
  });
}

// Every slot of the program is closed; with keep_descriptions each description stays, unadopted.
void Kernel::let_go_all(Program& program, bool keep_descriptions) {
  // Listeners first: connections offered and not taken go back to their queues, not down with the
  // program.
  for (const bool listeners : {true, false}) {
    program.for_each_slot([&](u32 number, Slot& slot) {
      Description& d = *slot.description;
      if ((d.state == call::SocketState::listening) != listeners) return;
      if (keep_descriptions) {
        sockets_->retain(d);
        program.unadopted.push_back(&d);
      }
      if (d.state == call::SocketState::file) {
        if (keep_descriptions) file_calls_->image_left(program, number);
        if (!keep_descriptions) file_calls_->left(program, number, d);
      }
      sockets_->let_go(program, number, false);
    });
  }
}

// A description is sent by SCM_RIGHTS; the kernel's end of the pair that travels with it has come,
// or comes before this call.
i32 Kernel::begin_flight(Program& program, Description& sent) {
  const u32 handle = sent.handle;
  if (!program.flight.valid()) read_hellos(program, call::Hello::flight);
  Fd end = std::move(program.flight);
  if (program.dead || !end.valid()) return -EPROTO;
  Description* d = sockets_->at_handle(handle);  // an exec among the hellos may have closed it
  if (d == nullptr) return -EBADF;
  if (flights_.size() >= max_flights || program.flights >= max_flights_a_program)
    return -ETOOMANYREFS;
  const u32 id = next_flight_++;
  if (watch(end.ref(), event_flight | id).is_error()) return -ENOBUFS;
  sockets_->retain(*d);
  ++program.flights;
  flights_.emplace(id, Flight{std::move(end), handle, program.id()});
  return 0;
}

void Kernel::end_flight(u32 id) {
  const auto found = flights_.find(id);
  if (found == flights_.end()) return;
  const Flight flight = std::move(found->second);
  flights_.erase(found);
  unwatch(flight.end.ref());
  if (Program* sender = find(flight.sender)) --sender->flights;
  if (Description* d = sockets_->at_handle(flight.handle)) sockets_->release(*d);
}

void Kernel::drop_unadopted(Program& program) {
  auto unadopted = std::move(program.unadopted);
  program.unadopted.clear();
  program.former_handles.clear();
  for (Description* d : unadopted) {
    if (d->state == call::SocketState::file) file_calls_->left(program, 0, *d);
    sockets_->release(*d);
  }
}

// The program is gone (or broke the protocol): what it published is done, what it held is closed.
void Kernel::end(Program& program) {
  if (program.dead) return;
  if (program.attached()) drain(program);
  if (program.dead) return;
  if (!leavings_.empty()) forget_leaving(program, ESRCH, "it has ended");
  program.dead = true;
  any_dead_ = true;
  if (program.attached()) {
    let_go_all(program, false);
    std::erase(attached_, &program);
    publish(program.arena().ours().header.dead, 1u);
    sockets_->arena_orphaned(program.drop_arena());
  }
  drop_unadopted(program);
  for (const u32 id : std::exchange(program.lent, {})) relays_->returned(id);
  unwatch(program.doorbell.ref());
  unwatch(program.liveness());
  program.close_liveness();
}

void Kernel::fault(Program& program, const char* what) {
  if (program.dead) return;
  ++faults_;
  COB_LOG(warn, "kernel {}: program {} ({}) ended: {}", config_.kernel, program.pid(),
          program.command(), what);
  program.faulty = true;  // its rings are not read again; ended at the end of the turn
  any_dead_ = true;
}

void Kernel::file_closed(Description& file) { file_calls_->closed(*file.file); }

void Kernel::collect_dead() {
  any_dead_ = false;
  std::vector<Program*> faulty;
  for (auto& [id, program] : programs_)
    if (program->faulty && !program->dead) faulty.push_back(program.get());
  for (Program* program : faulty) end(*program);
  any_dead_ = false;
  std::erase_if(programs_, [](const auto& entry) { return entry.second->dead; });
  if (!leavings_.empty()) poll_leavings(now_);
}

}  // namespace cob::kernel
