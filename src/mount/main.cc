// cob-mount: serves a directory of a share of another island as a filesystem of the host, for
// programs that the shim does not reach. `cob mount` starts it, as a program of the cob:
//   cob-mount --path DIRECTORY --at MOUNTPOINT --source NAME [--others] [--until FD] [--ready FD]
//     [--log FILE]
// Model: an ordinary program of libfuse's low level, whose own calls on the share go through the
// shim (decision 0007). It ends when it is unmounted, by SIGTERM, or when the process of the pidfd
// `--until`, the cob's supervisor, does. A byte of 0 to `--ready` says that it is mounted, and what
// is to be said from then on goes to the log.
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "mount/locking.h"
#include "mount/server.h"

namespace cob::mount {
namespace {

constexpr unsigned max_threads = 16;
constexpr int reached_within_ms = 10'000;
constexpr int end_within_ms = 3'000;  // what is under way when the cob ends

struct Arguments {
  std::string path, at, source, log;
  bool others = false;
  int until = -1, ready = -1;
};

int number_of(const char* text) {
  int number = -1;
  std::from_chars(text, text + std::strlen(text), number);
  return number;
}

bool parse(int argc, char** argv, Arguments& into) {
  constexpr std::array<option, 8> known{{{"path", required_argument, nullptr, 'p'},
                                         {"at", required_argument, nullptr, 'a'},
                                         {"source", required_argument, nullptr, 's'},
                                         {"others", no_argument, nullptr, 'o'},
                                         {"until", required_argument, nullptr, 'u'},
                                         {"ready", required_argument, nullptr, 'r'},
                                         {"log", required_argument, nullptr, 'l'},
                                         {nullptr, 0, nullptr, 0}}};
  for (int found = 0; (found = ::getopt_long(argc, argv, "", known.data(), nullptr)) != -1;) {
    switch (found) {
      case 'p':
        into.path = optarg;
        break;
      case 'a':
        into.at = optarg;
        break;
      case 's':
        into.source = optarg;
        break;
      case 'o':
        into.others = true;
        break;
      case 'l':
        into.log = optarg;
        break;
      case 'u':
        into.until = number_of(optarg);
        break;
      case 'r':
        into.ready = number_of(optarg);
        break;
      default:
        return false;
    }
  }
  return optind == argc && !into.path.empty() && !into.at.empty() && !into.source.empty();
}

// libfuse's options end with a comma.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// The cob has ended: nobody answers any more.
void end_with(int supervisor, const std::string& mountpoint) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pollfd wanted{.fd = supervisor, .events = POLLIN, .revents = 0};
  while (::poll(&wanted, 1, -1) <= 0 && (errno == EINTR || errno == EAGAIN)) {
  }
  ::kill(::getpid(), SIGTERM);
  ::poll(nullptr, 0, end_within_ms);
  ::umount2(mountpoint.c_str(), MNT_DETACH);
  ::_exit(1);
}

int loop(fuse_session* session) {
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, max_threads);
  fuse_loop_cfg_set_idle_threads(config, max_threads);
  const int ended = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  return ended;
}

int serve_mounted(fuse_session* session, const Arguments& asked) {
  if (asked.until >= 0) std::thread(end_with, asked.until, asked.at).detach();
  if (asked.ready >= 0) {
    const char mounted = 0;
    if (::write(asked.ready, &mounted, 1) != 1) return 1;  // nobody waits for it any more
    ::close(asked.ready);
    const Fd log(::open(asked.log.empty() ? "/dev/null" : asked.log.c_str(),
                        O_WRONLY | O_APPEND | O_CLOEXEC));
    if (log.valid()) ::dup2(log.get(), STDERR_FILENO);
  }
  return loop(session) < 0 ? 1 : 0;
}

// 0 or an error. A cob that has just come up, or a kernel again, may not have its links yet.
int find_root(Tree& tree) {
  for (int left_ms = reached_within_ms;; left_ms -= 20) {
    SharedFd root;
    const int error = tree.place(FUSE_ROOT_ID, root);
    if (error != EHOSTDOWN || left_ms <= 0) return error;
    ::poll(nullptr, 0, 20);
  }
}

int serve(const Arguments& asked) {
  static Server server(
      asked.path);  // threads that wait for locks use it, and the session, to the end
  if (const int error = find_root(server.tree); error != 0) {
    std::fprintf(stderr, "%s: %s\n", asked.path.c_str(),
                 error == ENODEV ? "is in no share of another island" : std::strerror(error));
    return 1;
  }
  std::string options = "fsname=" + escaped(asked.source) + ",subtype=cob";
  if (asked.others) options += ",allow_other";
  std::array<char*, 3> words{const_cast<char*>("cob-mount"), const_cast<char*>("-o"),
                             options.data()};
  fuse_args arguments = FUSE_ARGS_INIT(static_cast<int>(words.size()), words.data());
  fuse_session* session =
      fuse_session_new(&arguments, &operations(), sizeof(fuse_lowlevel_ops), &server);
  int status = 1;
  if (session != nullptr && fuse_set_signal_handlers(session) == 0) {
    if (fuse_session_mount(session, asked.at.c_str()) == 0) {
      status = serve_mounted(session, asked);
      fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
  }
  fuse_opt_free_args(&arguments);
  return status;
}

}  // namespace
}  // namespace cob::mount

int main(int argc, char** argv) {
  cob::mount::Arguments asked;
  if (!cob::mount::parse(argc, argv, asked) || !cob::mount::find_shim()) {
    std::fprintf(stderr, "cob-mount is started by: cob mount DIR (see: cob mount --help)\n");
    return 2;
  }
  struct sigaction wakes{};
  wakes.sa_handler = [](int) {};  // without SA_RESTART: the wait ends
  ::sigaction(cob::mount::wake_signal, &wakes, nullptr);
  ::umask(0);
  const int status = cob::mount::serve(asked);
  // Threads that wait still are not worth waiting for.
  std::fflush(nullptr);
  ::_exit(status);
}
