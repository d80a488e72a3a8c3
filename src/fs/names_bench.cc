// Names over a spinning coherent pair in one process and thread, beside the host's own calls: stat,
// and open with the drop of what was opened. ns a call, the median of 20 rounds. Not part of `all`:
// ninja names_bench; DIRECTORY defaults to /tmp.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/clock.h"
#include "fs/asker.h"
#include "fs/names.h"
#include "fs/open_flags.h"

namespace {

using namespace cob;
using namespace cob::fs;

struct Pair {
  std::unique_ptr<message::Messenger> asking = make(0), storing = make(1);
  std::unique_ptr<Ring> ring = Ring::create().release_value();
  std::unique_ptr<HostObject> opened;
  Names names{{.messenger = *storing,
               .ring = *ring,
               .self = KernelId(1),
               .adopt = [this](std::unique_ptr<HostObject> o, KernelId) -> Result<Names::Adoption> {
                 opened = std::move(o);
                 return Names::Adoption{.handle = {.slot = 1, .generation = 1},
                                        .grant = descriptor::Grant(1)};
               },
               .find = [this](descriptor::Handle, KernelId) { return opened.get(); }}};
  Asker asker{*asking};

  static std::unique_ptr<message::Messenger> make(u16 id) {
    auto made = message::Messenger::create(KernelId(id), 1, 2).release_value();
    return made;
  }
  explicit Pair(const std::string& share) {
    storing->on<descriptor::Drop, descriptor::Dropped>(
        [this](KernelId, const descriptor::Drop&) -> Result<descriptor::Dropped> {
          opened.reset();
          return descriptor::Dropped{};
        });
    asking->know<descriptor::Drop>();
    asking->know<descriptor::Dropped>();
    names.add_share(1, share, false).release_value();
    Fd a = asking->open_link(KernelId(1), 1).release_value();
    Fd b = storing->open_link(KernelId(0), 1).release_value();
    asking->peer_up(KernelId(1), 1, std::move(b)).release_value();
    storing->peer_up(KernelId(0), 1, std::move(a)).release_value();
    ring->set_armed(false);
  }
  void turn_until(const bool& done) {
    while (!done) {
      asking->flush();
      storing->poll(Time{}, 64);
      ring->poll();
      storing->flush();
      asking->poll(Time{}, 64);
    }
  }
};

template <typename Call>
double median_ns(Call call, int calls = 2'000) {
  constexpr int rounds = 20;
  std::vector<double> ns;
  for (int r = 0; r < rounds; ++r) {
    const Time begin = HostClock::read();
    for (int i = 0; i < calls; ++i) call();
    ns.push_back(static_cast<double>((HostClock::read() - begin).ns) / calls);
  }
  std::nth_element(ns.begin(), ns.begin() + rounds / 2, ns.end());
  return ns[rounds / 2];
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = std::string(argc > 1 ? argv[1] : "/tmp") + "/cob-names-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return 1;
  const std::string file = directory + "/f";
  const Fd made(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  ::setlinebuf(stdout);
  Pair pair(directory);
  const Asker::Base base{.entry = KernelId(1), .share = 1, .directory = {}};
  const Asker::As as{.number = pair.asker.who_number(Credentials::own()).release_value()};

  const auto stat_by = [&](const Asker::As& who) {
    bool done = false;
    pair.asker
        .call(base, who, {.call = NameCall::status, .path = "f"},
              [&](Result<Asker::Answer> r) { done = !r.is_error(); })
        .release_value();
    pair.turn_until(done);
  };
  const auto open_and_drop = [&] {
    bool done = false;
    pair.asker
        .open(base, as, "f", open_flag::read_only, 0,
              [&](Result<Asker::OpenedFile> r) { done = !r.is_error(); })
        .release_value();
    pair.turn_until(done);
    done = false;
    (void)pair.asking
        ->request<descriptor::Drop, descriptor::Dropped>(
            KernelId(1), descriptor::Drop{}, Time::never(),
            [&](Result<descriptor::Dropped>) { done = true; })
        .release_value();
    pair.turn_until(done);
  };
  struct stat status{};
  std::printf("%-34s %8.0f ns\n", "host stat", median_ns([&] { ::stat(file.c_str(), &status); }));
  std::printf("%-34s %8.0f ns\n", "Name status", median_ns([&] { stat_by(as); }));
  std::printf("%-34s %8.0f ns\n", "host open, fstat, close", median_ns([&] {
                const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
                ::fstat(fd.get(), &status);
              }));
  std::printf("%-34s %8.0f ns\n", "Open, Drop", median_ns(open_and_drop));
  if (::geteuid() == 0) {
    const Credentials other{.uid = 33, .gid = 33, .groups = {}};
    const Asker::As www{.number = pair.asker.who_number(other).release_value()};
    std::printf("%-34s %8.0f ns\n", "Name status as another user (worker)",
                median_ns([&] { stat_by(www); }, 20));
  }
  pair.opened.reset();
  ::unlink(file.c_str());
  ::rmdir(directory.c_str());
}
