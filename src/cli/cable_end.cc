// The talk between the supervisors of two cobs; see cable_end.h, cable_protocol.h. What is handed
// on to a kernel is checked here first: it is a memory or a Unix socket, which can be closed
// without waiting for its maker. The supervisor's thread.
#include "cli/cable_end.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "net/snap_bean/cable_link.h"
#include "net/snap_bean/steering.h"

namespace cob::cli {
namespace {

using message::ControlKind;

message::Simple simple(ControlKind kind, u32 value = 0, u32 epoch = 0) {
  return {.kind = std::to_underlying(kind), .value = value, .epoch = epoch};
}

Fd copy_of(FdRef fd) { return Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

std::vector<Fd> one(Fd fd) {
  std::vector<Fd> descriptors;
  descriptors.push_back(std::move(fd));
  return descriptors;
}

u32 mask_of(u32 prefix_bits) { return prefix_bits == 0 ? 0 : ~0U << (32 - prefix_bits); }

// What a stranger calls itself, fit to be shown.
std::string shown(const std::array<char, 32>& name) {
  std::string text(name.data(), ::strnlen(name.data(), name.size()));
  std::ranges::replace_if(text, [](char c) { return c < '!' || c > '~'; }, '?');
  return text.empty() ? "?" : text;
}

}  // namespace

CableEnd::CableEnd(std::string name, CobAddress address, std::vector<KernelSlot>& kernels,
                   FdRef steering, Log log)
    : name_(std::move(name)),
      address_(address),
      kernels_(kernels),
      steering_(steering),
      log_(std::move(log)),
      wires_(max_kernels * max_kernels) {}

Result<void> CableEnd::plug(Fd socket, Role role, Time now) {
  if (in_use()) return Error::of(EBUSY, "there is a cable already");
  int domain = 0, type = 0;
  socklen_t length = sizeof domain;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 ||
      ::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 || domain != AF_UNIX ||
      type != SOCK_SEQPACKET)
    return Error::of(EPERM, "a cable is a Unix socket of datagrams");
  ucred peer{};
  length = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return Error::from_errno("SO_PEERCRED");
  other_user_ = peer.uid;
  socket_ = std::move(socket);
  role_ = role;
  greeted_ = false;
  greet_until_ = now + hello_timeout;
  ended_.clear();
  CableHello hello{};
  hello.kind = CableKind::hello;
  hello.magic = CableHello::magic_value;
  hello.version = CableHello::protocol_version;
  hello.address = address_.address;
  hello.prefix_bits = address_.prefix_bits;
  hello.kernels = static_cast<u16>(kernels_.size());
  name_.copy(hello.name.data(), hello.name.size());
  tell(hello, one(copy_of(steering_)));
  return {};
}

void CableEnd::unplug(const std::string& why) {
  if (!in_use()) return;
  log_(fmt::format("the cable to cob '{}' is unplugged: {}", greeted_ ? other_name_ : "?", why));
  const bool told = greeted_;
  // First of all, for telling kernels may come back here.
  socket_.reset();
  greeted_ = false;
  outbox_.clear();
  other_steering_.reset();
  other_kernels_ = 0;
  peers_ = {};
  std::ranges::fill(wires_, Wire{});
  ended_ = why;
  if (!told) return;
  for (KernelSlot& kernel : kernels_) {
    if (kernel.running()) tell_kernel(kernel, simple(ControlKind::cable_unplugged));
  }
}

template <typename Struct>
void CableEnd::tell(const Struct& message, std::vector<Fd> descriptors) {
  if (!in_use()) return;
  for (const Fd& fd : descriptors) {
    if (!fd.valid()) return unplug("out of descriptors");
  }
  if (outbox_.send_struct(socket_.ref(), message, std::move(descriptors)).is_error())
    unplug("the other cob does not take its messages");
}

// A kernel that does not keep up with a stranger's news has done nothing wrong.
template <typename Struct>
void CableEnd::tell_kernel(KernelSlot& kernel, const Struct& message, std::vector<Fd> descriptors) {
  for (const Fd& fd : descriptors) {
    if (!fd.valid()) return unplug("out of descriptors");
  }
  if (kernel.send(message, std::move(descriptors)).is_error() && in_use())
    unplug(fmt::format("kernel {} does not take its messages", kernel.id()));
}

void CableEnd::on_deadline(Time now) {
  if (deadline() <= now) unplug("the other end said no hello");
}

void CableEnd::on_socket(Time now) {
  alignas(8) std::array<std::byte, 128> buffer{};
  for (int budget = 64; budget > 0 && in_use(); --budget) {
    auto received = receive_datagram(socket_.ref(), buffer, Blocking::never);
    if (received.is_error() && received.error().code == EAGAIN) return;
    if (received.is_error() || received.value().bytes == 0)
      return unplug(greeted_ ? "the other cob has ended, or unplugged it"
                             : "the other end hung up before it said hello");
    Datagram datagram = received.release_value();
    CableKind kind{};
    if (datagram.truncated || datagram.bytes < sizeof kind)
      return unplug("the other cob sent a malformed message");
    const auto read = [&](auto& message) {
      if (datagram.bytes != sizeof message) return false;
      std::memcpy(&message, buffer.data(), sizeof message);
      return true;
    };
    message::le<CableKind> first;
    std::memcpy(&first, buffer.data(), sizeof first);
    kind = first;
    CableHello hello;
    CableKernel news;
    CableWire wire;
    if (kind == CableKind::hello && !greeted_ && read(hello)) {
      on_hello(hello, datagram);
    } else if (kind == CableKind::kernel_up && greeted_ && read(news)) {
      on_kernel(news, true, now);
    } else if (kind == CableKind::kernel_down && greeted_ && read(news)) {
      on_kernel(news, false, now);
    } else if (kind == CableKind::bell && greeted_ && role_ == Role::other && read(wire)) {
      on_bell(wire, datagram);
    } else if (kind == CableKind::memory && greeted_ && read(wire)) {
      on_memory(wire, datagram);
    } else {
      return unplug("the other cob sent what no cable carries");
    }
  }
}

void CableEnd::on_hello(const CableHello& hello, Datagram& datagram) {
  if (hello.magic != CableHello::magic_value || hello.version != CableHello::protocol_version)
    return unplug("the other end speaks another protocol, or another version of it");
  const CobAddress other{hello.address, hello.prefix_bits};
  if (hello.kernels == 0 || hello.kernels > max_kernels || other.prefix_bits > 32 ||
      datagram.descriptors.size() != 1)
    return unplug("the other cob sent a malformed hello");
  if (other.address == address_.address)
    return unplug(fmt::format("both cobs have the address {}", format_address(address_)));
  if (other.prefix_bits != address_.prefix_bits ||
      ((other.address ^ address_.address) & mask_of(address_.prefix_bits)) != 0)
    return unplug(fmt::format("the other cob's address {} is of another network than {}",
                              format_address(other), format_address(address_)));
  const FdRef steering = datagram.descriptors[0].ref();
  if (const auto reader = net::SteeringReader::open(steering); reader.is_error())
    return unplug(fmt::format("the other cob's steering tables: {}", reader.error().what));
  other_steering_ = std::move(datagram.descriptors[0]);
  other_name_ = shown(hello.name);
  other_address_ = other;
  other_kernels_ = hello.kernels;
  greeted_ = true;
  log_(fmt::format("a cable to cob '{}' of user {} at {} is plugged in", other_name_, other_user_,
                   format_address(other)));
  for (KernelSlot& kernel : kernels_) {
    if (kernel.running()) on_kernel_up(kernel);
  }
}

// ---- kernels of the two cobs

void CableEnd::on_kernel_up(KernelSlot& kernel) {
  if (!plugged()) return;
  tell_kernel(kernel, simple(ControlKind::cable_plugged), one(copy_of(other_steering_.ref())));
  CableKernel news{};
  news.kind = CableKind::kernel_up;
  news.kernel = kernel.id();
  news.epoch = kernel.epoch();
  tell(news);
  for (u16 peer = 0; peer < other_kernels_; ++peer) make_wire(kernel, peer);
}

void CableEnd::on_kernel_down(const KernelSlot& kernel, u32 epoch) {
  if (!plugged()) return;
  CableKernel news{};
  news.kind = CableKind::kernel_down;
  news.kernel = kernel.id();
  news.epoch = epoch;
  tell(news);
  for (u16 peer = 0; peer < other_kernels_; ++peer) wire(kernel.id(), peer) = {};
}

void CableEnd::on_kernel(const CableKernel& news, bool up, Time now) {
  if (news.kernel >= other_kernels_ || news.epoch == 0)
    return unplug("the other cob spoke of a kernel that it does not have");
  const auto id = static_cast<u16>(news.kernel);
  Peer& peer = peers_[id];
  if (up ? news.epoch <= peer.last_epoch : news.epoch != peer.epoch)
    return unplug("the other cob told of lives that cannot be");
  if (peer.epoch != 0) {
    for (KernelSlot& kernel : kernels_) drop_wire(kernel, id);
  }
  peer.epoch = 0;
  if (!up || !plugged()) return;
  while (!peer.lives.empty() && now - peer.lives.front() > lives_window) peer.lives.pop_front();
  if (peer.lives.size() >= most_lives)
    return unplug(fmt::format("the other cob's kernel {} dies too often", id));
  peer.lives.push_back(now);
  peer.epoch = peer.last_epoch = news.epoch;
  for (KernelSlot& kernel : kernels_) {
    if (kernel.running()) make_wire(kernel, id);
  }
}

// ---- wires

// The maker makes the bell when both kernels live.
void CableEnd::make_wire(KernelSlot& kernel, u16 peer) {
  if (!plugged() || role_ != Role::maker || peers_[peer].epoch == 0) return;
  auto bell = net::make_cable_bell();
  if (bell.is_error()) return unplug("out of descriptors");
  CableWire message{};
  message.kind = CableKind::bell;
  message.from = kernel.id();
  message.to = peer;
  message.from_epoch = kernel.epoch();
  message.to_epoch = peers_[peer].epoch;
  tell(message, one(std::move(bell.value().second)));
  open_wire(kernel, peer, std::move(bell.value().first));
}

void CableEnd::open_wire(KernelSlot& kernel, u16 peer, Fd bell) {
  if (!plugged()) return;
  wire(kernel.id(), peer) = {
      .own_epoch = kernel.epoch(), .peer_epoch = peers_[peer].epoch, .opened = true};
  message::LinkNotice open{};
  open.kind = std::to_underlying(ControlKind::wire_open);
  open.peer = peer;
  open.peer_epoch = peers_[peer].epoch;
  open.own_epoch = kernel.epoch();
  tell_kernel(kernel, open, one(std::move(bell)));
}

void CableEnd::drop_wire(KernelSlot& kernel, u16 peer) {
  Wire& gone = wire(kernel.id(), peer);
  const bool told = gone.opened && kernel.running() && kernel.epoch() == gone.own_epoch;
  const u32 epoch = gone.peer_epoch;
  gone = {};
  if (told) tell_kernel(kernel, simple(ControlKind::wire_down, peer, epoch));
}

CableEnd::Wire* CableEnd::wire_of(const CableWire& message, const Datagram& datagram) {
  if (message.from >= other_kernels_ || message.to >= kernels_.size() ||
      datagram.descriptors.size() != 1) {
    unplug("the other cob sent a malformed wire");
    return nullptr;
  }
  // Its own kernel's life it knows; ours may have ended meanwhile.
  if (message.from_epoch == 0 || message.from_epoch != peers_[message.from].epoch) {
    unplug("the other cob told of lives that cannot be");
    return nullptr;
  }
  const KernelSlot& kernel = kernels_[message.to];
  if (!kernel.running() || kernel.epoch() != message.to_epoch) return nullptr;
  return &wire(message.to, message.from);
}

void CableEnd::on_bell(const CableWire& message, Datagram& datagram) {
  const Wire* wire = wire_of(message, datagram);
  if (wire == nullptr) return;
  if (net::check_cable_bell(datagram.descriptors[0].ref()).is_error() || wire->opened)
    return unplug("the other cob sent a bell that is none, or a second one");
  open_wire(kernels_[message.to], message.from, std::move(datagram.descriptors[0]));
}

void CableEnd::on_memory(const CableWire& message, Datagram& datagram) {
  Wire* wire = wire_of(message, datagram);
  if (wire == nullptr) return;
  if (check_memory(datagram.descriptors[0].ref(), sizeof(net::CableMemory), Writers::creator)
          .is_error() ||
      !wire->opened || wire->memory_in)
    return unplug("the other cob sent a memory that is none, or a second one");
  wire->memory_in = true;
  message::LinkNotice notice{};
  notice.kind = std::to_underlying(ControlKind::wire_memory);
  notice.peer = message.from;
  notice.peer_epoch = message.from_epoch;
  notice.own_epoch = message.to_epoch;
  tell_kernel(kernels_[message.to], notice, std::move(datagram.descriptors));
}

// ---- what our kernels say

bool CableEnd::on_wire_memory(const KernelSlot& kernel, const message::LinkNotice& notice,
                              Datagram& datagram) {
  if (datagram.descriptors.size() != 1 || notice.peer >= max_kernels ||
      notice.own_epoch != kernel.epoch())
    return false;
  if (!plugged()) return true;
  Wire& of = wire(kernel.id(), notice.peer);
  if (!of.opened || of.own_epoch != kernel.epoch() || of.peer_epoch != notice.peer_epoch)
    return true;  // over meanwhile
  if (of.memory_out) return false;
  of.memory_out = true;
  CableWire message{};
  message.kind = CableKind::memory;
  message.from = kernel.id();
  message.to = notice.peer;
  message.from_epoch = kernel.epoch();
  message.to_epoch = notice.peer_epoch;
  tell(message, std::move(datagram.descriptors));
  return true;
}

bool CableEnd::on_wire_cut(const KernelSlot& kernel, const message::Simple& report) {
  if (report.value >= max_kernels) return false;
  if (!plugged()) return true;
  ++cut_;
  log_(
      fmt::format("kernel {} cut the wire to kernel {} (epoch {}) of cob '{}': it broke the "
                  "protocol of frames",
                  kernel.id(), report.value, report.epoch, other_name_));
  return true;
}

nlohmann::json CableEnd::describe() const {
  if (!in_use() && ended_.empty()) return nullptr;
  if (!in_use()) return {{"state", "unplugged"}, {"why", ended_}, {"cut", cut_}};
  if (!greeted_) return {{"state", "greeting"}, {"cut", cut_}};
  const auto alive =
      std::ranges::count_if(peers_, [](const Peer& peer) { return peer.epoch != 0; });
  return {{"state", "plugged"},
          {"name", other_name_},
          {"address", format_address(other_address_)},
          {"uid", other_user_},
          {"kernels", other_kernels_},
          {"alive", alive},
          {"cut", cut_}};
}

}  // namespace cob::cli
