// fork and exec: fork(2), vfork(2), execve(2), exec(3). Model: the hooks of contract.h around the
// real call; vfork is fork, since the child of a vfork would work on its parent's arena. A failed
// exec changes nothing. Any thread; the exec functions are async-signal-safe.
#include "shim/process.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "glue.h"
#include "shim/leave.h"
#include "shim/paths.h"
#include "shim/placeholder.h"
#include "shim/raw.h"
#include "shim/relay.h"
#include "shim/share_image.h"
#include "shim/signal.h"

namespace cob::shim {

namespace {

char library[PATH_MAX];  // where libcob.so lies, absolute
thread_local ForkPlan fork_plan __attribute__((tls_model("initial-exec")));

void prepare_fork() { before_fork(fork_plan); }
void in_parent() {
  after_fork_parent(fork_plan, true);
}  // a child that was not made drops its ticket by itself
void in_child() {
  signals_after_fork_child();
  after_fork_child(fork_plan);
}

bool names(const char* entry, const char* name, size_t length) {
  return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

// True when one of the paths in an LD_PRELOAD value is a libcob.so.
bool has_library(const char* value) {
  constexpr char base[] = "libcob.so";
  for (const char* at = strstr(value, base); at != nullptr; at = strstr(at + 1, base)) {
    const char after = at[sizeof base - 1];
    const bool begins = at == value || at[-1] == '/' || at[-1] == ':' || at[-1] == ' ';
    if (begins && (after == 0 || after == ':' || after == ' ')) return true;
  }
  return false;
}

size_t count_entries(char* const* envp) {
  size_t count = 0;
  while (envp != nullptr && envp[count] != nullptr) ++count;
  return count;
}

constexpr char preload[] = "LD_PRELOAD";
constexpr u32 entry_bytes = 128;

size_t directory_bytes() {
  const char* here = virtual_directory();
  return here == nullptr ? 0 : sizeof directory_variable + strlen(here) + 16;
}

size_t preload_bytes(char* const* envp) {
  size_t most = 0;
  for (size_t i = 0; envp != nullptr && envp[i] != nullptr; ++i) {
    if (names(envp[i], preload, sizeof preload - 1)) most = most + strlen(envp[i]) + 1;
  }
  return most + sizeof preload + sizeof library + 2;
}

// One exec: the environment and the descriptors made ready, and put back when it fails. The image
// takes over this process's liveness socket and adopts its sockets; one that cannot be attached has
// the kernel end this program, and is given relays.
class Exec {
 public:
  Exec(int directory, const char* file, bool search, char* const* envp)
      : verdict_(directory, file, search),
        published_(verdict_.attachable() ? publish_for_exec(false) : 0),
        environment_(envp, verdict_.attachable() ? liveness_own : liveness_none),
        relayed_(verdict_.attachable() ? Relay::nothing : Relay::inherited) {
    if (verdict_.attachable()) {
      leave_sets_to_image();
      keep_liveness_across_exec(true);
    } else {
      relayed_.put();
      if (relayed_.incomplete()) verdict_.warn();
    }
  }
  ~Exec() {
    const int saved = errno;
    if (verdict_.attachable()) take_sets_back();
    keep_liveness_across_exec(false);
    errno = saved;
  }
  Exec(const Exec&) = delete;
  Exec& operator=(const Exec&) = delete;

  char* const* environment() const { return environment_.get(); }  // null: out of memory

 private:
  const Passage passage_{may_leave()};  // nothing changes its kernel until the image is another
  const NothingParked nothing_parked_;
  const Verdict verdict_;
  // Before the environment: a forked child may attach only now, and its kernel be another then.
  [[maybe_unused]] const int published_;
  const ImageEnvironment environment_;
  RelayedNumbers relayed_;
};

}  // namespace

Scratch::Scratch(size_t bytes) : data_(nullptr), bytes_((bytes + 4'095) & ~size_t{4'095}) {
  const long at = raw::call(SYS_mmap, 0, static_cast<long>(bytes_), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at > 0 || at < -4'095) data_ = reinterpret_cast<char*>(at);
}

Scratch::~Scratch() {
  if (data_ != nullptr) raw::call(SYS_munmap, raw::at(data_), static_cast<long>(bytes_));
}

ImageEnvironment::ImageEnvironment(char* const* envp, int liveness, bool place)
    : scratch_((count_entries(envp) + 4) * sizeof(char*) + preload_bytes(envp) + entry_bytes +
               directory_bytes()) {
  if (scratch_.data() == nullptr) return;
  const size_t count = count_entries(envp);
  auto** vector = reinterpret_cast<char**>(scratch_.data());
  char* text = scratch_.data() + (count + 4) * sizeof(char*);
  size_t at = 0;
  const char* old_preload = nullptr;
  for (size_t i = 0; i < count; ++i) {
    if (names(envp[i], call::environment_name, sizeof call::environment_name - 1)) continue;
    if (names(envp[i], directory_variable, sizeof directory_variable - 1)) continue;
    if (names(envp[i], preload, sizeof preload - 1)) {
      old_preload = envp[i] + sizeof preload;
      if (!has_library(old_preload)) continue;
    }
    vector[at++] = envp[i];
  }
  if (old_preload == nullptr || !has_library(old_preload)) {
    vector[at++] = text;
    text = stpcpy(stpcpy(text, "LD_PRELOAD="), library);
    if (old_preload != nullptr && old_preload[0] != 0)
      text = stpcpy(stpcpy(text, ":"), old_preload);
    *text++ = 0;
  }
  if (const char* here = virtual_directory(); here != nullptr) {
    vector[at++] = text;
    text = stpcpy(stpcpy(text, directory_variable), "=");
    const int number = virtual_directory_number();
    if (number >= 0) text += snprintf(text, 16, "%d:", number);
    text = stpcpy(text, here) + 1;
  }
  vector[at++] = text;
  environment_entry(text, entry_bytes, liveness, place);
  for (const char* digit = text + sizeof call::environment_name; *digit >= '0' && *digit <= '9';
       ++digit) {
    attach_right_ = (attach_right_ < 0 ? 0 : attach_right_ * 10) + (*digit - '0');
  }
  vector[at] = nullptr;
  vector_ = vector;
}

void process_start() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&resolve_real_functions), &info) != 0 &&
      info.dli_fname != nullptr) {
    if (info.dli_fname[0] == '/' || realpath(info.dli_fname, library) == nullptr) {
      strncpy(library, info.dli_fname, sizeof library - 1);
    }
  }
  pthread_atfork(prepare_fork, in_parent, in_child);
}

