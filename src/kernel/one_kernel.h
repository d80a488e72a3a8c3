// OneKernel: a kernel's sockets with its stack and its private wire to itself, for tests that play
// the programs: they write the program side of each arena as the shim would. Model: step() is the
// loop's turn in simulated time. Tests only.
#pragma once

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernel/relay.h"
#include "kernel/sockets.h"
#include "message/messenger.h"
#include "net/snap_bean/inside.h"

namespace cob::kernel {

inline constexpr net::Ipv4Address cob_address{0x0a4d0001};

class OneKernel : public testing::Test, public Sockets::Programs, public net::FrameSink {
 protected:
  OneKernel()
      : messenger_(message::Messenger::create(KernelId(0), 1, 1).release_value()),
        device_(messenger_->links()),
        directory_(KernelId(0), 1),
        sockets_({.self = KernelId(0), .address = cob_address}, directory_, *this) {
    directory_.attach(*messenger_);
    net::StackOptions options;
    options.address = cob_address;
    options.secret[0] = 7;
    options.receive_window_bytes = SocketsOptions{}.receive_limit;
    stack_ = net::Stack::create(options, device_, sockets_).release_value();
    sockets_.set_stack(*stack_);
    sockets_.poll(now_);
    events_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    relays_ = std::make_unique<Relays>(sockets_, events_.ref(), most_relays);
  }

  ~OneKernel() override {
    for (auto& p : programs_) end(*p);
    step(10);
  }

  Program& program() {
    const u32 id = static_cast<u32>(programs_.size()) + 1;
    programs_.push_back(std::make_unique<Program>(id, id, Fd()));
    auto arena = Arena::create().release_value();
    arena->count_in(sockets_.memory());
    programs_.back()->set_arena(std::move(arena));
    programs_.back()->add_thread(0);
    return *programs_.back();
  }

  void end(Program& p) {
    if (p.dead) return;
    p.dead = true;
    for (const bool listeners : {true, false}) {
      p.for_each_slot([&](u32 number, Slot& slot) {
        if ((slot.description->state == call::SocketState::listening) == listeners)
          sockets_.let_go(p, number, false);
      });
    }
    sockets_.arena_orphaned(p.drop_arena());
  }

  void step(int turns = 1) {
    for (int i = 0; i < turns; ++i) {
      now_ = now_ + Duration::microseconds(10);
      messenger_->poll(now_, 64);
      device_.poll(64, *this);
      sockets_.poll(now_);
      relay_events();
      relays_->poll();
      stack_->poll(now_);
      messenger_->flush();
      for (auto& p : programs_)
        if (!p->dead) p->announce();
    }
  }

  void relay_events() {
    epoll_event events[32];
    const int count = ::epoll_wait(events_.get(), events, 32, 0);
    for (int i = 0; i < count; ++i) relays_->on_event(static_cast<u32>(events[i].data.u64));
  }

  // --- the shim's part -----------------------------------------------------------------------
  u32 open(Program& p, u32 number) {
    sockets_.hold(p, number, *sockets_.open().release_value(), 1);
    return number;
  }
  i32 answered(Program& p) { return p.arena().ours().reply[0].result; }
  u32 listener(Program& p, u32 number, u16 port, u32 backlog = 16, bool reuse_port = false) {
    open(p, number);
    sockets_.bind(p, number, {{}, Port(port)}, true, reuse_port,
                  {.program = p.id(), .sequence = 1});
    EXPECT_EQ(answered(p), 0);
    sockets_.listen(p, number, backlog, {}, {.program = p.id(), .sequence = 2});
    EXPECT_EQ(answered(p), 0);
    sockets_.want_accept(p, number);
    return number;
  }
  // Takes the next offer; 0: none.
  u32 accept(Program& p, u32 listener) {
    for (;;) {
      const u64 seen = p.theirs(listener).consumed;
      if (p.ours(listener).received == seen) return 0;
      const u32 ring = p.ours(listener).offer_ring;
      const u32 number = p.arena().ours().offers[ring].socket[seen % call::offer_slots];
      ++p.theirs(listener).consumed;
      if (p.theirs(number).seat != call::seat_offered) continue;
      p.theirs(number).seat = call::seat_idle;
      return number;
    }
  }
  void send(Program& p, u32 number, const std::string& text, u32 chunk) {
    std::memcpy(p.arena().theirs().chunk[chunk], text.data(), text.size());
    call::CallSlot slot{};
    slot.op = call::Op::send;
    slot.a[0] = text.size();
    slot.a[1] = chunk;
    sockets_.send(p, number, slot);
  }
  std::string receive(Program& p, u32 number) {
    auto& ours = p.ours(number);
    auto& theirs = p.theirs(number);
    std::string text;
    u32 chunk = ours.first_chunk;
    u64 at = ours.first_position;
    while (theirs.consumed < ours.received) {
      const u64 offset = theirs.consumed - at;
      if (offset == call::receive_chunk_payload) {
        chunk = p.arena().chunk_header(chunk).next;
        at += call::receive_chunk_payload;
        continue;
      }
      const u64 part =
          std::min<u64>(ours.received - theirs.consumed, call::receive_chunk_payload - offset);
      text.append(reinterpret_cast<const char*>(p.arena().chunk_payload(chunk)) + offset, part);
      theirs.consumed += part;
    }
    if (!text.empty()) sockets_.consumed(p, number);
    return text;
  }

  struct Pair {
    u32 client, server;
  };
  Pair connected(Program& client, Program& server, u32 listener, u32 number = 1) {
    open(client, number);
    sockets_.connect(client, number, {cob_address, Port(80)}, {});
    step(200);
    EXPECT_EQ(client.ours(number).state, call::SocketState::connected);
    return {number, accept(server, listener)};
  }

  // Sockets::Programs
  void file_closed(Description&) override {}
  Program* find(u32 id) override {
    return programs_[id - 1]->dead ? nullptr : programs_[id - 1].get();
  }
  void drain(Program&) override {}
  void execute(Program&, u32, const call::CallSlot&) override { ++executed_; }
  void fault(Program&, const char* what) override { fault_ = what; }
  void on_frame(std::span<const std::byte> frame, net::Route from, net::FrameFlags flags) override {
    if (!deaf_) stack_->on_frame(frame, from, flags, now_);
  }

  Time now_{1'000'000'000};
  std::unique_ptr<message::Messenger> messenger_;
  net::InsideDevice device_;
  Directory directory_;
  Sockets sockets_;
  std::unique_ptr<net::Stack> stack_;
  static constexpr u32 most_relays = 4;
  Fd events_;
  std::unique_ptr<Relays> relays_;
  std::vector<std::unique_ptr<Program>> programs_;
  int executed_ = 0;
  bool deaf_ = false;  // frames are lost
  std::string fault_;
};

}  // namespace cob::kernel
