// A supervisor's end of a cable against one that plays the other supervisor by hand: what is
// agreed, in which order things are told, and everything that ends the cable. Kernels are slots
// whose processes do nothing.
#include "cli/cable_end.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "base/memory.h"
#include "net/snap_bean/cable_link.h"
#include "net/snap_bean/steering.h"

namespace cob::cli {
namespace {

const Time start{1'000'000'000};
constexpr CobAddress ours{0x0a4d0001, 24}, theirs{0x0a4d0002, 24};

struct End {
  std::vector<KernelSlot> kernels;
  net::SteeringWriter steering = net::SteeringWriter::create(2).release_value();
  std::optional<CableEnd> cable;
  Fd far;  // the other supervisor's socket

  explicit End(CableEnd::Role role = CableEnd::Role::maker) {
    for (u16 i = 0; i < 2; ++i) {
      message::Config config{};
      config.kernel = i;
      kernels.emplace_back(KernelPlan{config, "/bin/true", FdRef(2), {}, {}});
    }
    for (KernelSlot& kernel : kernels) live(kernel);
    cable.emplace("here", ours, kernels, steering.fd(), [](const std::string&) {});
    auto [near, other] = seqpacket_pair().release_value();
    far = std::move(other);
    EXPECT_FALSE(cable->plug(std::move(near), role, start).is_error());
  }
  static void live(KernelSlot& kernel) {
    ASSERT_FALSE(kernel.spawn(start).is_error());
    kernel.said_hello(Fd(), 0, start);
  }

  template <typename Struct>
  void say(const Struct& message, FdRef descriptor = {}, Time now = start) {
    const std::span<const FdRef> beside(&descriptor, descriptor.valid() ? 1 : 0);
    ASSERT_FALSE(send_struct(far.ref(), message, beside).is_error());
    cable->on_socket(now);
  }
  // What this end said next.
  template <typename Struct>
  std::optional<Struct> hear(std::vector<Fd>* descriptors = nullptr) {
    std::array<std::byte, 256> buffer{};
    auto got = receive_datagram(far.ref(), buffer, Blocking::never);
    if (got.is_error() || got.value().bytes != sizeof(Struct)) return std::nullopt;
    Struct message;
    std::memcpy(&message, buffer.data(), sizeof message);
    if (descriptors != nullptr) *descriptors = std::move(got.value().descriptors);
    return message;
  }
  static CableHello hello() {
    CableHello hello{};
    hello.kind = CableKind::hello;
    hello.magic = CableHello::magic_value;
    hello.version = CableHello::protocol_version;
    hello.address = theirs.address;
    hello.prefix_bits = theirs.prefix_bits;
    hello.kernels = 2;
    std::strcpy(hello.name.data(), "there");
    return hello;
  }
  void greet() {
    say(hello(), steering.fd());
    ASSERT_TRUE(cable->plugged());
    ASSERT_TRUE(hear<CableHello>());
    for (u32 i = 0; i < 2; ++i) {
      const auto news = hear<CableKernel>();
      ASSERT_TRUE(news);
      EXPECT_EQ(news->kind.get(), CableKind::kernel_up);
      EXPECT_EQ(news->kernel, i);
      EXPECT_EQ(news->epoch, 1u);
    }
  }
  std::string why() const { return cable->describe().value("why", ""); }
};

CableKernel news(CableKind kind, u32 kernel, u32 epoch) {
  CableKernel message{};
  message.kind = kind;
  message.kernel = kernel;
  message.epoch = epoch;
  return message;
}
CableWire wire(CableKind kind, u16 from, u32 from_epoch, u16 to, u32 to_epoch) {
  CableWire message{};
  message.kind = kind;
  message.from = from;
  message.from_epoch = from_epoch;
  message.to = to;
  message.to_epoch = to_epoch;
  return message;
}
SharedMemory memory() {
  return create_memory("wire", sizeof(net::CableMemory), Writers::creator).release_value();
}

TEST(CableEnd, SaysHelloFirstAndTakesOne) {
  End end;
  std::vector<Fd> descriptors;
  EXPECT_FALSE(end.cable->plugged());
  EXPECT_EQ(end.cable->describe()["state"], "greeting");
  const auto hello = end.hear<CableHello>(&descriptors);
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->address, ours.address);
  EXPECT_EQ(hello->kernels, 2);
  ASSERT_EQ(descriptors.size(), 1u);
  EXPECT_FALSE(net::SteeringReader::open(descriptors[0].ref()).is_error());
  end.say(End::hello(), end.steering.fd());
  const auto shown = end.cable->describe();
  EXPECT_EQ(shown["state"], "plugged");
  EXPECT_EQ(shown["name"], "there");
  EXPECT_EQ(shown["address"], "10.77.0.2/24");
  auto [near, far] = seqpacket_pair().release_value();
  EXPECT_EQ(end.cable->plug(std::move(near), CableEnd::Role::maker, start).error().code, EBUSY);
}

TEST(CableEnd, RefusesAHelloThatDoesNotFit) {
  const auto refused = [](auto change, const char* why) {
    End end;
    CableHello hello = End::hello();
    change(hello);
    end.say(hello, end.steering.fd());
    EXPECT_FALSE(end.cable->in_use());
    EXPECT_NE(end.why().find(why), std::string::npos) << end.why();
  };
  refused([](CableHello& h) { h.magic = 1; }, "protocol");
  refused([](CableHello& h) { h.version = 2; }, "protocol");
  refused([](CableHello& h) { h.kernels = 0; }, "malformed");
  refused([](CableHello& h) { h.kernels = max_kernels + 1; }, "malformed");
  refused([](CableHello& h) { h.prefix_bits = 33; }, "malformed");
  refused([](CableHello& h) { h.address = ours.address; }, "address 10.77.0.1/24");
  refused([](CableHello& h) { h.address = 0x0a4d0102; }, "another network");
  refused([](CableHello& h) { h.prefix_bits = 16; }, "another network");
}

TEST(CableEnd, RefusesAHelloWithoutSteeringTables) {
  End without;
  without.say(End::hello());
  EXPECT_FALSE(without.cable->in_use());
  End wrong;
  wrong.say(End::hello(), memory().fd.ref());
  EXPECT_FALSE(wrong.cable->in_use());
  End unsealed;
  const Fd plain(::memfd_create("plain", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(plain.get(), sizeof(net::SteeringMemory)), 0);
  unsealed.say(End::hello(), plain.ref());
  EXPECT_FALSE(unsealed.cable->in_use());
}

TEST(CableEnd, ShowsAStrangersNameAsPrintableCharacters) {
  End end;
  CableHello hello = End::hello();
  hello.name.fill('x');
  hello.name[0] = '\x1b';
  hello.name[1] = ' ';
  end.say(hello, end.steering.fd());
  EXPECT_EQ(end.cable->describe()["name"], "??" + std::string(30, 'x'));
}

TEST(CableEnd, GivesUpOnOneWhoSaysNothing) {
  End end;
  EXPECT_EQ(end.cable->deadline(), start + CableEnd::hello_timeout);
  end.cable->on_deadline(start + CableEnd::hello_timeout - Duration::milliseconds(1));
  EXPECT_TRUE(end.cable->in_use());
  end.cable->on_deadline(start + CableEnd::hello_timeout);
  EXPECT_FALSE(end.cable->in_use());
  End greeted;
  greeted.greet();
  EXPECT_EQ(greeted.cable->deadline(), Time::never());
}

TEST(CableEnd, TheEndOfTheOtherUnplugs) {
  End end;
  end.greet();
  end.far.reset();
  end.cable->on_socket(start);
  EXPECT_FALSE(end.cable->in_use());
  EXPECT_EQ(end.cable->describe()["state"], "unplugged");
}

TEST(CableEnd, TheMakerMakesTheBellOfEachPairThatLives) {
  End end(CableEnd::Role::maker);
  end.greet();
  end.say(news(CableKind::kernel_up, 1, 7));
  for (u16 own = 0; own < 2; ++own) {
    std::vector<Fd> descriptors;
    const auto bell = end.hear<CableWire>(&descriptors);
    ASSERT_TRUE(bell);
    EXPECT_EQ(bell->kind.get(), CableKind::bell);
    EXPECT_EQ(bell->from, own);
    EXPECT_EQ(bell->to, 1);
    EXPECT_EQ(bell->from_epoch, 1u);
    EXPECT_EQ(bell->to_epoch, 7u);
    ASSERT_EQ(descriptors.size(), 1u);
    EXPECT_FALSE(net::check_cable_bell(descriptors[0].ref()).is_error());
  }
  EXPECT_FALSE(end.hear<CableWire>());
  // Both kernels' memories go out, each once; a kernel that sends another breaks the protocol.
  message::LinkNotice notice{.kind = 0, .peer = 1, .peer_epoch = 7, .own_epoch = 1};
  for (const bool good : {true, false}) {
    Datagram datagram;
    datagram.descriptors.push_back(std::move(memory().fd));
    EXPECT_EQ(end.cable->on_wire_memory(end.kernels[0], notice, datagram), good);
  }
  const auto sent = end.hear<CableWire>();
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->kind.get(), CableKind::memory);
  EXPECT_EQ(sent->from, 0);
  EXPECT_EQ(sent->to, 1);
  EXPECT_FALSE(end.hear<CableWire>());
}

TEST(CableEnd, MemoryOfALifeThatIsOverIsNotSent) {
  End end(CableEnd::Role::maker);
  end.greet();
  end.say(news(CableKind::kernel_up, 0, 3));
  end.say(news(CableKind::kernel_down, 0, 3));
  while (end.hear<CableWire>()) {
  }
  Datagram datagram;
  datagram.descriptors.push_back(std::move(memory().fd));
  message::LinkNotice notice{.kind = 0, .peer = 0, .peer_epoch = 3, .own_epoch = 1};
  EXPECT_TRUE(end.cable->on_wire_memory(end.kernels[0], notice, datagram));
  EXPECT_FALSE(end.hear<CableWire>());
  EXPECT_TRUE(end.cable->in_use());
}

TEST(CableEnd, TheOtherTakesBellAndMemoryOnceALife) {
  End end(CableEnd::Role::other);
  end.greet();
  end.say(news(CableKind::kernel_up, 0, 3));
  EXPECT_FALSE(end.hear<CableWire>());  // makes no bells
  auto [near, far] = net::make_cable_bell().release_value();
  end.say(wire(CableKind::bell, 0, 3, 1, 1), near.ref());
  EXPECT_TRUE(end.cable->in_use());
  const SharedMemory theirs_memory = memory();
  end.say(wire(CableKind::memory, 0, 3, 1, 1), theirs_memory.fd.ref());
  EXPECT_TRUE(end.cable->in_use());
  // For a life of our kernel that is over: not an error.
  end.say(wire(CableKind::memory, 0, 3, 0, 9), theirs_memory.fd.ref());
  EXPECT_TRUE(end.cable->in_use());
  // Their next life begins anew.
  end.say(news(CableKind::kernel_down, 0, 3));
  end.say(news(CableKind::kernel_up, 0, 4));
  end.say(wire(CableKind::bell, 0, 4, 1, 1), near.ref());
  end.say(wire(CableKind::memory, 0, 4, 1, 1), theirs_memory.fd.ref());
  EXPECT_TRUE(end.cable->in_use());
  end.say(wire(CableKind::memory, 0, 4, 1, 1), theirs_memory.fd.ref());
  EXPECT_FALSE(end.cable->in_use());
}

TEST(CableEnd, WhatCannotBeEndsTheCable) {
  const SharedMemory good = memory();
  const SharedMemory small = create_memory("small", 4'096, Writers::creator).release_value();
  auto [near, far] = net::make_cable_bell().release_value();
  const auto ends = [&](CableEnd::Role role, auto messages) {
    End end(role);
    end.greet();
    end.say(news(CableKind::kernel_up, 0, 3));
    ASSERT_TRUE(end.cable->in_use());
    messages(end);
    EXPECT_FALSE(end.cable->in_use());
  };
  const auto as_other = [&](auto messages) { ends(CableEnd::Role::other, messages); };
  as_other([](End& e) { e.say(news(CableKind::kernel_up, 2, 1)); });
  as_other([](End& e) { e.say(news(CableKind::kernel_up, 1, 0)); });
  as_other([](End& e) { e.say(news(CableKind::kernel_up, 0, 3)); });
  as_other([](End& e) { e.say(news(CableKind::kernel_down, 0, 2)); });
  as_other([](End& e) { e.say(End::hello(), e.steering.fd()); });
  as_other([](End& e) { e.say(u32{0}); });
  as_other([](End& e) { e.say(u8{1}); });
  as_other([](End& e) { e.say(std::array<u8, 1'000>{}); });
  as_other([&](End& e) { e.say(wire(CableKind::bell, 0, 2, 0, 1), near.ref()); });
  as_other([&](End& e) { e.say(wire(CableKind::bell, 0, 3, 2, 1), near.ref()); });
  as_other([&](End& e) { e.say(wire(CableKind::bell, 2, 3, 0, 1), near.ref()); });
  as_other([&](End& e) { e.say(wire(CableKind::bell, 0, 3, 0, 1)); });
  as_other([&](End& e) { e.say(wire(CableKind::bell, 0, 3, 0, 1), good.fd.ref()); });
  as_other([&](End& e) { e.say(wire(CableKind::memory, 0, 3, 0, 1), good.fd.ref()); });  // no bell
  const auto with_bell = [&](FdRef descriptor) {
    as_other([&](End& e) {
      e.say(wire(CableKind::bell, 0, 3, 0, 1), near.ref());
      ASSERT_TRUE(e.cable->in_use());
      e.say(wire(CableKind::memory, 0, 3, 0, 1), descriptor);
    });
  };
  with_bell(small.fd.ref());
  with_bell(near.ref());
  with_bell({});
  ends(CableEnd::Role::maker,
       [&](End& e) { e.say(wire(CableKind::bell, 0, 3, 0, 1), near.ref()); });
}

TEST(CableEnd, AKernelThatDiesTooOftenEndsTheCable) {
  End end;
  end.greet();
  u32 epoch = 0;
  const auto live_once = [&](Time now) {
    ++epoch;
    end.say(news(CableKind::kernel_up, 0, epoch), {}, now);
    if (end.cable->in_use()) end.say(news(CableKind::kernel_down, 0, epoch), {}, now);
    while (end.hear<CableWire>()) {
    }
  };
  for (std::size_t i = 0; i < 2 * CableEnd::most_lives; ++i)  // slowly: for ever
    live_once(start + Duration::seconds(static_cast<i64>(i)));
  EXPECT_TRUE(end.cable->in_use());
  const Time later = start + Duration::seconds(1'000);
  for (std::size_t i = 0; i < CableEnd::most_lives; ++i) live_once(later);
  EXPECT_TRUE(end.cable->in_use());
  live_once(later);
  EXPECT_FALSE(end.cable->in_use());
}

TEST(CableEnd, OneWhoDoesNotReadEndsTheCableAndNothingElse) {
  End end;
  end.greet();
  for (u32 epoch = 2; epoch < 2 * CableEnd::max_queued && end.cable->in_use(); ++epoch)
    end.cable->on_kernel_down(end.kernels[0], epoch);
  EXPECT_FALSE(end.cable->in_use());
}

TEST(CableEnd, OursComeAndGo) {
  End end;
  end.greet();
  end.cable->on_kernel_down(end.kernels[1], 1);
  const auto down = end.hear<CableKernel>();
  ASSERT_TRUE(down);
  EXPECT_EQ(down->kind.get(), CableKind::kernel_down);
  EXPECT_EQ(down->kernel, 1u);
}

TEST(CableEnd, TakesNoOtherSocket) {
  End end;
  end.cable->unplug("");
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reading(ends[0]);
  EXPECT_EQ(end.cable->plug(Fd(ends[1]), CableEnd::Role::maker, start).error().code, EPERM);
  auto [near, far] = net::make_cable_bell().release_value();  // a stream
  EXPECT_EQ(end.cable->plug(std::move(near), CableEnd::Role::maker, start).error().code, EPERM);
  EXPECT_FALSE(end.cable->in_use());
}

}  // namespace
}  // namespace cob::cli
