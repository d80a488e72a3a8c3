// cob-bench-offload SIDE CORE_A CORE_B CASE BYTES SECONDS: the cases of cases.h on a plain core, on
// another kernel whatever it costs (away), or where the cost model says (cob): this thread on core
// A, an island with one worker on core B.
#include <array>

#include "bench/offload/cases.h"
#include "offload/island.h"
#include "offload/workers.h"

namespace cob::bench::offload {
namespace {

using namespace cob::offload;

template <typename P>
struct ArgumentOf {
  using Type = P;
};
template <typename T>
struct ArgumentOf<const T*> {
  using Type = In<T>;
};
template <typename T>
struct ArgumentOf<T*> {
  using Type = InOut<T>;
};
template <typename T>
auto in_body(std::span<T> span) {
  return span.data();
}
template <typename T>
auto in_body(T scalar) {
  return scalar;
}

template <typename K, typename Function>
struct TaskOf;
template <typename K, typename... P>
struct TaskOf<K, void (*)(ulong, ulong, P...)> {
  static constexpr Task<typename ArgumentOf<P>::Type...> task{K::text};
  using BoundTask = Bound<typename ArgumentOf<P>::Type...>;
  static void add(TaskSet& set) {
    set.add(task,
            [](const Part& part, typename cob::offload::detail::Parameter<
                                     typename ArgumentOf<P>::Type>::InBody... all) {
              K::part(part.begin, part.end, in_body(all)...);
            })
        .release_value();
  }
};
template <typename K>
using TaskFor = TaskOf<K, typename K::Function>;

template <typename... K>
TaskSet tasks_of() {
  TaskSet set;
  (TaskFor<K>::add(set), ...);
  return set;
}

class Cob {
 public:
  Cob(Host& host, bool away) : host_(host), away_(away) {}
  template <typename T>
  Buffer<T> array(ulong n) {
    auto buffer = host_.buffer<T>(n);
    if (buffer.is_error()) fail(buffer.error().what);
    return buffer.release_value();
  }
  template <typename T>
  T* at(Buffer<T>& buffer) {
    return buffer.write().release_value().data();
  }
  template <typename K, typename... A>
  void run(ulong n, ulong grain, A&&... arguments) {
    static const auto bound = host_.find(TaskFor<K>::task).release_value();
    const Range range{0, n, grain};
    const auto done = away_ ? host_.run_at(Where::away, bound, range, arguments...)
                            : host_.run(bound, range, arguments...);
    if (done.is_error()) fail(done.error().what);
  }
  void alone(bool yes) { alone_ = yes; }
  ulong threads() const { return away_ || alone_ ? 1 : 2; }
  ulong many() const { return away_ || alone_ ? 1 : 16; }
  std::vector<ulong> parts() const {
    return away_ ? std::vector<ulong>{1} : std::vector<ulong>{1, 2, 16};
  }

 private:
  Host& host_;
  bool away_;
  bool alone_ = false;
};

struct Plain {
  template <typename T>
  std::vector<T> array(ulong n) {
    return std::vector<T>(n);
  }
  template <typename T>
  T* at(std::vector<T>& array) {
    return array.data();
  }
  template <typename T>
  static T* raw(std::vector<T>& array) {
    return array.data();
  }
  template <typename T>
  static T raw(T& scalar) {
    return scalar;
  }
  template <typename K, typename... A>
  void run(ulong n, ulong, A&&... arguments) {
    K::part(0, n, raw(arguments)...);
    asm volatile("" ::: "memory");
  }
  void alone(bool) {}
  ulong threads() const { return 1; }
  ulong many() const { return 1; }
  std::vector<ulong> parts() const { return {1}; }
};

}  // namespace

int cob_main(int argc, char** argv) {
  const TaskSet tasks =
      tasks_of<nothing, vector_add, saxpy, sgemm, stencil, histogram, ep, is_count, is_total,
               cg_multiply, cg_step, cg_direction, ft_evolve, ft_lines>();
  serve_if_started(tasks);
  if (argc != 7) fail("usage: cob-bench-offload plain|away|cob CORE_A CORE_B CASE BYTES SECONDS");
  const std::string side = argv[1];
  pin_to(std::atoi(argv[2]));
  if (side == "plain") {
    Plain plain;
    return measure_main(plain, argc - 3, argv + 3);
  }
  auto island = Island::start(tasks, {.cores = {std::atoi(argv[3])}});
  if (island.is_error()) fail(island.error().what);
  Cob cob(island.value()->host(), side == "away");
  return measure_main(cob, argc - 3, argv + 3);
}

}  // namespace cob::bench::offload

int main(int argc, char** argv) { return cob::bench::offload::cob_main(argc, argv); }
