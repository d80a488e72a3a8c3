// Threads of one program on two kernels: where what they make is born, what they do with each
// other's, waits over both, and a kernel's death. Model: a second FakeKernel is the one that the
// supervisor, played here, joins the program with.

#include "shim/places.h"

#include <sys/socket.h>

#include <memory>
#include <mutex>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

u32 kernel_of(int fd) { return load(lookup_socket(fd)->arena->kernel->header.kernel); }

// Takes the requests of the attach right.
class Supervisor {
 public:
  Supervisor() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) abort();
    g.attach_right = make_hidden(pair[0]);
    end_ = pair[1];
    thread_ = std::thread([this] { run(); });
  }
  ~Supervisor() {
    close_hidden(g.attach_right);
    g.attach_right = -1;
    thread_.join();
    close(end_);
  }
  FakeKernel* second() {
    const std::lock_guard guard(mutex_);
    return kernels_.empty() ? nullptr : kernels_.back().get();
  }
  unsigned asked() const { return asked_; }

 private:
  void run() {
    for (;;) {
      call::AgainRequest request{};
      int fd = -1;
      u32 count = 0;
      if (receive_with_fds(end_, &request, sizeof request, &fd, 1, count) < 0) return;
      ++asked_;
      const std::lock_guard guard(mutex_);
      kernels_.push_back(
          std::make_unique<FakeKernel>(fd, static_cast<unsigned short>(request.kernel)));
    }
  }

  int end_ = -1;
  std::mutex mutex_;
  std::vector<std::unique_ptr<FakeKernel>> kernels_;
  std::atomic<unsigned> asked_{0};
  std::thread thread_;
};

class Places : public ::testing::Test {
 protected:
  void SetUp() override {
    kernel();
    ASSERT_NE(attach(), nullptr);
    g.spread_threads = true;
    this_thread->settled = false;
    settle_here();
  }
  void TearDown() override {
    if (FakeKernel* second = supervisor_.second()) {
      second->die();
      for_each_live_arena([](Arena* arena) { check_death(arena); });
    }
    revive_nothing();
    g.spread_threads = false;
  }
  // Nothing of the dead kernel's is open any more.
  static void revive_nothing() { store(g.lost, 0U); }

  // In a thread that the kernel serves. Others are there meanwhile, for a thread takes the place of
  // one that has ended.
  template <typename F>
  void on_kernel(u32 number, F f) {
    std::atomic<bool> over{false};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 64 && !done; ++i) {
      std::atomic<bool> looked{false};
      threads.emplace_back([&] {
        Arena* home = home_arena();
        if (home != nullptr && load(home->kernel->header.kernel) == number) {
          f();
          done = true;
        }
        looked = true;
        while (!over) std::this_thread::yield();
      });
      while (!looked) std::this_thread::yield();
    }
    over = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(done);
  }

  Supervisor supervisor_;
};

TEST_F(Places, SocketsAreBornOnTheirThreadsKernelAndAreUsedFromAll) {
  EXPECT_EQ(load(home_arena()->kernel->header.kernel), 0);
  int listener = -1, client = -1;
  on_kernel(1, [&] {
    listener = make_listener(411, 0);
    client = make_client(411);
    EXPECT_EQ(kernel_of(listener), 1u);
    EXPECT_EQ(kernel_of(client), 1u);
  });
  const int server = cob_accept4(listener, nullptr, nullptr, 0);
  ASSERT_GE(server, 0);
  EXPECT_EQ(kernel_of(server), 1u);
  Pair own(412);
  EXPECT_EQ(kernel_of(own.client), 0u);
  for (int round = 0; round < 100; ++round) {
    char c = 0;
    EXPECT_EQ(cob_send(client, "x", 1, 0), 1);
    EXPECT_EQ(cob_recv(server, &c, 1, 0), 1);
    EXPECT_EQ(c, 'x');
    EXPECT_EQ(cob_send(own.client, "y", 1, 0), 1);
    EXPECT_EQ(cob_recv(own.server, &c, 1, 0), 1);
    EXPECT_EQ(c, 'y');
  }
  EXPECT_EQ(supervisor_.asked(), 1u);  // one arena a kernel
  for (const int fd : {listener, client, server}) cob_close(fd);
}

