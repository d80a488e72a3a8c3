// Sockets, active opens: source port, route by the listener directory or to the uplink, and the
// first of `connect`, `bind`. Model: a kernel's ephemeral ports are those of ip_local_port_range
// whose home it is, so that two kernels never pick the same one. connect(2), bind(2), RFC 6056
// section 3.3.1 (order of ports).
#include "kernel/sockets.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

using call::SocketState;

namespace {
constexpr u32 first_ephemeral_port = 32'768,
              ephemeral_ports = 28'232;  // ip(7), ip_local_port_range
}

// Towards the uplink one whose replies come to this kernel; if there is none, any: the replies are
// handed on.
Result<Port> Sockets::ephemeral_port(net::Endpoint remote, net::Ipv4Address local) {
  constexpr Duration looks_again = Duration::milliseconds(2);
  if (now_ < no_port_.until && remote == no_port_.remote && local == no_port_.local)
    return Error::of(EADDRNOTAVAIL, "no free local port");
  if (tables_ != nullptr && goes_out(remote.address)) {
    constexpr auto tcp = net::SteeredProtocol::tcp;
    const net::AddressNames& names = stack_->names();
    const auto reply =
        remote.address.is_ipv6()
            ? net::ReplyPorts(*tables_, tcp, names.address(local).bytes,
                              names.address(remote.address).bytes, remote.port, options_.self)
            : net::ReplyPorts(*tables_, tcp, local, remote, options_.self);
    if (const auto port = ephemeral_port(remote, local, &reply); !port.is_error()) return port;
  }
  const auto port = ephemeral_port(remote, local, nullptr);
  if (port.is_error()) no_port_ = {remote, local, now_ + looks_again};
  return port;
}

Result<Port> Sockets::ephemeral_port(net::Endpoint remote, net::Ipv4Address local,
                                     const net::ReplyPorts* reply) {
  for (u32 tried = 0; tried < ephemeral_ports; ++tried) {
    const u32 candidate = first_ephemeral_port + next_port_;
    next_port_ = (next_port_ + 1) % ephemeral_ports;
    const Port port(static_cast<u16>(candidate));
    if (directory_.home_of(port) != options_.self) continue;
    if (reply != nullptr && !reply->reach(port)) continue;
    if (stack_->tuple_in_use({local, port}, remote, now_)) continue;
    if (directory_.claimed_here(port)) continue;
    return port;
  }
  return Error::of(EADDRNOTAVAIL, "no free local port");
}

// What the uplink reaches: docs/network.md; the shim decides by the same rule.
bool Sockets::goes_out(net::Ipv4Address address) const {
  if (!options_.uplink || ours(address)) return false;
  if (address.is_ipv6()) return stack_->reaches_ipv6(address);
  if (address.value == 0) return false;
  const u32 host_bits = options_.prefix_bits >= 32 ? 0 : ~0u >> options_.prefix_bits;
  if (((address.value ^ options_.address.value) & ~host_bits) == 0)
    return host_bits <= 1 || (address.value & host_bits) != host_bits;  // not its broadcast
  return !options_.gateway.is_any() && address.value >> 28 < 14;
}

// Who listens there. Where nobody asks for a shared listener's connections it is the part of this
// kernel, if there is one: who listened elsewhere may have ended just now.
std::optional<KernelId> Sockets::find_listener(net::Endpoint remote) {
  const auto kernel = directory_.find_listener(remote);
  if (!has_parts_ || (kernel && *kernel == options_.self)) return kernel;
  for (const auto& [id, group] : by_listener_) {
    const Description& d = *group.members.front();
    const SharedListener* part = d.shared->part.get();
    if (part != nullptr && part->accepting.empty() && d.local.port == remote.port &&
        d.local.address.overlaps(remote.address))
      return options_.self;
  }
  return kernel;
}

// By load; nullopt: it goes to `listener`.
std::optional<KernelId> Sockets::placed_elsewhere(KernelId listener, net::Endpoint remote) {
  if (placement_ == nullptr || listener != options_.self) return std::nullopt;
  return placement_->place(remote, std::nullopt);
}

// It was answered, or has ended. False: it was not placed elsewhere, or that is settled.
bool Sockets::settle_placed(net::TcbId tcb, bool served) {
  const auto found = placed_.find(tcb.value);
  if (found == placed_.end()) return false;
  placement_->settled(found->second, served);
  placed_.erase(found);
  return true;
}

// Who listened elsewhere, or its kernel, has ended just now: the listener here gets it.
bool Sockets::connect_here(Description& d) {
  if (d.state != SocketState::connecting || d.references == 0) return false;
  d.tcb = net::no_tcb;
  return !start_connect(d, d.remote, d.local, false, Placing::here).is_error();
}

