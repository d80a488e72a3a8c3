// Connecting the kernels of kernels.h.
// Each pair of kernels exchanges its memories' descriptors in the same order on both sides.
// One thread each.
#include "bench/messages/kernels.h"

#include "base/passing.h"

namespace cob::bench {

using message::Messenger;

namespace {

Result<void> exchange(Seat& seat, Messenger& messenger, KernelId peer,
                      const KernelOptions& options) {
  const Fd memory = TRY(messenger.open_link(
      peer, 1, options.with_doorbell ? std::move(seat.doorbell) : Doorbell{}, options.bulk_bytes));
  const FdRef passed = memory.ref();
  TRY(send_struct(seat.socket, u8{1}, std::span(&passed, 1)));
  std::array<std::byte, 8> buffer{};
  Datagram got = TRY(receive_datagram(seat.socket, buffer));
  if (got.descriptors.empty()) return Error::of(EPROTO, "no memory from the other process");
  return messenger.peer_up(peer, 1, std::move(got.descriptors.front()));
}

}  // namespace

Result<std::vector<std::unique_ptr<Messenger>>> connect_kernels(
    Seat& seat, const KernelOptions& options, const std::function<void(Messenger&)>& prepare) {
  std::vector<std::unique_ptr<Messenger>> kernels;
  const u16 all = static_cast<u16>(options.answerers + 1);
  for (u16 i = 1; i < all; ++i) {
    const KernelId self = seat.drives ? driver_kernel : KernelId(i);
    const KernelId peer = seat.drives ? KernelId(i) : driver_kernel;
    if (!seat.drives || kernels.empty()) {
      kernels.push_back(TRY(Messenger::create(self, 1, all)));
      prepare(*kernels.back());
    }
    TRY(exchange(seat, *kernels.back(), peer, options));
  }
  return kernels;
}

Result<std::unique_ptr<Messenger>> connect_kernel(Seat& seat, const KernelOptions& options,
                                                  const std::function<void(Messenger&)>& prepare) {
  auto kernels = TRY(connect_kernels(seat, options, prepare));
  return std::move(kernels.front());
}

}  // namespace cob::bench
