// A sender killed after each single instruction of send, request or reply, with flush: the receiver
// finds the whole message or none, and meets the restarted sender as if nothing had been.
// Model: the sender is a forked child that its parent steps by ptrace(2) and kills after k
// instructions, for every k until the call is over; each child is the same kernel's next epoch, and
// takes the same path. One thread a process.
#ifdef __x86_64__  // by its debug registers
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <vector>

#include "base/passing.h"
#include "message/test_pair.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define COB_TOO_MANY_INSTRUCTIONS 1
#else
#define COB_TOO_MANY_INSTRUCTIONS 0
#endif

namespace cob::message {
namespace {

using namespace test;

constexpr u16 kernels = 3;
constexpr KernelId sender_id{0};
constexpr int not_permitted = 77;
constexpr u64 greeting = 1'000, told = 77;

template <std::size_t n>
constexpr Bytes<n> pattern() {
  Bytes<n> bytes{};
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<u8>(i * 7 + 1);
  return bytes;
}

// Of many lines; not of more, for each of its instructions is a process.
struct Leaf {
  static constexpr MessageType type{90};
  le<u64> number;
  Bytes<1000> bytes;
};

constexpr Leaf page{.number = told, .bytes = pattern<1000>()};
constexpr BigAsk big_ask{.number = told, .bytes = pattern<200>()};
constexpr BigAnswer big_answer{.number = told, .bytes = pattern<1000>()};

enum class Call { send_line, send_page, request, reply };

// --- The child.

void call(Messenger& sender, KernelId receiver, Call which) {
  switch (which) {
    case Call::send_line:
      sender.send(receiver, Note{told}).release_value();
      break;
    case Call::send_page:
      sender.send(receiver, page).release_value();
      break;
    case Call::request:
      sender.request<BigAsk, BigAnswer>(receiver, big_ask, Time::never(), [](Result<BigAnswer>) {})
          .release_value();
      break;
    case Call::reply:
      VERIFY(sender.poll({}, 1) == 1);
      break;
  }
  sender.flush();
}

// Connects, greets, and stops itself before and after the call.
[[noreturn]] void live(u32 epoch, KernelId receiver, Doorbell doorbell, Fd inbound, Fd socket,
                       Call which) {
  ring(doorbell.button.ref());  // write(2) is bound from now on: not to step through the linker
  End self(sender_id.value, kernels, epoch);
  self->know<Leaf>();
  self->on<BigAsk, BigAnswer>(
      [](KernelId, const BigAsk&) -> Result<BigAnswer> { return big_answer; });
  const Fd outbound = self->open_link(receiver, 1, std::move(doorbell)).release_value();
  self->peer_up(receiver, 1, std::move(inbound)).release_value();
  self->send(receiver, Note{greeting + epoch}).release_value();
  self->flush();
  const FdRef passed[] = {outbound.ref()};
  send_struct(socket.ref(), epoch, passed).release_value();
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(not_permitted);
  ::raise(SIGSTOP);
  call(*self.messenger, receiver, which);
  ::raise(SIGUSR1);
  ::_exit(0);
}

// --- The parent.

struct Outcome {
  bool over = false;       // the call had returned before it came to k instructions
  bool arrived = false;    // what it sent
  bool elsewhere = false;  // it took another path than the learnt one: to be done by steps
};

// How a sender comes to the instruction it dies after.
enum class By : u8 { jump, steps };

struct Place {
  u64 address = 0;
  u32 passes = 0;  // over this address, this one included
};

struct KilledSender : testing::Test {
  End receiver{1, kernels}, bystander{2, kernels};
  u32 epoch = 0;
  u64 greeted = 0, notes = 0, pages = 0, asked = 0, from_bystander = 0;
  bool skip = false;
  std::vector<Place> path;  // of the call, by instructions done
  cpu_set_t all_cores{};

