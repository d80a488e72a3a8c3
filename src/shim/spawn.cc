// Children started with an image at once: posix_spawn(3), system(3), popen(3), daemon(3). Model:
// the child gets a liveness socket of its own and the shim's variables; a copy of the file actions
// makes both inheritable and spares the hidden numbers. libc's own system and popen would go past
// all this, so they are written here over posix_spawn. Any thread.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "glue.h"
#include "shim/lock.h"
#include "shim/placeholder.h"
#include "shim/process.h"
#include "shim/relay.h"
#include "shim/share_image.h"
#include "shim/spawn_actions.h"
#include "shim/table.h"

namespace cob::shim {

namespace {

using Spawn = decltype(&::posix_spawn);

int spawn(Spawn real, bool search, pid_t* pid, const char* path,
          const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
          char* const* argv, char* const* envp);

int spawn_from_share(Spawn real, pid_t* pid, const char* path,
                     const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
                     char* const* argv, char* const* envp, int depth) {
  ShareImage image;
  const int error = depth > most_interpreters ? ELOOP : image.load(path);
  if (error != 0) return error;
  if (!image.is_script())
    return spawn(real, false, pid, image.path(), actions, attributes, argv, envp);
  const Scratch room((count_of(argv) + 4) * sizeof(char*));
  if (room.data() == nullptr) return ENOMEM;
  auto** list = reinterpret_cast<const char**>(room.data());
  image.arguments(argv, path, list);
  auto* const arguments = const_cast<char* const*>(list);
  if (leads_to_share(AT_FDCWD, image.interpreter)) {
    return spawn_from_share(real, pid, image.interpreter, actions, attributes, arguments, envp,
                            depth + 1);
  }
  return spawn(real, false, pid, image.interpreter, actions, attributes, arguments, envp);
}

int spawn(Spawn real, bool search, pid_t* pid, const char* path,
          const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
          char* const* argv, char* const* envp) {
  char found[PATH_MAX];
  if (is_on_share(path, search, found))
    return spawn_from_share(real, pid, found, actions, attributes, argv, envp, 0);
  const int saved = errno;
  const NothingParked nothing_parked;
  const Verdict verdict(AT_FDCWD, path, search);
  const RelayedNumbers relayed(verdict.attachable() ? Relay::nothing : Relay::inherited, actions);
  int liveness = liveness_none;
  bool place = false;
  if (verdict.attachable()) {
    liveness = spawn_liveness(place);
    publish_for_exec(true);
  } else if (relayed.incomplete()) {
    verdict.warn();
  }
  int result = ENOMEM;
  {
    const ImageEnvironment environment(envp, liveness, place);
    const SpawnActions own(actions, environment.attach_right(), liveness, relayed);
    if (environment.get() != nullptr && own.get() != nullptr)
      result = real(pid, path, own.get(), attributes, argv, environment.get());
  }
  if (liveness >= 0) close_hidden(liveness);
  errno = saved;
  return result;
}

// ---- system(3)

struct Ignoring {  // SIGINT and SIGQUIT are ignored while any thread is in system()
  Lock lock;
  u32 users;
  struct sigaction interrupt, quit;
};
constinit Ignoring ignoring{};

void begin_ignoring() {
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  Guard guard(ignoring.lock);
  if (ignoring.users++ > 0) return;
  real_sigaction(SIGINT, &ignore, &ignoring.interrupt);
  real_sigaction(SIGQUIT, &ignore, &ignoring.quit);
}

void end_ignoring() {
  Guard guard(ignoring.lock);
  if (--ignoring.users > 0) return;
  real_sigaction(SIGINT, &ignoring.interrupt, nullptr);
  real_sigaction(SIGQUIT, &ignoring.quit, nullptr);
}

struct Waiting {
  pid_t pid;
  sigset_t mask;
};

void cancelled(void* context) {
  auto* waiting = static_cast<Waiting*>(context);
  kill(waiting->pid, SIGKILL);
  int status = 0;
  while (raw::call(SYS_wait4, waiting->pid, raw::at(&status), 0, 0) == -EINTR) {
  }
  end_ignoring();
  pthread_sigmask(SIG_SETMASK, &waiting->mask, nullptr);
}

int wait_for(Waiting& waiting) {
  int status = -1;
  pthread_cleanup_push(cancelled, &waiting);
  while (waitpid(waiting.pid, &status, 0) < 0) {
    if (errno == EINTR) continue;
    status = -1;
    break;
  }
  pthread_cleanup_pop(0);
  return status;
}

int run_shell(const char* command, pid_t* pid, const posix_spawn_file_actions_t* actions,
              const posix_spawnattr_t* attributes) {
  const char* argv[] = {"sh", "-c", "--", command, nullptr};
  if (command[0] != '-' && command[0] != '+') {  // the usual case looks as libc's own
    argv[2] = command;
    argv[3] = nullptr;
  }
  return own_posix_spawn(pid, "/bin/sh", actions, attributes, const_cast<char* const*>(argv),
                         environ);
}

// ---- popen(3)

struct Piped {
  Piped* next;
  FILE* stream;
  pid_t pid;
};
Piped* piped;
Lock piped_lock;

FILE* start_piped(const char* command, bool reads, bool close_on_exec) {
  int ends[2];
  host_gives_number();
  if (pipe2(ends, O_CLOEXEC) < 0) return nullptr;
  const int mine = reads ? ends[0] : ends[1];
  const int childs = reads ? ends[1] : ends[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, childs, reads ? STDOUT_FILENO : STDIN_FILENO);
  auto* entry = static_cast<Piped*>(malloc(sizeof(Piped)));
  FILE* stream = real_fdopen(mine, reads ? "r" : "w");
  int error = entry == nullptr || stream == nullptr ? ENOMEM : 0;
  if (error == 0) {
    {
      Guard guard(piped_lock);
      for (const Piped* other = piped; other != nullptr; other = other->next) {
        posix_spawn_file_actions_addclose(&actions, own_fileno(other->stream));
      }
    }
    error = run_shell(command, &entry->pid, &actions, nullptr);
  }
  posix_spawn_file_actions_destroy(&actions);
  raw::close(childs);
  if (error != 0) {
    if (stream != nullptr) {
      real_fclose(stream);
    } else {
      raw::close(mine);
    }
    free(entry);
    errno = error;
    return nullptr;
  }
  if (!close_on_exec) raw::fcntl(mine, F_SETFD, 0);
  entry->stream = stream;
  Guard guard(piped_lock);
  entry->next = piped;
  piped = entry;
  return stream;
}

}  // namespace

int close_piped(FILE* stream, bool& was_piped) {
  Piped* entry = nullptr;
  {
    Guard guard(piped_lock);
    Piped** at = &piped;
    while (*at != nullptr && (*at)->stream != stream) at = &(*at)->next;
    entry = *at;
    if (entry != nullptr) *at = entry->next;
  }
  was_piped = entry != nullptr;
  if (entry == nullptr) return -1;
  const pid_t pid = entry->pid;
  free(entry);
  real_fclose(stream);
  int status = -1;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

int own_posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  if (!attached()) return real_posix_spawn(pid, path, actions, attributes, argv, envp);
  return spawn(real_posix_spawn, false, pid, path, actions, attributes, argv, envp);
}

int own_posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                     const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  if (!attached()) return real_posix_spawnp(pid, file, actions, attributes, argv, envp);
  return spawn(real_posix_spawnp, true, pid, file, actions, attributes, argv, envp);
}

