// What the parts of the shim promise each other: entry functions behind the generated glue, the
// real functions, signals, fork and exec hooks, the descriptor table's outside. Model: the glue
// (one function an interposed name) asks is_cob(fd) and calls cob_xxx or real_xxx. cob_xxx has
// libc's prototype and libc's errors (-1 and errno) and passes on to real_xxx what turns out not to
// be cob's. Any thread; nothing here allocates from the program's heap.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "call/layout.h"

struct termios;

namespace cob::shim {

using call::i32;
using call::i64;
using call::u16;
using call::u32;
using call::u64;
using call::u8;

// ---- start
// -----------------------------------------------------------------------------------------------------------
// start.cc has the one constructor. It calls, in this order: resolve_real_functions(), and, only
// when COB_SHIM is set: shim_start() (table, hidden numbers, adoption of placeholders left by
// exec), signals_start().

void resolve_real_functions();  // glue: every real_xxx; idempotent; glue entered before it has run
                                // calls it itself
void signals_start();           // signal.cc
void shim_start();              // state.cc

// ---- the table, as the glue sees it
// ------------------------------------------------------------------------------------

struct Object;  // a cob socket or an epoll set; see table.h

struct TableView {
  Object** entry;  // null when the program is not attached
  u32 size;        // 0 when the program is not attached
  u32 hidden_low;  // numbers >= this may be the shim's own; ~0 when none
  u32 parked;      // closed numbers that wait for the next socket, see placeholder.h
};
extern TableView table_view __attribute__((visibility("hidden")));

inline bool attached() { return table_view.size != 0; }

// True for a cob socket or an epoll set that the shim knows. A few ns; false for everything when
// not attached.
inline bool is_cob(int fd) {
  return static_cast<u32>(fd) < table_view.size &&
         __atomic_load_n(&table_view.entry[fd], __ATOMIC_ACQUIRE) != nullptr;
}
// True for the shim's own descriptors (liveness socket, attach right, doorbells, placeholder
// originals): the program must see EBADF for them and must not close them.
bool is_hidden_slow(int fd);
inline bool is_hidden(int fd) {
  return static_cast<u32>(fd) >= table_view.hidden_low && is_hidden_slow(fd);
}

// The host is about to give the program a number: BEFORE the call. It must be the lowest that the
// program does not have open, so none is kept from it.
void give_up_parked();
inline void host_gives_number() {
  if (__atomic_load_n(&table_view.parked, __ATOMIC_RELAXED) != 0) [[unlikely]]
    give_up_parked();
}
// The host returned `fd` as a fresh number (open, pipe, accept of a host socket, SCM_RIGHTS, ...):
// a table entry that is still there is stale and dropped. Returns fd, so the glue can write `return
// fresh(real_open(...))`. Keeps errno.
void drop_stale(int fd);
inline int fresh(int fd) {
  if (is_cob(fd)) [[unlikely]]
    drop_stale(fd);
  return fd;
}
// The number is closed behind the names that are interposed (fclose, closedir, ...): call BEFORE
// the host closes it.
void forget(int fd);
// The host duplicated `from` onto `to` by itself (freopen, dup2 inside libc): call AFTER it
// happened.
void install_duplicate(int from, int to);
// For each number in the table below `limit`; stops when `visit` returns false. The check mode and
// publishing use it.
void for_each(u32 limit, bool (*visit)(int fd, Object* object, void* context), void* context);
// The token of the placeholder at `fd`, 0 if it is no cob socket. Equals the eventfd-count in
// /proc/self/fdinfo/<fd>.
u64 token_of(int fd);

// ---- signals (signal.cc)
// -------------------------------------------------------------------------------------------------
// Between critical_enter and critical_leave no handler of the program runs on this thread: the
// wrapper records the signal and critical_deliver re-raises it on leaving. Nests. Never sleep and
// never call the host with a wait inside.

struct ThreadSignals {
  u32 critical_depth;
  u32 pending;   // a signal was recorded inside; written by the wrapper
  u32 seen;      // handlers that ran on this thread
  u32 breaking;  // of these, without SA_RESTART
  int doorbell;  // the thread's nudge while it is about to sleep or sleeps, else 0: the wrapper
                 // writes 1 (u64) to it
};
extern thread_local ThreadSignals thread_signals
    __attribute__((visibility("hidden"), tls_model("initial-exec")));  // defined in signal.cc

void critical_deliver();

inline void critical_enter() {
  thread_signals.critical_depth = thread_signals.critical_depth + 1;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
inline void critical_leave() {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  if ((thread_signals.critical_depth -= 1) == 0) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&thread_signals.pending, __ATOMIC_RELAXED) != 0) [[unlikely]]
      critical_deliver();
  }
}
struct Critical {
  Critical() { critical_enter(); }
  ~Critical() { critical_leave(); }
  Critical(const Critical&) = delete;
  Critical& operator=(const Critical&) = delete;
};
inline u32 signals_seen() { return __atomic_load_n(&thread_signals.seen, __ATOMIC_RELAXED); }
inline u32 signals_breaking() {
  return __atomic_load_n(&thread_signals.breaking, __ATOMIC_RELAXED);
}

