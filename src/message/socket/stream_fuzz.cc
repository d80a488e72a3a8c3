// Fuzzes what a peer says on a byte stream: greetings and records. Whatever comes, nothing breaks,
// and what gets into the memory keeps the ring's rules. Input: raw bytes, or a list of records of
// which some are right. libFuzzer; one thread.
#include <cstring>
#include <vector>

#include "message/coherent.h"
#include "message/socket/stream_greeting.h"
#include "message/socket/stream_receiver.h"
#include "sim/fuzz_input.h"

namespace {

using namespace cob;
using namespace cob::message;

// Gives out what it was made of, in portions.
class Words final : public ByteStream {
 public:
  Words(std::span<const std::byte> bytes, std::size_t portion) : left_(bytes), portion_(portion) {}
  State advance() override { return State::open; }
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min({into.size(), left_.size(), portion_});
    if (n > 0) std::memcpy(into.data(), left_.data(), n);
    left_ = left_.subspan(n);
    return n;
  }
  std::size_t write(std::span<const std::byte> from) override { return from.size(); }
  void flush() override {}
  State state() const override { return State::open; }
  Error why_closed() const override { return {}; }
  std::optional<KernelId> peer() const override { return std::nullopt; }
  FdRef descriptor() const override { return {}; }
  bool empty() const { return left_.empty(); }

 private:
  std::span<const std::byte> left_;
  std::size_t portion_;
};

constexpr u64 bulk_bytes = 65'536;

struct World {
  Mapping out = Mapping::anonymous(sizeof(LinkMemory) + bulk_bytes).release_value();
  Mapping in = Mapping::anonymous(sizeof(LinkMemory) + bulk_bytes).release_value();
};

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> compose(sim::FuzzInput& input) {
  std::vector<std::byte> all;
  u32 next[2] = {0, 0};
  u32 returns = 0;
  while (!input.empty() && all.size() < 100'000) {
    const u8 what = input.byte();
    std::vector<std::byte> body;
    RecordHead head{.kind = static_cast<u8>(what % 8), .ring = 0, .count = 0, .bytes = 0};
    if (head.kind == static_cast<u8>(RecordKind::lines)) {
      head.ring = input.byte() % 2;
      const u16 runs = input.byte() % 8;
      for (u16 i = 0; i < runs; ++i) {
        Slot line{};
        line.sequence = next[head.ring] + 1;
        line.length = static_cast<u16>(input.word() % (max_payload_bytes + 2));
        line.kind = input.byte() % 6;
        next[head.ring] += lines_for(line.length);
        append(body, bytes_of(line).first(run_head_bytes));
        body.resize(body.size() + line.length, std::byte{input.byte()});
      }
      head.count = static_cast<u16>(runs + (what > 240));
    } else if (head.kind == static_cast<u8>(RecordKind::credits)) {
      const u16 ids = input.byte();
      returns += ids;
      const Credits credits{.normal = input.byte() % 16U,
                            .urgent = 0,
                            .bulk = input.byte() % 4U,
                            .returns = returns,
                            .reserved = 0};
      append(body, bytes_of(credits));
      for (u16 i = 0; i < ids; ++i) append(body, bytes_of(le<u32>(input.word() % 1'100U)));
      head.count = ids;
    } else if (head.kind == static_cast<u8>(RecordKind::bulk)) {
      append(body, bytes_of(Piece{.offset = input.number()}));
      body.resize(body.size() + input.word(), std::byte{what});
    } else {
      append(body, input.take(input.byte() % 16));
    }
    head.bytes = static_cast<u32>(body.size() + (what > 250 ? input.word() : 0));
    append(all, bytes_of(head));
    append(all, body);
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  sim::FuzzInput input(data, size);
  const u8 how = input.byte();
  const std::size_t portion = how % 4 == 0 ? 1 + how : 100'000;
  std::vector<std::byte> bytes;
  if (how % 2 == 0) {
    bytes = compose(input);
  } else {
    append(bytes, input.take(size));
  }
  {
    Words words(bytes, portion);
    StreamGreeting greeting;
    while (!words.empty() && greeting.read(words) != StreamGreeting::Got::refused) {
    }
  }
  LinkMemory* out = initialise(world.out, {});
  LinkMemory* in = initialise(world.in, {});
  out->state = {};
  in->state = {};
  StreamSender sender(out, out->bulk());
  StreamReceiver receiver(in, bulk_bytes, out);
  MessageWriter writer(out->slot, &in->state.normal_consumed);
  MessageReader normal(in->slot, &out->state.normal_consumed);
  UrgentReader urgent(in->urgent, &out->state.urgent_consumed);
  const std::array<std::byte, 100> message{};
  for (int i = 0; i < 4; ++i) writer.write({.type = MessageType(1)}, message);
  writer.publish();
  Words nobody({}, 0);
  (void)sender.lend(0, 3);
  (void)sender.pump(nobody, 0, 1'000'000);
  Words words(bytes, portion);
  Slot head;
  std::array<std::byte, max_payload_bytes> scratch;
  while (!words.empty() && receiver.refusal() == StreamRefusal::none && !receiver.bye()) {
    (void)receiver.pump(words, sender, 10'000);
    Taken taken = Taken::one;
    while ((taken = normal.take(head, scratch.data())) == Taken::one) {
    }
    VERIFY(taken == Taken::nothing);
    while ((taken = urgent.take(head, scratch.data())) == Taken::one) {
    }
    VERIFY(taken == Taken::nothing);
    VERIFY(writer.room(1, message_slots) == Room::yes);
    (void)sender.pump(nobody, receiver.received().bulk, 1'000'000);
  }
  Received claimed{};
  if (bytes.size() >= sizeof claimed) claimed = read_as<Received>(bytes);
  if (sender.resume(claimed)) (void)sender.pump(nobody, 0, 1'000'000);
  return 0;
}
