// Fuzzes the image of a program that moves, and the words around it: an honest one with
// connections, a listener and queued bytes, changed on its way at the places that the input names.
// The kernel that it comes to refuses it, or has a program that only its own line of things harms:
// both kernels serve others afterwards. VERIFY and the sanitizers are the oracle.
#include "kernel/hostile_world.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::kernel;
using namespace cob::kernel::test;

namespace {

void change(std::vector<std::byte>& image, sim::FuzzInput& in) {
  for (u32 i = 0; i < 16 && !in.empty() && !image.empty(); ++i) {
    const u32 high = in.byte();
    const std::size_t at = (high << 16 | in.word()) % image.size();
    const u8 how = in.byte();
    if (how % 8 == 7) {
      image.resize(at);
    } else if (how % 8 < 4) {
      image[at] = static_cast<std::byte>(in.byte());
    } else {  // a number of four bytes, by little or to anything
      const std::size_t place = std::min(at & ~std::size_t{3}, image.size() & ~std::size_t{3});
      if (image.size() - place < sizeof(u32)) continue;
      u32 number;
      std::memcpy(&number, &image[place], sizeof number);
      number = how % 8 < 6 ? number + in.byte() - 128 : static_cast<u32>(in.number());
      std::memcpy(&image[place], &number, sizeof number);
    }
  }
}

// Between the two kernels: hands words on, and changes what the input says.
class Between {
 public:
  Between(TwoKernels& kernels, sim::FuzzInput& in) : in_(in) {
    auto [old_end, from_old] = seqpacket_pair().release_value();
    auto [new_end, to_new] = seqpacket_pair().release_value();
    from_old_ = std::move(from_old);
    to_new_ = std::move(to_new);
    report_ = kernels.move_by(0, 1, std::move(old_end));
    kernels.move_in(1, 0, std::move(new_end));
  }

  void turn() {
    if (auto heard = hear(from_old_.ref()); !heard.is_error()) hand_on(heard.value());
    if (auto heard = hear(to_new_.ref()); !heard.is_error())
      (void)send_struct(from_old_.ref(), heard.value().word, {}, Blocking::never);
  }

 private:
  void hand_on(HeardWord& heard) {
    MoveWord& word = heard.word;
    if (word.step == static_cast<u32>(MoveStep::offer) && heard.descriptors.size() == 1) {
      theirs_ =
          map_foreign(heard.descriptors[0].ref(), most_image_bytes, Writers::creator, Access::read)
              .release_value();
      ours_ = create_memory("cob-move", most_image_bytes, Writers::creator).release_value();
      heard.descriptors[0] = std::move(ours_.fd);
    }
    if (word.step == static_cast<u32>(MoveStep::image)) {
      const auto bytes = theirs_.bytes().first(word.bytes);
      std::vector<std::byte> image(bytes.begin(), bytes.end());
      change(image, in_);
      std::memcpy(ours_.mapping.data(), image.data(), image.size());
      word.bytes = image.size();
    }
    std::vector<FdRef> fds;
    for (const Fd& fd : heard.descriptors) fds.push_back(fd.ref());
    (void)send_struct(to_new_.ref(), word, fds, Blocking::never);
  }

  sim::FuzzInput& in_;
  Fd from_old_, to_new_, report_;
  Mapping theirs_;
  SharedMemory ours_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  quiet_log();
  sim::FuzzInput in(data, size);
  TwoKernels kernels;
  {
    Honest server(kernels, 0), client(kernels, 1);
    server.listen(90);
    u32 slots[3];
    for (u32& slot : slots) slot = client.connect(90);
    for (u32 i = 0; i < 30; ++i) {
      kernels.turns(2);
      server.turn();
      for (const u32 slot : slots) client.send(slot, i == 10 ? std::string(3'000, 'x') : "");
    }
    (void)client.connect(90);  // to be accepted by nobody
    for (const u32 slot : slots) client.send(slot, "not read");
    Between between(kernels, in);
    for (u32 i = 0; i < 120; ++i) {
      between.turn();
      kernels.turns(1, Duration::microseconds(i % 8 == 0 ? 600 : 20));
    }
    server.program().die();
    client.program().die();
  }
  kernels.host_turn();
  HonestPair pair(kernels);
  pair.expect_service();
  return 0;
}