pid_t own_fork() {
  return real_fork();
}  // the hooks are fork handlers: libc's own forks run them too

pid_t own__Fork() {
  if (!attached()) return real__Fork();
  ForkPlan plan;
  before_fork(plan);
  const pid_t pid = real__Fork();
  const int saved = errno;
  if (pid == 0) {
    signals_after_fork_child();
    after_fork_child(plan);
  } else {
    after_fork_parent(plan, pid > 0);
  }
  errno = saved;
  return pid;
}

pid_t own_vfork() { return real_fork(); }

namespace {

int exec_from_share(const char* path, char* const* argv, char* const* envp, int depth) {
  ShareImage image;
  const int error = depth > most_interpreters ? ELOOP : image.load(path);
  if (error != 0) return fail(error);
  if (image.is_script()) {
    const Scratch room((count_of(argv) + 4) * sizeof(char*));
    if (room.data() == nullptr) return fail(ENOMEM);
    auto** list = reinterpret_cast<const char**>(room.data());
    image.arguments(argv, path, list);
    auto* const arguments = const_cast<char* const*>(list);
    if (leads_to_share(AT_FDCWD, image.interpreter))
      return exec_from_share(image.interpreter, arguments, envp, depth + 1);
    return own_execve(image.interpreter, arguments, envp);
  }
  const Exec exec(AT_FDCWD, image.path(), false, envp);
  if (exec.environment() == nullptr) return fail(ENOMEM);
  return real_execve(image.path(), argv, exec.environment());
}

}  // namespace

int own_execve(const char* path, char* const* argv, char* const* envp) {
  if (!attached()) return real_execve(path, argv, envp);
  if (leads_to_share(AT_FDCWD, path)) return exec_from_share(path, argv, envp, 0);
  const Exec exec(AT_FDCWD, path, false, envp);
  if (exec.environment() == nullptr) return fail(ENOMEM);
  return real_execve(path, argv, exec.environment());
}

int own_execveat(int fd, const char* path, char* const* argv, char* const* envp, int flags) {
  if (!attached()) return real_execveat(fd, path, argv, envp, flags);
  if (leads_to_share(fd, path) || is_cob(fd)) return fail(ENOSYS);
  const Exec exec(fd, path, false, envp);
  if (exec.environment() == nullptr) return fail(ENOMEM);
  return real_execveat(fd, path, argv, exec.environment(), flags);
}

int own_execvpe(const char* file, char* const* argv, char* const* envp) {
  if (!attached()) return real_execvpe(file, argv, envp);
  char found[PATH_MAX];
  if (is_on_share(file, true, found)) {
    own_execve(found, argv, envp);
    if (errno != ENOEXEC) return -1;
    const Scratch room((count_of(argv) + 4) * sizeof(char*));
    if (room.data() == nullptr) return fail(ENOMEM);
    ShareImage shell;
    shell.interpreter = "/bin/sh";
    auto** list = reinterpret_cast<const char**>(room.data());
    shell.arguments(argv, found, list);
    return own_execve(shell.interpreter, const_cast<char* const*>(list), envp);
  }
  const Exec exec(AT_FDCWD, file, true, envp);
  if (exec.environment() == nullptr) return fail(ENOMEM);
  return real_execvpe(file, argv, exec.environment());
}

int own_fexecve(int fd, char* const* argv, char* const* envp) {
  if (!attached()) return real_fexecve(fd, argv, envp);
  if (is_cob(fd)) return fail(ENOSYS);
  const Exec exec(fd, "", false, envp);
  if (exec.environment() == nullptr) return fail(ENOMEM);
  return real_fexecve(fd, argv, exec.environment());
}

int own_execv(const char* path, char* const* argv) { return own_execve(path, argv, environ); }
int own_execvp(const char* file, char* const* argv) { return own_execvpe(file, argv, environ); }

}  // namespace cob::shim
