// `cob doctor`: what this machine offers and lacks for cob, each with the remedy. Only looks and
// tries; changes nothing. "missing" needs something before cob can run; "warning" costs speed or a
// later feature; "ok" and "note" need nothing. One thread.
#include <dirent.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/fd.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/install.h"
#include "fs/ring.h"
#include "message/socket/stream_socket.h"
#include "net/snap_bean/xdp_program.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace cob::cli {
namespace {

struct Finding {
  std::string what;
  std::string verdict;  // ok, note, warning, missing
  std::string found;
  std::string remedy;
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Finding check_linux() {
  utsname name{};
  ::uname(&name);
  unsigned major = 0, minor = 0;
  std::sscanf(name.release, "%u.%u", &major, &minor);
  const bool enough = major > 5 || (major == 5 && minor >= 10);
  return {"Linux", enough ? "ok" : "missing", name.release,
          enough ? "" : "cob needs Linux 5.10 or newer"};
}

Finding check_cores() {
  const std::vector<int> cores = usable_cores();
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  const std::string found =
      fmt::format("{} usable ({}), {} online", cores.size(), format_cores(cores), online);
  if (cores.size() < 2)
    return {"cores", "warning", found,
            "one kernel a core: give this process more cores (taskset, cpuset)"};
  if (static_cast<long>(cores.size()) < online) {
    return {"cores", "note", found, "the affinity mask hides cores; see: taskset -p $$"};
  }
  return {"cores", "ok", found, ""};
}

Finding check_memfd() {
  const Fd fd(::memfd_create("cob-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid())
    return {"memfd", "missing", std::strerror(errno),
            "memfd_create must be allowed (seccomp profile?)"};
  if (::ftruncate(fd.get(), 4'096) != 0)
    return {"memfd", "missing", std::strerror(errno), "memory for a memfd is needed"};
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return {"memfd", "missing", "no size seals", "a kernel with memfd seals is needed"};
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0) {
    return {"memfd", "missing", "no F_SEAL_FUTURE_WRITE", "Linux 5.1 or newer is needed"};
  }
  return {"memfd", "ok", "with size and future-write seals", ""};
}

Finding check_eventfd() {
  const Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return fd.valid() ? Finding{"eventfd", "ok", "available", ""}
                    : Finding{"eventfd", "missing", std::strerror(errno),
                              "eventfd must be allowed (seccomp profile?)"};
}

Finding check_pidfd() {
  const Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  return fd.valid() ? Finding{"pidfd", "ok", "available", ""}
                    : Finding{"pidfd", "missing", std::strerror(errno),
                              "pidfd_open must be allowed (Linux 5.3, seccomp profile)"};
}

Finding check_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string found = fmt::format("{} soft, {} hard", limit.rlim_cur, limit.rlim_max);
  if (limit.rlim_max < 16'384) {
    return {"descriptors", "warning", found,
            "every open socket takes one: raise 'nofile' in /etc/security/limits.conf"};
  }
  if (limit.rlim_cur < 16'384) {
    return {"descriptors", "note", found,
            "for programs with very many connections first run: ulimit -n " +
                std::to_string(limit.rlim_max)};
  }
  return {"descriptors", "ok", found, ""};
}

Finding check_clock() {
  const std::string source =
      first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  const bool fast = source == "tsc" || source == "kvm-clock" || source == "arch_sys_counter" ||
                    source == "tod" || source == "riscv_clocksource" ||
                    source == "hyperv_clocksource_tsc_page";
  if (fast) return {"clock source", "ok", source, ""};
  return {
      "clock source", "warning", source.empty() ? "unknown" : source,
      "reading the clock costs a system call; boot with clocksource=tsc if the processor allows"};
}

// Time that the hypervisor took from us since boot, as a share of the time in which we wanted to
// run.
Finding check_steal() {
  std::istringstream line(first_line("/proc/stat"));
  std::string cpu;
  std::array<double, 8> ticks{};
  line >> cpu;
  for (double& value : ticks) line >> value;
  const double wanted = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7];
  const double share = wanted > 0 ? 100.0 * ticks[7] / wanted : 0;
  std::ifstream cpuinfo("/proc/cpuinfo");
  const std::string text((std::istreambuf_iterator<char>(cpuinfo)), {});
  const bool guest = text.find(" hypervisor") != std::string::npos;
  const std::string found =
      guest ? fmt::format("a virtual machine; {:.1f}% of wanted time was stolen since boot", share)
            : "none";
  return {"hypervisor", share > 2 ? "warning" : "ok", found,
          share > 2 ? "the machine below is busy: figures will vary" : ""};
}

Finding check_preemption() {
  utsname name{};
  ::uname(&name);
  const std::string mode =
      first_line("/sys/kernel/debug/sched/preempt");  // "none voluntary (full)"
  const std::size_t open = mode.find('('), close = mode.find(')');
  const std::string chosen =
      open != std::string::npos && close > open ? mode.substr(open + 1, close - open - 1) : "";
  const bool dynamic = std::strstr(name.version, "PREEMPT_DYNAMIC") != nullptr;
  const std::string found = !chosen.empty() ? chosen
                            : dynamic       ? "dynamic (current choice not readable)"
                                            : name.version;
  return {"preemption", "ok", found, ""};
}

// decision 0002: within one group of the scheduler a core is handed over for a third of the price.
Finding check_scheduler_groups() {
  const std::string autogroup = first_line("/proc/sys/kernel/sched_autogroup_enabled");
  if (autogroup != "1") return {"scheduler", "ok", "processes are not grouped by session", ""};
  return {"scheduler", "note", "processes are grouped by session (autogroup)",
          "programs in another session than `cob up`, such as daemons, share their core with its "
          "kernel less well; start them from one, or sysctl kernel.sched_autogroup_enabled=0"};
}

Finding check_io_uring() {
  const std::string disabled = first_line("/proc/sys/kernel/io_uring_disabled");
  const auto ring = fs::Ring::create({.capacity = 8});
  if (!ring.is_error()) return {"io_uring", "ok", "can be made", ""};
  const int code = ring.error().code;
  const char* const remedy =
      code == ENOSYS  ? "a Linux with CONFIG_IO_URING"
      : code != EPERM ? "io_uring takes locked memory and descriptors: ulimit -l, ulimit -n"
      : disabled.empty() || disabled == "0" ? "io_uring_setup must be allowed (seccomp profile?)"
                                            : "sysctl kernel.io_uring_disabled=0";
  return {"io_uring", "warning", fmt::format("{}: {}", ring.error().what, std::strerror(code)),
          fmt::format("shares with other islands need it: {}", remedy)};
}

Finding check_user_namespaces() {
  const std::string most = first_line("/proc/sys/user/max_user_namespaces");
  const std::string allowed = first_line("/proc/sys/kernel/unprivileged_userns_clone");
  const bool available = !most.empty() && most != "0" && allowed != "0";
  return {"user namespaces", available ? "ok" : "note", available ? "available" : "not available",
          available ? ""
                    : "only tests of network devices without root use them: sysctl "
                      "kernel.unprivileged_userns_clone=1"};
}

Finding check_tun() {
  const Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!fd.valid()) {
    return {"tap device", "note", fmt::format("/dev/net/tun: {}", std::strerror(errno)),
            "needed only to reach the cob from outside: modprobe tun; give the user access to "
            "/dev/net/tun"};
  }
  ifreq request{};  // gone again with the descriptor
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | static_cast<int>(IFF_MULTI_QUEUE));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    return {"tap device", "note",
            fmt::format("/dev/net/tun opens, no device can be made: {}", std::strerror(errno)),
            "needed only for `cob up --uplink tap:NAME`: run that as root, or let root make the "
            "device: ip tuntap add dev cob0 mode tap multi_queue vnet_hdr user $USER"};
  }
  return {"tap device", "ok", "can be made, with a queue a kernel", ""};
}

