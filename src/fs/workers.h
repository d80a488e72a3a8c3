// Workers: threads for what may wait for storage and io_uring cannot do, or not exactly: calls at a
// descriptor's own offset (io_uring does not take f_pos's lock), paths walked in several steps,
// chmod, truncate, getdents.
// Model: a bounded queue; a thread takes a job's credentials and umask for itself, does the work,
// and hands the job back to the loop, which ends it. Threads are made when first needed. Owned by
// the kernel's loop; `work` runs on a thread and touches only what it owns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "fs/credentials.h"

namespace cob::fs {

class Workers {
 public:
  static constexpr u32 max_threads = 4;
  static constexpr u32 capacity = 1'024;  // jobs under way: then ENOBUFS

  // On a thread. `refused`: 0, or the errno why the credentials could not be taken: do nothing.
  using Work = std::move_only_function<void(int refused)>;
  // On the loop, from poll(), once.
  using Done = std::move_only_function<void()>;
  struct Job {
    Who who;  // empty: the kernel's own
    u32 umask = 0;
    Work work;
    Done done;
  };

  // `event`, an eventfd that outlives this, is written when a job ended while armed.
  explicit Workers(FdRef event) : event_(event) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  // Waits for the jobs that have begun; the others' work and every `done` not yet run are dropped.
  ~Workers();

  // ENOBUFS; EAGAIN: no thread can be made. `job` is then left as it was.
  Result<void> run(Job&& job);
  // Runs the `done` of jobs that have ended; how many.
  std::size_t poll();
  u32 under_way() const { return under_way_; }
  // As Messenger's.
  void set_armed(bool armed) { armed_.store(armed); }
  bool anything_pending() const { return ended_count_.load() > 0; }

 private:
  void work();
  Result<void> add_thread();

  FdRef event_;
  u32 under_way_ = 0;  // the loop's
  std::vector<std::thread> threads_;
  std::atomic<bool> armed_ = true;
  std::atomic<u32> ended_count_ = 0;

  std::mutex mutex_;  // of what follows
  std::condition_variable wanted_;
  std::deque<Job> waiting_;
  std::deque<Job> ended_;
  u32 idle_ = 0;
  bool stopping_ = false;
};

}  // namespace cob::fs
