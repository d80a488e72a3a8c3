// TestLayer: the simplest honest SocketLayer: streams in vectors, every callback recorded. For
// tests and fuzzers.
// Model: a connection is known by its cookie; `capacity` bounds what it holds unread, as a real
// layer would.
// Owned by the test.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "net/stack/stack.h"

namespace cob::net {

struct TestMark {
  std::size_t at;  // in `received`
  std::optional<std::byte> byte;
};

struct TestConnection {
  TcbId id;
  std::string to_send;
  std::size_t send_front = 0;  // the first unacknowledged byte of to_send
  std::string received;
  std::size_t unread = 0;
  std::size_t capacity = SIZE_MAX;
  bool read_at_once = true;
  bool connected = false, peer_closed = false, closed = false;
  bool closing = false;  // the test's own note: nothing more is sent
  int error = 0;
  std::size_t acked = 0;
  std::vector<TestMark> marks;  // as they were told of
  bool over() const { return closed || error != 0; }
};

class TestLayer final : public SocketLayer {
 public:
  Stack* stack = nullptr;
  bool accept_at_once = true;
  std::size_t capacity = SIZE_MAX;
  bool read_at_once = true;
  std::map<u64, TestConnection> connections;
  std::deque<u64> incoming;  // cookies, in order of arrival
  u64 next_cookie = 1;
  void (*on_data_hook)(TestLayer&, u64 cookie) = nullptr;
  void (*on_urgent_hook)(TestLayer&, u64 cookie) = nullptr;
  void (*on_peer_closed_hook)(TestLayer&, u64 cookie) = nullptr;

  Result<u64> connect(ConnectOptions options) {
    const u64 cookie = next_cookie++;
    options.cookie = cookie;
    const TcbId id = TRY(stack->connect(options));
    TestConnection& c = connections[cookie];
    c.id = id;
    c.capacity = capacity;
    c.read_at_once = read_at_once;
    return cookie;
  }
  void send(u64 cookie, std::string_view bytes) {
    TestConnection& c = connections.at(cookie);
    c.to_send += bytes;
    stack->send_available(c.id, bytes.size());
  }
  void consume(u64 cookie, std::size_t bytes) {
    TestConnection& c = connections.at(cookie);
    c.unread -= bytes;
    stack->receive_consumed(c.id, bytes);
  }
  void close(u64 cookie) { stack->close(connections.at(cookie).id); }
  TestConnection& operator[](u64 cookie) { return connections.at(cookie); }

  void on_incoming(ListenerId, TcbId tcb) override {
    const u64 cookie = next_cookie++;
    TestConnection& c = connections[cookie];
    c.id = tcb;
    c.connected = true;
    c.capacity = capacity;
    c.read_at_once = read_at_once;
    stack->set_cookie(tcb, cookie);
    incoming.push_back(cookie);
    if (accept_at_once) stack->accepted(tcb);
  }
  void on_connected(TcbId tcb, u64 cookie) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(!c.connected);
    c.connected = true;
  }
  std::size_t on_data(TcbId tcb, u64 cookie, std::span<const std::byte> payload) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(c.connected && !c.peer_closed && !c.over() && !payload.empty());
    const std::size_t room = c.capacity > c.unread ? c.capacity - c.unread : 0;
    const std::size_t taken = std::min(room, payload.size());
    c.received.append(reinterpret_cast<const char*>(payload.data()), taken);
    if (c.read_at_once) {
      stack->receive_consumed(tcb, taken);
    } else {
      c.unread += taken;
    }
    if (on_data_hook != nullptr) on_data_hook(*this, cookie);
    return taken;
  }
  u32 most_receive_buffer = 0;  // 0: none grows
  u32 grow_receive_buffer(TcbId, u64, u32 wanted) override {
    return std::min(wanted, most_receive_buffer);
  }
  void on_urgent(TcbId tcb, u64 cookie, u32 ahead, std::optional<std::byte> byte) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(c.connected && !c.peer_closed && !c.over());
    c.marks.push_back({.at = c.received.size() + ahead, .byte = byte});
    if (on_urgent_hook != nullptr) on_urgent_hook(*this, cookie);
  }
  void on_peer_closed(TcbId tcb, u64 cookie) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(!c.peer_closed);
    c.peer_closed = true;
    if (on_peer_closed_hook != nullptr) on_peer_closed_hook(*this, cookie);
  }
  void on_acked(TcbId tcb, u64 cookie, std::size_t bytes) override {
    TestConnection& c = at(tcb, cookie);
    c.send_front += bytes;
    c.acked += bytes;
    VERIFY(c.send_front <= c.to_send.size());
    if (c.send_front < c.to_send.size() / 2) return;  // so that a long stream is moved seldom
    c.to_send.erase(0, c.send_front);
    c.send_front = 0;
  }
  void read_send_buffer(TcbId tcb, u64 cookie, std::size_t offset,
                        std::span<std::byte> out) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(c.send_front + offset + out.size() <= c.to_send.size());
    std::memcpy(out.data(), c.to_send.data() + c.send_front + offset, out.size());
  }
  void on_error(TcbId tcb, u64 cookie, int error) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(!c.over());
    c.error = error;
  }
  void on_closed(TcbId tcb, u64 cookie) override {
    TestConnection& c = at(tcb, cookie);
    VERIFY(!c.over());
    c.closed = true;
  }
  struct TestDatagram {
    u64 cookie;
    UdpReceived from;
    std::string data;
  };
  std::deque<TestDatagram> datagrams;
  std::deque<std::pair<u64, int>> datagram_errors;
  void on_datagram(u64 cookie, const UdpReceived& from,
                   std::span<const std::byte> payload) override {
    datagrams.push_back(
        {cookie, from, {reinterpret_cast<const char*>(payload.data()), payload.size()}});
  }
  void on_datagram_error(u64 cookie, int error) override {
    datagram_errors.emplace_back(cookie, error);
  }

 private:
  TestConnection& at(TcbId tcb, u64 cookie) {
    TestConnection& c = connections.at(cookie);
    VERIFY(c.id == tcb || c.id == no_tcb);
    c.id = tcb;
    return c;
  }
};

}  // namespace cob::net
