// Links to kernels of other islands, by window and by socket; see islands.h. Kernel's loop only.
#include "kernel/islands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cstring>

#include "message/window/window.h"

namespace cob::kernel {

using message::IslandLink;

namespace {

constexpr std::size_t window_bytes = message::window_memory_bytes(IslandLinks::bulk_bytes);

// 16 bytes that the cob's kernels alone have in common.
message::CobId cob_id(const message::Config& config) {
  message::CobId id;
  static_assert(sizeof id == sizeof config.secret);
  std::memcpy(id.data(), config.secret, sizeof id);
  return id;
}

bool is_directory_handle(FdRef fd) {
  struct stat status{};
  const int flags = ::fcntl(fd.get(), F_GETFL);
  return flags >= 0 && (flags & O_PATH) != 0 && ::fstat(fd.get(), &status) == 0 &&
         S_ISDIR(status.st_mode);
}

}  // namespace

Result<Share> read_share(std::span<const std::byte> bytes, std::vector<Fd> descriptors) {
  message::ShareNotice notice;
  const auto malformed = Error::of(EPROTO, "a malformed share");
  if (bytes.size() < sizeof notice) return malformed;
  std::memcpy(&notice, bytes.data(), sizeof notice);
  const auto path = bytes.subspan(sizeof notice);
  if (notice.kind != static_cast<u32>(message::ControlKind::share) ||
      notice.number >= message::most_shares || notice.island >= message::most_kernels ||
      path.empty() || path.size() != notice.path_bytes || descriptors.size() > 1)
    return malformed;
  Share share{.number = static_cast<u8>(notice.number),
              .path = {reinterpret_cast<const char*>(path.data()), path.size()},
              .read_only = notice.read_only != 0,
              .island = notice.island,
              .root = {}};
  if (!descriptors.empty()) {
    if (!is_directory_handle(descriptors[0].ref())) return malformed;
    share.root = std::move(descriptors[0]);
  }
  return share;
}

Result<std::unique_ptr<IslandLinks>> IslandLinks::create(const message::Config& config, Fd listener,
                                                         message::Messenger& messenger) {
  std::unique_ptr<IslandLinks> links(new IslandLinks(config, messenger));
  if (config.link == IslandLink::socket) TRY(links->start_sockets(std::move(listener)));
  return links;
}

bool IslandLinks::is_across(KernelId peer) const {
  return peer.value < config_.kernels && !islands_.together(peer, KernelId(config_.kernel));
}

Result<message::StreamTransportOptions> IslandLinks::stream_options() const {
  message::StreamTransportOptions options{
      .cob = cob_id(config_), .lease = lease, .bulk_bytes = bulk_bytes};
  if (::getrandom(&options.seed, sizeof options.seed, 0) != sizeof options.seed)
    return Error::from_errno("getrandom");
  return options;
}

Result<std::unique_ptr<message::Transport>> IslandLinks::dial(u16 port) {
  if (tls_ == nullptr)
    tls_ = TRY(message::TlsContext::create(
        KernelId(config_.kernel), {.cob_name = config_.cob_name, .key = config_.link_key}));
  const auto address = TRY(message::SocketAddress::ip(fmt::format("127.0.0.1:{}", port)));
  const auto options = TRY(stream_options());
  return std::unique_ptr<message::Transport>(std::make_unique<message::StreamTransport>(
      options, std::make_unique<message::TlsDialer>(tls_, address)));
}

Result<void> IslandLinks::start_sockets(Fd listening) {
  const KernelId self(config_.kernel);
  tls_ = TRY(
      message::TlsContext::create(self, {.cob_name = config_.cob_name, .key = config_.link_key}));
  std::shared_ptr<message::StreamListener> listener;
  if (listening.valid())
    listener = std::make_shared<message::StreamListener>(
        message::ListenerOptions{.cob = cob_id(config_), .self = self},
        std::make_unique<message::TlsAcceptor>(tls_, std::move(listening)));
  for (u16 k = 0; k < config_.kernels; ++k) {
    const KernelId peer(k);
    if (!is_across(peer)) continue;
    // Those are told of by link_at; between two of them there is no link.
    if (is_added(peer)) continue;
    if (k > self.value) {
      const u16 port = config_.link_port[k];
      if (port == 0) return Error::of(EPROTO, "no address of a kernel of another island");
      auto transport = TRY(dial(port));
      TRY(messenger_.add_transport(peer, std::move(transport)));
      continue;
    }
    if (listener == nullptr) return Error::of(EPROTO, "no socket for the links to other islands");
    const auto options = TRY(stream_options());
    TRY(messenger_.add_transport(peer,
                                 std::make_unique<message::StreamTransport>(options, listener)));
  }
  return {};
}

Result<void> IslandLinks::call(KernelId peer, u16 port) {
  if (!is_added(peer) || !is_across(peer) || is_added(KernelId(config_.kernel)))
    return Error::of(EINVAL, "not a kernel of an added island");
  if (const auto removed = messenger_.remove_transport(peer);
      removed.is_error() && removed.error().code != ENOENT)
    return removed;
  if (port == 0) return {};
  return messenger_.add_transport(peer, TRY(dial(port)));
}

Result<Fd> IslandLinks::open(KernelId peer, u32 peer_epoch, Doorbell doorbell) {
  if (config_.link != IslandLink::window || !is_across(peer) || is_added(peer))
    return Error::of(EINVAL, "no window leads to this kernel");
  if (const auto removed = messenger_.remove_transport(peer);
      removed.is_error() && removed.error().code != ENOENT)
    return removed.error();
  opened_.erase(peer.value);
  SharedMemory memory = TRY(create_memory("cob-window", window_bytes, Writers::creator));
  opened_.emplace(peer.value, Opened{.peer_epoch = peer_epoch,
                                     .doorbell = std::move(doorbell),
                                     .theirs = std::move(memory.mapping)});
  return std::move(memory.fd);
}

Result<void> IslandLinks::peer_up(KernelId peer, u32 peer_epoch, FdRef memory) {
  const auto found = opened_.find(peer.value);
  if (found == opened_.end() || found->second.peer_epoch != peer_epoch)
    return Error::of(ESTALE, "memory for no window that is open");
  Mapping mine = TRY(map_foreign(memory, window_bytes, Writers::creator, Access::read));
  Opened opened = std::move(found->second);
  opened_.erase(found);
  message::WindowEnds ends = message::window_ends(std::move(mine), std::move(opened.theirs));
  ends.bell = std::move(opened.doorbell.bell);
  ends.ring = [button = std::move(opened.doorbell.button)] { cob::ring(button.ref()); };
  return messenger_.add_transport(
      peer, TRY(message::WindowTransport::create(
                std::move(ends), {.cob = config_.secret[0], .lease = lease, .seed = 0})));
}

}  // namespace cob::kernel
