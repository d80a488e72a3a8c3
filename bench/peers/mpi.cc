// Peer: MPI, compiled once for Open MPI and once for MPICH (COB_PEER_OPEN_MPI).
// Started by hand it becomes the launcher of two ranks of itself, rank 0 drives and rank 1 answers.
// MPI polls by itself; a stream is a window of MPI_Isend into receives posted before. One thread of
// ours a rank. MPI 3.1, chapter 3
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

#ifdef COB_PEER_OPEN_MPI
constexpr const char* rank_variable = "OMPI_COMM_WORLD_RANK";
#else
constexpr const char* rank_variable = "PMI_RANK";
#endif

constexpr int acknowledgement = 1;  // a tag

class MpiEnd {
 public:
  MpiEnd(const Settings& settings, int other)
      : size_(settings.size), other_(other), out_(settings.window()), in_(settings.window()) {
    for (Buffer& buffer : out_) buffer.data.resize(size_);
    for (Buffer& buffer : in_) {
      buffer.data.resize(size_);
      post_receive(buffer);
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MpiEnd(const MpiEnd&) = delete;
  MpiEnd& operator=(const MpiEnd&) = delete;
  ~MpiEnd() {
    flush();
    for (Buffer& buffer : in_) {
      MPI_Cancel(&buffer.request);
      MPI_Wait(&buffer.request, MPI_STATUS_IGNORE);
    }
  }

  void send(u64 number) {
    std::vector<char>& data = out_[0].data;
    MPI_Wait(&out_[0].request, MPI_STATUS_IGNORE);
    stamp(data.data(), size_, number);
    MPI_Send(data.data(), static_cast<int>(size_), MPI_BYTE, other_, 0, MPI_COMM_WORLD);
  }

  // Eager sends are complete at once and would pile up at the receiver, which therefore
  // acknowledges the window half by half.
  void post(u64 number) {
    if (number != last && ++posted_ - acknowledged_ > out_.size()) receive_acknowledgement();
    Buffer& buffer = out_[next_out_];
    next_out_ = next_out_ + 1 == out_.size() ? 0 : next_out_ + 1;
    MPI_Wait(&buffer.request, MPI_STATUS_IGNORE);
    stamp(buffer.data.data(), size_, number);
    MPI_Isend(buffer.data.data(), static_cast<int>(size_), MPI_BYTE, other_, 0, MPI_COMM_WORLD,
              &buffer.request);
  }

  void flush() {
    while (posted_ - acknowledged_ >= half_) receive_acknowledgement();
    for (Buffer& buffer : out_) MPI_Wait(&buffer.request, MPI_STATUS_IGNORE);
  }

  // Receives match in the order in which they were posted.
  u64 receive() {
    Buffer& buffer = in_[next_in_];
    next_in_ = next_in_ + 1 == in_.size() ? 0 : next_in_ + 1;
    MPI_Wait(&buffer.request, MPI_STATUS_IGNORE);
    const u64 number = read_stamp(buffer.data.data(), size_);
    post_receive(buffer);
    if (number == last) {
      streaming_ = true;
    } else if (streaming_ && ++received_ % half_ == 0) {
      MPI_Send(nullptr, 0, MPI_BYTE, other_, acknowledgement, MPI_COMM_WORLD);
    }
    return number;
  }

 private:
  struct Buffer {
    MPI_Request request = MPI_REQUEST_NULL;
    std::vector<char> data;
  };

  void receive_acknowledgement() {
    MPI_Recv(nullptr, 0, MPI_BYTE, other_, acknowledgement, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    acknowledged_ += half_;
  }

  void post_receive(Buffer& buffer) {
    MPI_Irecv(buffer.data.data(), static_cast<int>(size_), MPI_BYTE, other_, 0, MPI_COMM_WORLD,
              &buffer.request);
  }

  std::size_t size_;
  int other_;
  std::vector<Buffer> out_;
  std::vector<Buffer> in_;
  std::size_t next_out_ = 0;
  std::size_t next_in_ = 0;
  // Messages of the stream: of the one that sends it, and of the one that receives it.
  std::size_t half_ = std::max<std::size_t>(out_.size() / 2, 1);
  std::size_t posted_ = 0;
  std::size_t acknowledged_ = 0;
  std::size_t received_ = 0;
  bool streaming_ = false;
};

using Variables = std::vector<std::array<const char*, 2>>;

#ifdef COB_PEER_OPEN_MPI
const std::vector<const char*> launcher{
    "mpirun.openmpi", "--allow-run-as-root", "--host", "localhost:2", "-n", "2",
    // We pin, a core a rank: Open MPI must neither pin nor yield.
    "--bind-to", "none", "--mca", "mpi_yield_when_idle", "0",
    // Its own wires: no other host, no other network.
    "--mca", "plm", "isolated", "--mca", "oob_tcp_if_include", "lo"};

// Small messages are fastest over its own shared memory (vader), larger ones over UCX's.
Variables fastest(std::size_t size) {
  if (size < 1'024) {
    return {{"OMPI_MCA_pml", "ob1"},
            {"OMPI_MCA_btl", "self,vader"},
            {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"}};
  }
  return {{"OMPI_MCA_pml", "ucx"},
          {"UCX_TLS", "posix,self"},
          // Or it takes UCX only where it finds a fast network.
          {"OMPI_MCA_opal_common_ucx_tls", "any"},
          {"OMPI_MCA_opal_common_ucx_devices", "any"}};
}
#else
const std::vector<const char*> launcher{"mpirun.mpich", "-launcher", "fork", "-bind-to", "none",
                                        "-iface",       "lo",        "-n",   "2"};

// Large messages have the lower latency over UCX's shared memory than over MPICH's own.
Variables fastest(std::size_t size) {
  if (size <= 65'536) return {{"UCX_TLS", "posix,sysv,cma,self"}};
  return {{"MPIR_CVAR_NOLOCAL", "1"}, {"UCX_TLS", "posix,self"}};
}
#endif

// Becomes the launcher. Variables that the user has set stay.
void launch(int argc, char** argv) {
  for (const auto& [name, value] : fastest(parse(argc, argv).size)) ::setenv(name, value, 0);
  std::vector<char*> words(launcher.size());
  std::ranges::transform(launcher, words.begin(),
                         [](const char* word) { return const_cast<char*>(word); });
  words.insert(words.end(), argv, argv + argc + 1);  // and the null pointer
  ::execvp(words[0], words.data());
  fail(std::string(words[0]) + ": " + std::strerror(errno));
}

int run_rank(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  const bool driver = std::strcmp(std::getenv(rank_variable), "0") == 0;
  pin(driver ? settings.driver_core : settings.answerer_core);
  MPI_Init(&argc, &argv);
  int rank = 0;
  int ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  require(ranks == 2 && (rank == 0) == driver, "not two ranks");
  {
    MpiEnd end(settings, 1 - rank);
    if (driver) {
      drive(settings, end);
    } else {
      answer(settings, end);
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Finalize();
  return 0;
}

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) {
  if (std::getenv(cob::peers::rank_variable) == nullptr) cob::peers::launch(argc, argv);
  return cob::peers::run_rank(argc, argv);
}
