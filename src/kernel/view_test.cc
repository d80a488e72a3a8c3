// Viewers: what a kernel tells them piece by piece, and what viewers that break the rules get.
#include "kernel/view.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "kernel/test_kernels.h"

namespace cob::kernel::test {
namespace {

class ViewTest : public testing::Test {
 protected:
  struct Piece {
    bool closed = false;
    ViewReply head;
    std::vector<std::byte> rows;
    std::vector<Fd> descriptors;
  };
  Piece reply(FdRef viewer) {
    std::vector<std::byte> bytes(65'536);
    auto got = receive_datagram(viewer, bytes, Blocking::never);
    Piece piece;
    piece.closed = got.is_error() ? got.error().code != EAGAIN : got.value().bytes == 0;
    if (got.is_error() || got.value().bytes < sizeof piece.head) return piece;
    std::memcpy(&piece.head, bytes.data(), sizeof piece.head);
    piece.rows.assign(bytes.begin() + sizeof piece.head,
                      bytes.begin() + static_cast<std::ptrdiff_t>(got.value().bytes));
    piece.descriptors = std::move(got.value().descriptors);
    return piece;
  }
  Piece ask(FdRef viewer, ViewKind kind, u32 cursor = 0, net::CaptureOptions capture = {}) {
    ViewRequest request;
    request.kind = static_cast<u32>(kind);
    request.cursor = cursor;
    request.capture = capture;
    (void)send_struct(viewer, request, {}, Blocking::never);
    kernels_.host_turn();
    return reply(viewer);
  }
  template <typename Row>
  std::vector<Row> rows(FdRef viewer, ViewKind kind, u32* pieces = nullptr) {
    std::vector<Row> all;
    u32 cursor = 0;
    do {
      const Piece piece = ask(viewer, kind, cursor);
      EXPECT_EQ(piece.head.kind, static_cast<u32>(kind));
      EXPECT_EQ(piece.rows.size(), piece.head.rows * sizeof(Row));
      EXPECT_LE(piece.head.rows, view_rows);
      const std::size_t before = all.size();
      all.resize(before + piece.head.rows);
      if (!piece.rows.empty())
        std::memcpy(static_cast<void*>(all.data() + before), piece.rows.data(), piece.rows.size());
      cursor = piece.head.cursor;
      if (pieces != nullptr) ++*pieces;
    } while (cursor != 0);
    return all;
  }
  u32 generation(Played& p, u32 slot) {
    return p.line(slot).generation + (p.line(slot).state == call::SocketState::free ? 1 : 0);
  }
  void listen(Played& p, u32 slot, u16 port, u32 backlog) {
    for (const call::Op op : {call::Op::bind, call::Op::listen}) {
      call::CallSlot c = slot_call(op, slot, generation(p, slot));
      if (op == call::Op::bind) c.a[1] = port;
      if (op == call::Op::listen) c.a[0] = backlog;
      ASSERT_GE(kernels_.call(p, c), 0);
    }
  }
  void connect(Played& p, u32 slot, u16 port) {
    call::CallSlot c = slot_call(call::Op::connect, slot, generation(p, slot));
    c.a[0] = cob_address;
    c.a[1] = port;
    ASSERT_TRUE(p.post(c));
    ASSERT_TRUE(kernels_.until([&] { return p.line(slot).state == call::SocketState::connected; }));
  }

  TwoKernels kernels_;
};

TEST_F(ViewTest, ListenersAndBothEndsOfConnections) {
  auto server = kernels_.attached(1), client = kernels_.attached(0);
  listen(*server, 1, 80, 16);
  for (u32 i = 1; i <= 3; ++i) connect(*client, i, 80);
  kernels_.turns(20);
  const Fd at_server = kernels_.viewer(1), at_client = kernels_.viewer(0);
  const auto listeners = rows<SocketRow>(at_server.ref(), ViewKind::listeners);
  ASSERT_EQ(listeners.size(), 1u);
  EXPECT_EQ(listeners[0].state, state_listening);
  EXPECT_EQ(listeners[0].local_port, 80);
  EXPECT_EQ(listeners[0].receive_queue, 3u);  // nobody accepts
  EXPECT_EQ(listeners[0].send_queue, 16u);
  EXPECT_EQ(listeners[0].holders, 1u);
  EXPECT_EQ(listeners[0].pid[0], 7u);
  EXPECT_TRUE(rows<SocketRow>(at_client.ref(), ViewKind::listeners).empty());
  std::set<u16> theirs, ours;
  for (const SocketRow& row : rows<SocketRow>(at_server.ref(), ViewKind::connections)) {
    EXPECT_EQ(row.state, static_cast<u8>(net::TcpState::established));
    EXPECT_EQ(row.route, 0);
    EXPECT_NE(row.flags & row_unaccepted, 0);
    theirs.insert(row.remote_port);
  }
  for (const SocketRow& row : rows<SocketRow>(at_client.ref(), ViewKind::connections)) {
    EXPECT_EQ(row.route, 1);
    EXPECT_EQ(row.pid[0], 7u);
    EXPECT_EQ(row.flags & row_unaccepted, 0);
    ours.insert(row.local_port);
  }
  EXPECT_EQ(ours.size(), 3u);
  EXPECT_EQ(ours, theirs);
}

TEST_F(ViewTest, QueuesWithoutDisturbing) {
  auto server = kernels_.attached(1), client = kernels_.attached(0);
  listen(*server, 1, 80, 16);
  connect(*client, 1, 80);
  call::CallSlot send = slot_call(call::Op::send, 1, client->line(1).generation);
  send.a[0] = 600;
  send.a[1] = 0;  // the first of its chunks
  ASSERT_TRUE(client->post(send));
  kernels_.turns(100);
  const Fd viewer = kernels_.viewer(1);
  for (int i = 0; i < 3; ++i) {
    const auto found = rows<SocketRow>(viewer.ref(), ViewKind::connections);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].receive_queue, 600u);
    EXPECT_EQ(found[0].bytes_received, 600u);
  }
}

TEST_F(ViewTest, LongTablesComeInPieces) {
  auto server = kernels_.attached(1), client = kernels_.attached(0);
  listen(*server, 1, 80, 200);
  for (u32 i = 1; i <= 100; ++i) connect(*client, i, 80);
  const Fd viewer = kernels_.viewer(0);
  u32 pieces = 0;
  EXPECT_EQ(rows<SocketRow>(viewer.ref(), ViewKind::connections, &pieces).size(), 100u);
  EXPECT_EQ(pieces, 2u);
}

TEST_F(ViewTest, CountersAndDevice) {
  auto server = kernels_.attached(1), client = kernels_.attached(0);
  listen(*server, 1, 80, 16);
  connect(*client, 1, 80);
  const Fd viewer = kernels_.viewer(0);
  std::map<std::string, u64> counters;
  for (const CounterRow& row : rows<CounterRow>(viewer.ref(), ViewKind::counters))
    counters[row.name] = row.value;
  EXPECT_EQ(counters.at("TcpActiveOpens"), 1u);
  EXPECT_EQ(counters.at("TcpPassiveOpens"), 0u);
  EXPECT_EQ(counters.at("CobTcpConnections"), 1u);
  EXPECT_GE(counters.at("CobOutFrames"), 2u);
  const auto device = rows<DeviceRow>(viewer.ref(), ViewKind::device);
  ASSERT_EQ(device.size(), 1u);
  EXPECT_EQ(device[0].address, cob_address);
  EXPECT_EQ(device[0].kernels, 2);
  EXPECT_EQ(device[0].mtu, 0xffffu);
}

TEST_F(ViewTest, ACaptureLastsAsLongAsItsViewer) {
  auto server = kernels_.attached(1), client = kernels_.attached(0);
  listen(*server, 1, 80, 16);
  std::vector<Fd> viewers;
  std::vector<Piece> captures;
  for (std::size_t i = 0; i < net::FrameTap::max_captures; ++i) {
    viewers.push_back(kernels_.viewer(0));
    captures.push_back(ask(viewers.back().ref(), ViewKind::capture));
    ASSERT_EQ(captures.back().descriptors.size(), 2u);
  }
  const Fd late = kernels_.viewer(0);
  EXPECT_EQ(ask(late.ref(), ViewKind::capture).head.error, EBUSY);
  connect(*client, 1, 80);
  auto reader =
      net::CaptureReader::open(captures[0].descriptors[0].ref(), captures[0].descriptors[1].ref())
          .release_value();
  net::CaptureReader::Frame frame;
  ASSERT_EQ(reader.take(frame), net::CaptureReader::Outcome::frame);  // the SYN
  EXPECT_EQ(frame.record.outgoing, 1);
  EXPECT_EQ(frame.record.peer, 1);
  EXPECT_EQ(frame.record.checksum_not_computed, 1);
  viewers.erase(viewers.begin());
  kernels_.host_turn();
  while (reader.take(frame) == net::CaptureReader::Outcome::frame) reader.release();
  connect(*client, 2, 80);
  EXPECT_EQ(reader.take(frame), net::CaptureReader::Outcome::nothing);
  EXPECT_EQ(ask(late.ref(), ViewKind::capture).descriptors.size(), 2u);  // its place is free
}

TEST_F(ViewTest, ViewersThatBreakTheRulesAreClosed) {
  {
    const Fd viewer = kernels_.viewer(0);
    (void)send_struct(viewer.ref(), u32{1});
    kernels_.host_turn();
    EXPECT_TRUE(reply(viewer.ref()).closed);
  }
  {
    const Fd viewer = kernels_.viewer(0);
    EXPECT_TRUE(ask(viewer.ref(), ViewKind{99}).closed);
  }
  {
    const Fd viewer = kernels_.viewer(0);
    ViewRequest request;
    request.version = 1;
    request.kind = static_cast<u32>(ViewKind::device);
    (void)send_struct(viewer.ref(), request);
    kernels_.host_turn();
    EXPECT_TRUE(reply(viewer.ref()).closed);
  }
  {
    const Fd viewer = kernels_.viewer(0);
    net::CaptureOptions options;
    options.filter.count = 1'000;
    EXPECT_EQ(ask(viewer.ref(), ViewKind::capture, 0, options).head.error, EINVAL);
    EXPECT_FALSE(ask(viewer.ref(), ViewKind::capture).closed);
    EXPECT_TRUE(ask(viewer.ref(), ViewKind::capture).closed);  // a second one
  }
  // Cursors from nowhere show nothing, and end.
  const Fd viewer = kernels_.viewer(0);
  for (const ViewKind kind :
       {ViewKind::listeners, ViewKind::connections, ViewKind::time_wait, ViewKind::neighbours}) {
    const Piece piece = ask(viewer.ref(), kind, 0xffff'ffff);
    EXPECT_FALSE(piece.closed);
    EXPECT_EQ(piece.head.cursor, 0u);
    EXPECT_EQ(piece.head.rows, 0u);
  }
}

TEST_F(ViewTest, OneThatAsksAndDoesNotReadIsClosed) {
  const Fd viewer = kernels_.viewer(0);
  ViewRequest request;
  request.kind = static_cast<u32>(ViewKind::counters);
  for (int i = 0; i < 2'000; ++i) {
    if (send_struct(viewer.ref(), request, {}, Blocking::never).is_error()) kernels_.host_turn();
  }
  kernels_.turns(4'000, Duration::microseconds(600));
  u32 replies = 0;
  Piece piece;
  while (!(piece = reply(viewer.ref())).closed && piece.head.rows != 0) ++replies;
  EXPECT_TRUE(piece.closed);
  EXPECT_GT(replies, 0u);
}

TEST_F(ViewTest, SoManyViewers) {
  std::vector<Fd> viewers;
  for (int i = 0; i < 8; ++i) viewers.push_back(kernels_.viewer(0));
  for (const Fd& viewer : viewers) EXPECT_FALSE(ask(viewer.ref(), ViewKind::device).closed);
  const Fd late = kernels_.viewer(0);
  EXPECT_TRUE(reply(late.ref()).closed);
  viewers.pop_back();
  kernels_.host_turn();
  const Fd next = kernels_.viewer(0);
  EXPECT_FALSE(ask(next.ref(), ViewKind::device).closed);
}

}  // namespace
}  // namespace cob::kernel::test