  void SetUp() override {
    if (COB_TOO_MANY_INSTRUCTIONS)
      GTEST_SKIP() << "stepping through sanitized or unoptimised code takes too long";
    receiver->on<Note>([this](KernelId from, const Note& m) {
      if (from == bystander.id) {
        ++from_bystander;
      } else if (m.number == told) {
        ++notes;
      } else {
        ASSERT_EQ(m.number, greeting + epoch);
        ++greeted;
      }
    });
    receiver->on<Leaf>([this](KernelId, const Leaf& m) {
      ASSERT_EQ(m.number, told);
      ASSERT_EQ(m.bytes, page.bytes);
      ++pages;
    });
    receiver->on<BigAsk, BigAnswer>([this](KernelId, const BigAsk& m) -> Result<BigAnswer> {
      EXPECT_EQ(m.number, told);
      EXPECT_EQ(m.bytes, big_ask.bytes);
      ++asked;
      return big_answer;
    });
    connect(receiver, bystander);
    // A step is a switch to the child and back: on one core it takes a tenth of the time.
    ASSERT_EQ(::sched_getaffinity(0, sizeof all_cores, &all_cores), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  }
  void TearDown() override {
    if (CPU_COUNT(&all_cores) > 0) ::sched_setaffinity(0, sizeof all_cores, &all_cores);
  }

  // A new sender, stopped before its call. 0: ptrace is not permitted.
  pid_t start(Call which) {
    ++epoch;
    Doorbell ours = make_doorbell().release_value();
    Doorbell theirs = make_doorbell().release_value();
    std::swap(ours.button, theirs.button);
    Fd inbound = receiver->open_link(sender_id, epoch, std::move(ours)).release_value();
    auto [near, far] = seqpacket_pair().release_value();
    make_blocking(near.ref());
    const pid_t pid = ::fork();
    if (pid == 0)
      live(epoch, receiver.id, std::move(theirs), std::move(inbound), std::move(far), which);
    VERIFY(pid > 0);
    far.reset();
    u32 said = 0;
    Datagram hello =
        receive_datagram(near.ref(), std::as_writable_bytes(std::span(&said, 1))).release_value();
    VERIFY(said == epoch && hello.descriptors.size() == 1);
    receiver->peer_up(sender_id, epoch, std::move(hello.descriptors[0])).release_value();
    int status = 0;
    VERIFY(::waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == not_permitted) return 0;
    VERIFY(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return pid;
  }

  // Takes the greeting, asks, and sleeps.
  template <typename Continuation>
  void prepare(Continuation on_reply) {
    greeted = notes = pages = asked = from_bystander = 0;
    receiver->poll({}, 100);
    EXPECT_EQ(greeted, 1u);
    EXPECT_TRUE((receiver->request<BigAsk, BigAnswer>(sender_id, big_ask, Time::never(),
                                                      std::move(on_reply))));
    receiver->flush();
    receiver->set_armed(true);
  }
  // To its next stop, by ptrace's `request`. The signal that stopped it; who stops and continues
  // whole sessions does not count.
  static int resume(pid_t pid, __ptrace_request request) {
    int status = 0;
    do {
      VERIFY(::ptrace(request, pid, nullptr, nullptr) == 0);
      VERIFY(::waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    } while (WSTOPSIG(status) == SIGCONT || WSTOPSIG(status) == SIGSTOP ||
             WSTOPSIG(status) == SIGTSTP);
    return WSTOPSIG(status);
  }
  // Executes one instruction. False: the call is over.
  static bool step(pid_t pid) {
    const int signal = resume(pid, PTRACE_SINGLESTEP);
    VERIFY(signal == SIGTRAP || signal == SIGUSR1);
    return signal == SIGTRAP;
  }
  static u64 place(pid_t pid) {
    return static_cast<u64>(::ptrace(PTRACE_PEEKUSER, pid, offsetof(user, regs.rip), nullptr));
  }
  // The shortest of three: what was read again (a clock that ticked) is not in every run.
  void learn_path(Call which) {
    std::vector<Place> shortest;
    for (int i = 0; i < 3; ++i) {
      walk_path(which);
      if (skip) return;
      if (shortest.empty() || path.size() < shortest.size()) shortest = path;
    }
    path = std::move(shortest);
  }
  void walk_path(Call which) {
    path.clear();
    const pid_t pid = start(which);
    skip = pid == 0;
    if (skip) return;
    prepare([](Result<BigAnswer>) {});
    std::map<u64, u32> passed;
    do {
      const u64 here = place(pid);
      const bool repeats = !path.empty() && path.back().address == here;  // rep movs
      path.push_back({here, repeats ? ~u32{0} : ++passed[here]});
    } while (step(pid));
    finish(pid);
    receiver->set_armed(false);
    receiver->poll({}, 100);
    receiver->peer_down(sender_id, epoch);
  }
  // By a breakpoint to a place of the learnt path shortly before that is passed seldom, then by
  // steps. False: over. A run may differ from the learnt one by a few instructions (a clock read
  // again); where it stands then is as good a place to die, unless it never passes the breakpoint:
  // `elsewhere`.
  bool jump_to(pid_t pid, std::size_t instructions, bool& elsewhere) const {
    std::size_t at = 0;
    for (std::size_t i = instructions - std::min<std::size_t>(instructions, 100);
         instructions > 200 && i < std::min(instructions, path.size()); ++i) {
      if (path[i].passes < (at == 0 ? ~u32{0} : path[at].passes)) at = i;
    }
    if (at != 0 && !run_to(pid, path[at])) {
      elsewhere = true;
      return true;
    }
    return walk(pid, instructions - at);
  }
  static bool walk(pid_t pid, std::size_t instructions) {
    for (std::size_t i = 0; i < instructions; ++i) {
      if (!step(pid)) return false;
    }
    return true;
  }
  // The breakpoint is the instruction INT3 in the child's copy of the page: not every virtual
  // machine has debug registers. False: the call was over before.
  static bool run_to(pid_t pid, const Place& there) {
    constexpr u64 low_byte = 0xff, int3 = 0xcc;
    errno = 0;
    const auto code = static_cast<u64>(::ptrace(PTRACE_PEEKTEXT, pid, there.address, nullptr));
    VERIFY(errno == 0);
    for (u32 i = 0; i < there.passes; ++i) {
      if (i > 0) VERIFY(resume(pid, PTRACE_SINGLESTEP) == SIGTRAP);
      put_code(pid, there.address, (code & ~low_byte) | int3);
      const int signal = resume(pid, PTRACE_CONT);
      if (signal == SIGUSR1) return false;
      VERIFY(signal == SIGTRAP && place(pid) == there.address + 1);
      put_code(pid, there.address, code);
      VERIFY(::ptrace(PTRACE_POKEUSER, pid, offsetof(user, regs.rip), there.address) == 0);
    }
    return true;
  }
  static void put_code(pid_t pid, u64 address, u64 code) {
    VERIFY(::ptrace(PTRACE_POKETEXT, pid, address, code) == 0);
  }
  static void finish(pid_t pid) {
    ::kill(pid, SIGKILL);
    int status = 0;
    VERIFY(::waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
  }

  Outcome kill_after(std::size_t instructions, Call which, By by) {
    Outcome outcome;
    const pid_t pid = start(which);
    u64 replied = 0, reset = 0;
    prepare([&](Result<BigAnswer> reply) {
      if (!reply) {
        EXPECT_EQ(reply.error().code, ECONNRESET);
        ++reset;
      } else {
        EXPECT_EQ(reply.value().number, told);
        EXPECT_EQ(reply.value().bytes, big_answer.bytes);
        ++replied;
      }
    });
    outcome.over =
        by == By::steps ? !walk(pid, instructions) : !jump_to(pid, instructions, outcome.elsewhere);
    finish(pid);
    receiver->set_armed(false);

    EXPECT_TRUE(bystander->send(receiver.id, Note{0}));
    bystander->flush();
    receiver->poll({}, 100);
    receiver->flush();
    EXPECT_EQ(from_bystander, 1u);
    EXPECT_FALSE(receiver->take_faulted());
    EXPECT_TRUE(receiver->connected(sender_id));
    receiver->peer_down(sender_id, epoch);
    EXPECT_FALSE(receiver->connected(sender_id));
    EXPECT_EQ(replied + reset, 1u);
    EXPECT_EQ(receiver->outstanding_requests(), 0u);
    const u64 arrived = which == Call::send_line   ? notes
                        : which == Call::send_page ? pages
                        : which == Call::request   ? asked
                                                   : replied;
    EXPECT_LE(arrived, 1u);
    EXPECT_EQ(greeted + notes + pages + asked + replied, 1 + arrived);  // and nothing else
    outcome.arrived = arrived == 1;
    return outcome;
  }

  void kill_after_each(Call which) {
    learn_path(which);
    if (skip) GTEST_SKIP() << "ptrace(2) is not permitted here";
    u32 without = 0, with = 0;
    std::size_t published = 0;  // the first k after which it was there
    for (std::size_t k = 0; !HasFailure(); ++k) {
      SCOPED_TRACE(testing::Message() << "killed after " << k << " instructions");
      Outcome outcome = kill_after(k, which, k % 64 == 63 ? By::steps : By::jump);
      const bool differs = outcome.elsewhere;
      if (differs) outcome = kill_after(k, which, By::steps);
      EXPECT_TRUE(k > 0 || !outcome.arrived);
      if (outcome.arrived && with == 0) published = k;
      // Published once is published for good; a run that differs publishes a little later.
      EXPECT_TRUE(with == 0 || outcome.arrived || (differs && k < published + 32));
      ++(outcome.arrived ? with : without);
      if (!outcome.over) continue;
      EXPECT_TRUE(outcome.arrived);
      break;
    }
    std::printf("killed at %u instructions: %u before the message was there, %u after\n",
                without + with, without, with);
    EXPECT_GT(without, 50u);
    EXPECT_GT(with, 50u);
  }
};

TEST_F(KilledSender, InAMessageOfOneLine) { kill_after_each(Call::send_line); }
TEST_F(KilledSender, InAMessageOfManyLines) { kill_after_each(Call::send_page); }
TEST_F(KilledSender, InARequest) { kill_after_each(Call::request); }
TEST_F(KilledSender, InAReply) { kill_after_each(Call::reply); }

}  // namespace
}  // namespace cob::message
#endif
