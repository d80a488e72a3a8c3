// Two processes trade by messages: a shop (kernel 0) asks a farm (kernel 1) for apples, by typed
// requests, with a tail, by a loan, by multicast; the farm is killed amid all that, started again,
// and the shop goes on. Model: each process one loop: rendezvous, poll, work, wait.
// Each process has one thread. docs/messaging.md, "Using it".
#include <message/rendezvous.h>
#include <message/waiter.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

using namespace cob;
using namespace cob::message;

namespace {

constexpr KernelId shop(0), farm(1);

struct Order {  // a request
  static constexpr MessageType type{144};
  le<u32> apples;
};
struct Bill {  // its answer, with a text behind it
  static constexpr MessageType type{145};
  static constexpr std::size_t max_tail = 64;
  le<u32> cents;
};
struct Harvest {  // a request whose bytes lie in a lent buffer
  static constexpr MessageType type{146};
  static constexpr bool may_lend = true;
  le<u32> crates;
};
struct Weight {
  static constexpr MessageType type{147};
  le<u32> grams;
};
struct Closing {  // to all, one way
  static constexpr MessageType type{148};
  le<u32> minutes;
};

struct Member {
  std::unique_ptr<Messenger> messenger;
  std::unique_ptr<Waiter> waiter{};  // outlives what is watched in it
  std::unique_ptr<Rendezvous> rendezvous{};

  // What this kernel understands is said before it meets anybody.
  Result<void> join(const char* place) {
    messenger->know<Order>();
    messenger->know<Bill>();
    messenger->know<Harvest>();
    messenger->know<Weight>();
    messenger->know<Closing>();
    waiter = TRY(Waiter::create(*messenger));
    rendezvous = TRY(Rendezvous::create(*messenger, {.place = place}));
    return rendezvous->watch(waiter->epoll());
  }
  void turn() {
    waiter->wait(rendezvous->next_deadline());
    rendezvous->poll(waiter->now());
    messenger->poll(waiter->now(), 64);
  }
};

Result<void> be_the_farm(const char* place, u32 epoch) {
  Member me{TRY(Messenger::create(farm, epoch, 2))};
  bool open = true;
  me.messenger->on<Order, Bill>([](KernelId, const Order& order, ReplyToken<Bill> reply) {
    if (order.apples == 0) return reply.fail(EINVAL);
    const std::string text = "thank you";
    (void)reply.answer(Bill{order.apples * u32{25}}, {.tail = std::as_bytes(std::span(text))});
  });
  me.messenger->on<Harvest, Weight>([](Incoming& in, const Harvest&) -> Result<Weight> {
    u32 grams = 0;
    for (const std::byte apple : in.loan.bytes()) grams += std::to_integer<u32>(apple);
    return Weight{grams};
  });
  me.messenger->on<Closing>([&](KernelId, const Closing&) { open = false; });
  TRY(me.join(place));
  while (open) me.turn();
  return {};
}

// By exec, so that it inherits none of our sockets: a peer has ended when the last copy is closed.
pid_t start_farm(const char* place, const char* epoch) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::execl("/proc/self/exe", "market", place, epoch, nullptr));
  return child;
}

Result<void> be_the_shop(const char* place) {
  pid_t child = start_farm(place, "1");
  Member me{TRY(Messenger::create(shop, 1, 2))};
  TRY(me.join(place));
  const auto order = [&me](u32 apples) {
    bool done = false;
    const auto sent = me.messenger->request<Order, Bill>(
        farm, Order{apples}, Time::never(), [&](Result<Bill> bill, Incoming& in) {
          done = true;
          std::string text(reinterpret_cast<const char*>(in.tail.data()), in.tail.size());
          if (bill) text = std::to_string(bill.value().cents) + " cents, " + text;
          std::printf("%u apples: %s\n", apples,
                      bill ? text.c_str() : std::strerror(bill.error().code));
        });
    while (sent && !done) me.turn();
  };
  while (!me.messenger->connected(farm)) me.turn();
  order(2);
  order(0);
  Buffer crates = TRY(me.messenger->allocate(farm, 1'000'000));
  std::ranges::fill(crates.bytes(), std::byte{150});
  bool weighed = false;
  TRY((me.messenger->request<Harvest, Weight>(
      farm, Harvest{u32{10}}, {.lend = &crates}, Time::never(), [&](Result<Weight> weight) {
        weighed = true;
        if (weight) std::printf("lent: %u grams\n", u32{weight.value().grams});
      })));
  while (!weighed) me.turn();

  ::kill(child, SIGSTOP);
  ::waitpid(child, nullptr, WUNTRACED);  // stopped is not dead: an order would wait
  ::kill(child, SIGKILL);
  order(3);
  ::waitpid(child, nullptr, 0);
  while (me.messenger->connected(farm)) me.turn();
  child = start_farm(place, "2");
  while (!me.messenger->connected(farm)) me.turn();
  std::printf("the farm is back, in epoch %u\n", me.messenger->peer_epoch(farm));
  order(4);
  std::printf("not told: %zu\n", me.messenger->multicast({farm}, Closing{u32{5}}).size());
  while (me.messenger->connected(farm)) me.turn();
  int status = 0;
  ::waitpid(child, &status, 0);
  std::printf("closed, %d\n", status);
  return {};
}

}  // namespace

int main(int count, char** words) {
  const char* place = count > 1 ? words[1] : "@cob-example-market";
  const auto done =
      count > 2 ? be_the_farm(place, static_cast<u32>(std::stoul(words[2]))) : be_the_shop(place);
  if (done.is_error()) std::printf("%s: %s\n", done.error().what, std::strerror(done.error().code));
  return done.is_error() ? 1 : 0;
}