// ---- fork, exec, spawn, passing: given to process.cc and rights.cc (bodies in inherit.cc)
// ----------------------------------

struct ForkPlan {
  int child_end = -1;  // the child's liveness socket
  u64 ticket = 0;      // 0: the program is not attached, the child has nothing to claim
  bool place = false;  // the child goes to the kernel that is due (state.h)
};
// Before a real fork: waits for the shim's locks, opens undecided sockets in the kernel, sends
// Hello::child and Op::fork. Enters a critical section that the after_ hooks leave. Never fails
// visibly: without a ticket the child's sockets are dead.
void before_fork(ForkPlan& plan);
void after_fork_parent(ForkPlan& plan, bool forked);
void after_fork_child(
    ForkPlan& plan);  // no arena any more; attaches at the first use of a cob description

// Names every cob socket number to the kernel, so that the new image's shim finds it by its
// placeholder. With `close_on_exec_too` also those with FD_CLOEXEC (posix_spawn: its file actions
// may keep them). 0 or an errno.
int publish_for_exec(bool close_on_exec_too);
// One cob socket, for SCM_RIGHTS: the descriptor that travels in its place, to be closed once the
// real sendmsg was called; or -errno.
int begin_flight(int fd);
// A descriptor came (SCM_RIGHTS): if it stands for a socket of this cob, adopts it at `fd`. Calls
// fresh(fd) first. 0: it is an ordinary descriptor or was adopted; else errno.
int adopt_arrived(int fd);

// exec of this process keeps its liveness socket: true sets it inheritable just before execve,
// false puts close-on-exec back after a failed execve.
void keep_liveness_across_exec(bool keep);
// The cob members of epoll sets that stay open are left where the new image finds them; back, after
// a failed execve.
void leave_sets_to_image();
void take_sets_back();
// A child's own liveness pair for posix_spawn: returns the number the child shall inherit
// (close-on-exec is set; the caller makes it inheritable by a file action dup2 onto itself) after
// Hello::child and Op::fork were done; -1: none, the child attaches by the attach right alone.
// `place`: it goes to the kernel that is due (state.h).
int spawn_liveness(bool& place);
// "COB_SHIM=<attach right>:<liveness>:<kernel>:<address>" for an image to be started. liveness -1:
// it attaches by the right. own: this process's liveness socket, and its own `place`. Returns the
// length.
enum : int { liveness_none = -1, liveness_own = -2 };
u32 environment_entry(char* buffer, u32 size, int liveness, bool place);

// ---- entry points
// ----------------------------------------------------------------------------------------------------

// "Always" functions: the glue calls these when attached(), whatever the descriptor.
int cob_socket(int domain, int type, int protocol);
int cob_close(int fd);
int cob_close_range(unsigned first, unsigned last, int flags);
void cob_closefrom(int low);
int cob_dup(int fd);
int cob_dup2(int from, int to);
int cob_dup3(int from, int to, int flags);
int cob_poll(pollfd* fds, nfds_t count, int timeout_ms);
int cob_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
int cob_select(int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout);
int cob_pselect(int count, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout,
                const sigset_t* mask);
int cob_epoll_create(int size);
int cob_epoll_create1(int flags);
int cob_epoll_ctl(int set, int operation, int fd, epoll_event* event);
int cob_epoll_wait(int set, epoll_event* events, int max_events, int timeout_ms);
int cob_epoll_pwait(int set, epoll_event* events, int max_events, int timeout_ms,
                    const sigset_t* mask);
int cob_epoll_pwait2(int set, epoll_event* events, int max_events, const timespec* timeout,
                     const sigset_t* mask);

// "Descriptor" functions: the glue calls these only if is_cob(fd) (for sendfile and splice: either
// descriptor).
int cob_bind(int fd, const sockaddr* address, socklen_t length);
int cob_listen(int fd, int backlog);
int cob_accept(int fd, sockaddr* address, socklen_t* length);
int cob_accept4(int fd, sockaddr* address, socklen_t* length, int flags);
int cob_connect(int fd, const sockaddr* address, socklen_t length);
ssize_t cob_send(int fd, const void* data, size_t bytes, int flags);
ssize_t cob_sendto(int fd, const void* data, size_t bytes, int flags, const sockaddr* to,
                   socklen_t length);
