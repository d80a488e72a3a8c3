// For tests: an asking kernel and one of the storing island in one process, with a table of objects
// in place of a home. Test code only.
#pragma once

#include <map>
#include <string>

#include "fs/asker.h"
#include "fs/names.h"
#include "fs/open_flags.h"
#include "fs/test_ring.h"
#include "message/test_pair.h"

namespace cob::fs::test {

inline constexpr u32 share_number = 7;

class Islands {
 public:
  explicit Islands(const std::string& share, bool read_only = false) {
    EXPECT_FALSE(names.add_share(share_number, share, read_only).is_error());
    message::test::connect(asking, storing);
  }
  ~Islands() {
    for (auto& [slot, object] : objects) object.reset();
  }

  // Until `until()`; false after half a minute.
  template <typename Until>
  bool turn_until(Until until) {
    const Time deadline = HostClock::read() + Duration::seconds(30);
    while (!until()) {
      const Time now = HostClock::read();
      if (now > deadline) return false;
      asking->poll(now, 64);
      asking->flush();
      storing->poll(now, 64);
      names.poll();
      ring->poll();
      storing->flush();
    }
    return true;
  }

  Result<Asker::OpenedFile> open(const std::string& path, u32 flags, u32 mode = 0644) {
    std::optional<Result<Asker::OpenedFile>> answer;
    auto asked = asker.open(base, as, path, flags, mode,
                            [&](Result<Asker::OpenedFile> r) { answer.emplace(std::move(r)); });
    if (asked.is_error()) return asked.error();
    if (!turn_until([&] { return answer.has_value(); })) return Error::of(ETIMEDOUT, "the test");
    return std::move(*answer);
  }
  Result<Asker::Answer> call(const Asker::NameRequest& request) {
    std::optional<Result<Asker::Answer>> answer;
    auto asked = asker.call(base, as, request,
                            [&](Result<Asker::Answer> r) { answer.emplace(std::move(r)); });
    if (asked.is_error()) return asked.error();
    if (!turn_until([&] { return answer.has_value(); })) return Error::of(ETIMEDOUT, "the test");
    return std::move(*answer);
  }
  // 0 or -errno; -EXDEV if it leads out.
  int code(const Asker::NameRequest& request) {
    const auto answer = call(request);
    if (answer.is_error()) return -answer.error().code;
    return answer.value().outside.empty() ? 0 : -EXDEV;
  }
  int code_of_open(const std::string& path, u32 flags, u32 mode = 0644) {
    const auto answer = open(path, flags, mode);
    if (answer.is_error()) return -answer.error().code;
    return answer.value().outside.empty() ? 0 : -EXDEV;
  }
  HostObject& object(const Asker::OpenedFile& file) { return *objects.at(file.opened.handle.slot); }
  void be(const Credentials& credentials, u16 umask = 022) {
    as = {.number = asker.who_number(credentials).release_value(), .umask = umask};
  }

  message::test::End asking{0}, storing{1};
  HostClock clock;
  std::unique_ptr<Ring> ring = Ring::create().release_value();
  std::map<u32, std::unique_ptr<HostObject>> objects;
  Names names{
      {.messenger = *storing.messenger,
       .ring = *ring,
       .self = storing.id,
       .adopt = [this](std::unique_ptr<HostObject> object, KernelId) -> Result<Names::Adoption> {
         const u32 slot = next_++;
         objects.emplace(slot, std::move(object));
         return Names::Adoption{.handle = {.slot = slot, .generation = 1},
                                .grant = descriptor::Grant(0)};
       },
       .find = [this](descriptor::Handle handle, KernelId) -> HostObject* {
         const auto found = objects.find(handle.slot);
         return found != objects.end() && handle.generation == 1 ? found->second.get() : nullptr;
       },
       .clock = &clock}};
  Asker asker{*asking.messenger};
  Asker::Base base{.entry = KernelId(1), .share = share_number, .directory = {}};
  Asker::As as{.number = asker.who_number(Credentials::own()).release_value(), .umask = 022};

 private:
  u32 next_ = 1;
};

}  // namespace cob::fs::test
