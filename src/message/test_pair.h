// For tests: a few message types, and two kernels in one process connected as the supervisor would
// connect them. Model: real memfds and doorbells; what differs from life is that both ends run in
// one thread unless the test says so. Test code only.
#pragma once

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include "message/messenger.h"

namespace cob::message::test {

struct Note {
  static constexpr MessageType type{1};
  le<u64> number;
  bool operator==(const Note&) const = default;
};

struct Ask {
  static constexpr MessageType type{2};
  le<u64> number;
};

struct Answer {
  static constexpr MessageType type{3};
  le<u64> number;
};

struct Page {
  static constexpr MessageType type{4};
  le<u64> number;
  Bytes<4096> bytes;
};

struct BigAsk {
  static constexpr MessageType type{5};
  le<u64> number;
  Bytes<200> bytes;
};

struct BigAnswer {
  static constexpr MessageType type{6};
  le<u64> number;
  Bytes<1000> bytes;
};

inline Fd duplicate(const Fd& fd) { return Fd(::dup(fd.get())); }

// One kernel of a test.
struct End {
  KernelId id;
  u32 epoch = 1;
  Fd bells = Fd(::epoll_create1(EPOLL_CLOEXEC));  // watches the bells that the others ring
  std::unique_ptr<Messenger> messenger;

  explicit End(u16 number, u16 kernels = 2, u32 own_epoch = 1)
      : id(number),
        epoch(own_epoch),
        messenger(Messenger::create(id, own_epoch, kernels).release_value()) {
    messenger->know<Note>();
    messenger->know<Ask>();
    messenger->know<Answer>();
    messenger->know<Page>();
    messenger->know<BigAsk>();
    messenger->know<BigAnswer>();
  }
  Messenger* operator->() const { return messenger.get(); }
};

// Opens `a`'s memory for `b` and gives it to `b`. The descriptor stays with the caller too.
inline Fd introduce(End& a, End& b, Doorbell doorbell = {}) {
  if (doorbell.bell.valid()) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    EXPECT_EQ(::epoll_ctl(a.bells.get(), EPOLL_CTL_ADD, doorbell.bell.get(), &event), 0);
  }
  Fd memory = a->open_link(b.id, b.epoch, std::move(doorbell)).release_value();
  b->peer_up(a.id, a.epoch, duplicate(memory)).release_value();
  return memory;
}

inline void connect(End& a, End& b) {
  Doorbell at_a = make_doorbell().release_value();
  Doorbell at_b = make_doorbell().release_value();
  std::swap(at_a.button, at_b.button);
  (void)introduce(a, b, std::move(at_a));
  (void)introduce(b, a, std::move(at_b));
  ASSERT_TRUE(a->connected(b.id));
  ASSERT_TRUE(b->connected(a.id));
}

inline Time at_ms(i64 ms) { return Time{} + Duration::milliseconds(ms); }

}  // namespace cob::message::test
