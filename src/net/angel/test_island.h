// Snapshots for the tests: an island of kernels seen by kernel 0, all idle until said otherwise.
#pragma once

#include <vector>

#include "net/angel/policy.h"

namespace cob::net::angel {

inline constexpr Time start{1'000'000'000'000};

struct TestIsland {
  explicit TestIsland(u16 kernels, const Settings& settings = {})
      : policy(KernelId(0), kernels, settings, 1) {
    for (u16 k = 1; k < kernels; ++k) {
      Peer peer{.kernel = KernelId(k), .listens = true};
      peer.load.kernel = k;
      peer.listener.waiting = 1;
      peers.push_back(peer);
    }
    listener.waiting = 1;
    publish();
  }

  Own own() { return {load, listener, state}; }
  Peer& peer(u16 kernel) { return peers[kernel - 1U]; }
  void publish() {
    for (Peer& p : peers) p.load.published_ns = static_cast<u64>(now.ns);
  }
  void pass(Duration time) {
    now = now + time;
    publish();
  }
  // Nobody here is free, and a turn takes long.
  void busy() {
    listener.waiting = 0;
    state.pace.accepted(0, now);
    now = now + Duration::milliseconds(1);
    state.pace.accepted(0, now);
    publish();
  }
  void all_peers_busy() {
    for (Peer& p : peers) p.listener.waiting = 0;
  }
  Placement place() { return policy.place(own(), peers, now); }
  std::optional<Take> take() { return policy.take(own(), peers, now); }

  Time now = start;
  KernelLoad load;
  ListenerLoad listener;
  ListenerState state;
  std::vector<Peer> peers;
  Policy policy;
};

}  // namespace cob::net::angel
