// The messages that the topics send, and the two processes' kernels: Messengers over coherent
// links. Model: as the supervisor would connect them, over the pair's socket. Each kernel belongs
// to its process's only thread.
#pragma once

#include <memory>
#include <vector>

#include "bench/messages/pair.h"
#include "message/messenger.h"

namespace cob::bench {

// One 64-byte line each: 48 bytes of payload behind 16 of the ring's.
struct Ping {
  static constexpr message::MessageType type{1};
  std::array<message::le<u64>, 6> words;
};
struct Pong {
  static constexpr message::MessageType type{2};
  std::array<message::le<u64>, 6> words;
};
struct Note {
  static constexpr message::MessageType type{3};
  std::array<message::le<u64>, 6> words;
};
static_assert(message::lines_for(sizeof(Ping)) == 1 &&
              sizeof(Ping) == message::Slot::first_payload);

// A buffer comes with each.
struct Lend {
  static constexpr message::MessageType type{4};
  static constexpr bool may_lend = true;
  message::le<u64> number;
};
struct LendBack {
  static constexpr message::MessageType type{5};
  static constexpr bool may_lend = true;
  message::le<u64> number;
};
struct Took {
  static constexpr message::MessageType type{6};
  message::le<u64> sum;
};

inline constexpr KernelId driver_kernel{0};
inline constexpr KernelId answerer_kernel{1};

struct KernelOptions {
  u64 bulk_bytes = message::Links::default_bulk_bytes;
  bool with_doorbell = false;  // for loops that sleep
  u16 answerers = 1;           // kernels in the answering process
};

// This side's kernels, connected to the other side's. The driver has one, number 0; the answerer
// has numbers 1 to `answerers`. `prepare` registers what each understands.
Result<std::vector<std::unique_ptr<message::Messenger>>> connect_kernels(
    Seat& seat, const KernelOptions& options,
    const std::function<void(message::Messenger&)>& prepare);
// The same for one on each side.
Result<std::unique_ptr<message::Messenger>> connect_kernel(
    Seat& seat, const KernelOptions& options,
    const std::function<void(message::Messenger&)>& prepare);

// A request that a spinning driver waits for.
template <typename Request, typename Reply>
void ask(message::Messenger& messenger, const Request& request, Time now, Time deadline,
         auto&& take) {
  bool answered = false;
  const auto sent = messenger.request<Request, Reply>(answerer_kernel, request, deadline,
                                                      [&](const Result<Reply>& reply) {
                                                        VERIFY(reply);
                                                        take(reply.value());
                                                        answered = true;
                                                      });
  VERIFY(sent);
  messenger.flush();
  while (!answered) messenger.poll(now, 64);  // NOLINT(bugprone-infinite-loop): by the continuation
}

}  // namespace cob::bench
