// See elsewhere.h. signalfd(2), wait(2).
#include "cli/elsewhere.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/passing.h"
#include "cli/failure.h"
#include "cli/handing.h"
#include "cli/machine_check.h"
#include "island/start_protocol.h"

namespace cob::cli {
namespace {

using island::RunKind;
using island::RunWord;

constexpr int start_within_ms = 30'000;

class Elsewhere {
 public:
  Elsewhere(Fd socket, std::string island)
      : socket_(std::move(socket)), island_(std::move(island)) {}

  FdRef socket() const { return socket_.ref(); }
  const std::string& island() const { return island_; }

  // nullopt: the island is gone, or says nothing in time.
  std::optional<RunWord> hear(int timeout_ms) const {
    pollfd waits{socket_.get(), POLLIN, 0};
    if (::poll(&waits, 1, timeout_ms) != 1) return std::nullopt;
    RunWord word;
    const auto got = receive_datagram(socket_.ref(), std::as_writable_bytes(std::span(&word, 1)));
    if (got.is_error() || got.value().bytes != sizeof word) return std::nullopt;
    return word;
  }
  template <typename Struct>
  void say(const Struct& value) const {
    if (send_struct(socket_.ref(), value).is_error()) gone();
  }
  [[noreturn]] void gone() const {
    fail(exit_machine_lost, "island {} is gone, or does not answer", island_);
  }

 private:
  Fd socket_;
  std::string island_;
};

void append(std::string& text, std::string_view word) {
  text += word;
  text += '\0';
}

// What belongs to this machine's cob stays.
bool travels(std::string_view variable) {
  return !variable.starts_with("LD_PRELOAD=") && !variable.starts_with("COB_SHIM=") &&
         !variable.starts_with("COB_DIRECTORY=");
}

void describe(const Elsewhere& there, const std::vector<std::string>& program) {
  island::RunStart start;
  std::string text;
  std::error_code none;
  append(text, std::filesystem::current_path(none).string());
  for (const std::string& word : program) append(text, word);
  start.arguments = static_cast<u32>(program.size());
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!travels(*variable)) continue;
    append(text, *variable);
    ++start.variables;
  }
  start.user = ::geteuid();
  start.group = ::getegid();
  start.umask = ::umask(0);
  ::umask(start.umask);
  const int groups = ::getgroups(static_cast<int>(island::most_groups), start.group_list);
  start.groups = groups < 0 ? 0 : static_cast<u32>(groups);
  if (text.size() > island::most_text_bytes)
    fail(exit_cannot_run, "{}: {}", program.front(), std::strerror(E2BIG));
  for (std::size_t at = 0; at < text.size(); at += island::text_piece_bytes) {
    const std::string_view piece = std::string_view(text).substr(at, island::text_piece_bytes);
    const island::RunText head{.bytes = static_cast<u32>(piece.size())};
    std::vector<std::byte> bytes(sizeof head + piece.size());
    std::memcpy(bytes.data(), &head, sizeof head);
    std::memcpy(bytes.data() + sizeof head, piece.data(), piece.size());
    if (send_datagram(there.socket(), bytes).is_error()) there.gone();
  }
  there.say(start);
}

void tell_numbers(const Elsewhere& there, const std::vector<NumberElsewhere>& numbers) {
  std::size_t at = 0;
  do {
    island::RunNumbers some;
    while (at < numbers.size() && some.count < island::most_run_numbers) {
      const NumberElsewhere& one = numbers[at++];
      some.number[some.count++] = {.number = one.number, .device = one.device, .name = one.name};
    }
    some.last = at == numbers.size() ? 1 : 0;
    there.say(some);
  } while (at < numbers.size());
}

// ---- signals: who is sent one means the program

constexpr int handed_on[] = {SIGHUP,  SIGINT,   SIGQUIT, SIGTERM, SIGUSR1,
                             SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT, SIGALRM};

Fd take_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : handed_on) sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) fail(exit_state, "signalfd: {}", std::strerror(errno));
  return signals;
}

void hand_on_signals(const Elsewhere& there, const Fd& signals) {
  signalfd_siginfo info{};
  while (::read(signals.get(), &info, sizeof info) == sizeof info) {
    there.say(RunWord{.kind = static_cast<u32>(RunKind::signal), .value = info.ssi_signo});
    if (info.ssi_signo == SIGTSTP) ::raise(SIGSTOP);
  }
}

// As the program ended.
int end_like(int status) {
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  const int signal = WTERMSIG(status);
  const rlimit none{};
  ::setrlimit(RLIMIT_CORE, &none);
  ::signal(signal, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  ::raise(signal);
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  return 128 + signal;
}

[[noreturn]] void cannot(const std::string& program, const Elsewhere& there, int error) {
  fail(error == ENOENT ? exit_not_found : exit_cannot_run, "{} on island {}: {}", program,
       there.island(), std::strerror(error));
}

// Where output still can go when the program runs: not into a pipe, which would not end.
void keep_for_last_words(Fd& standard_error) {
  struct stat status{};
  if (::fstat(standard_error.get(), &status) != 0 ||
      !(S_ISREG(status.st_mode) || S_ISCHR(status.st_mode)))
    standard_error.reset();
}

int attend(const Elsewhere& there, const Fd& signals, const std::string& program,
           Fd& standard_error) {
  for (;;) {
    pollfd waits[] = {{there.socket().get(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) fail(exit_state, "poll");
    if (waits[1].revents != 0) hand_on_signals(there, signals);
    if (waits[0].revents == 0) continue;
    const auto word = there.hear(0);
    if (!word) there.gone();
    switch (static_cast<RunKind>(word->kind)) {
      case RunKind::running:
        keep_for_last_words(standard_error);
        break;
      case RunKind::failed:
        cannot(program, there, static_cast<int>(word->value));
      case RunKind::lost:
        if (standard_error.valid())
          ::dprintf(standard_error.get(),
                    "cob: island %s has not this working directory; the program starts in /\n",
                    there.island().c_str());
        break;
      case RunKind::ended:
        return end_like(static_cast<int>(word->value));
      default:
        there.gone();
    }
  }
}

}  // namespace

int run_elsewhere(ControlClient& client, ControlReply attached,
                  const std::vector<std::string>& program) {
  if (attached.descriptors.empty()) fail(exit_state, "the supervisor sent no socket");
  const Elsewhere there(std::move(attached.descriptors[0]), attached.body.value("island", ""));
  attached.descriptors.clear();
  check_program_elsewhere(client, program.front(), attached.body.value("machine", ""),
                          there.island());
  const Fd signals = take_signals();
  describe(there, program);
  const auto ready = there.hear(start_within_ms);
  if (!ready) there.gone();
  if (ready->kind != static_cast<u32>(RunKind::ready))
    cannot(program.front(), there, static_cast<int>(ready->value));
  const HandOver hand_over{.giver = attached.body.value("giver", -1),
                           .to = attached.body.value("kernel", 0),
                           .program = static_cast<pid_t>(ready->value)};
  NumbersElsewhere handed = hand_over_numbers(client, hand_over);
  try {
    tell_numbers(there, handed.numbers);
    return attend(there, signals, program.front(), handed.standard_error);
  } catch (const Failure&) {
    if (handed.standard_error.valid()) ::dup2(handed.standard_error.get(), STDERR_FILENO);
    throw;
  }
}

}  // namespace cob::cli
