// See program_start.h. fork(2), execve(2), eventfd(2), null(4).
#include "island/agent/program_start.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

#include "base/passing.h"
#include "call/layout.h"

namespace cob::island {
namespace {

constexpr char shim_path[] = "/usr/lib/cob/libcob.so";
constexpr char finder[] = "/usr/bin/env";  // looks for programs with the shim's eyes
constexpr int moved_out = 900;             // numbers of one's own, above those that are placed

struct Described {
  std::string directory;
  std::vector<std::string> arguments, environment;
};

Result<Described> read_text(std::string_view text, const RunStart& asked) {
  const auto malformed = Error::of(EPROTO, "a program's description");
  const std::size_t wanted = std::size_t{1} + asked.arguments + asked.variables;
  if (asked.arguments == 0 || text.empty() || text.back() != '\0' ||
      static_cast<std::size_t>(std::ranges::count(text, '\0')) != wanted)
    return malformed;
  Described program;
  for (std::size_t i = 0; i < wanted; ++i) {
    std::string word(text.substr(0, text.find('\0')));
    text.remove_prefix(word.size() + 1);
    if (i == 0)
      program.directory = std::move(word);
    else if (i <= asked.arguments)
      program.arguments.push_back(std::move(word));
    else
      program.environment.push_back(std::move(word));
  }
  return program;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> list;
  list.reserve(words.size() + 1);
  for (std::string& word : words) list.push_back(word.data());
  list.push_back(nullptr);
  return list;
}

std::string_view variable(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& entry : environment)
    if (entry.starts_with(name) && entry.size() > name.size() && entry[name.size()] == '=')
      return std::string_view(entry).substr(name.size() + 1);
  return {};
}

bool is_beneath(std::string_view path, std::string_view directory) {
  return path == directory ||
         (path.starts_with(directory) && (directory == "/" || path[directory.size()] == '/'));
}

// Where a share's names begin there are stubs here, so that the host has a directory to be in.
void make_stubs(const std::string& path) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    ::mkdir(path.substr(0, at).c_str(), 0755);
    if (at != std::string::npos) ++at;
  }
}

// ---- in the process that becomes the program

struct Place {
  const RunStart& asked;
  const ProgramSetting& setting;
  FdRef gate, liveness, attach_right;
};

[[noreturn]] void give_up(FdRef gate, RunKind kind, int error) {
  const RunWord word{.kind = static_cast<u32>(kind), .value = static_cast<u32>(error)};
  (void)send_struct(gate, word).is_error();
  ::_exit(127);
}

const char* device_of(u32 minor) {
  switch (minor) {
    case 5:
      return "/dev/zero";
    case 7:
      return "/dev/full";
    case 8:
      return "/dev/random";
    case 9:
      return "/dev/urandom";
    default:
      return "/dev/null";
  }
}

// Numbers get their placeholders; those of one name share one.
void place_numbers(FdRef gate) {
  std::map<u64, int> named;
  for (;;) {
    RunNumbers said;
    const auto got = receive_datagram(gate, std::as_writable_bytes(std::span(&said, 1)));
    if (got.is_error() || got.value().bytes != sizeof said || said.count > most_run_numbers)
      ::_exit(127);  // the command has gone
    for (const RunNumber& one : std::span(said.number).first(said.count)) {
      if (one.number < 0 || one.number >= moved_out) give_up(gate, RunKind::failed, EMFILE);
      const auto known = one.name != 0 ? named.find(one.name) : named.end();
      if (known != named.end()) {
        if (::dup2(known->second, one.number) < 0) give_up(gate, RunKind::failed, errno);
        continue;
      }
      Fd made(one.name != 0 ? ::eventfd(0, EFD_CLOEXEC)
                            : ::open(device_of(one.device), O_RDWR | O_CLOEXEC));
      if (!made.valid()) give_up(gate, RunKind::failed, errno);
      if (one.name != 0 && ::write(made.get(), &one.name, sizeof one.name) != sizeof one.name)
        give_up(gate, RunKind::failed, errno);
      if (made.get() == one.number)  // as low as that, it stays
        ::fcntl(made.release(), F_SETFD, 0);
      else if (::dup2(made.get(), one.number) < 0)
        give_up(gate, RunKind::failed, errno);
      if (one.name != 0) named[one.name] = one.number;
    }
    if (said.last != 0) return;
  }
}

void become_caller(const RunStart& asked, FdRef gate) {
  ::umask(asked.umask);
  if (::setgroups(std::min(asked.groups, most_groups), asked.group_list) != 0 ||
      ::setgid(asked.group) != 0 || ::setuid(asked.user) != 0)
    give_up(gate, RunKind::failed, errno);
}

