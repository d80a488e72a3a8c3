// The skeleton of every `cob-peer-NAME`: two pinned processes, the round trips and the one-way rate
// of one message size, timed as `cob bench messages` times cob. Model: a driver pings and then
// streams; an answerer echoes and then counts. Each process has one thread of ours.
//
// A message is `size` bytes; the first word of each of its 64-byte lines is the message's number.
// The sender writes every line anew and the receiver reads and checks every line, so that each
// system, with or without copies of its own, moves all lines from one core to the other.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/types.h"

namespace cob::peers {

struct Settings {
  std::size_t size = 64;  // >= 8
  int driver_core = 0;
  int answerer_core = 1;
  double seconds = 0.3;  // of each of the two measurements

  // Messages that a system with an explicit window may have outstanding when it streams: 64, as
  // the OSU benchmarks have it, and less only where that were more than 4 MiB.
  std::size_t window() const;
};

// argv: --size N --cores A,B --seconds S. Ends the process, with usage, if it is anything else.
Settings parse(int argc, char** argv);

// Ends the process with the line "error=WHY", which the runner shows.
[[noreturn]] void fail(const std::string& why);
// The same for "unsupported=WHY": this system has no messages of that size.
[[noreturn]] void unsupported(const std::string& why);
inline void require(bool good, const char* what) {
  if (!good) [[unlikely]]
    fail(what);
}

// The number of the last message of either phase.
inline constexpr u64 last = UINT64_MAX;

void stamp(void* message, std::size_t size, u64 number);
// The number; fails if a line carries another one.
u64 read_stamp(const void* message, std::size_t size);

void pin(int core);

// Calls once(number), which must return the echoed number, for the time that is set, then
// once(last), and prints the figures.
void measure_round_trips(const Settings& settings, const std::function<u64(u64)>& once);

// Calls send(0), send(1) ... for the time that is set, then send(last).
template <typename Send>
void stream(const Settings& settings, Send&& send) {
  const u64 row = settings.size >= 4'096 ? 4 : 64;  // messages between two looks at the clock
  const Time end = HostClock::read() + Duration{static_cast<i64>(settings.seconds * 1e9)};
  for (u64 number = 0; HostClock::read() < end;) {
    for (u64 i = 0; i < row; ++i) send(number++);
  }
  send(last);
}

// The receiver of a stream: how many messages arrive per second. The first tenth of the time warms
// up and is not counted.
class Meter {
 public:
  explicit Meter(const Settings& settings)
      : warm_up_{static_cast<i64>(settings.seconds * 1e8)}, row_(settings.size >= 4'096 ? 1 : 64) {}
  // False: that was the last one, and the figures are printed. Fails unless numbers are 0, 1, 2 ...
  bool count(u64 number) {
    if (number != next_) [[unlikely]]
      return finish(number);
    if (++next_ >= look_at_) [[unlikely]]
      look();
    return true;
  }

 private:
  void look();
  bool finish(u64 number);

  Duration warm_up_;
  u64 row_;
  u64 next_ = 0;
  u64 look_at_ = 0;  // while warming up
  u64 counted_from_ = 0;
  Time warm_{};  // the end of the warm-up
  Time from_{};
};

// Both phases of a system whose ends are alike. End has send(number), which may return once the
// message is handed over; receive(), which returns the number; and post(number), a send of the
// stream, whose last is followed by flush().
template <typename End>
void drive(const Settings& settings, End& end) {
  measure_round_trips(settings, [&](u64 number) {
    end.send(number);
    return end.receive();
  });
  stream(settings, [&](u64 number) { end.post(number); });
  end.flush();
  require(end.receive() == last, "the stream was not acknowledged");
}

template <typename End>
void answer(const Settings& settings, End& end) {
  for (u64 number = 0; number != last;) {
    number = end.receive();
    end.send(number);
  }
  Meter meter(settings);
  while (meter.count(end.receive())) {
  }
  end.send(last);
  end.flush();
}

// Forks: `answerer` runs in the child, pinned, `driver` in this process, pinned; each gets one end
// of a stream socket pair to exchange addresses on (nothing measured passes there, but in the peer
// that is a Unix socket). Returns the exit status; a child that fails ends this process.
using Role = std::function<void(const Settings&, FdRef link)>;
int run_pair(const Settings& settings, const Role& driver, const Role& answerer);

// The answerer's end must live until the driver has all: it waits here for the driver to say so.
void part(FdRef link, bool driver);

// For run_pair(): both ends are made by End(settings, link, is_driver).
template <typename End>
int run_ends(int argc, char** argv) {
  return run_pair(
      parse(argc, argv),
      [](const Settings& settings, FdRef link) {
        End end(settings, link, true);
        drive(settings, end);
        part(link, true);
      },
      [](const Settings& settings, FdRef link) {
        End end(settings, link, false);
        answer(settings, end);
        part(link, false);
      });
}

// Whole blobs on the link, for addresses; also the way to wait until the other end is ready.
void send_blob(FdRef link, const void* data, std::size_t size);
std::vector<char> receive_blob(FdRef link);

// A path for a socket: below $TMPDIR or /tmp, of this pair alone.
std::string socket_path(const char* name);

}  // namespace cob::peers
