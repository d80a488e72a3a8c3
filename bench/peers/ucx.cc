// Peer: UCX, active messages of UCP over shared memory.
// Both ends poll ucp_worker_progress(); small messages are read where they lie, large ones
// (rendezvous) are fetched by one copy from process to process. One thread a process.
// openucx.readthedocs.io, ucp.h
#include <ucp/api/ucp.h>

#include <cstdlib>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

constexpr unsigned message_id = 1;

void check(ucs_status_t status, const char* what) {
  if (status != UCS_OK) fail(std::string(what) + ": " + ucs_status_string(status));
}

class UcxEnd {
 public:
  UcxEnd(const Settings& settings, FdRef link, bool /*driver*/)
      : size_(settings.size), out_(settings.window()), arrivals_(most_arrivals) {
    for (Buffer& buffer : out_) buffer.data.resize(size_);
    ucp_params_t params{};
    params.field_mask = UCP_PARAM_FIELD_FEATURES;
    params.features = UCP_FEATURE_AM;
    check(ucp_init(&params, nullptr, &context_), "ucp_init");
    ucp_worker_params_t worker_params{};
    worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
    worker_params.thread_mode = UCS_THREAD_MODE_SINGLE;
    check(ucp_worker_create(context_, &worker_params, &worker_), "ucp_worker_create");
    ucp_am_handler_param_t handler{};
    handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                         UCP_AM_HANDLER_PARAM_FIELD_ARG;
    handler.id = message_id;
    handler.cb = arrived;
    handler.arg = this;
    check(ucp_worker_set_am_recv_handler(worker_, &handler), "ucp_worker_set_am_recv_handler");
    connect(link);
  }

  void send(u64 number) { post(number); }

  void post(u64 number) {
    Buffer& buffer = out_[next_out_];
    next_out_ = next_out_ + 1 == out_.size() ? 0 : next_out_ + 1;
    wait(buffer);
    stamp(buffer.data.data(), size_, number);
    ucp_request_param_t param{};
    buffer.request =
        ucp_am_send_nbx(endpoint_, message_id, nullptr, 0, buffer.data.data(), size_, &param);
    if (UCS_PTR_IS_ERR(buffer.request)) check(UCS_PTR_STATUS(buffer.request), "ucp_am_send_nbx");
  }

  void flush() {
    for (Buffer& buffer : out_) wait(buffer);
  }

  u64 receive() {
    Arrival& arrival = arrivals_[taken_++ % most_arrivals];
    while (!arrival.here) ucp_worker_progress(worker_);
    arrival.here = false;
    if (arrival.large.empty()) return arrival.number;
    const u64 number = read_stamp(arrival.large.data(), size_);
    spare_.push_back(std::move(arrival.large));
    arrival.large.clear();
    return number;
  }

 private:
  struct Buffer {
    std::vector<char> data;
    void* request = nullptr;
  };
  struct Arrival {
    bool here = false;
    u64 number = 0;
    std::vector<char> large;  // being fetched, or fetched
  };
  // More than one ucp_worker_progress() delivers.
  static constexpr std::size_t most_arrivals = 4'096;

  void connect(FdRef link) {
    ucp_address_t* address = nullptr;
    std::size_t length = 0;
    check(ucp_worker_get_address(worker_, &address, &length), "ucp_worker_get_address");
    send_blob(link, address, length);
    ucp_worker_release_address(worker_, address);
    const std::vector<char> theirs = receive_blob(link);
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
    params.address = reinterpret_cast<const ucp_address_t*>(theirs.data());
    check(ucp_ep_create(worker_, &params, &endpoint_), "ucp_ep_create");
  }

  void wait(Buffer& buffer) {
    if (buffer.request == nullptr) return;
    while (ucp_request_check_status(buffer.request) == UCS_INPROGRESS) ucp_worker_progress(worker_);
    check(ucp_request_check_status(buffer.request), "a send");
    ucp_request_free(buffer.request);
    buffer.request = nullptr;
  }

  // In ucp_worker_progress().
  static ucs_status_t arrived(void* self, const void* /*header*/, std::size_t /*header_length*/,
                              void* data, std::size_t length, const ucp_am_recv_param_t* param) {
    const bool large = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    return static_cast<UcxEnd*>(self)->take(data, length, large);
  }

  ucs_status_t take(void* data, std::size_t length, bool large) {
    require(length == size_, "a message of another size");
    require(arrived_ - taken_ < most_arrivals || arrived_ + 1 == taken_, "too many at once");
    Arrival& arrival = arrivals_[arrived_++ % most_arrivals];
    if (!large) {
      arrival.number = read_stamp(data, size_);
      arrival.here = true;
      return UCS_OK;
    }
    if (!spare_.empty()) {
      arrival.large = std::move(spare_.back());
      spare_.pop_back();
    }
    arrival.large.resize(size_);
    ucp_request_param_t fetch{};
    fetch.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    fetch.cb.recv_am = fetched;
    fetch.user_data = &arrival;
    void* request = ucp_am_recv_data_nbx(worker_, data, arrival.large.data(), size_, &fetch);
    if (UCS_PTR_IS_ERR(request)) check(UCS_PTR_STATUS(request), "ucp_am_recv_data_nbx");
    arrival.here = request == nullptr;
    return UCS_INPROGRESS;
  }

  static void fetched(void* request, ucs_status_t status, std::size_t /*length*/, void* arrival) {
    check(status, "a fetch");
    static_cast<Arrival*>(arrival)->here = true;
    ucp_request_free(request);
  }

  std::size_t size_;
  std::vector<Buffer> out_;
  std::size_t next_out_ = 0;
  std::vector<Arrival> arrivals_;  // a ring, in the order of arrival
  u64 arrived_ = 0;
  u64 taken_ = 0;  // one ahead of arrived_ while receive() waits
  std::vector<std::vector<char>> spare_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) {
  // Large messages in the kernel's process-to-process copy (cma) and small ones in sysv are slower.
  // What the user has set stays.
  ::setenv("UCX_TLS", "posix,self", 0);
  return cob::peers::run_ends<cob::peers::UcxEnd>(argc, argv);
}
