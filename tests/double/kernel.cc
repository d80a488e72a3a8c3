// A kernel without a network stack: speaks message/control.h and shows a board, to test the
// supervisor and the CLI. Its executable is named cob-kernel and chosen by COB_LIBEXEC. COB_DOUBLE
// makes it misbehave, on the kernel that COB_DOUBLE_KERNEL names (default: every one): crash,
// crash-once-up, mute, stubborn, gibberish, no-board, no-stats, accuse, lying-view (a reply that
// cannot be right), garbage-ring (a capture's ring full of noise); its statistics are of a version
// to come. On its board, `connections` is the
// number of peers whose memory it got, `programs_attached` that of living programs.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/passing.h"
#include "kernel/board.h"
#include "kernel/view.h"
#include "message/control.h"
#include "message/stats.h"

namespace {

using cob::Fd;
using cob::FdRef;
using cob::u32;
using cob::message::ControlKind;

constexpr FdRef supervisor{3};
volatile cob::kernel::Board* board = nullptr;
cob::message::Config config;
std::map<int, Fd> peers;  // by kernel
std::vector<Fd> programs;
std::vector<Fd> viewers;

bool misbehaves(std::string_view how) {
  const char* wanted = std::getenv("COB_DOUBLE");
  const char* kernel = std::getenv("COB_DOUBLE_KERNEL");
  return wanted != nullptr && how == wanted &&
         (kernel == nullptr || std::atoi(kernel) == config.kernel);
}

void show() {
  board->connections = peers.size();
  board->programs_attached = programs.size();
}

Fd make_board() {
  Fd memory(::memfd_create("board", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::size_t bytes = misbehaves("no-stats")
                                ? sizeof(cob::kernel::Board)
                                : cob::kernel::stats_offset + sizeof(cob::message::StatsHeader);
  if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) std::abort();
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (bytes > cob::kernel::stats_offset) {
    cob::message::StatsHeader stats;
    stats.magic = cob::message::StatsHeader::magic_value;
    ++stats.version;
    std::memcpy(static_cast<std::byte*>(mapped) + cob::kernel::stats_offset, &stats, sizeof stats);
  }
  ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  auto* fresh = new (mapped) cob::kernel::Board{};
  fresh->pid = static_cast<u32>(::getpid());
  fresh->epoch = config.epoch;
  fresh->kernel = config.kernel;
  fresh->core = config.core;
  fresh->asleep = 1;
  board = fresh;
  return memory;
}

void say_hello() {
  if (misbehaves("mute")) return;
  const Fd board_memory = make_board();
  const Fd no_board(::eventfd(0, EFD_CLOEXEC));
  cob::message::Simple hello{};
  hello.kind = std::to_underlying(ControlKind::hello);
  const std::array<FdRef, 1> descriptors{misbehaves("no-board") ? no_board.ref()
                                                                : board_memory.ref()};
  (void)cob::send_struct(supervisor, hello, descriptors);
}

void answer_peer(const cob::message::Simple& appeared) {
  if (misbehaves("accuse")) {
    cob::message::Simple complaint = appeared;
    complaint.kind = std::to_underlying(ControlKind::peer_faulted);
    (void)cob::send_struct(supervisor, complaint);
  }
  const Fd memory(::memfd_create("link", MFD_CLOEXEC));
  cob::message::LinkNotice link{};
  link.kind = std::to_underlying(ControlKind::link);
  link.peer = static_cast<cob::u16>(appeared.value);
  link.peer_epoch = appeared.epoch;
  link.own_epoch = config.epoch;
  const std::array<FdRef, 1> descriptors{memory.ref()};
  (void)cob::send_struct(supervisor, link, descriptors);
}

// To whatever the viewer will ask.
void answer_viewer(FdRef viewer) {
  cob::kernel::ViewReply reply{.kind = std::to_underlying(cob::kernel::ViewKind::capture)};
  if (misbehaves("lying-view")) {
    reply.rows = 1'000'000;
    reply.row_bytes = sizeof(cob::kernel::SocketRow);
    (void)cob::send_struct(viewer, reply);
  }
  if (!misbehaves("garbage-ring")) return;
  constexpr std::size_t ring_bytes = cob::net::capture_min_bytes;
  auto ring =
      cob::create_memory("ring", cob::net::capture_page_bytes + ring_bytes, cob::Writers::creator)
          .release_value();
  auto progress = cob::create_memory("read", cob::net::capture_page_bytes, cob::Writers::anyone)
                      .release_value();
  std::memset(ring.mapping.data(), 0xab, ring.mapping.size());
  new (ring.mapping.data()) cob::net::CaptureHeader{.ring_bytes = ring_bytes, .written = 4'000};
  const std::array<FdRef, 2> descriptors{ring.fd.ref(), progress.fd.ref()};
  (void)cob::send_struct(viewer, reply, descriptors);
}

void show_program(u32 pid) {
  for (auto& program : const_cast<cob::kernel::Board*>(board)->program) {
    if (program.pid != 0) continue;
    program.threads = 1;
    std::snprintf(program.command, sizeof(program.command), "double-of-%u", pid);
    program.pid = pid;
    return;
  }
}

// False: end.
bool take_control() {
  alignas(8) std::array<std::byte, sizeof(cob::message::Config)> buffer{};
  auto received = cob::receive_datagram(supervisor, buffer);
  if (received.is_error()) return received.error().code == EAGAIN;
  cob::Datagram datagram = received.release_value();
  if (datagram.bytes == 0) return false;
  cob::message::Simple simple{};
  std::memcpy(&simple, buffer.data(), sizeof(simple));
  switch (static_cast<ControlKind>(simple.kind)) {
    case ControlKind::config:
      std::memcpy(&config, buffer.data(), sizeof(config));
      if (misbehaves("crash")) {
        std::fprintf(stderr, "double: crashing as told\n");
        return std::exit(3), false;
      }
      if (cpu_set_t set{}; config.core >= 0) {
        CPU_SET(static_cast<std::size_t>(config.core), &set);
        ::sched_setaffinity(0, sizeof(set), &set);
      }
      say_hello();
      if (misbehaves("crash-once-up")) std::exit(4);
      if (misbehaves("gibberish")) (void)cob::send_struct(supervisor, cob::u64{0x1234'5678});
      return true;
    case ControlKind::peer_appeared:
      answer_peer(simple);
      break;
    case ControlKind::peer_up: {
      cob::message::LinkNotice link{};
      std::memcpy(&link, buffer.data(), sizeof(link));
      if (datagram.descriptors.size() == 1) peers[link.peer] = std::move(datagram.descriptors[0]);
      break;
    }
    case ControlKind::viewer:
      if (datagram.descriptors.size() != 1) break;
      viewers.push_back(std::move(datagram.descriptors[0]));
      answer_viewer(viewers.back().ref());
      break;
    case ControlKind::peer_down:
      peers.erase(static_cast<int>(simple.value));
      break;
    case ControlKind::program:
      if (datagram.descriptors.size() == 1) programs.push_back(std::move(datagram.descriptors[0]));
      show_program(simple.value);
      break;
    case ControlKind::shutdown:
      return misbehaves("stubborn");
    default:
      break;
  }
  show();
  return true;
}

// A program's only message here: whatever comes is sent back.
void serve_programs(const std::vector<pollfd>& ready) {
  for (std::size_t i = ready.size(); i-- > 1;) {
    if (ready[i].revents == 0) continue;
    std::array<std::byte, 256> buffer{};
    auto received = cob::receive_datagram(programs[i - 1].ref(), buffer);
    if (received.is_error() || received.value().bytes == 0) {
      programs.erase(programs.begin() + static_cast<std::ptrdiff_t>(i - 1));
    } else {
      (void)cob::send_datagram(programs[i - 1].ref(),
                               std::span(buffer).first(received.value().bytes));
    }
  }
  show();
}

}  // namespace

int main() {
  while (true) {
    std::vector<pollfd> wanted{{supervisor.get(), POLLIN, 0}};
    for (const Fd& program : programs) wanted.push_back({program.get(), POLLIN, 0});
    if (::poll(wanted.data(), wanted.size(), -1) < 0) return 1;
    if (board != nullptr) serve_programs(wanted);
    if (wanted[0].revents != 0 && !take_control()) return 0;
  }
}
