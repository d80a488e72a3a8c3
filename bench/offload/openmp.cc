// cob-peer-offload-openmp CORE_A CORE_B CASE BYTES SECONDS: the cases of cases.h by OpenMP target
// offload to the host's plugin (x86_64), with what it has to be fast: unified shared memory, so
// that nothing is copied or looked up; a plain target region where one thread will do, teams of two
// threads on the two cores otherwise; it waits actively. Compiled by clang.
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include "bench/offload/cases.h"

#pragma omp requires unified_shared_memory

namespace cob::bench::offload {

class OpenMp {
 public:
  template <typename T>
  T* array(ulong n) {
    T* data = static_cast<T*>(std::aligned_alloc(4096, (n * sizeof(T) + 4095) / 4096 * 4096));
    std::memset(data, 0, n * sizeof(T));
    return data;
  }
  template <typename T>
  T* at(T* array) {
    return array;
  }
  template <typename K, typename... A>
  void run(ulong n, ulong grain, A... arguments) {
    const ulong parts = (n + grain - 1) / grain;
    if (parts <= 1) {
#pragma omp target
      K::part(0, n, arguments...);
    } else {
#pragma omp target teams distribute parallel for num_threads(2) schedule(dynamic, 1)
      for (ulong part = 0; part < parts; ++part) {
        const ulong end = part * grain + grain;
        K::part(part * grain, end < n ? end : n, arguments...);
      }
    }
  }
  void alone(bool yes) { alone_ = yes; }
  ulong threads() const { return alone_ ? 1 : 2; }
  ulong many() const { return alone_ ? 1 : 16; }
  std::vector<ulong> parts() const { return {1, 2, 16}; }

 private:
  bool alone_ = false;
};

int openmp_main(int argc, char** argv) {
  if (argc != 6) fail("usage: cob-peer-offload-openmp CORE_A CORE_B CASE BYTES SECONDS");
  if (std::getenv("OMP_TARGET_OFFLOAD") == nullptr) {  // the runtime reads them when it is loaded
    const std::string places = std::string("{") + argv[1] + "},{" + argv[2] + "}";
    ::setenv("OMP_TARGET_OFFLOAD", "MANDATORY", 1);
    ::setenv("OMP_PLACES", places.c_str(), 1);
    ::setenv("OMP_PROC_BIND", "close", 1);
    ::setenv("OMP_WAIT_POLICY", "active", 1);
    ::setenv("OMP_NUM_THREADS", "2", 1);
    ::execv("/proc/self/exe", argv);
    fail("cannot start itself again");
  }
  int here = 1;
#pragma omp target map(from : here)
  here = omp_is_initial_device();
  require(here == 0, "there is no device");
  OpenMp engine;
  return measure_main(engine, argc - 2, argv + 2);
}

}  // namespace cob::bench::offload

int main(int argc, char** argv) { return cob::bench::offload::openmp_main(argc, argv); }