// The host's own program of that name; "": the shim may know one.
std::string find_here(const std::string& name, std::string_view path) {
  const auto runs = [](const std::string& candidate) {
    struct stat status{};
    return ::stat(candidate.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
           ::access(candidate.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) return runs(name) ? name : "";
  while (!path.empty()) {
    const std::string_view directory = path.substr(0, path.find(':'));
    const std::string candidate = fmt::format("{}/{}", directory.empty() ? "." : directory, name);
    if (runs(candidate)) return candidate;
    path.remove_prefix(std::min(path.size(), directory.size() + 1));
  }
  return "";
}

[[noreturn]] void become_program(Described program, const Place& place) {
  ::setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  // Out of the way of the numbers to be placed; two of them stay open.
  const int gate = ::fcntl(place.gate.get(), F_DUPFD_CLOEXEC, moved_out);
  const int liveness = ::fcntl(place.liveness.get(), F_DUPFD, moved_out);
  const int right = ::fcntl(place.attach_right.get(), F_DUPFD, moved_out);
  ::close_range(0, moved_out - 1, 0);
  const FdRef words(gate);
  make_blocking(words);
  make_blocking(FdRef(liveness));
  place_numbers(words);
  const bool on_share = std::ranges::any_of(place.setting.shares, [&](const std::string& share) {
    return is_beneath(program.directory, share);
  });
  if (on_share) make_stubs(program.directory);
  if (::chdir(program.directory.c_str()) != 0) {
    (void)!::chdir("/");
    const RunWord lost{.kind = static_cast<u32>(RunKind::lost), .value = 0};
    (void)send_struct(words, lost).is_error();
  }
  become_caller(place.asked, words);
  const ProgramSetting& setting = place.setting;
  program.environment.push_back(fmt::format("LD_PRELOAD={}", shim_path));
  const std::string reach =
      setting.reach_bits != 0 ? fmt::format("/{}", setting.reach_bits) : std::string();
  program.environment.push_back(fmt::format("{}={}:{}:{}:{}{}{}:1", call::environment_name, right,
                                            liveness, setting.kernel, setting.address, reach,
                                            setting.ipv6 ? "+6" : ""));
  std::string path = find_here(program.arguments.front(), variable(program.environment, "PATH"));
  if (path.empty()) {
    path = finder;
    program.arguments.insert(program.arguments.begin(), "env");
  }
  const auto environment = pointers(program.environment);
  const auto arguments = pointers(program.arguments);
  ::execve(path.c_str(), arguments.data(), environment.data());
  if (errno == ENOEXEC) {
    program.arguments[0] = path;
    program.arguments.insert(program.arguments.begin(), "sh");
    ::execve("/bin/sh", pointers(program.arguments).data(), environment.data());
  }
  give_up(words, RunKind::failed, errno);
}

}  // namespace

void ProgramStart::say(RunKind kind, u32 value) const {
  const RunWord word{.kind = static_cast<u32>(kind), .value = value};
  tell_(std::as_bytes(std::span(&word, 1)));
}

Result<void> ProgramStart::start(const RunStart& asked, const ProgramSetting& setting,
                                 const Introduce& introduce) {
  Described program = TRY(read_text(text_, asked));
  auto [ours, theirs] = TRY(seqpacket_pair());
  auto [kernels, programs] = TRY(seqpacket_pair());
  const pid_t child = ::fork();
  if (child < 0) return Error::from_errno("fork");
  if (child == 0)
    become_program(std::move(program), {.asked = asked,
                                        .setting = setting,
                                        .gate = theirs.ref(),
                                        .liveness = programs.ref(),
                                        .attach_right = setting.attach_right});
  process_ = child;
  gate_ = std::move(ours);
  TRY(introduce(child, std::move(kernels)));
  say(RunKind::ready, static_cast<u32>(child));
  return {};
}

Result<void> ProgramStart::on_command(std::span<const std::byte> bytes,
                                      const ProgramSetting& setting, const Introduce& introduce) {
  const auto malformed = Error::of(EPROTO, "a command's words");
  u32 kind = 0;
  if (bytes.size() < sizeof kind) return malformed;
  std::memcpy(&kind, bytes.data(), sizeof kind);
  switch (static_cast<RunKind>(kind)) {
    case RunKind::text: {
      RunText head;
      if (bytes.size() < sizeof head || process_ != 0) return malformed;
      std::memcpy(&head, bytes.data(), sizeof head);
      if (head.bytes != bytes.size() - sizeof head) return malformed;
      if (text_.size() + head.bytes > most_text_bytes) {
        say(RunKind::failed, E2BIG);
        return malformed;
      }
      text_.append(reinterpret_cast<const char*>(bytes.data()) + sizeof head, head.bytes);
      return {};
    }
    case RunKind::start: {
      RunStart asked;
      if (bytes.size() != sizeof asked || process_ != 0) return malformed;
      std::memcpy(&asked, bytes.data(), sizeof asked);
      const auto started = start(asked, setting, introduce);
      if (started.is_error()) say(RunKind::failed, static_cast<u32>(started.error().code));
      return started;
    }
    case RunKind::numbers:
      if (bytes.size() != sizeof(RunNumbers) || !gate_.valid()) return malformed;
      return send_datagram(gate_.ref(), bytes);
    case RunKind::signal: {
      RunWord word;
      if (bytes.size() != sizeof word || process_ == 0) return malformed;
      std::memcpy(&word, bytes.data(), sizeof word);
      if (!ended_ && word.value < NSIG) ::kill(-process_, static_cast<int>(word.value));
      return {};
    }
    default:
      return malformed;
  }
}

// The gate closes by itself when the program is executed.
void ProgramStart::on_gate() {
  RunWord word;
  const auto got = receive_datagram(gate_.ref(), std::as_writable_bytes(std::span(&word, 1)));
  if (got.is_error() && got.error().code == EAGAIN) return;
  if (!got.is_error() && got.value().bytes == sizeof word) {
    say(static_cast<RunKind>(word.kind), word.value);
    if (word.kind == static_cast<u32>(RunKind::lost)) return;
  } else {
    say(RunKind::running, 0);
  }
  gate_.reset();
}

void ProgramStart::on_end(int status) {
  if (gate_.valid()) on_gate();
  gate_.reset();
  ended_ = true;
  say(RunKind::ended, static_cast<u32>(status));
}

void ProgramStart::hang_up() const {
  if (process_ == 0 || ended_) return;
  ::kill(-process_, SIGHUP);
  ::kill(-process_, SIGCONT);
}

}  // namespace cob::island
