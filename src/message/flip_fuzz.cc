// Fuzzes a kernel whose peer works as it should, but in whose memory bytes change at any moment.
// Model: three kernels in one thread: `victim`, `liar`, whose memory is flipped, and `friend`. The
// input is a list of operations: sends, requests, polls, flushes, arming, of each, and flips. What
// must hold: `friend` and `victim` exchange everything, exactly and in order; what is delivered
// from `liar` is of a type that it may send; each request ends once. libFuzzer; one thread.
#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "message/messenger.h"

namespace {

using namespace cob;
using namespace cob::message;

struct Note {
  static constexpr MessageType type{1};
  le<u64> number;
};
struct Page {
  static constexpr MessageType type{2};
  le<u64> number;
  Bytes<1000> bytes;
};
struct Ask {
  static constexpr MessageType type{3};
  le<u64> number;
};
struct Answer {
  static constexpr MessageType type{4};
  le<u64> number;
  Bytes<304> bytes;
};
struct Alarm {
  static constexpr MessageType type{6};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};
struct Alert {  // asks for an Answer
  static constexpr MessageType type{7};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};
struct Parcel {  // each byte of what is lent with it is the low one of `number`
  static constexpr MessageType type{8};
  static constexpr std::size_t max_tail = 64;
  static constexpr bool may_lend = true;
  le<u64> number;
};
struct Private {  // not known to the liar
  static constexpr MessageType type{5};
  le<u64> number;
};

constexpr KernelId victim_id{0}, liar_id{1}, friend_id{2};
constexpr u16 kernels = 3;
constexpr std::size_t line = 64;
constexpr std::size_t hot_bytes = offsetof(LinkMemory, pool_area);
constexpr u32 most_lives = 4;

// What the fuzzer decides. At its end everything is 0.
class Input {
 public:
  Input(const u8* data, std::size_t size) : data_(data), size_(size) {}
  bool ended() const { return at_ == size_; }
  u8 byte() { return at_ < size_ ? data_[at_++] : u8{0}; }
  u32 word() {
    const u32 low = byte();
    return low | static_cast<u32>(byte()) << 8;
  }

 private:
  const u8* data_;
  std::size_t size_, at_ = 0;
};

std::unique_ptr<Messenger> make(KernelId id, u32 epoch) {
  auto made = Messenger::create(id, epoch, kernels).release_value();
  if (id != liar_id) made->know<Private>();
  made->know<Note>();
  made->know<Page>();
  made->know<Ask>();
  made->know<Answer>();
  made->know<Alarm>();
  made->know<Alert>();
  made->know<Parcel>();
  return made;
}

void join(Messenger& a, KernelId a_id, u32 a_epoch, Messenger& b, KernelId b_id, u32 b_epoch) {
  Fd from_a = a.open_link(b_id, b_epoch).release_value();
  Fd from_b = b.open_link(a_id, a_epoch).release_value();
  a.peer_up(b_id, b_epoch, std::move(from_b)).release_value();
  b.peer_up(a_id, a_epoch, std::move(from_a)).release_value();
}

template <std::size_t n>
Bytes<n> filled(u64 number) {
  Bytes<n> bytes;
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<u8>(number + i);
  return bytes;
}

class World {
 public:
  World() : victim_(make(victim_id, 1)), friend_(make(friend_id, 1)) {
    victim_->on<Note>([this](KernelId from, const Note& m) { take(from, m.number); });
    victim_->on<Page>([this](KernelId from, const Page& m) {
      volatile u8 seen = 0;
      for (const u8 byte : m.bytes) seen = byte;  // all of it is there
      VERIFY(from == liar_id || (m.bytes == filled<1000>(m.number) && seen == m.bytes.back()));
      take(from, m.number);
    });
    victim_->on<Private>([this](KernelId from, const Private& m) {
      VERIFY(from == friend_id);
      take(from, m.number);
    });
    victim_->on<Ask, Answer>([this](KernelId from, const Ask& m, ReplyToken<Answer> token) {
      if (from != friend_id && m.number % 4 == 3 && kept_.size() < 64) {
        kept_.push_back(std::move(token));  // answered much later, perhaps to a dead liar
      } else {
        token.answer(Answer{m.number, filled<304>(m.number)});
      }
    });
    victim_->on<Alarm>([this](KernelId from, const Alarm& m) {
      VERIFY(from == liar_id || m.number == alarms_taken_++);
    });
    victim_->on<Alert, Answer>([](KernelId, const Alert& m) -> Result<Answer> {
      return Answer{m.number, filled<304>(m.number)};
    });
    victim_->on<Parcel>([this](Incoming& incoming, const Parcel& m) {
      const auto lent = incoming.loan.bytes();
      bool right = true;  // all of it can be read
      for (const std::byte byte : lent) right &= byte == static_cast<std::byte>(m.number.get());
      VERIFY(incoming.from == liar_id || (right && !lent.empty()));
      if (held_.size() < 16 && m.number % 2 == 0) held_.push_back(std::move(incoming.loan));
      take(incoming.from, m.number);
    });
    friend_->on<Alert, Answer>([](KernelId, const Alert& m) -> Result<Answer> {
      return Answer{m.number, filled<304>(m.number)};
    });
    friend_->on<Note>([this](KernelId, const Note& m) { VERIFY(m.number == to_friend_taken_++); });
    friend_->on<Ask, Answer>([](KernelId, const Ask& m) -> Result<Answer> {
      return Answer{m.number, filled<304>(m.number)};
    });
    join(*victim_, victim_id, 1, *friend_, friend_id, 1);
  }

