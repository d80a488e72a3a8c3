// Tasks: named functions over a range, known to the host and to islands of every ISA by the same
// name and signature. Model: Task<...> is the declaration that both sides share, TaskSet the table
// of what one side can run; a task sees its buffers as spans and its scalars by value. Values; a
// TaskSet is filled before it is used and then read by any thread.
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/result.h"
#include "offload/messages.h"

namespace cob::offload {

// The part of a range that one call of a task shall do.
struct Part {
  u64 begin = 0;
  u64 end = 0;
  u32 worker = 0;  // < workers: no two calls with the same one run at once
  u32 workers = 1;
};

// The range of a launch. Parts have `grain` elements, but for the last.
struct Range {
  u64 begin = 0;
  u64 end = 1;
  u64 grain = 1;
};

// What a task does with a buffer; the elements are integers or floating-point numbers.
template <typename T>
struct In {};
template <typename T>
struct Out {};  // every element is written: what was there before is not needed
template <typename T>
struct InOut {};

enum class Use : u8 { in = 1, out = 2, in_out = 3 };

// A buffer or scalar as a task has it.
struct View {
  std::byte* data = nullptr;
  u64 bytes = 0;
};
struct Call {
  std::span<const View> buffers;
  std::span<const std::byte> arguments;
};

namespace detail {

template <typename T>
concept Element = std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
                  !std::is_same_v<T, long double> && sizeof(T) <= 8;

// Elements and scalars are little-endian in messages, the machine's own in memory.
template <Element T>
T other_order(T value) {
  std::array<std::byte, sizeof(T)> bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  for (std::size_t i = 0; i < sizeof(T) / 2; ++i) std::swap(bytes[i], bytes[sizeof(T) - 1 - i]);
  return std::bit_cast<T>(bytes);
}
template <Element T>
T in_messages(T value) {
  return std::endian::native == std::endian::little ? value : other_order(value);
}

template <Element T>
constexpr u64 element_code() {
  return sizeof(T) * 4 + (std::is_floating_point_v<T> ? 2U : 0U) + (std::is_signed_v<T> ? 1U : 0U);
}

template <typename A>
struct Parameter {  // a scalar
  static_assert(Element<A>, "a task's scalars are numbers");
  static constexpr bool is_buffer = false;
  static constexpr std::size_t bytes = sizeof(A);
  static constexpr u64 code = 0x400 + element_code<A>();
  using InBody = A;
};
template <typename T, Use how>
struct BufferParameter {
  static_assert(Element<T>, "a buffer's elements are numbers");
  static constexpr bool is_buffer = true;
  static constexpr std::size_t bytes = 0;
  static constexpr Use use = how;
  static constexpr u64 code = static_cast<u64>(how) * 0x100 + element_code<T>();
  using InBody = std::span<std::conditional_t<how == Use::in, const T, T>>;
};
template <typename T>
struct Parameter<In<T>> : BufferParameter<T, Use::in> {};
template <typename T>
struct Parameter<Out<T>> : BufferParameter<T, Use::out> {};
template <typename T>
struct Parameter<InOut<T>> : BufferParameter<T, Use::in_out> {};

}  // namespace detail

// Declared once, in a header that host and island include:
//   inline constexpr Task<In<float>, InOut<float>, float> saxpy{"saxpy"};
template <typename... A>
struct Task {
  const char* name;

  static constexpr u32 buffers = (0U + ... + (detail::Parameter<A>::is_buffer ? 1U : 0U));
  static constexpr std::size_t argument_bytes =
      (std::size_t{0} + ... + detail::Parameter<A>::bytes);
  static_assert(buffers <= max_buffers && argument_bytes <= max_argument_bytes);
  // What the other side's declaration must agree in.
  static constexpr u64 signature = [] {
    u64 hash = message::detail::hash_basis;
    ((hash = message::detail::fold(hash, detail::Parameter<A>::code)), ...);
    return hash;
  }();
  // What runs it.
  using Body = void (*)(const Part&, typename detail::Parameter<A>::InBody...);
};

class TaskSet {
 public:
  static constexpr std::size_t most = 4'096;

  struct Entry {
    std::string name;
    u64 signature = 0;
    u32 buffers = 0;
    std::size_t least_arguments = 0;  // bytes
    std::size_t most_arguments = 0;
    // Its arguments have addresses of the host: it runs for a host that started this island.
    bool trusts_host = false;
    void (*body)() = nullptr;  // for `run` to call
    void (*run)(void (*body)(), const Part&, const Call&) = nullptr;
  };

  // EEXIST: the name is taken; ENAMETOOLONG; ENOSPC.
  template <typename... A>
  Result<void> add(const Task<A...>& task, typename Task<A...>::Body body) {
    using T = Task<A...>;
    return add(Entry{.name = task.name,
                     .signature = T::signature,
                     .buffers = T::buffers,
                     .least_arguments = T::argument_bytes,
                     .most_arguments = T::argument_bytes,
                     .body = reinterpret_cast<void (*)()>(body),
                     .run = &run_typed<A...>});
  }
  Result<void> add(Entry entry);

  // ENOENT; EPROTOTYPE: it has another signature.
  Result<u32> find(std::string_view name, u64 signature) const;
  // nullptr: no such task.
  const Entry* at(u32 task) const { return task < entries_.size() ? &entries_[task] : nullptr; }
  std::size_t size() const { return entries_.size(); }

 private:
  template <typename... A>
  static void run_typed(void (*body)(), const Part& part, const Call& call) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      std::size_t buffer = 0, at = 0;
      // Braces: from left to right.
      std::tuple<typename detail::Parameter<A>::InBody...> all{take<A>(call, buffer, at)...};
      reinterpret_cast<typename Task<A...>::Body>(body)(part, std::get<I>(all)...);
    }(std::index_sequence_for<A...>{});
  }
  template <typename A>
  static typename detail::Parameter<A>::InBody take(const Call& call, std::size_t& buffer,
                                                    std::size_t& at) {
    using InBody = typename detail::Parameter<A>::InBody;
    if constexpr (detail::Parameter<A>::is_buffer) {
      using T = typename InBody::element_type;
      const View& view = call.buffers[buffer++];
      return InBody(reinterpret_cast<T*>(view.data), view.bytes / sizeof(T));
    } else {
      InBody value;
      std::memcpy(&value, call.arguments.data() + at, sizeof value);
      at += sizeof value;
      return detail::in_messages(value);
    }
  }

  std::vector<Entry> entries_;
};

}  // namespace cob::offload
