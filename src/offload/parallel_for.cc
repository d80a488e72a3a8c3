// The loops of a program, and what is checked before one leaves for the island.
#include "offload/parallel_for.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <map>

namespace cob::offload {

namespace {

struct Known {
  detail::Loop loop;
  std::string name;
  CostModel costs;
};

// Filled before main(), in the order in which the program's translation units are initialised: the
// same in each process of it.
std::deque<Known>& loops() {
  static std::deque<Known> all;
  return all;
}

struct StackOfThread {
  u64 low = 0;
  u64 high = 0;
};
const StackOfThread& this_stack() {
  thread_local const StackOfThread stack = [] {
    pthread_attr_t attributes;
    if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return StackOfThread{};
    void* low = nullptr;
    std::size_t bytes = 0;
    ::pthread_attr_getstack(&attributes, &low, &bytes);
    ::pthread_attr_destroy(&attributes);
    return StackOfThread{reinterpret_cast<u64>(low), reinterpret_cast<u64>(low) + bytes};
  }();
  return stack;
}

// A capture by reference, most likely: it would mean something else on the island.
bool points_to_stack(std::span<const std::byte> body) {
  const StackOfThread& stack = this_stack();
  for (std::size_t at = 0; at + 8 <= body.size(); at += 8) {
    u64 word = 0;
    std::memcpy(&word, body.data() + at, 8);
    if (word >= stack.low && word < stack.high) return true;
  }
  return false;
}

}  // namespace

namespace detail {

u32 remember_loop(const char* type, TaskSet::Entry entry) {
  auto& all = loops();
  const auto number = static_cast<u32>(all.size());
  u64 hash = message::detail::hash_basis;
  for (const char* c = type; *c != 0; ++c) hash = message::detail::fold(hash, static_cast<u8>(*c));
  entry.name = fmt::format("loop {} {:016x}", number, hash);
  all.push_back({{type, entry}, entry.name, {}});
  return number;
}

Result<void> run_loop(Host& host, const Range& range, u32 loop, std::span<const std::byte> body,
                      const void*) {
  Known& known = loops()[loop];
  Host::Request request;
  request.launch = {.begin = range.begin,
                    .end = range.end,
                    .grain = range.grain,
                    .task = 0,
                    .buffers = 0,
                    .ticket = no_ticket};
  std::ranges::copy(body, request.tail.begin());
  request.tail_bytes = body.size();
  if (!host.connected() || !host.shares_addresses() || points_to_stack(body))
    return host.run_at(Where::home, request, &known.loop.entry);
  const auto task = host.loop_task(loop, known.name);
  if (task.is_error()) return host.run_at(Where::home, request, &known.loop.entry);
  request.launch.task = task.value();
  return host.run(request, &known.loop.entry, known.costs);
}

}  // namespace detail

Result<void> add_loops(TaskSet& tasks) {
  for (const Known& known : loops()) {
    TaskSet::Entry entry = known.loop.entry;
    entry.name = known.name;
    TRY(tasks.add(std::move(entry)));
  }
  return {};
}

}  // namespace cob::offload