  // Ends as it began, apart from the liar's epoch and the places in the rings.
  void run(Input& input) {
    lives_ = 0;
    restart_liar();
    const auto told = std::as_bytes(std::span(victim_->links().find(friend_id)->out, 1));
    told_before_.assign(told.begin(), told.begin() + hot_bytes);
    while (!input.ended()) {
      step(input);
      if (victim_->take_faulted() == liar_id) VERIFY(!victim_->connected(liar_id));
      VERIFY(victim_->connected(friend_id) && friend_->connected(victim_id));
      VERIFY(!victim_->take_faulted() && !friend_->take_faulted());
    }
    finish();
  }

 private:
  void step(Input& input) {
    switch (const u8 choice = input.byte(); choice % 28) {
      case 0:
      case 1:
        return from_liar(input);
      case 2:
      case 3:
        return from_victim(input.byte());
      case 4:
        return from_friend(input.byte());
      case 5:
        return poll_victim(input.byte());
      case 6:
        return poll_victim(64);
      case 7:
        liar_->poll(now_, 64);
        (void)liar_->take_faulted();
        return;
      case 8:
        friend_->poll(now_, 64);
        friend_->flush();
        return;
      case 9:
        victim_->flush();
        liar_->flush();
        return;
      case 10:
        return victim_->set_armed(choice >= 128);
      case 11:
        return liar_->set_armed(choice >= 128);
      case 12:
        now_ = now_ + Duration::milliseconds(1 + choice / 64);
        return;
      case 13:
        return victim_->peer_down(liar_id, liar_epoch_);
      case 14:
        return restart_liar();
      case 15:
        held_.clear();
        return kept_.clear();
      case 16:
        return flip(true, input);
      case 17:
        return flip(false, input);
      case 18:
        return splice(input.byte());
      case 22:
        return urgent_from_liar(input.byte());
      case 23:
        return alert(choice >= 128 ? liar_id : friend_id, input.byte());
      case 24:
        return lend_from_friend();
      case 25:
        return cancel(input.byte());
      case 26:
        (void)lend(*liar_, victim_id, input.byte());
        return;
      case 27:
        (void)lend(*victim_, liar_id, choice);
        return;
      default:
        return forge(input);
    }
  }

