// `cob top`: the kernels live: load, contested time, accept queues, connections, what Angel moves.
// Model: two readings of the boards an interval apart; on a terminal its other screen (ANSI, no
// library), which is left as it was found, however the command ends; elsewhere a screen after the
// other. One thread. termios(3), console_codes(4).
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <sstream>

#include "base/fd.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/kernel_samples.h"

namespace cob::cli {
namespace {

constexpr double once_seconds = 0.2;

struct TopOptions {
  double seconds = 1;
  bool once = false;
};

// The terminal in the mode that a live view needs, until it ends.
class Terminal {
 public:
  Terminal() {
    if (::isatty(STDOUT_FILENO) == 0 || ::isatty(STDIN_FILENO) == 0 ||
        ::tcgetattr(STDIN_FILENO, &before_) != 0)
      return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    live_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    if (live_) write_all("\x1b[?1049h\x1b[?25l");  // the other screen, no cursor
  }
  ~Terminal() {
    if (!live_) return;
    write_all("\x1b[?25h\x1b[?1049l");
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool live() const { return live_; }
  // False: the output has gone.
  bool show(const std::string& text) const {
    if (!live_) return write_all(text + "\n");
    winsize size{};
    ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    const std::size_t columns = size.ws_col == 0 ? 80 : size.ws_col;
    const std::size_t rows = size.ws_row == 0 ? 24 : size.ws_row;
    std::string screen = "\x1b[H";
    std::istringstream lines(text);
    std::string line;
    for (std::size_t i = 0; i + 1 < rows && std::getline(lines, line); ++i)
      screen += line.substr(0, columns) + "\x1b[K\r\n";
    return write_all(screen + "\x1b[J");
  }

 private:
  static bool write_all(std::string_view text) {
    while (!text.empty()) {
      const ssize_t wrote = ::write(STDOUT_FILENO, text.data(), text.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return true;
  }

  bool live_ = false;
  termios before_{};
};

// SIGINT and the like as something to wait for.
class Interrupts {
 public:
  Interrupts() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_.valid()) fail(exit_state, "signalfd: no descriptor is left");
  }
  FdRef fd() const { return fd_.ref(); }

 private:
  Fd fd_;
};

nlohmann::json describe_all(const CobView& view, const std::vector<KernelSample>& before,
                            const std::vector<KernelSample>& after) {
  nlohmann::json all = view.info;
  all.erase("ok");
  all["kernels"] = nlohmann::json::array();
  for (std::size_t i = 0; i < view.kernels.size() && i < before.size(); ++i)
    all["kernels"].push_back(describe_kernel(view.kernels[i].info, before[i], after[i]));
  return all;
}

std::string count_of(const nlohmann::json& object, const char* key) {
  return format_count(object.value(key, 0.0));
}

std::string text_of(const nlohmann::json& all) {
  u64 connections = 0, queued = 0;
  Table kernels({"KERNEL", "ISLAND", "STATE", "CORE", "CONTESTED", "CONNS", "OPENS/S", "ACCEPTS/S",
                 "QUEUE", "OLDEST", "REDIR/S", "TAKEN/S", "GIVEN/S", "GROUPS/S", "MSGS/S",
                 "FRAMES/S", "MB/S"});
  Table listeners({"LISTENER", "KERNEL", "ACCEPT QUEUE", "OF", "HANDSHAKES"});
  bool any = false;
  for (const auto& kernel : all["kernels"]) {
    std::string state = kernel.value("state", "");
    if (kernel.value("draining", false)) state += ", drains";
    std::vector<std::string> row{kernel["kernel"].dump(), kernel.value("island", ""), state,
                                 kernel["core"].dump()};
    if (!kernel.contains("now")) {
      kernels.add(std::move(row));
      continue;
    }
    const auto &rate = kernel["per_second"], &load = kernel["angel"]["load"];
    connections += kernel["now"]["connections"].get<u64>();
    queued += load["accept_queue"].get<u64>();
    const auto sum = [&rate](const char* in, const char* out) {
      return rate[in].get<double>() + rate[out].get<double>();
    };
    row.insert(
        row.end(),
        {fmt::format("{:.0f}%", kernel["contested_percent"].get<double>()),
         kernel["now"]["connections"].dump(), format_count(sum("active_opens", "passive_opens")),
         count_of(rate, "accepted"), load["accept_queue"].dump(),
         fmt::format("{}us", load["oldest_accept_us"].get<u64>()), count_of(rate, "redirected"),
         count_of(rate, "taken"), count_of(rate, "given"), count_of(rate, "groups_moved"),
         format_count(sum("messages_in", "messages_out")),
         format_count(sum("frames_in", "frames_out")),
         fmt::format("{:.1f}", sum("bytes_in", "bytes_out") / 1e6)});
    kernels.add(std::move(row));
    for (const auto& l : kernel["queues"]["listeners"]) {
      any = true;
      listeners.add({l["listener"].get<std::string>(), kernel["kernel"].dump(),
                     l["accept_queue"].dump(), l["backlog"].dump(), l["handshakes"].dump()});
    }
  }
  std::string policies;
  for (const auto& name : all["angel"])
    policies += (policies.empty() ? "" : ",") + name.get<std::string>();
  std::string text =
      fmt::format("cob '{}' at {}   {} connections, {} not accepted   angel: {}\n\n{}",
                  all.value("name", ""), all.value("address", ""), connections, queued,
                  policies.empty() ? "none" : policies, kernels.text());
  if (any) text += "\n" + listeners.text();
  return text;
}

// False: it was told to end meanwhile.
bool wait(double seconds, const Interrupts& interrupts, const Terminal& terminal) {
  const Time end = HostClock::read() + Duration::milliseconds(static_cast<i64>(seconds * 1'000));
  for (Time now = HostClock::read(); now < end; now = HostClock::read()) {
    pollfd waits[2] = {{interrupts.fd().get(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    const int left_ms = static_cast<int>((end - now).to_ms()) + 1;
    if (::poll(waits, terminal.live() ? 2 : 1, left_ms) <= 0) continue;
    if (waits[0].revents != 0) return false;
    if (waits[1].revents == 0) continue;
    char key = 0;
    const ssize_t got = ::read(STDIN_FILENO, &key, 1);
    if (got == 1 && (key == 'q' || key == 'Q')) return false;
    if (got <= 0 && (waits[1].revents & (POLLHUP | POLLERR)) != 0) return false;
  }
  return true;
}

void top(const TopOptions& options, const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  CobView view = view_cob(client);
  std::vector<KernelSample> before = sample(view);
  const Interrupts interrupts;
  if (options.once) {
    ::poll(nullptr, 0, static_cast<int>(once_seconds * 1'000));
    const nlohmann::json all = describe_all(view, before, sample(view));
    if (context.json) return print_json(all);
    fmt::print("{}", text_of(all));
    return;
  }
  if (context.json) {
    fail(exit_usage, "--json goes with --once (see: cob top --help)");
  }
  const Terminal terminal;
  for (double seconds = once_seconds; wait(seconds, interrupts, terminal);
       seconds = options.seconds) {
    view = view_cob(client);
    std::vector<KernelSample> now = sample(view);
    if (!terminal.show(text_of(describe_all(view, before, now)))) return;
    before = std::move(now);
  }
}

}  // namespace

void add_top(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("top", "Watch the kernels: load, queues, connections");
  auto options = std::make_shared<TopOptions>();
  command->add_option("-i,--interval", options->seconds, "Seconds between two looks, 0.1 to 3600")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 3'600.0).description(""))
      ->capture_default_str();
  command->add_flag("--once", options->once, "Show it once and end");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob top                    q or Ctrl-C ends it\n"
      "  cob top --interval 0.2     five times a second\n"
      "  cob top --once --json      everything, for programs\n"
      "  cob top | tee load         without a terminal one screen after the other\n"
      "\n"
      "CONTESTED  share of the time in which another process computed on the kernel's core\n"
      "OPENS/S    connections opened, both ways; ACCEPTS/S: accepted by programs\n"
      "QUEUE      connections that no program has accepted; OLDEST: how long the first of those\n"
      "           on ports of several kernels has waited\n"
      "REDIR/S    new connections that another kernel got for this one\n"
      "TAKEN/S    connections that came from other kernels' accept queues; GIVEN/S: that went\n"
      "GROUPS/S   flow groups that went to other kernels");
  command->callback([options, &context] { top(*options, context); });
}

}  // namespace cob::cli