// Starts the handshake. ECONNREFUSED: nobody listens there. ENETUNREACH: only on other islands,
// which frames do not reach. EHOSTUNREACH: neither an address of this cob nor one that its uplink
// reaches.
Result<void> Sockets::start_connect(Description& d, net::Endpoint remote, net::Endpoint local,
                                    bool fast_open, Placing placing) {
  if (remote.address.is_any()) remote.address = options_.address;
  net::Route route = net::Route::uplink();
  std::optional<KernelId> listener;
  if (ours(remote.address)) {
    listener = find_listener(remote);
    if (!listener) {
      if (directory_.listens_out_of_reach(remote))
        return Error::of(ENETUNREACH, "connect: a listener of another island");
      return Error::of(ECONNREFUSED, "connect: no listener");
    }
    route = net::Route::inside(*listener);
  } else if (!goes_out(remote.address)) {
    return Error::of(EHOSTUNREACH, "connect: no uplink");
  }
  if (d.bound) local = d.local;
  if (local.address.is_any()) local.address = source_towards(remote.address);
  if (local.address.is_any()) return Error::of(EADDRNOTAVAIL, "connect: no source address");
  if (local.port.value == 0) local.port = TRY(ephemeral_port(remote, local.address));
  if (d.listened) forget_offers(d);
  d.local = local;
  d.remote = remote;
  const auto elsewhere =
      listener && placing == Placing::by_load ? placed_elsewhere(*listener, remote) : std::nullopt;
  if (elsewhere) route = net::Route::inside(*elsewhere);
  auto tcb = stack_->connect({.local = local,
                              .remote = remote,
                              .route = route,
                              .cookie = to_cookie(d),
                              .max_segment_bytes = d.settings->max_segment_bytes,
                              .fast_open = fast_open});
  if (elsewhere && tcb.is_error()) placement_->settled(*elsewhere, false);
  d.tcb = TRY(std::move(tcb));
  if (elsewhere) {
    placed_.insert_or_assign(d.tcb.value, *elsewhere);
    ++counters_.connects_redirected;
  }
  // What waits for its first bytes takes them as a connection does.
  d.state =
      fast_open && stack_->waits_for_data(d.tcb) ? SocketState::connected : SocketState::connecting;
  apply_options(d);
  return {};
}

void Sockets::write_names(Description& d) {
  for (const Holder& h : d.holders) h.program->arena().ours().names[h.slot] = names_of(d);
}

void Sockets::connect(Program& program, u32 number, net::Endpoint remote, net::Endpoint local,
                      bool fast_open) {
  Description& d = *program.slot(number).description;
  if (d.state != SocketState::undecided || d.datagram != nullptr) return;
  if (d.claiming) return fail(d, EALREADY);
  const auto started = start_connect(d, remote, local, fast_open);
  if (started.is_error()) {
    fail(d, started.error().code);
    return;
  }
  for (const Holder& h : d.holders) publish(h.program->ours(h.slot).state, d.state);
  if (d.state == SocketState::connected) write_flags(d);
  write_names(d);
}

i32 Sockets::connect_local(Program& program, u32 number, net::Endpoint remote, net::Endpoint local,
                           bool fast_open) {
  Description& d = *program.slot(number).description;
  if (d.state != SocketState::undecided || d.datagram != nullptr) return -EISCONN;
  if (d.claiming) return -EALREADY;
  // An address that may be the host's: without a cob listener, or a way out, it is.
  if (remote.address.is_loopback() ? !find_listener(remote)
                                   : !ours(remote.address) && !goes_out(remote.address))
    return -EHOSTUNREACH;
  const auto started = start_connect(d, remote, local, fast_open);
  if (started.is_error()) return -started.error().code;
  for (const Holder& h : d.holders) publish(h.program->ours(h.slot).state, d.state);
  if (d.state == SocketState::connected) write_flags(d);
  write_names(d);
  return 0;
}

void Sockets::on_connected(net::TcbId, u64 cookie) {
  Description& d = from_cookie(cookie);
  if (d.references == 0) return;
  d.state = SocketState::connected;
  write_flags(d);
}

void Sockets::bind(Program& program, u32 number, net::Endpoint local, bool reuse_address,
                   bool reuse_port, const CallOrigin& origin) {
  Description& d = *program.slot(number).description;
  if (d.bound || d.claiming || d.state != SocketState::undecided || d.datagram != nullptr)
    return answer(origin, -EINVAL);
  if (!local.address.is_any() && !ours(local.address)) return answer(origin, -EADDRNOTAVAIL);
  const bool port_given = local.port.value != 0;
  if (!port_given) {
    const auto port = ephemeral_port({}, local.address);
    if (port.is_error()) return answer(origin, -EADDRINUSE);
    local.port = port.value();
  }
  d.reuse_address = reuse_address;
  d.reuse_port = reuse_port;
  const PortClaim claim{.local = local,
                        .owner = options_.self,
                        .handle = d.handle,
                        .reuse_address = reuse_address,
                        .reuse_port = reuse_port,
                        .group = group_of(d)};
  d.claiming = true;
  directory_.claim(claim, now_, [this, local, port_given, handle = d.handle, origin](i32 result) {
    Description* bound = at_handle(handle);
    if (bound != nullptr) bound->claiming = false;
    if (result == 0) {
      if (bound == nullptr || bound->state != SocketState::undecided) {
        // Closed, or in error, while the claim was under way.
        directory_.unclaim(local, handle);
        result = -EINVAL;
      } else {
        bound->bound = true;
        bound->port_given = port_given;
        bound->local = local;
        write_names(*bound);
      }
    }
    const u64 values[] = {local.port.value, local.address.value};
    answer(origin, result, values, 2);
  });
}

// The port was granted while its home was down, and another kernel's claim was there first when it
// came back: the later owner's listener ends with EADDRINUSE, connections go on.
void Sockets::claim_lost(u32 handle) {
  Description* d = at_handle(handle);
  if (d == nullptr) return;
  if (d->datagram != nullptr) {
    unbind_datagram(*d);
    d->error = EADDRINUSE;
    return write_flags(*d);
  }
  d->bound = false;
  if (d->state != SocketState::listening) return;
  d->error = EADDRINUSE;
  end_listening(*d);
}

}  // namespace cob::kernel
