// Files: which shares are whose, and the parts' turns; see files.h.
#include "kernel/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace cob::kernel {

Result<std::unique_ptr<Files>> Files::create(const message::Config& config,
                                             std::span<const Share> shares,
                                             message::Messenger& messenger) {
  const auto islands = std::span(config.island).first(config.kernels);
  const bool several =
      std::any_of(islands.begin(), islands.end(), [&](u8 i) { return i != islands[0]; });
  if (!several) return std::unique_ptr<Files>();
  std::unique_ptr<Files> files(new Files(config, messenger));
  files->find_remote(config, shares);
  const auto served = files->serve(config, shares);
  if (served.is_error())
    COB_LOG(warn, "kernel {}: its shares are not served: {}: {}", config.kernel,
            served.error().what, std::strerror(served.error().code));
  return files;
}

Files::Files(const message::Config& config, message::Messenger& messenger)
    : messenger_(messenger),
      islands_(config),
      self_(config.kernel),
      holder_(messenger, clock_),
      locker_(messenger, holder_),
      passes_(messenger, holder_),
      watcher_(messenger, holder_),
      asker_(messenger) {
  fs::know_controls(messenger);
}

// The same entry for all that this kernel asks of an island.
void Files::find_remote(const message::Config& config, std::span<const Share> shares) {
  for (const Share& share : shares) {
    if (share.island == islands_.of(self_)) continue;
    std::vector<KernelId> kernels;
    for (u16 k = 0; k < config.kernels; ++k)
      if (islands_.of(KernelId(k)) == share.island) kernels.emplace_back(k);
    if (kernels.empty()) continue;
    if (share.path.size() >= sizeof(call::RemoteShare::path) ||
        remote_.size() == call::max_remote_shares) {
      COB_LOG(warn, "kernel {}: programs do not see the share {}: its path is too long",
              self_.value, share.path);
      continue;
    }
    remote_.push_back({share.number, share.path, kernels[self_.value % kernels.size()]});
  }
}

Result<void> Files::serve(const message::Config& config, std::span<const Share> shares) {
  const auto ours = [&](const Share& share) {
    return share.island == islands_.of(self_) && share.root.valid();
  };
  ring_ = TRY(fs::Ring::create());
  auto leases = fs::HostLeases::create(*ring_);
  if (leases.is_error()) {
    COB_LOG(warn, "kernel {}: other islands cache nothing of its shares: {}", self_.value,
            leases.error().what);
  } else {
    leases_ = leases.release_value();
  }
  home_ = std::make_unique<descriptor::Home>(messenger_, clock_, config.epoch);
  locks_ = std::make_unique<descriptor::Locks>(messenger_, *home_, clock_);
  watches_ = std::make_unique<descriptor::Watches>(messenger_, *home_);
  controls_ = std::make_unique<fs::Controls>(messenger_, *home_);
  fs::Names::Parts parts{
      .messenger = messenger_,
      .ring = *ring_,
      .self = self_,
      .adopt = [this](std::unique_ptr<fs::HostObject> object,
                      KernelId holder) -> Result<fs::Names::Adoption> {
        // A directory's position is what getdents(2) goes on from: it stays at the host.
        const bool stays = object->kind() == fs::HostObject::Kind::directory;
        object->use_leases(leases_.get());
        const auto opened = TRY(home_->open(std::move(object), holder, stays));
        return fs::Names::Adoption{
            .handle = opened.handle, .grant = opened.grant, .file_lease = opened.file_lease};
      },
      .find = [this](descriptor::Handle handle, KernelId holder) -> fs::HostObject* {
        return dynamic_cast<fs::HostObject*>(home_->find(handle, holder));
      },
      .clock = &clock_};
  names_ = std::make_unique<fs::Names>(std::move(parts));
  for (const Share& share : shares) {
    if (!ours(share)) continue;
    const auto path = "/proc/self/fd/" + std::to_string(share.root.get());
    const auto added = names_->add_share(share.number, path, share.read_only);
    if (added.is_error())
      COB_LOG(warn, "kernel {}: the share {} is not served: {}", self_.value, share.path,
              std::strerror(added.error().code));
  }
  return {};
}

