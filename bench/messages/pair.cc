// Starting, watching and ending the two processes of pair.h.
// The parent sleeps in poll(2) on both pidfds and the interrupts; each child has
// PR_SET_PDEATHSIG, so that even a killed parent leaves nothing spinning. pidfd_open(2).
// Used by the measuring command's only thread.
#include "bench/messages/pair.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/passing.h"

namespace cob::bench {

namespace {

struct Shared {
  Stage stage;
  Sheet sheet;
};

// Written by both children, read by the parent.
class Common {
 public:
  explicit Common(std::size_t bytes) : bytes_(head + bytes) {
    void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at == MAP_FAILED) return;
    memory_ = static_cast<std::byte*>(at);
    shared_ = new (at) Shared;
  }
  Common(const Common&) = delete;
  Common& operator=(const Common&) = delete;
  ~Common() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }
  bool valid() const { return shared_ != nullptr; }
  Stage& stage() const { return shared_->stage; }
  Sheet& sheet() const { return shared_->sheet; }
  std::byte* rest() const { return memory_ + head; }

 private:
  static constexpr std::size_t head = (sizeof(Shared) + 4'095) / 4'096 * 4'096;
  std::size_t bytes_;
  std::byte* memory_ = nullptr;
  Shared* shared_ = nullptr;
};

Fd watch(const Child& child) {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, child.pid(), 0)));
}

int run_side(const Side& side, Seat& seat) {
  const Result<void> done = side(seat);
  if (!done.is_error()) return 0;
  seat.sheet.error(done.error());
  return 1;
}

std::string how_it_ended(Child& child, Interrupts& interrupts) {
  const auto status = child.wait(1, interrupts);
  if (!status) return status.why();
  return *status > 128 ? fmt::format("ended by signal {}", *status - 128)
                       : fmt::format("ended with status {}", *status);
}

// "" or why the driver has not come to its end.
std::string watch_over(Child& driver, Child* answerer, double seconds, const Sheet& sheet,
                       Interrupts& interrupts) {
  const Fd driver_watch = watch(driver);
  const Fd answerer_watch = answerer != nullptr ? watch(*answerer) : Fd();
  const double deadline = now_seconds() + seconds;
  while (true) {
    std::array<pollfd, 3> wanted{pollfd{driver_watch.get(), POLLIN, 0},
                                 pollfd{interrupts.descriptor().get(), POLLIN, 0},
                                 pollfd{answerer_watch.get(), POLLIN, 0}};
    const double left = std::max(0.0, deadline - now_seconds());
    ::poll(wanted.data(), wanted.size(), static_cast<int>(std::min(left, 1e6) * 1e3) + 1);
    if (interrupts.seen()) return "interrupted";
    if (answerer != nullptr && wanted[2].revents != 0 && wanted[0].revents == 0) {
      const std::string how = how_it_ended(*answerer, interrupts);
      return "the answering process " + (sheet.error().empty() ? how : "says: " + sheet.error());
    }
    if (wanted[0].revents != 0) {
      const auto status = driver.wait(1, interrupts);
      if (status && *status == 0) return "";
      if (!sheet.error().empty()) return sheet.error();
      if (!status) return status.why();
      return *status > 128 ? fmt::format("the timing process ended by signal {}", *status - 128)
                           : fmt::format("the timing process ended with status {}", *status);
    }
    if (now_seconds() >= deadline)
      return fmt::format("no end after {:.0f} s: a process hangs", seconds);
  }
}

}  // namespace

void Sheet::figure(const std::string& key, double value) {
  VERIFY(figures_ < max_figures && key.size() < std::tuple_size_v<Key>);
  Figure& one = figure_[figures_++];
  std::memcpy(one.key.data(), key.c_str(), key.size() + 1);
  one.value = value;
}