Finding check_loopback() {
  const auto address = message::SocketAddress::ip("127.0.0.1:0");
  const auto socket = message::listen_socket(address.value());
  if (!socket.is_error()) return {"loopback", "ok", "sockets can listen there", ""};
  return {"loopback", "note", std::strerror(socket.error().code),
          "needed only for `cob up --link socket`: ip link set lo up"};
}

Finding check_xdp() {
  const auto program = net::XdpProgram::create({}, 1);
  const Fd socket(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  const int code = !socket.valid() ? errno : program.error().code;
  const char* what = !socket.valid() ? "its sockets" : program.error().what;
  if (code == 0) return {"AF_XDP", "ok", "its programs load and its sockets open", ""};
  return {"AF_XDP", "note", fmt::format("{}: {}", what, std::strerror(code)),
          code == EAFNOSUPPORT
              ? "needed only for `cob up --uplink xdp:NAME`: a kernel with CONFIG_XDP_SOCKETS"
              : "needed only for `cob up --uplink xdp:NAME`: run that with CAP_NET_ADMIN, "
                "CAP_NET_RAW and CAP_BPF, or as root"};
}

Finding check_ptrace() {
  const std::string scope = first_line("/proc/sys/kernel/yama/ptrace_scope");
  if (scope.empty()) return {"ptrace scope", "ok", "no restriction", ""};
  return {"ptrace scope", "ok", scope,
          scope == "0" ? "" : "cob does not need ptrace; only debuggers do"};
}

Finding check_hugepages() {
  const std::string mode = first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  const bool on = mode.find("[advise]") != std::string::npos ||
                  mode.find("[always]") != std::string::npos ||
                  mode.find("[within_size]") != std::string::npos;
  return {"huge pages", on ? "ok" : "note", mode.empty() ? "not available" : mode,
          on ? "" : "optional: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"};
}

Finding check_parts() {
  try {
    return {"cob's own parts", "ok", kernel_executable() + ", " + shim_library(), ""};
  } catch (const Failure& failure) {
    std::string text = failure.text;
    for (char& c : text) c = c == '\n' ? ' ' : c;
    return {"cob's own parts", "missing", text,
            "build with: make; or set COB_LIBEXEC and COB_SHIM_PATH"};
  }
}

void doctor(Context& context) {
  const std::vector<Finding> findings{check_parts(),
                                      check_linux(),
                                      check_cores(),
                                      check_memfd(),
                                      check_eventfd(),
                                      check_pidfd(),
                                      check_descriptors(),
                                      check_clock(),
                                      check_steal(),
                                      check_preemption(),
                                      check_scheduler_groups(),
                                      check_io_uring(),
                                      check_user_namespaces(),
                                      check_tun(),
                                      check_xdp(),
                                      check_loopback(),
                                      check_ptrace(),
                                      check_hugepages()};
  nlohmann::json list = nlohmann::json::array();
  bool fit = true;
  for (const Finding& finding : findings) {
    fit = fit && finding.verdict != "missing";
    list.push_back({{"what", finding.what},
                    {"verdict", finding.verdict},
                    {"found", finding.found},
                    {"remedy", finding.remedy}});
  }
  context.exit_code = fit ? 0 : exit_state;
  if (context.json) return print_json({{"fit", fit}, {"findings", std::move(list)}});
  for (const Finding& finding : findings) {
    fmt::print("{:<8} {:<16} {}\n", finding.verdict, finding.what, finding.found);
    if (!finding.remedy.empty()) fmt::print("{:<8} {:<16} -> {}\n", "", "", finding.remedy);
  }
  fmt::print("\n{}\n", fit ? "cob can run here." : "cob cannot run here: see 'missing' above.");
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "doctor", "Tell what this machine offers and lacks for cob, with remedies");
  add_json_option(*command, context);
  add_examples(*command,
               "  cob doctor\n"
               "\n"
               "missing  must be there before cob can run (then the exit status is 1)\n"
               "warning  costs speed or a feature\n"
               "note     matters for special uses only");
  command->callback([&context] { doctor(context); });
}

}  // namespace cob::cli