// Objects have nothing under way when they end; what could wait for an event is cancelled by that.
Files::~Files() {
  if (ring_ == nullptr) return;
  if (leases_ != nullptr) leases_->stop();
  if (watches_ != nullptr) watches_->end();
  const Time patience = HostClock::read() + Duration::seconds(5);
  while ((ring_->under_way() > 0 || ring_->workers().under_way() > 0) &&
         HostClock::read() < patience) {
    if (ring_->poll() == 0) ::usleep(100);
  }
}

std::optional<KernelId> Files::entry_of(u32 share) const {
  for (const Remote& remote : remote_)
    if (remote.number == share) return remote.entry;
  return std::nullopt;
}

void Files::show_shares(std::span<call::RemoteShare> table) const {
  for (std::size_t i = 0; i < remote_.size(); ++i) {
    table[i].number = static_cast<u16>(remote_[i].number);
    table[i].path_bytes = static_cast<u16>(remote_[i].path.size());
    std::memcpy(table[i].path, remote_[i].path.data(), remote_[i].path.size());
  }
}

Result<void> Files::control(descriptor::Holder::Ref file, fs::Control what, fs::ControlThen then,
                            std::span<const std::byte> tail) {
  what.handle = descriptor::field_of(holder_.handle(file));
  return fs::ask_control(messenger_, holder_.home(file), what, std::move(then), tail);
}

Result<descriptor::Passes::Item> Files::take_in(Fd descriptor, KernelId holder) {
  auto object = TRY(fs::HostObject::create(std::move(descriptor), *ring_));
  object->set_passed();
  descriptor::Passes::Item item{.home = self_, .handle = {}};
  item.status_flags = TRY(object->flags());
  const descriptor::ObjectTraits traits = object->traits();
  if (traits.has_offset) item.traits |= descriptor::pass_has_offset;
  if (traits.appends) item.traits |= descriptor::pass_appends;
  if (object->is_stream()) item.traits |= descriptor::pass_stream;
  item.handle = TRY(home_->open(std::move(object), holder, true)).handle;
  return item;
}

std::size_t Files::poll(Time now) {
  holder_.poll(now);
  locker_.poll();
  passes_.poll();
  watcher_.poll();
  if (ring_ == nullptr) return 0;
  names_->poll();
  const std::size_t work = ring_->poll();
  if (leases_ != nullptr) leases_->poll(now);
  home_->poll(now);
  locks_->poll(now);
  watches_->poll();
  return work;
}

u64 Files::served() const {
  if (ring_ == nullptr) return 0;
  const fs::Names::Counters& names = names_->counters();
  return names.opens + names.calls + home_->counters().operations;
}

bool Files::waits_for_host() const {
  return ring_ != nullptr && (ring_->works() || ring_->workers().under_way() > 0);
}

Time Files::next_deadline() const {
  if (home_ == nullptr) return holder_.next_deadline();
  const Time leases = leases_ == nullptr ? Time::never() : leases_->next_deadline();
  return std::min(
      {holder_.next_deadline(), home_->next_deadline(), locks_->next_deadline(), leases});
}

void Files::peer_down(KernelId peer) {
  watcher_.peer_down(peer);
  asker_.peer_down(peer);
  if (names_ != nullptr) names_->peer_down(peer);
}

FdRef Files::event() const { return ring_ == nullptr ? FdRef{} : ring_->event(); }

void Files::set_armed(bool armed) {
  if (ring_ == nullptr) return;
  if (armed) ring_->submit();
  ring_->set_armed(armed);
}

bool Files::anything_pending() const { return ring_ != nullptr && ring_->anything_pending(); }

}  // namespace cob::kernel
