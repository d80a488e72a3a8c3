// See machine.h.
#include "island/machine.h"

#include <arpa/inet.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace cob::island {
namespace {

const std::array<Architecture, 1> architectures{{
    {.name = "arm64",
     .elf_machine = EM_AARCH64,
     .machine = "aarch64",
     .emulator = "qemu-system-aarch64",
     .package = "qemu-system-arm",
     .board = {"-M", "virt"},
     .processor = "cortex-a76",
     .console = "ttyAMA0"},
}};

// One that is free now. Who takes it before the guest does makes that fail, and the next life
// begin with another.
Result<u16> free_port() {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof address;
  if (!socket.valid() ||
      ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0)
    return Error::from_errno("a port for the guest");
  return ntohs(address.sin_port);
}

bool has_kvm(const Architecture& architecture) {
  utsname names{};
  return ::uname(&names) == 0 && std::strcmp(names.machine, architecture.machine) == 0 &&
         ::access("/dev/kvm", R_OK | W_OK) == 0;
}

std::vector<std::string> words_for(const Architecture& architecture, const MachinePlan& plan,
                                   int channel, u16 port) {
  const bool kvm = has_kvm(architecture);
  std::vector<std::string> words{architecture.emulator};
  words.insert(words.end(), architecture.board.begin(), architecture.board.end());
  for (std::string word : {
           std::string("-accel"),
           std::string(kvm ? "kvm" : "tcg,thread=multi"),
           std::string("-cpu"),
           std::string(kvm ? "host" : architecture.processor),
           std::string("-m"),
           fmt::format("{}M", plan.memory_mib),
           std::string("-smp"),
           fmt::format("{}", plan.processors),
           std::string("-kernel"),
           plan.image + "/kernel",
           std::string("-initrd"),
           plan.image + "/initramfs",
           std::string("-append"),
           fmt::format("console={} quiet panic=-1", architecture.console),
           std::string("-nodefaults"),
           std::string("-no-user-config"),
           std::string("-display"),
           std::string("none"),
           std::string("-no-reboot"),
           std::string("-chardev"),
           std::string("stdio,id=console,signal=off"),
           std::string("-serial"),
           std::string("chardev:console"),
           std::string("-device"),
           std::string("virtio-serial-pci"),
           std::string("-chardev"),
           fmt::format("socket,id=cob,fd={}", channel),
           std::string("-device"),
           std::string("virtserialport,chardev=cob,name=cob"),
           std::string("-netdev"),
           fmt::format("user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{0}-:{0}", port),
           std::string("-device"),
           std::string("virtio-net-pci,netdev=net,romfile="),
       })
    words.push_back(std::move(word));
  return words;
}

}  // namespace

const Architecture* find_architecture(const std::string& name) {
  for (const Architecture& one : architectures)
    if (name == one.name) return &one;
  return nullptr;
}

std::string architecture_names() {
  std::string names;
  for (const Architecture& one : architectures)
    names += (names.empty() ? "" : ", ") + std::string(one.name);
  return names;
}

Result<Machine> start_machine(const MachinePlan& plan) {
  const Architecture* architecture = find_architecture(plan.architecture);
  if (architecture == nullptr) return Error::of(EINVAL, "an architecture without guests");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Error::from_errno("socketpair");
  Machine machine;
  machine.channel = Fd(ends[0]);
  const Fd theirs(ends[1]);
  ::fcntl(machine.channel.get(), F_SETFL, O_NONBLOCK);
  machine.port = TRY(free_port());
  std::vector<std::string> words = words_for(*architecture, plan, theirs.get(), machine.port);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t self = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return Error::from_errno("fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != self) ::_exit(127);
    ::fcntl(theirs.get(), F_SETFD, 0);
    ::execvp(arguments[0], arguments.data());
    ::dprintf(STDERR_FILENO, "cob-island: cannot start %s: %s (package %s)\n", arguments[0],
              std::strerror(errno), architecture->package);
    ::_exit(127);
  }
  machine.process = child;
  machine.pidfd = Fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (!machine.pidfd.valid()) {
    const Error error = Error::from_errno("pidfd_open");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return error;
  }
  return machine;
}

}  // namespace cob::island
