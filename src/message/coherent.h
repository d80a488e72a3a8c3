// CoherentTransport: two kernels on one coherent memory: each maps the other's sealed memfd
// read-only, and a doorbell wakes. Model: nothing moves; death is told by others (pidfd), never
// guessed. memfd_create(2). Owned by the kernel's loop.
#pragma once

#include "base/doorbell.h"
#include "base/memory.h"
#include "message/transport.h"

namespace cob::message {

class CoherentTransport final : public Transport {
 public:
  // Prepares our memory for the peer's epoch `to_epoch` and returns a descriptor of it.
  // `doorbell`: its button rings the peer, its bell is rung by the peer and kept here; without one
  // both ends spin. REQUIRES: start(); not opened().
  Result<Fd> open(u32 to_epoch, u64 bulk_bytes, Doorbell doorbell);
  // The peer's memory has come. EPERM, EMSGSIZE if it is not sealed or no link's memory. The
  // session is up when both are there, in either order. REQUIRES: not accepted().
  Result<void> accept(Fd memory);
  void refuse() { memory_->in.reset(); }  // what was accepted; REQUIRES: no session
  bool opened() const { return memory_->out.valid(); }
  bool accepted() const { return memory_->in.valid(); }
  const Doorbell& doorbell() const { return doorbell_; }
  // REQUIRES: accepted().
  const LinkMemory& in() const {
    return *std::launder(reinterpret_cast<const LinkMemory*>(memory_->in.data()));
  }
  u64 in_bulk_bytes() const { return memory_->in.size() - sizeof(LinkMemory); }

  TransportKind kind() const override { return TransportKind::coherent; }
  void start(const LinkHeader& mine) override { header_ = mine; }
  void poll(Time) override {}
  Time next_deadline() const override { return Time::never(); }
  const LinkEnds* ends() const override { return ends_.in != nullptr ? &ends_ : nullptr; }
  u64 session() const override { return 1; }
  Error why_down() const override { return Error::of(ECONNRESET, "kernel has ended"); }
  void end(const Error&) override { ends_ = {}; }
  void publish() override {}
  void lend(u64, u64) override {}
  void ring() override;
  void set_armed(u32) override {}
  bool pending() const override { return false; }
  Result<void> watch(FdRef) override { return {}; }

 private:
  struct Memory {
    Mapping out, in;
  };
  void complete();

  u64 bulk_bytes_ = 0;
  Doorbell doorbell_;
  LinkHeader header_{};
  std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
  LinkEnds ends_;
};

// Fills fresh, zeroed memory that nobody else sees yet.
LinkMemory* initialise(const Mapping& mapping, const LinkHeader& header);

}  // namespace cob::message