TEST_F(Places, WaitsSeeSocketsOfBothKernels) {
  std::unique_ptr<Pair> far;
  on_kernel(1, [&] { far = std::make_unique<Pair>(421); });
  Pair near(422);
  const int set = cob_epoll_create1(0);
  for (const int fd : {far->server, near.server}) {
    epoll_event event{EPOLLIN | EPOLLET, {.fd = fd}};
    ASSERT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  }
  epoll_event got[4];
  EXPECT_EQ(cob_epoll_wait(set, got, 4, 0), 0);
  for (const auto& [sender, receiver] :
       {std::pair(far->client, far->server), std::pair(near.client, near.server)}) {
    std::atomic<ThreadSignals*> signals{nullptr};
    std::thread sleeper([&] {
      signals = &thread_signals;
      epoll_event event{};
      EXPECT_EQ(cob_epoll_wait(set, &event, 1, 20'000), 1);
      EXPECT_EQ(event.data.fd, receiver);
      pollfd both[] = {{far->server, POLLIN, 0}, {near.server, POLLIN, 0}};
      EXPECT_EQ(cob_poll(both, 2, 20'000), 1);
    });
    ASSERT_TRUE(
        eventually([&] { return signals != nullptr && load(signals.load()->doorbell) != 0; }));
    EXPECT_EQ(cob_send(sender, "z", 1, 0), 1);
    sleeper.join();
    char c;
    EXPECT_EQ(cob_recv(receiver, &c, 1, 0), 1);
  }
  cob_close(set);
  far.reset();
}

TEST_F(Places, AKernelsDeathEndsWhatItServed) {
  std::unique_ptr<Pair> far;
  on_kernel(1, [&] { far = std::make_unique<Pair>(431); });
  Pair near(432);
  const int set = cob_epoll_create1(0);
  for (const int fd : {far->server, near.server}) {
    epoll_event event{EPOLLIN, {.fd = fd}};
    ASSERT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  }
  std::atomic<ThreadSignals*> signals{nullptr};
  std::thread sleeper([&] {
    signals = &thread_signals;
    char c;
    EXPECT_EQ(cob_recv(far->server, &c, 1, 0), -1);
    EXPECT_EQ(errno, ECONNRESET);
  });
  ASSERT_TRUE(
      eventually([&] { return signals != nullptr && load(signals.load()->doorbell) != 0; }));
  supervisor_.second()->die();
  sleeper.join();
  epoll_event got[4];
  ASSERT_EQ(cob_epoll_wait(set, got, 4, 20'000), 1);
  EXPECT_EQ(got[0].data.fd, far->server);
  EXPECT_EQ(got[0].events & (EPOLLERR | EPOLLHUP), u32{EPOLLERR | EPOLLHUP});
  char c = 0;
  EXPECT_EQ(cob_send(near.client, "n", 1, 0), 1);
  ASSERT_EQ(cob_epoll_wait(set, got, 4, 20'000), 1);
  EXPECT_EQ(got[0].data.fd, near.server);
  EXPECT_EQ(cob_recv(near.server, &c, 1, 0), 1);
  cob_close(set);
  far.reset();
}

TEST_F(Places, AThreadGoesWhereItIsOrdered) {
  on_kernel(1, [&] {
    Thread* thread = own_thread();
    store(supervisor_.second()->side().consumed[thread->index].home, 0x1'0001U);
    EXPECT_EQ(load(home_arena()->kernel->header.kernel), 0);
    EXPECT_EQ(load(thread->home->program->armed[thread->index].home), 1u);
    EXPECT_EQ(load(thread->home->program->armed[thread->index].tid),
              static_cast<u32>(raw::thread_id()));
    Pair here(441);
    EXPECT_EQ(kernel_of(here.client), 0u);
  });
}

}  // namespace
}  // namespace cob::shim::testing