Histogram& Sheet::histogram(const std::string& key) {
  VERIFY(histograms_ < max_histograms && key.size() < std::tuple_size_v<Key>);
  std::memcpy(histogram_key_[histograms_].data(), key.c_str(), key.size() + 1);
  return histogram_[histograms_++];
}

void Sheet::error(const Error& why) {
  if (error_[0] != 0) return;
  const std::string text = fmt::format("{}: {}", why.what, std::strerror(why.code));
  std::memcpy(error_.data(), text.c_str(), std::min(text.size() + 1, error_.size() - 1));
}

Findings Sheet::findings() const {
  Findings findings;
  for (std::size_t i = 0; i < figures_; ++i)
    findings.figures[figure_[i].key.data()] = figure_[i].value;
  for (std::size_t i = 0; i < histograms_; ++i)
    findings.histograms[histogram_key_[i].data()] = histogram_[i];
  return findings;
}

Outcome<Findings> run_pair(const PairOptions& options, const Side& drive, const Side& answer,
                           Interrupts& interrupts) {
  using Failed = Outcome<Findings>;
  const Common common(options.shared_bytes);
  if (!common.valid()) return Failed::failed("no shared memory");
  auto sockets = seqpacket_pair();
  auto driver_bell = make_doorbell();
  auto answerer_bell = make_doorbell();
  if (!sockets || !driver_bell || !answerer_bell) return Failed::failed("no descriptors left");
  auto [ours, theirs] = sockets.release_value();
  make_blocking(ours.ref());
  make_blocking(theirs.ref());
  Doorbell at_driver = driver_bell.release_value();
  Doorbell at_answerer = answerer_bell.release_value();
  std::swap(at_driver.button, at_answerer.button);

  std::vector<Child> hogs;
  for (const int core : options.hogs) {
    auto hog = Child::hog(core);
    if (!hog) return Failed::failed(hog.why());
    hogs.push_back(std::move(*hog));
  }
  const auto seat = [&](bool drives) {
    return Seat{.drives = drives,
                .time = Duration{static_cast<i64>(options.seconds * 1e9)},
                .stage = common.stage(),
                .sheet = common.sheet(),
                .memory = common.rest(),
                .socket = drives ? ours.ref() : theirs.ref(),
                .doorbell = std::move(drives ? at_driver : at_answerer)};
  };
  auto answerer = Child::start({options.cores[1]}, [&] {
    ours.reset();
    Seat own = seat(false);
    return run_side(answer, own);
  });
  if (!answerer) return Failed::failed(answerer.why());
  auto driver = Child::start({options.cores[0]}, [&] {
    theirs.reset();
    Seat own = seat(true);
    return run_side(drive, own);
  });
  if (!driver) return Failed::failed(driver.why());
  const std::string wrong =
      watch_over(*driver, &*answerer, options.seconds * 3 + options.patience_seconds,
                 common.sheet(), interrupts);
  driver->end(0);
  answerer->end(0);
  for (Child& hog : hogs) hog.end(0);
  if (!wrong.empty()) return Failed::failed(wrong);
  return common.sheet().findings();
}

Outcome<Findings> run_alone(const PairOptions& options, const Side& drive, Interrupts& interrupts) {
  const Common common(options.shared_bytes);
  if (!common.valid()) return Outcome<Findings>::failed("no shared memory");
  auto driver = Child::start({options.cores[0], options.cores[1]}, [&] {
    Seat own{.drives = true,
             .time = Duration{static_cast<i64>(options.seconds * 1e9)},
             .stage = common.stage(),
             .sheet = common.sheet(),
             .memory = common.rest()};
    return run_side(drive, own);
  });
  if (!driver) return Outcome<Findings>::failed(driver.why());
  const std::string wrong = watch_over(
      *driver, nullptr, options.seconds * 3 + options.patience_seconds, common.sheet(), interrupts);
  driver->end(0);
  if (!wrong.empty()) return Outcome<Findings>::failed(wrong);
  return common.sheet().findings();
}

}  // namespace cob::bench
