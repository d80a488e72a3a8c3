// For fuzzers: a cob of two kernels with an honest server and client, and hostile programs beside
// them. Model: the fuzzer does with the hostile programs what it likes; check() then proves that
// the honest ones are served meanwhile and afterwards, and that the hostile ones left nothing:
// no descriptions, connections, arenas, descriptors or ports. One thread. Test code only.
#pragma once

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "kernel/honest_program.h"

namespace cob::kernel::test {

class HostileWorld {
 public:
  static constexpr u16 first_port = 1000, ports = 8;  // what hostile programs bind
  static constexpr std::size_t most_programs = 6;

  explicit HostileWorld(std::size_t count = 2, bool attach = true) : honest_(kernels_) {
    honest_.expect_service();
    VERIFY(until_quiet(true));
    for (u16 k = 0; k < 2; ++k) {
      descriptions_[k] = kernels_.board(k).descriptions;
      connections_[k] = kernels_.board(k).connections;
    }
    descriptors_ = open_descriptors();
    for (std::size_t i = 0; i < count; ++i)
      programs_.push_back(attach ? kernels_.attached(0, Played::threads) : kernels_.newcomer(0));
  }

  TwoKernels& kernels() { return kernels_; }
  std::size_t count() const { return programs_.size(); }
  Played& program(std::size_t index) { return *programs_[index % programs_.size()]; }
  void add(std::unique_ptr<Played> program) { programs_.push_back(std::move(program)); }
  bool full() const { return programs_.size() >= most_programs; }
  void replace(std::size_t index) {
    programs_[index % programs_.size()] = kernels_.attached(0, Played::threads);
  }
  // The honest client connects to a port that is perhaps a hostile program's.
  void visit(u16 port) {
    if (visits_.size() >= 16) return;
    visits_.push_back(honest_.client().connect(port));
    honest_.client().send(visits_.back(), "hello");
  }
  // Time for everyone, honest programs at work.
  void turns(u32 count = 1) {
    for (u32 i = 0; i < count; ++i) {
      kernels_.turns(2);
      honest_.turn();
      leave_ended_visits();
    }
  }
  void idle(Duration time) {
    (void)honest_.until(
        [&] {
          leave_ended_visits();
          return false;
        },
        time);
  }
  // A child's liveness socket is announced on the program's own; its other end becomes a program.
  void announce_child(Played& parent) {
    auto [mine, theirs] = seqpacket_pair().release_value();
    const u32 kind = static_cast<u32>(call::Hello::child);
    const FdRef end[] = {theirs.ref()};
    (void)send_struct(parent.liveness(), kind, end, Blocking::never);
    if (!full()) add(std::make_unique<Played>(std::move(mine)));
  }
  // A datagram of any bytes, with up to three descriptors of any kind.
  static void send_raw(Played& program, std::span<const std::byte> bytes, u8 kinds) {
    if (!program.liveness().valid()) return;
    std::vector<Fd> fds;
    for (u8 i = 0; i < kinds % 4; ++i) fds.push_back(some_descriptor(program, kinds / 4 + i));
    std::vector<FdRef> refs;
    for (const Fd& fd : fds)
      if (fd.valid()) refs.push_back(fd.ref());
    (void)send_datagram(program.liveness(), bytes, refs, Blocking::never);
  }

  void check() {
    honest_.expect_service();
    for (auto& program : programs_) program->die();
    programs_.clear();
    for (const u32 slot : visits_) honest_.client().close(slot);
    visits_.clear();
    VERIFY(until_quiet(false));
    honest_.expect_service();
    for (u16 port = first_port; port < first_port + ports; ++port)
      VERIFY(honest_.server().try_port(port) == 0);
  }

 private:
  static Fd some_descriptor(Played& program, u32 kind) {
    int pipe_ends[2];
    switch (kind % 8) {
      case 0:
        return Fd(::eventfd(0, EFD_CLOEXEC));
      case 1:
        return Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      case 2:
        return Fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
      case 3:
        return Fd(::memfd_create("anything", MFD_CLOEXEC));
      case 4:
        if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return {};
        ::close(pipe_ends[0]);
        return Fd(pipe_ends[1]);
      case 5:
        return Fd(::epoll_create1(EPOLL_CLOEXEC));
      case 6:  // the program's own end: it would keep itself alive
        return Fd(::fcntl(program.liveness().get(), F_DUPFD_CLOEXEC, 0));
      default: {
        auto ends = seqpacket_pair().release_value();
        return std::move(ends.first);
      }
    }
  }
  static std::size_t open_descriptors() {
    DIR* folder = ::opendir("/proc/self/fd");
    VERIFY(folder != nullptr);
    std::size_t count = 0;
    while (::readdir(folder) != nullptr) ++count;
    ::closedir(folder);
    return count;
  }
  void leave_ended_visits() {
    Honest& client = honest_.client();
    std::erase_if(visits_, [&](u32 slot) {
      (void)client.receive(slot);
      client.send(slot, {});
      if (!client.over(slot)) return false;
      client.close(slot);
      return true;
    });
  }
  bool until_quiet(bool first) {
    const auto quiet = [&] {
      leave_ended_visits();
      for (u16 k = 0; k < 2; ++k) {
        const Board& board = kernels_.board(k);
        if (board.programs_attached != 1 || board.time_wait != 0) return false;
        if (first ? board.connections != 1
                  : board.connections != connections_[k] || board.descriptions != descriptions_[k])
          return false;
      }
      return first || open_descriptors() == descriptors_;
    };
    if (honest_.until(quiet, Duration::seconds(4000))) return true;
    for (u16 k = 0; k < 2; ++k) {
      const Board& board = kernels_.board(k);
      COB_LOG(error,
              "kernel {} still has {} programs, {} connections ({}), {} descriptions ({}), {} in "
              "TIME_WAIT; this process {} descriptors ({})",
              k, board.programs_attached, board.connections, connections_[k], board.descriptions,
              descriptions_[k], board.time_wait, open_descriptors(), descriptors_);
    }
    return false;
  }

  TwoKernels kernels_;
  HonestPair honest_;
  std::vector<std::unique_ptr<Played>> programs_;
  std::vector<u32> visits_;
  u64 descriptions_[2] = {}, connections_[2] = {};
  std::size_t descriptors_ = 0;
};

// What a fuzzer does once, before anything.
inline void quiet_log() { log_configure(Level::error, "fuzz"); }

}  // namespace cob::kernel::test
