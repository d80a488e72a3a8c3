// Peer: libfabric, messages of a reliable datagram endpoint of the `shm` provider.
// a sender never has more outstanding. One thread a process. fi_msg(3), fi_cq(3), fi_shm(7)
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

#include <algorithm>
#include <cstdlib>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

void check(ssize_t status, const char* what) {
  if (status < 0) fail(std::string(what) + ": " + fi_strerror(static_cast<int>(-status)));
}

class FabricEnd {
 public:
  FabricEnd(const Settings& settings, FdRef link, bool /*driver*/)
      : size_(settings.size), out_(settings.window()), in_(2 * settings.window()) {
    // The kernel's process-to-process copy is slower for large ones. What the user has set stays.
    if (size_ > 16'384) ::setenv("FI_SHM_DISABLE_CMA", "1", 0);
    open();
    for (Buffer& buffer : out_) buffer.data.resize(size_);
    for (Buffer& buffer : in_) {
      buffer.data.resize(size_);
      post_receive(buffer);
    }
    std::vector<char> name(256);
    std::size_t length = name.size();
    check(fi_getname(&endpoint_->fid, name.data(), &length), "fi_getname");
    send_blob(link, name.data(), length);
    const std::vector<char> theirs = receive_blob(link);
    if (fi_av_insert(addresses_, theirs.data(), 1, &peer_, 0, nullptr) != 1) fail("fi_av_insert");
  }

  void send(u64 number) { post(number); }

  void post(u64 number) {
    Buffer& buffer = out_[next_out_];
    next_out_ = next_out_ + 1 == out_.size() ? 0 : next_out_ + 1;
    while (buffer.busy) poll();
    stamp(buffer.data.data(), size_, number);
    buffer.busy = size_ > inject_size_;
    for (;;) {
      const ssize_t status = buffer.busy ? fi_send(endpoint_, buffer.data.data(), size_, nullptr,
                                                   peer_, &buffer.context)
                                         : fi_inject(endpoint_, buffer.data.data(), size_, peer_);
      if (status == 0) return;
      if (status != -FI_EAGAIN) check(status, "fi_send");
      poll();
    }
  }

  void flush() {
    for (const Buffer& buffer : out_) {
      while (buffer.busy) poll();
    }
  }

  u64 receive() {
    Buffer& buffer = in_[next_in_];
    next_in_ = next_in_ + 1 == in_.size() ? 0 : next_in_ + 1;
    while (buffer.busy) poll();
    const u64 number = read_stamp(buffer.data.data(), size_);
    post_receive(buffer);
    return number;
  }

 private:
  struct Buffer {
    fi_context2 context{};  // first: a completion names it
    bool busy = false;
    std::vector<char> data;
  };

  void open() {
    fi_info* hints = fi_allocinfo();
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_LOCAL | FI_MR_PROV_KEY;
    hints->tx_attr->msg_order = FI_ORDER_SAS;
    hints->rx_attr->msg_order = FI_ORDER_SAS;
    hints->fabric_attr->prov_name = ::strdup("shm");
    fi_info* info = nullptr;
    check(fi_getinfo(FI_VERSION(1, 15), nullptr, nullptr, 0, hints, &info), "fi_getinfo");
    inject_size_ = info->tx_attr->inject_size;
    fid_fabric* fabric = nullptr;
    fid_domain* domain = nullptr;
    check(fi_fabric(info->fabric_attr, &fabric, nullptr), "fi_fabric");
    check(fi_domain(fabric, info, &domain, nullptr), "fi_domain");
    fi_av_attr av{};
    av.type = FI_AV_TABLE;
    check(fi_av_open(domain, &av, &addresses_, nullptr), "fi_av_open");
    fi_cq_attr cq{};
    cq.format = FI_CQ_FORMAT_CONTEXT;
    cq.wait_obj = FI_WAIT_NONE;
    check(fi_cq_open(domain, &cq, &completions_, nullptr), "fi_cq_open");
    check(fi_endpoint(domain, info, &endpoint_, nullptr), "fi_endpoint");
    check(fi_ep_bind(endpoint_, &addresses_->fid, 0), "fi_ep_bind");
    check(fi_ep_bind(endpoint_, &completions_->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
    check(fi_enable(endpoint_), "fi_enable");
    fi_freeinfo(info);
    fi_freeinfo(hints);
  }

  void post_receive(Buffer& buffer) {
    buffer.busy = true;
    check(fi_recv(endpoint_, buffer.data.data(), size_, nullptr, FI_ADDR_UNSPEC, &buffer.context),
          "fi_recv");
  }

  void poll() {
    fi_cq_entry entries[16];
    const ssize_t count = fi_cq_read(completions_, entries, std::size(entries));
    if (count == -FI_EAGAIN) return;
    check(count, "fi_cq_read");
    for (ssize_t i = 0; i < count; ++i) static_cast<Buffer*>(entries[i].op_context)->busy = false;
  }

  std::size_t size_;
  std::size_t inject_size_ = 0;
  std::vector<Buffer> out_;
  std::vector<Buffer> in_;
  std::size_t next_out_ = 0;
  std::size_t next_in_ = 0;
  fid_av* addresses_ = nullptr;
  fid_cq* completions_ = nullptr;
  fid_ep* endpoint_ = nullptr;
  fi_addr_t peer_ = FI_ADDR_UNSPEC;
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run_ends<cob::peers::FabricEnd>(argc, argv); }
