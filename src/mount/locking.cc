// Locks: fcntl's and flock's. Model: what can be had at once is asked for on libfuse's thread; what
// may have to be waited for on a thread of its own, so that the unlock is heard; an interrupted
// request wakes it with a signal, as often as it takes. fuse_lowlevel.h, fcntl_lock(2), flock(2).
#include "mount/locking.h"

#include <pthread.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "mount/server.h"

namespace cob::mount {

namespace {

// A kernel lets a program wait for 48. Reaction when full: ENOLCK.
constexpr int max_waits = 40;
std::atomic<int> waits_under_way;

struct Wait {
  explicit Wait(fuse_req_t asked) : request(asked) {}
  const fuse_req_t request;
  std::mutex lock;
  pthread_t thread{};  // while not `over`; by `lock`, as that
  bool over = false;
  bool interrupted = false;

  // A signal that comes before the thread sleeps wakes nobody.
  static void wake(const std::shared_ptr<Wait>& wait) {
    for (;; std::this_thread::sleep_for(std::chrono::milliseconds(10))) {
      const std::scoped_lock lock(wait->lock);
      if (wait->over) return;
      ::pthread_kill(wait->thread, wake_signal);
    }
  }
};

void interrupt(fuse_req_t, void* data) {
  const std::shared_ptr<Wait> wait = *static_cast<std::shared_ptr<Wait>*>(data);
  {
    const std::scoped_lock lock(wait->lock);
    if (wait->over || wait->interrupted) return;
    wait->interrupted = true;
  }
  std::thread(Wait::wake, wait).detach();
}

void wait_for(std::shared_ptr<Wait> wait, const std::function<int()>& take) {
  {
    const std::scoped_lock lock(wait->lock);
    wait->thread = ::pthread_self();
  }
  fuse_req_interrupt_func(wait->request, interrupt, &wait);
  int error = EINTR;
  if (fuse_req_interrupted(wait->request) == 0) {
    const Asking sender(wait->request);
    error = take();
  }
  fuse_req_interrupt_func(wait->request, nullptr, nullptr);
  {
    const std::scoped_lock lock(wait->lock);
    wait->over = true;
  }
  --waits_under_way;
  reply_error(wait->request, error);
}

// take(): 0 or an error, the lock being waited for.
void reply_when_taken(fuse_req_t request, std::function<int()> take) {
  if (++waits_under_way > max_waits) {
    --waits_under_way;
    return reply_error(request, ENOLCK);
  }
  try {
    std::thread(wait_for, std::make_shared<Wait>(request), std::move(take)).detach();
  } catch (const std::system_error&) {
    --waits_under_way;
    reply_error(request, ENOLCK);
  }
}

}  // namespace

void get_lock(fuse_req_t request, fuse_ino_t, fuse_file_info* file, struct flock* wanted) {
  struct flock found = *wanted;
  const int error = server_of(request).locks.get(handle_of(file), file->lock_owner, found);
  if (error != 0) return reply_error(request, error);
  fuse_reply_lock(request, &found);
}

void set_lock(fuse_req_t request, fuse_ino_t, fuse_file_info* file, struct flock* wanted,
              int waits) {
  LockOwners& locks = server_of(request).locks;
  const Handle& handle = handle_of(file);
  const u64 owner = file->lock_owner;
  int error = 0;
  {
    const Asking sender(request);
    error = locks.set(handle, owner, *wanted, false);
  }
  if (error != EAGAIN || waits == 0) return reply_error(request, error);
  reply_when_taken(request, [&locks, &handle, owner, asked = *wanted] {
    return locks.set(handle, owner, asked, true);
  });
}

void lock_whole(fuse_req_t request, fuse_ino_t, fuse_file_info* file, int operation) {
  const SharedFd there = handle_of(file).file;
  const int error = error_of(::flock(there->get(), operation | LOCK_NB));
  if (error != EWOULDBLOCK || (operation & LOCK_NB) != 0) return reply_error(request, error);
  reply_when_taken(request,
                   [there, operation] { return error_of(::flock(there->get(), operation)); });
}

}  // namespace cob::mount
