// cob-peer-offload-opencl CORE_A CORE_B CASE BYTES SECONDS: the cases of cases.h by OpenCL on its
// first CPU device (PoCL), with what it has to be fast: fine-grained shared virtual memory where
// the device has it, so that nothing is copied or mapped, arguments set again only when they
// change, one work item a part; two threads on the two cores.
#define CL_TARGET_OPENCL_VERSION 300
#include <CL/cl.h>
#include <sched.h>
#include <unistd.h>

#include <array>

#include "bench/offload/cases.h"

namespace cob::bench::offload {
namespace {

constexpr const char* prelude =
    "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n"
    "#define GLOBAL global\n"
    "#define STRIP(...) __VA_ARGS__\n"
    "#define KERNEL(name, parameters, arguments) \\\n"
    "  kernel void name(ulong all_, ulong part_, STRIP parameters) { \\\n"
    "    const ulong begin_ = get_global_id(0) * part_; \\\n"
    "    name##_part(begin_, begin_ + part_ < all_ ? begin_ + part_ : all_, STRIP arguments); }\n";
constexpr const char* kernels =
#include "offload_kernels_text.h"
    ;

void check(cl_int code, const char* what) {
  if (code != CL_SUCCESS) fail(std::string(what) + ": OpenCL error " + std::to_string(code));
}

class OpenCl {
 public:
  OpenCl() {
    cl_uint count = 0;
    cl_platform_id platform = nullptr;
    if (clGetPlatformIDs(1, &platform, &count) != CL_SUCCESS || count == 0)
      fail("there is no OpenCL platform (pocl-opencl-icd)");
    check(clGetDeviceIDs(platform, CL_DEVICE_TYPE_CPU, 1, &device_, nullptr), "CPU device");
    cl_device_svm_capabilities svm = 0;
    (void)clGetDeviceInfo(device_, CL_DEVICE_SVM_CAPABILITIES, sizeof svm, &svm, nullptr);
    require((svm & CL_DEVICE_SVM_FINE_GRAIN_BUFFER) != 0, "no fine-grained shared memory");
    cl_int code = 0;
    context_ = clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &code);
    check(code, "context");
    queue_ = clCreateCommandQueueWithProperties(context_, device_, nullptr, &code);
    check(code, "queue");
    const char* texts[] = {prelude, kernels};
    program_ = clCreateProgramWithSource(context_, 2, texts, nullptr, &code);
    check(code, "program");
    if (clBuildProgram(program_, 1, &device_, "-cl-std=CL1.2", nullptr, nullptr) != CL_SUCCESS) {
      std::string log(20'000, 0);
      (void)clGetProgramBuildInfo(program_, device_, CL_PROGRAM_BUILD_LOG, log.size(), log.data(),
                                  nullptr);
      fail("the kernels do not build: " + log.substr(0, 300));
    }
  }
  template <typename T>
  T* array(ulong n) {
    void* data =
        clSVMAlloc(context_, CL_MEM_READ_WRITE | CL_MEM_SVM_FINE_GRAIN_BUFFER, n * sizeof(T), 4096);
    require(data != nullptr, "clSVMAlloc");
    std::memset(data, 0, n * sizeof(T));
    return static_cast<T*>(data);
  }
  template <typename T>
  T* at(T* array) {
    return array;
  }
  template <typename K, typename... A>
  void run(ulong n, ulong grain, A... arguments) {
    static cl_kernel kernel = nullptr;
    static std::array<std::array<std::byte, 8>, sizeof...(A) + 2> last{};
    const bool first = kernel == nullptr;
    if (first) {
      cl_int code = 0;
      kernel = clCreateKernel(program_, K::text, &code);
      check(code, K::text);
    }
    cl_uint index = 0;
    const auto set = [&](auto value) {
      std::array<std::byte, 8> bytes{};
      const auto* const from = static_cast<const void*>(&value);
      std::memcpy(bytes.data(), from, sizeof value);
      if (first || bytes != last[index]) {
        last[index] = bytes;
        if constexpr (std::is_pointer_v<decltype(value)>) {
          check(clSetKernelArgSVMPointer(kernel, index, value), "argument");
        } else {
          check(clSetKernelArg(kernel, index, sizeof value, from), "argument");
        }
      }
      ++index;
    };
    set(n);
    set(grain);
    (set(arguments), ...);
    const std::size_t parts = (n + grain - 1) / grain, local = 1;
    check(clEnqueueNDRangeKernel(queue_, kernel, 1, nullptr, &parts, &local, 0, nullptr, nullptr),
          "enqueue");
    check(clFinish(queue_), "finish");
  }
  void alone(bool yes) { alone_ = yes; }
  ulong threads() const { return alone_ ? 1 : 2; }
  ulong many() const { return alone_ ? 1 : 16; }
  std::vector<ulong> parts() const { return {1, 2, 16, 64}; }

 private:
  bool alone_ = false;
  cl_device_id device_ = nullptr;
  cl_context context_ = nullptr;
  cl_command_queue queue_ = nullptr;
  cl_program program_ = nullptr;
};

}  // namespace

int opencl_main(int argc, char** argv) {
  if (argc != 6) fail("usage: cob-peer-offload-opencl CORE_A CORE_B CASE BYTES SECONDS");
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(std::atoi(argv[1])), &set);
  CPU_SET(static_cast<unsigned>(std::atoi(argv[2])), &set);
  ::sched_setaffinity(0, sizeof set, &set);
  ::setenv("POCL_MAX_PTHREAD_COUNT", "2", 0);
  OpenCl engine;
  return measure_main(engine, argc - 2, argv + 2);
}

}  // namespace cob::bench::offload

int main(int argc, char** argv) { return cob::bench::offload::opencl_main(argc, argv); }