  // --- Honest work.
  void from_liar(Input& input) {
    const u8 what = input.byte();
    for (u32 i = 0; i <= what / 4U % 16U; ++i) {
      const u64 number = input.ended() ? 7 : input.byte();
      if (what >= 224) (void)lend(*liar_, victim_id, number);
      if (what % 4 == 0) (void)liar_->send(victim_id, Page{number, filled<1000>(number)});
      if (what % 4 == 1) (void)liar_->send(victim_id, Note{number});
      if (what % 4 >= 2) {
        (void)liar_->request<Ask, Answer>(victim_id, Ask{number}, Time::never(),
                                          [](Result<Answer>) {});
      }
    }
  }
  void from_victim(u8 what) {
    if (what % 4 == 0) (void)victim_->send(liar_id, Note{1});
    if (what % 4 == 1) (void)victim_->send(liar_id, Page{1, {}});
    if (what % 4 == 2) ask(liar_id, what);
    if (what % 4 == 3) {
      ask(friend_id, what);
      if (victim_->send(friend_id, Note{to_friend_sent_})) ++to_friend_sent_;
    }
    if (what >= 128) victim_->flush();
  }
  void urgent_from_liar(u8 what) {
    for (u32 i = 0; i <= what / 2U % 8U; ++i) {
      if (what % 2 == 0) {
        (void)liar_->send(victim_id, Alarm{what});
      } else {
        (void)liar_->request<Alert, Answer>(victim_id, Alert{what}, Time::never(),
                                            [](Result<Answer>) {});
      }
    }
  }
  // Also to the friend, whose alarms come in order among themselves.
  void alert(KernelId whom, u8 what) {
    ask<Alert>(whom, what);
    if (friend_->send(victim_id, Alarm{alarms_sent_})) ++alarms_sent_;
    friend_->flush();
  }
  static bool lend(Messenger& from, KernelId to, u64 number) {
    auto buffer = from.allocate(to, 1 + number * 97 % 9'000);
    if (!buffer) return false;
    std::ranges::fill(buffer.value().bytes(), static_cast<std::byte>(number));
    const std::array<std::byte, 3> tail{};
    return bool(from.send(to, Parcel{number}, {.tail = tail, .lend = &buffer.value()}));
  }
  void lend_from_friend() {
    if (lend(*friend_, victim_id, from_friend_sent_)) ++from_friend_sent_;
    friend_->flush();
  }
  // One of the victim's latest requests.
  void cancel(u8 which) {
    if (ids_.empty()) return;
    const auto& [id, index] =
        ids_[ids_.size() - 1 - which % std::min<std::size_t>(ids_.size(), 16)];
    const u8 before = asked_[index];
    const bool waited = victim_->cancel(id);
    VERIFY(asked_[index] == before + (waited ? 1 : 0));
  }
  template <typename Request = Ask>
  void ask(KernelId whom, u8 what) {
    const std::size_t index = asked_.size();
    const Time deadline =
        what % 8 < 4 ? Time::never() : now_ + Duration::milliseconds(1 + what % 3);
    const auto done = [this, index, whom](Result<Answer> reply) {
      ++asked_[index];
      VERIFY(asked_[index] == 1);
      if (!reply) {
        const int code = reply.error().code;
        VERIFY(code > 0 && code < 65'536 &&
               (whom != friend_id || code == ETIMEDOUT || code == ECANCELED));
      } else if (whom == friend_id) {
        VERIFY(reply.value().number == index && reply.value().bytes == filled<304>(index));
      }
    };
    asked_.push_back(0);
    const auto sent = victim_->request<Request, Answer>(whom, Request{index}, deadline, done);
    if (sent) {
      ids_.push_back({sent.value(), index});
    } else {
      asked_.back() = 1;
    }
  }
  void from_friend(u8 what) {
    const u64 number = from_friend_sent_;
    const Result<void> sent = what % 3 == 0 ? friend_->send(victim_id, Note{number})
                              : what % 3 == 1
                                  ? friend_->send(victim_id, Private{number})
                                  : friend_->send(victim_id, Page{number, filled<1000>(number)});
    if (sent) {
      ++from_friend_sent_;
    } else {
      VERIFY(sent.error().code == EAGAIN && from_friend_sent_ != from_friend_taken_);
    }
    friend_->flush();
    if (from_friend_sent_ != from_friend_taken_) VERIFY(victim_->anything_pending());
  }
  void poll_victim(u8 budget) {
    constexpr std::size_t urgent = 16 * kernels;  // whatever the budget
    VERIFY(victim_->poll(now_, budget) <= std::max<std::size_t>(budget, urgent));
  }
  void take(KernelId from, u64 number) {
    VERIFY(from == friend_id || from == liar_id);
    if (from == friend_id) VERIFY(number == from_friend_taken_++);
  }
  void restart_liar() {
    if (lives_ == most_lives) return;
    ++lives_;
    ++liar_epoch_;
    liar_ = make(liar_id, liar_epoch_);
    liar_->on<Note>([](KernelId, const Note&) {});
    liar_->on<Ask, Answer>([](KernelId, const Ask& m) -> Result<Answer> {
      if (m.number % 5 == 4) return Error::of(EDOM, "on request");
      return Answer{m.number, {}};
    });
    join(*victim_, victim_id, 1, *liar_, liar_id, liar_epoch_);
    memory_ = std::as_writable_bytes(std::span(liar_->links().find(victim_id)->out, 1));
    fresh_.assign(memory_.begin(), memory_.begin() + hot_bytes);
  }

  // --- Flips.
  std::size_t at_anywhere(Input& input) {
    const std::size_t low = input.word();
    const std::size_t at = low | static_cast<std::size_t>(input.byte()) << 16;
    return at % 8 == 7 ? at % memory_.size() : at / 8 % hot_bytes;
  }
  // A place in the line that the liar has written last, or not long ago, or in the one after it;
  // mostly in its head.
  std::size_t at_written(Input& input) {
    const std::vector<std::size_t> lines = lines_changed(memory_, fresh_);
    const std::size_t which = input.byte(), within = input.byte();
    if (lines.empty()) return within;
    const std::size_t back =
        std::min<std::size_t>(which % 3 == 0 ? which / 3 : 0, lines.size() - 1);
    const std::size_t at = lines[lines.size() - 1 - back] + (which >= 224 ? line : 0);
    return (at + (within < 192 ? 4 + within % 12 : within % line)) % hot_bytes;
  }
  static std::vector<std::size_t> lines_changed(std::span<const std::byte> now,
                                                const std::vector<std::byte>& before) {
    std::vector<std::size_t> lines;
    for (std::size_t at = 0; at < hot_bytes; at += line) {
      if (std::memcmp(&now[at], &before[at], line) != 0) lines.push_back(at);
    }
    return lines;
  }
  void flip(bool anywhere, Input& input) {
    if (!liar_->connected(victim_id)) return;  // it has cut the victim off: its memory is gone
    const std::size_t at = anywhere ? at_anywhere(input) : at_written(input);
    const u8 how = input.byte();
    auto& target = reinterpret_cast<u8&>(memory_[at]);
    if (how % 3 == 0) target = static_cast<u8>(target ^ (1U << (how / 3 % 8)));
    if (how % 3 == 1) target = how / 3 % 8;
    if (how % 3 == 2) target = input.byte();
  }
  // Into the line that the liar wrote last, four bytes of what the victim has sent to the friend: a
  // tag, say, as a liar might guess it.
  void splice(u8 which) {
    if (!liar_->connected(victim_id)) return;
    const auto told = std::as_bytes(std::span(victim_->links().find(friend_id)->out, 1));
    const std::vector<std::size_t> own = lines_changed(memory_, fresh_);
    const std::vector<std::size_t> others = lines_changed(told, told_before_);
    if (own.empty() || others.empty()) return;
    const std::size_t back = std::min<std::size_t>(which / 4, others.size() - 1);
    const std::size_t within = 4 * (1 + which % 4);
    std::memcpy(&memory_[own.back() + within], &told[others[others.size() - 1 - back] + within], 4);
  }
  // A message of the liar's, changed before the victim sees it.
  void forge(Input& input) {
    const u8 what = input.byte();
    if (what % 2 == 0) {
      from_liar(input);
    } else {
      ask(liar_id, 0);
      if (what % 4 == 1) ask(friend_id, 0);
      liar_->poll(now_, 64);
    }
    for (u32 i = 0; i <= what / 4U % 4U; ++i) flip(false, input);
    if (what >= 128) splice(input.byte());
    poll_victim(64);
  }

  // Everything of the friend's arrives; the liar ends; no request is left.
  void finish() {
    victim_->set_armed(false);
    for (int round = 0; round < 1'000; ++round) {
      const bool all = from_friend_taken_ == from_friend_sent_ &&
                       to_friend_taken_ == to_friend_sent_ && alarms_taken_ == alarms_sent_;
      if (all && round > 2) break;
      VERIFY(round < 999);
      friend_->poll(now_, 1'000);
      friend_->flush();
      poll_victim(200);
      (void)victim_->take_faulted();
      victim_->flush();
    }
    victim_->peer_down(liar_id, liar_epoch_);
    VERIFY(!victim_->connected(liar_id));
    for (int round = 0; round < 1'000 && victim_->outstanding_requests() > 0; ++round) {
      friend_->poll(now_, 1'000);
      friend_->flush();
      victim_->poll(now_, 1'000);
    }
    VERIFY(victim_->outstanding_requests() == 0);
    for (const u8 times : asked_) VERIFY(times == 1);
    asked_.clear();
    ids_.clear();
    kept_.clear();  // answers to the dead go nowhere
    held_.clear();
    victim_->flush();
    VERIFY(friend_->allocate(victim_id, Links::default_bulk_bytes));  // every loan has come back
  }

  Time now_;
  std::deque<u8> asked_;  // by request: how often it ended
  u64 from_friend_sent_ = 0, from_friend_taken_ = 0, to_friend_sent_ = 0, to_friend_taken_ = 0;
  u64 alarms_sent_ = 0, alarms_taken_ = 0;
  std::unique_ptr<Messenger> victim_, friend_, liar_;
  std::vector<ReplyToken<Answer>> kept_;  // after victim_: ends before it
  std::vector<Loan> held_;                // likewise
  struct Asked {
    RequestId id;
    std::size_t index = 0;
  };
  std::vector<Asked> ids_;
  u32 liar_epoch_ = 0, lives_ = 0;
  std::span<std::byte> memory_;  // what the liar writes for the victim
  std::vector<std::byte> fresh_, told_before_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  static World world;
  world.run(input);
  return 0;
}