int own_system(const char* command) {
  if (!attached()) return real_system(command);
  if (command == nullptr) return own_system("exit 0") == 0 ? 1 : 0;
  Waiting waiting{};
  sigset_t child{};
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  begin_ignoring();
  pthread_sigmask(SIG_BLOCK, &child, &waiting.mask);
  sigset_t standard{};
  sigemptyset(&standard);
  if (ignoring.interrupt.sa_handler != SIG_IGN) sigaddset(&standard, SIGINT);
  if (ignoring.quit.sa_handler != SIG_IGN) sigaddset(&standard, SIGQUIT);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &waiting.mask);
  posix_spawnattr_setsigdefault(&attributes, &standard);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  const int error = run_shell(command, &waiting.pid, nullptr, &attributes);
  posix_spawnattr_destroy(&attributes);
  const int status = error == 0 ? wait_for(waiting) : W_EXITCODE(127, 0);
  const int saved = error != 0 ? error : errno;
  end_ignoring();
  pthread_sigmask(SIG_SETMASK, &waiting.mask, nullptr);
  errno = saved;
  return status;
}

FILE* own_popen(const char* command, const char* mode) {
  if (!attached()) return real_popen(command, mode);
  bool reads = false;
  bool writes = false;
  bool close_on_exec = false;
  for (const char* at = mode; *at != 0; ++at) {
    if (*at == 'r') {
      reads = true;
    } else if (*at == 'w') {
      writes = true;
    } else if (*at == 'e') {
      close_on_exec = true;
    } else {
      errno = EINVAL;
      return nullptr;
    }
  }
  if (reads == writes) {
    errno = EINVAL;
    return nullptr;
  }
  return start_piped(command, reads, close_on_exec);
}

int own_pclose(FILE* stream) {
  if (attached()) {
    bool was_piped = false;
    const int status = close_piped(stream, was_piped);
    if (was_piped) return status;
  }
  return real_pclose(stream);
}

int own_daemon(int keep_directory, int keep_streams) {
  if (!attached()) return real_daemon(keep_directory, keep_streams);
  const pid_t pid = own_fork();
  if (pid < 0) return -1;
  if (pid > 0) _exit(0);
  if (setsid() < 0) return -1;
  if (keep_directory == 0 && chdir("/") < 0) return -1;
  if (keep_streams != 0) return 0;
  const int null = glue_open("/dev/null", O_RDWR, 0);
  if (null < 0) return -1;
  for (int fd = 0; fd <= 2; ++fd) glue_dup2(null, fd);
  if (null > 2) glue_close(null);
  return 0;
}

}  // namespace cob::shim
