// The threads and their two queues. unshare(2): each has a umask of its own.
#include "fs/workers.h"

#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>

namespace cob::fs {

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    waiting_.clear();
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Result<void> Workers::run(Job&& job) {
  if (under_way_ >= capacity) return Error::of(ENOBUFS, "too many calls wait for the host");
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    more = idle_ <= waiting_.size() && threads_.size() < max_threads;
  }
  if (more) {
    const auto added = add_thread();
    if (added.is_error() && threads_.empty()) return added.error();
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  ++under_way_;
  wanted_.notify_one();
  return {};
}

Result<void> Workers::add_thread() {
  // The kernel's signals are its loop's.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  Result<void> result;
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    result = Error::of(EAGAIN, "no thread for calls that wait");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

void Workers::work() {
  const bool own_umask = ::unshare(CLONE_FS) == 0;
  ThreadCredentials credentials;
  const Credentials own = Credentials::own();
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    wanted_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    --idle_;
    if (stopping_) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    int refused = own_umask ? 0 : EPERM;
    if (refused == 0) {
      const auto taken = credentials.take(job.who != nullptr ? *job.who : own);
      if (taken.is_error()) refused = taken.error().code;
      ::umask(static_cast<mode_t>(job.umask & 0777));
    }
    job.work(refused);
    lock.lock();
    ended_.push_back(std::move(job));
    ended_count_.fetch_add(1);
    if (armed_.load()) {
      const u64 one = 1;
      (void)!::write(event_.get(), &one, sizeof(one));
    }
  }
}

std::size_t Workers::poll() {
  if (ended_count_.load() == 0) return 0;
  std::deque<Job> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(ended_);
    ended_count_.store(0);
  }
  under_way_ -= static_cast<u32>(ended.size());
  for (Job& job : ended) job.done();
  return ended.size();
}

}  // namespace cob::fs