ssize_t cob_sendmsg(int fd, const msghdr* message, int flags);
int cob_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
ssize_t cob_recv(int fd, void* data, size_t bytes, int flags);
ssize_t cob_recvfrom(int fd, void* data, size_t bytes, int flags, sockaddr* from,
                     socklen_t* length);
ssize_t cob_recvmsg(int fd, msghdr* message, int flags);
int cob_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout);
ssize_t cob_read(int fd, void* data, size_t bytes);
ssize_t cob_readv(int fd, const iovec* parts, int count);
ssize_t cob_write(int fd, const void* data, size_t bytes);
ssize_t cob_writev(int fd, const iovec* parts, int count);
ssize_t cob_pread(int fd, void* data, size_t bytes, off_t offset);
ssize_t cob_pwrite(int fd, const void* data, size_t bytes, off_t offset);
ssize_t cob_preadv(int fd, const iovec* parts, int count, off_t offset);
ssize_t cob_pwritev(int fd, const iovec* parts, int count, off_t offset);
ssize_t cob_preadv2(int fd, const iovec* parts, int count, off_t offset, int flags);
ssize_t cob_pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags);
off_t cob_lseek(int fd, off_t offset, int whence);
ssize_t cob_sendfile(int out, int in, off_t* offset, size_t bytes);
ssize_t cob_splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t bytes,
                   unsigned flags);
int cob_shutdown(int fd, int how);
int cob_getsockname(int fd, sockaddr* address, socklen_t* length);
int cob_getpeername(int fd, sockaddr* address, socklen_t* length);
int cob_getsockopt(int fd, int level, int name, void* value, socklen_t* length);
int cob_setsockopt(int fd, int level, int name, const void* value, socklen_t length);
int cob_sockatmark(int fd);
int cob_ioctl(int fd, unsigned long request, void* argument);
int cob_fcntl(int fd, int command, void* argument);  // an int argument converted by way of long
int cob_fstat(int fd,
              struct stat* status);  // fstat64 is the same; also fstatat(fd, "", AT_EMPTY_PATH)
int cob_isfdtype(int fd, int type);
// Files of another island (names.cc); of another cob descriptor they are the host's.
int cob_fstatfs(int fd, struct statfs* status);
int cob_fstatvfs(int fd, struct statvfs* status);
int cob_fchmod(int fd, mode_t mode);
int cob_fchown(int fd, uid_t user, gid_t group);
int cob_futimens(int fd, const timespec* times);
int cob_futimes(int fd, const timeval* times);
int cob_ftruncate(int fd, off_t bytes);
int cob_fsync(int fd);
int cob_fdatasync(int fd);
int cob_syncfs(int fd);
int cob_fallocate(int fd, int mode, off_t offset, off_t bytes);
int cob_posix_fallocate(int fd, off_t offset, off_t bytes);
int cob_posix_fadvise(int fd, off_t offset, off_t bytes, int advice);
ssize_t cob_readahead(int fd, off64_t offset, size_t bytes);
int cob_flock(int fd, int operation);
int cob_lockf(int fd, int command, off_t bytes);
int cob_isatty(int fd);
int cob_tcgetattr(int fd, termios* settings);
int cob_tcsetattr(int fd, int action, const termios* settings);
ssize_t cob_copy_file_range(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t bytes,
                            unsigned flags);
ssize_t cob_getdents64(int fd, void* data, size_t room);
ssize_t cob_fgetxattr(int fd, const char* name, void* value, size_t room);
ssize_t cob_flistxattr(int fd, char* list, size_t room);
int cob_fsetxattr(int fd, const char* name, const void* value, size_t bytes, int flags);
int cob_fremovexattr(int fd, const char* name);

// ---- the real functions (defined and filled by the generated glue; callable at any time)
// ----------------------------------- Only those that the core calls are listed here; the glue
// defines one for each name that it interposes.

#define COB_REAL(name) extern decltype(&::name) real_##name __attribute__((visibility("hidden")))
extern "C" {
COB_REAL(socket);
COB_REAL(bind);
COB_REAL(listen);
COB_REAL(accept);
COB_REAL(accept4);
COB_REAL(connect);
COB_REAL(send);
COB_REAL(sendto);
COB_REAL(sendmsg);
COB_REAL(recv);
COB_REAL(recvfrom);
COB_REAL(recvmsg);
COB_REAL(read);
COB_REAL(readv);
COB_REAL(write);
COB_REAL(writev);
COB_REAL(close);
COB_REAL(poll);
COB_REAL(ppoll);
COB_REAL(select);
COB_REAL(pselect);
COB_REAL(epoll_wait);
COB_REAL(epoll_pwait);
COB_REAL(epoll_pwait2);
}
#undef COB_REAL

}  // namespace cob::shim
