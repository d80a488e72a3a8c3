// The host's side of host.h: launches, where they run, and which bytes must move.
// Continuations only note what came; whatever sends or waits happens in the caller's own turns.
#include "offload/host.h"

#include <algorithm>

#include "base/clock.h"

namespace cob::offload {

using detail::Memory;
using detail::Outcome;

namespace {

constexpr u64 piece_bytes = u64{1} << 20;  // of a buffer, in one message

constexpr bool reads(Use use) { return use != Use::out; }

}  // namespace

// ---- Future ------------------------------------------------------------------------------------

Future::Future(Host* host, Outcome* outcome) : host_(host), outcome_(outcome) {
  ++outcome_->references;
}
Future::Future(const Future& other) noexcept : host_(other.host_), outcome_(other.outcome_) {
  if (outcome_ != nullptr) ++outcome_->references;
}
Future::~Future() {
  if (outcome_ != nullptr) host_->drop(outcome_);
}
Result<void> Future::wait() {
  host_->wait(*outcome_);
  if (outcome_->error.code != 0) return outcome_->error;
  return {};
}

// ---- Host --------------------------------------------------------------------------------------

void Host::know(message::Messenger& messenger) {
  messenger.know<Greet>();
  messenger.know<Greeted>();
  messenger.know<Find>();
  messenger.know<Found>();
  messenger.know<Allocate>();
  messenger.know<Allocated>();
  messenger.know<Release>();
  messenger.know<Write>();
  messenger.know<Written>();
  messenger.know<Read>();
  messenger.know<Contents>();
  messenger.know<Launch>();
  messenger.know<Finished>();
}

Result<std::unique_ptr<Host>> Host::create(message::Messenger& messenger, KernelId island,
                                           const TaskSet& tasks, Turning& turning, Arena arena) {
  std::unique_ptr<Host> host(new Host(messenger, island, tasks, turning, std::move(arena)));
  TRY(host->greet());
  return host;
}

Host::~Host() {
  for (Outcome* outcome : spare_) delete outcome;
}

void Host::turn() {
  if (!advance()) turning_.turn();  // what has just ended may be what is waited for
}

Result<void> Host::greet() {
  std::optional<Result<Greeted>> answer;
  TRY((messenger_.request<Greet, Greeted>(island_, Greet{protocol_version, u32{0}}, Time::never(),
                                          [&](Result<Greeted> r) { answer = r; })));
  turn_until([&] { return answer.has_value(); });
  const Greeted greeted = TRY(std::move(*answer));
  if (greeted.version != protocol_version)
    return Error::of(EPROTONOSUPPORT, "the island speaks another version");
  if (arena_.valid() && greeted.arena_bytes != arena_.bytes())
    return Error::of(EPROTO, "the island does not have our arena");
  if (greeted.workers == 0 || greeted.workers > 4'096)
    return Error::of(EPROTO, "an impossible number of workers");
  island_workers_ = greeted.workers;
  same_addresses_ = arena_.valid() && greeted.address == arena_.address();
  return {};
}

Result<u32> Host::find(std::string_view name, u64 signature) {
  std::optional<Result<Found>> answer;
  const auto bytes = std::as_bytes(std::span(name.data(), name.size()));
  TRY((messenger_.request<Find, Found>(island_, Find{signature}, {.tail = bytes}, Time::never(),
                                       [&](Result<Found> r) { answer = r; })));
  turn_until([&] { return answer.has_value(); });
  return u32{TRY(std::move(*answer)).task};
}

Result<u32> Host::loop_task(u32 loop, std::string_view name) {
  constexpr i64 not_asked = -1;
  if (loop >= loops_.size()) loops_.resize(loop + std::size_t{1}, not_asked);
  if (loops_[loop] == not_asked) {
    const auto found = find(name, 0);
    loops_[loop] = found ? i64{found.value()} : -1 - i64{found.error().code};
  }
  if (loops_[loop] >= 0) return static_cast<u32>(loops_[loop]);
  return Error::of(static_cast<int>(-1 - loops_[loop]), "the island has no such loop");
}

// ---- Buffers -----------------------------------------------------------------------------------

Result<Memory*> Host::allocate(u64 bytes, u32 element) {
  auto memory = std::make_unique<Memory>();
  memory->bytes = bytes;
  memory->element = element;
  if (arena_.valid()) {
    memory->offset = TRY(arena_.allocate(bytes));
    memory->data = arena_.at(memory->offset);
    std::memset(memory->data, 0, bytes);
  } else {
    try {
      memory->own.resize(bytes);
    } catch (const std::bad_alloc&) {
      return Error::of(ENOMEM, "no memory for a buffer");
    }
    memory->data = memory->own.data();
  }
  std::optional<Result<Allocated>> answer;
  const Allocate wanted{bytes, memory->offset, element, u32{0}};
  Result<void> asked;
  const auto sent = messenger_.request<Allocate, Allocated>(
      island_, wanted, Time::never(), [&](Result<Allocated> r) { answer = r; });
  if (sent.is_error()) {
    asked = sent.error();
  } else {
    turn_until([&] { return answer.has_value(); });
    if (answer->is_error()) asked = answer->error();
  }
  if (asked.is_error()) {
    if (arena_.valid()) arena_.free(memory->offset, bytes);
    return asked.error();
  }
  memory->handle = answer->value().buffer;
  return memory.release();
}

void Host::drop(Memory* memory) {
  memory->owned = false;
  if (memory->users == 0) destroy(memory);
}

void Host::destroy(Memory* memory) {
  // Without room for it the island keeps the buffer until the session ends.
  (void)messenger_.send(island_, Release{memory->handle});
  if (memory->offset != no_offset) arena_.free(memory->offset, memory->bytes);
  delete memory;
}

// Pieces are sent as fast as there is room for them; what the island says about them is awaited, so
// that an error belongs to the buffer.
Result<void> Host::bring(Memory& memory) {
  if (memory.error.code != 0) return memory.error;
  if (arena_.valid() || memory.island_has) return {};
  const Time begin = HostClock::read();
  u32 under_way = 0;
  Error error{};
  const auto answered = [&](Result<Written> r) {
    --under_way;
    if (r.is_error()) error = r.error();
  };
  for (u64 at = 0; at < memory.bytes && error.code == 0;) {
    const u64 bytes = std::min(piece_bytes, memory.bytes - at);
    const std::span<const std::byte> piece(memory.data + at, bytes);
    const Write write{at, memory.handle, u32{0}};
    Result<message::RequestId> sent = Error::of(EAGAIN, "");
    if (bytes <= Write::max_tail) {
      sent = messenger_.request<Write, Written>(island_, write, {.tail = piece}, Time::never(),
                                                answered);
    } else if (auto lent = messenger_.allocate(island_, bytes)) {
      std::memcpy(lent.value().bytes().data(), piece.data(), bytes);
      sent = messenger_.request<Write, Written>(island_, write, {.lend = &lent.value()},
                                                Time::never(), answered);
    } else {
      sent = lent.error();
    }
    if (sent) {
      ++under_way;
      at += bytes;
    } else if (sent.error().code == EAGAIN) {
      turn();
    } else {
      error = sent.error();
    }
  }
  turn_until([&] { return under_way == 0; });
  if (error.code != 0) return error;
  memory.island_has = true;
  counts_.uploaded += memory.bytes;
  const double a_byte =
      static_cast<double>((HostClock::read() - begin).ns) / static_cast<double>(memory.bytes);
  ns_a_byte_ += (a_byte - ns_a_byte_) / 4;
  return {};
}

Result<void> Host::fetch(Memory& memory) {
  if (memory.error.code != 0) return memory.error;
  if (memory.host_has) return {};
  u32 under_way = 0;
  Error error{};
  for (u64 at = 0; at < memory.bytes && error.code == 0;) {
    const u64 bytes = std::min(piece_bytes, memory.bytes - at);
    const auto sent = messenger_.request<Read, Contents>(
        island_, Read{at, bytes, memory.handle, u32{0}}, Time::never(),
        [&, at, bytes](Result<Contents> r, message::Incoming& in) {
          --under_way;
          if (r.is_error()) {
            error = r.error();
            return;
          }
          const auto came = in.loan.valid() ? in.loan.bytes() : in.tail;
          if (came.size() != bytes) {
            error = Error::of(EPROTO, "the island sent another number of bytes");
          } else {
            std::memcpy(memory.data + at, came.data(), bytes);
          }
        });
    if (sent) {
      ++under_way;
      at += bytes;
    } else if (sent.error().code != EAGAIN) {
      error = sent.error();
    }
    // A few at a time: the island lends what it sends.
    turn_until([&] { return under_way < 4; });
    if (error.code == EAGAIN) error = {};
  }
  turn_until([&] { return under_way == 0; });
  if (error.code != 0) return memory.error = error;
  memory.host_has = true;
  counts_.fetched += memory.bytes;
  return {};
}

Result<void> Host::wait_to_read(Memory& memory) {
  turn_until([&] { return memory.writers == 0; });
  return fetch(memory);
}

Result<void> Host::wait_to_write(Memory& memory, bool keep) {
  turn_until([&] { return memory.users == 0; });
  if (keep) TRY(fetch(memory));
  memory.error = {};
  memory.host_has = true;
  memory.island_has = arena_.valid();
  return {};
}

Result<void> Host::bring_all(const Request& request) {
  for (u32 i = 0; i < request.buffers; ++i)
    if (reads(request.uses[i])) TRY(bring(*request.memories[i]));
  return {};
}

double Host::transfer_ns(const Request& request) const {
  if (arena_.valid()) return 0;
  double bytes = 0;
  for (u32 i = 0; i < request.buffers; ++i) {
    const Memory& memory = *request.memories[i];
    if (reads(request.uses[i]) && !memory.island_has) bytes += static_cast<double>(memory.bytes);
    // At home it would have to come back first: as much in favour of away.
    if (reads(request.uses[i]) && !memory.host_has) bytes -= static_cast<double>(memory.bytes);
  }
  return bytes * ns_a_byte_;
}

}  // namespace cob::offload
