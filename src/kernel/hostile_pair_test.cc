// A kernel between a hostile program and another kernel, home of the odd ports: calls that cross
// the claims under way, and a peer that breaks the protocol. Model: hostile_programs.h.
#include "kernel/hostile_programs.h"
#include "kernel/messages.h"

namespace cob::kernel {
namespace {

// The other kernel, played by the test: home of the odd ports, it answers claims when it is told
// to.
class HostilePair : public Hostile {
 protected:
  HostilePair() : Hostile(2), peer_(message::Messenger::create(KernelId(1), 1, 2).release_value()) {
    peer_->on<ClaimMessage, ClaimReply>(
        [this](KernelId, const ClaimMessage& m, message::ReplyToken<ClaimReply> token) {
          claimed_.push_back(m.port);
          unanswered_.push_back(std::move(token));
        });
    peer_->on<UnclaimMessage>(
        [this](KernelId, const UnclaimMessage& m) { unclaimed_.push_back(m.port); });
    peer_->on<ListenerMessage>([this](KernelId, const ListenerMessage&) { ++listeners_told_; });
    const message::Simple appeared{
        .kind = static_cast<u32>(message::ControlKind::peer_appeared), .value = 1, .epoch = 1};
    Doorbell at_peer = make_doorbell().release_value(), at_kernel = make_doorbell().release_value();
    const FdRef ends[] = {at_peer.button.ref(), at_kernel.bell.ref()};
    EXPECT_FALSE(send_struct(supervisor_.ref(), appeared, ends).is_error());
    message::LinkNotice link;
    std::vector<Fd> fds;
    receive(supervisor_.ref(), std::as_writable_bytes(std::span(&link, 1)), fds);
    EXPECT_EQ(fds.size(), 1u);
    EXPECT_TRUE(peer_->peer_up(KernelId(0), 1, std::move(fds[0])));
    const Fd memory =
        peer_->open_link(KernelId(0), 1, {std::move(at_kernel.button), std::move(at_peer.bell)})
            .release_value();
    const message::LinkNotice up{.kind = static_cast<u32>(message::ControlKind::peer_up),
                                 .peer = 1,
                                 .peer_epoch = 1,
                                 .own_epoch = 1};
    const FdRef outbound[] = {memory.ref()};
    EXPECT_FALSE(send_struct(supervisor_.ref(), up, outbound).is_error());
  }
  // Polls the played kernel until it is so.
  template <typename F>
  bool soon(F condition) {
    for (int i = 0; i < 20'000; ++i) {
      peer_->poll(HostClock::read(), 64);
      peer_->flush();
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  void answer(i32 result) {
    for (auto& token : unanswered_) token.answer({.result = result});
    unanswered_.clear();
    peer_->flush();
  }
  static call::CallSlot on_socket(call::Op op, u64 a1 = 0) {
    call::CallSlot slot{};
    slot.op = op;
    slot.socket = slot.generation = 1;
    slot.a[1] = a1;
    return slot;
  }
  // Socket 1, bound to port 81 with SO_REUSEPORT; the claim is granted.
  void bind(PlayedProgram& program) {
    call::CallSlot bind = on_socket(call::Op::bind, 81);
    bind.a[2] = 2;
    ASSERT_TRUE(program.post(bind));
    ASSERT_TRUE(soon([&] { return claimed_.size() == 1; }));
    answer(0);
  }

  std::unique_ptr<message::Messenger> peer_;
  std::vector<message::ReplyToken<ClaimReply>> unanswered_;
  std::vector<u16> claimed_, unclaimed_;
  u32 listeners_told_ = 0;
};

ListenerMessage listening_at(u16 port) {
  ListenerMessage message{};
  message.port = port;
  message.flags = u16{1};
  return message;
}

TEST_F(HostilePair, ConnectOfASocketWhoseListenWaits) {
  PlayedProgram program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(peer_->send(KernelId(0), listening_at(99)));
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2; }));
  call::CallSlot connect = on_socket(call::Op::connect, 99);
  connect.a[0] = 0x0a4d0001;
  ASSERT_TRUE(program.post(connect));
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  EXPECT_EQ(program.call(nothing), 0);
  EXPECT_EQ(program.line(1).error, EALREADY);
  answer(0);
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == std::vector<u16>{81}; }));
  EXPECT_EQ(listeners_told_, 0u);
  expect_service();
}

TEST_F(HostilePair, TwoListensOfOneSocketAtOnce) {
  PlayedProgram program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  EXPECT_EQ(program.call(on_socket(call::Op::listen)), -EALREADY);
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2; }));
  answer(0);
  EXPECT_TRUE(soon([&] { return listeners_told_ == 1; }));
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == std::vector<u16>{81}; }));
  expect_service();
}

TEST_F(HostilePair, TwoBindsOfOneSocketAtOnceLeaveNoPortTaken) {
  PlayedProgram program(supervisor_.ref());
  ASSERT_TRUE(program.post(on_socket(call::Op::bind, 81)));
  EXPECT_EQ(program.call(on_socket(call::Op::bind, 83)), -EINVAL);
  ASSERT_TRUE(soon([&] { return claimed_.size() == 1; }));
  answer(0);
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == claimed_; }));
  expect_service();
}

TEST_F(HostilePair, CloseOfASocketWhoseListenWaitsGivesThePortBack) {
  PlayedProgram program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2 && unclaimed_.size() == 1; }));
  answer(0);  // a home that grants what was given back must hear of it again
  EXPECT_TRUE(soon([&] { return unclaimed_.size() == 2; }));
  EXPECT_EQ(listeners_told_, 0u);
  expect_service();
}

TEST_F(HostilePair, APeerThatBreaksTheProtocolLosesItsConnectionsAndIsReported) {
  PlayedProgram program(supervisor_.ref());
  ASSERT_TRUE(peer_->send(KernelId(0), listening_at(99)));
  call::CallSlot connect = on_socket(call::Op::connect_local, 99);
  connect.a[0] = 0x0a4d0001;
  ASSERT_TRUE(soon([&] { return program.call(connect) == 0; }));
  EXPECT_EQ(load(program.line(1).state), call::SocketState::connecting);
  // A sequence number that no honest kernel writes.
  message::Link& link = *peer_->links().find(KernelId(0));
  for (message::Slot& slot : link.out->slot) message::store_release(slot.sequence, 0x7777'7777u);
  message::Simple report;
  std::vector<Fd> fds;
  ASSERT_EQ(receive(supervisor_.ref(), std::as_writable_bytes(std::span(&report, 1)), fds),
            sizeof report);
  EXPECT_EQ(report.kind, static_cast<u32>(message::ControlKind::peer_faulted));
  EXPECT_EQ(report.value, 1u);
  EXPECT_EQ(report.epoch, 1u);
  EXPECT_TRUE(soon([&] { return load(program.line(1).state) == call::SocketState::failed; }));
  EXPECT_EQ(program.line(1).error, ECONNRESET);
  expect_service();
}

}  // namespace
}  // namespace cob::kernel
