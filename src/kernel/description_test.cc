// What descriptions are made of: bytes kept, holders, parts made on demand; each against a plain
// model.
#include "kernel/description.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace cob::kernel {
namespace {

std::string text(const ByteQueue& queue) {
  const auto bytes = queue.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

TEST(ByteQueue, HoldsWhatAStringHolds) {
  std::mt19937 random(5);
  ByteQueue queue;
  std::string model;
  for (int step = 0; step < 4'000; ++step) {
    const std::string more(random() % 4 == 0 ? random() % 100'000 : random() % 300,
                           static_cast<char>('a' + step % 26));
    switch (random() % 8) {
      case 0:
        queue.put_front(bytes_of(more));
        model = more + model;
        break;
      case 1:
        queue.reserve(more.size());
        break;
      case 2:
        if (step % 50 == 2) queue.clear(), model.clear();
        break;
      case 3:
      case 4: {
        const std::size_t gone = model.empty() ? 0 : random() % (model.size() + 1);
        queue.drop(gone);
        model.erase(0, gone);
        break;
      }
      default:
        queue.append(bytes_of(more));
        model += more;
    }
    ASSERT_EQ(queue.size(), model.size());
    ASSERT_EQ(text(queue), model);
  }
}

TEST(Holders, OneOrSeveral) {
  std::mt19937 random(6);
  Holders holders;
  std::vector<u32> model;
  Program* const somebody = reinterpret_cast<Program*>(&holders);
  for (u32 step = 0; step < 2'000; ++step) {
    if (random() % 2 == 0 && model.size() < 5) {
      holders.push_back({.program = somebody, .slot = step});
      model.push_back(step);
    } else if (!model.empty()) {
      const std::size_t index = random() % model.size();
      holders.erase(index);
      model.erase(model.begin() + static_cast<std::ptrdiff_t>(index));
    }
    ASSERT_EQ(holders.size(), model.size());
    ASSERT_EQ(holders.empty(), model.empty());
    std::vector<u32> found;
    for (const Holder& h : holders) found.push_back(h.slot);
    ASSERT_EQ(found, model);
  }
}

TEST(OnDemand, ReadsAsDefaultUntilMade) {
  OnDemand<SettingsPart> part;
  EXPECT_FALSE(part.made());
  EXPECT_EQ(part->keep_alive_probes, 9u);
  EXPECT_FALSE(part.made());
  part.make().keep_alive_probes = 3;
  EXPECT_EQ(part->keep_alive_probes, 3u);
  EXPECT_EQ(OnDemand<SettingsPart>()->keep_alive_probes, 9u);
}

}  // namespace
}  // namespace cob::kernel
