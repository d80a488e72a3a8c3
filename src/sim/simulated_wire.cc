// The simulated wire's ports. See simulated_wire.h.
// Model: the uplink is a hub: every other port hears every frame and judges the address itself.
// Owned by the simulation or test; one thread.
#include "sim/simulated_wire.h"

#include <utility>

#include "base/result.h"

namespace cob::sim {

class SimulatedWire::Port final : public net::Device {
 public:
  Port(SimulatedWire& wire, u16 id) : wire_(wire), id_(id) {}

  std::size_t max_frame_bytes(net::Route to) const override {
    return to.is_uplink() ? wire_.options_.uplink_frame_bytes : wire_.options_.inside_frame_bytes;
  }
  bool skips_checksums(net::Route to) const override {
    return !to.is_uplink() && wire_.options_.inside_skips_checksums;
  }
  std::span<std::byte> reserve(net::Route to, std::size_t bytes) override {
    VERIFY(bytes <= max_frame_bytes(to));
    const bool gone = !to.is_uplink() && to.kernel >= wire_.ports_.size();
    if (gone || outgoing_.size() >= wire_.options_.queue_frames) return {};
    if (!to.is_uplink() && wire_.ports_[to.kernel]->incoming_.size() >= wire_.options_.queue_frames)
      return {};
    open_ = {std::vector<std::byte>(bytes), to, {}};
    return open_.bytes;
  }
  bool commit(std::size_t bytes, net::FrameFlags flags) override {
    VERIFY(bytes <= open_.bytes.size());
    open_.bytes.resize(bytes);
    open_.flags = flags;
    outgoing_.push_back(std::move(open_));
    open_ = {};
    return true;
  }
  void flush() override {
    for (Frame& f : outgoing_) {
      if (!f.route.is_uplink()) {
        const net::Route from = net::Route::inside(KernelId(id_));
        wire_.ports_[f.route.kernel]->incoming_.push_back({std::move(f.bytes), from, f.flags});
        continue;
      }
      for (auto& other : wire_.ports_)
        if (other.get() != this) other->incoming_.push_back({f.bytes, f.route, f.flags});
    }
    outgoing_.clear();
  }
  std::size_t poll(std::size_t budget, net::FrameSink& sink) override {
    std::size_t count = 0;
    for (; count < budget && !incoming_.empty(); ++count) {
      const Frame f = std::move(incoming_.front());
      incoming_.pop_front();
      sink.on_frame(f.bytes, f.route, f.flags);
    }
    return count;
  }

 private:
  SimulatedWire& wire_;
  u16 id_;
  Frame open_;
  std::deque<Frame> outgoing_, incoming_;
};

SimulatedWire::SimulatedWire(std::size_t ports, const WireOptions& options) : options_(options) {
  for (std::size_t i = 0; i < ports; ++i)
    ports_.push_back(std::make_unique<Port>(*this, static_cast<u16>(i)));
}

SimulatedWire::~SimulatedWire() = default;

net::Device& SimulatedWire::port(std::size_t port) { return *ports_.at(port); }

}  // namespace cob::sim
