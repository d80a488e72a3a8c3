// Refusals: how often connections were turned away, by cause; each cause is logged once.
// Model: counters of a PeerStats, once there is one. Owned by a listener or transport.
#pragma once

#include "base/log.h"
#include "message/socket/stream_format.h"

namespace cob::message {

class Refusals {
 public:
  // For others to read too.
  void count_in(PeerStats& stats) { stats_ = &stats; }
  // `where`: whose connection, for the log.
  void count(StreamRefusal refusal, const char* where, u16 kernel) {
    if (stats_ != nullptr) ++stats_->connections_refused[refusal];
    ++counts_[refusal];
    if (counts_[refusal] == 1) COB_LOG(warn, "kernel {}: {}: {}", kernel, where, name_of(refusal));
  }
  u64 operator[](StreamRefusal refusal) const { return counts_[refusal]; }
  u64 total() const { return counts_; }

 private:
  CounterOf<StreamRefusal, stream_refusals> counts_;
  PeerStats* stats_ = nullptr;
};

}  // namespace cob::message
