// Peer: gRPC over a Unix socket, messages as bytes on one bidirectional stream.
// The generic asynchronous API: no serializer takes part. Both ends poll their completion queue
// without sleeping; a stream's writes are corked, as far as its flow control lets them. gRPC has
// threads of its own, which rest. grpc.io, grpcpp/generic
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

using grpc::ByteBuffer;

// One end of the stream: the half that client and server have alike.
class StreamEnd {
 public:
  void send(u64 number) { write(number, {}); }
  void post(u64 number) {
    write(number, number == last ? grpc::WriteOptions() : grpc::WriteOptions().set_corked());
  }
  void flush() { wait(write_); }

  u64 receive() {
    wait(read_);
    grpc::Slice whole;
    require(in_.DumpToSingleSlice(&whole).ok() && whole.size() == size_,
            "a message of another size");
    const u64 number = read_stamp(whole.begin(), size_);
    read();
    return number;
  }

 protected:
  explicit StreamEnd(const Settings& settings) : size_(settings.size) {}

  struct Operation {
    bool busy = false;
    void* begin() {
      busy = true;
      return this;
    }
  };
  void poll() {
    void* tag = nullptr;
    bool good = false;
    const auto next = queue_->AsyncNext(&tag, &good, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    if (next != grpc::CompletionQueue::GOT_EVENT) return;
    if (!good) fail("the call was broken off");
    static_cast<Operation*>(tag)->busy = false;
  }
  void wait(const Operation& operation) {
    while (operation.busy) poll();
  }
  void read() { reader_->Read(&in_, read_.begin()); }

  std::size_t size_;
  std::unique_ptr<grpc::CompletionQueue> queue_;
  grpc::internal::AsyncReaderInterface<ByteBuffer>* reader_ = nullptr;
  grpc::internal::AsyncWriterInterface<ByteBuffer>* writer_ = nullptr;

 private:
  void write(u64 number, grpc::WriteOptions options) {
    grpc::Slice slice(size_);
    stamp(const_cast<u8*>(slice.begin()), size_, number);  // still ours alone
    wait(write_);
    writer_->Write(ByteBuffer(&slice, 1), options, write_.begin());
  }

  Operation read_;
  Operation write_;
  ByteBuffer in_;
};

class Client : public StreamEnd {
 public:
  Client(const Settings& settings, FdRef link) : StreamEnd(settings) {
    const std::vector<char> address = receive_blob(link);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_MINIMAL_STACK, 1);
    arguments.SetMaxReceiveMessageSize(-1);  // 4 MiB are its default
    grpc::GenericStub stub(
        grpc::CreateCustomChannel(address.data(), grpc::InsecureChannelCredentials(), arguments));
    queue_ = std::make_unique<grpc::CompletionQueue>();
    call_ = stub.PrepareCall(&context_, "/peer/stream", queue_.get());
    reader_ = call_.get();
    writer_ = call_.get();
    Operation start;
    call_->StartCall(start.begin());
    wait(start);
    read();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

class Server : public StreamEnd {
 public:
  Server(const Settings& settings, FdRef link) : StreamEnd(settings), path_(socket_path("grpc")) {
    grpc::ServerBuilder builder;
    const std::string address = "unix:" + path_;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.AddChannelArgument(GRPC_ARG_MINIMAL_STACK, 1);
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterAsyncGenericService(&service_);
    auto queue = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    require(server_ != nullptr, "the server cannot be started");
    send_blob(link, address.c_str(), address.size() + 1);
    Operation called;
    service_.RequestCall(&context_, &call_, queue.get(), queue.get(), called.begin());
    queue_ = std::move(queue);
    reader_ = &call_;
    writer_ = &call_;
    wait(called);
    read();
  }

  void serve_until_closed(FdRef link) {
    char byte = 0;
    while (::recv(link.get(), &byte, 1, MSG_DONTWAIT) != 0) poll();
    ::unlink(path_.c_str());
  }

 private:
  std::string path_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter call_{&context_};
};

int run(int argc, char** argv) {
  return run_pair(
      parse(argc, argv),
      [](const Settings& settings, FdRef link) {
        drive(settings, *new Client(settings, link));
        part(link, true);
      },
      [](const Settings& settings, FdRef link) {
        auto& server = *new Server(settings, link);
        answer(settings, server);
        server.serve_until_closed(link);
      });
}

}  // namespace
}  // namespace cob::peers

// Neither end is destroyed: an open call and its reads end with the process.
int main(int argc, char** argv) { ::_exit(cob::peers::run(argc, argv)); }
