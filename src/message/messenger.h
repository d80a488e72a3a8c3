// Messenger: typed messages and requests between the kernels of an island, over its Links.
// Model: run to completion: send() and request() write, flush() rings sleepers, poll() delivers and
// fires deadlines; no room is EAGAIN, a reply's room is reserved. Owned by the kernel's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "message/links.h"
#include "message/requests.h"

namespace cob::message {

class Messenger;

// The right and the duty to answer one request, once. Unanswered at its end it answers ECANCELED.
// Must not outlive the Messenger. After the requester's death answering does nothing.
class AnyReplyToken {
 public:
  AnyReplyToken() = default;
  AnyReplyToken(AnyReplyToken&& other) noexcept;
  AnyReplyToken& operator=(AnyReplyToken&& other) noexcept;
  AnyReplyToken(const AnyReplyToken&) = delete;
  AnyReplyToken& operator=(const AnyReplyToken&) = delete;
  ~AnyReplyToken();

  bool valid() const { return messenger_ != nullptr; }
  KernelId requester() const { return KernelId(peer_); }
  // Answers with an error; `code` is a Linux errno. REQUIRES: valid().
  void fail(int code);

 protected:
  friend class Messenger;
  AnyReplyToken(Messenger& messenger, const Link& link, const Slot& head, Priority priority)
      : messenger_(&messenger),
        generation_(link.generation),
        tag_(head.tag),
        peer_(link.peer),
        reply_lines_(head.detail),
        priority_(priority) {}
  void answer_bytes(MessageType type, std::span<const std::byte> bytes);

  Messenger* messenger_ = nullptr;
  u32 generation_ = 0;
  u32 tag_ = 0;
  u16 peer_ = 0;
  u16 reply_lines_ = 0;  // that the requester has reserved
  Priority priority_ = Priority::normal;
};

template <FlatMessage Reply>
class ReplyToken : public AnyReplyToken {
 public:
  ReplyToken() = default;
  explicit ReplyToken(AnyReplyToken&& token) : AnyReplyToken(std::move(token)) {}
  // REQUIRES: valid(). The token is spent.
  void answer(const Reply& reply) {
    answer_bytes(Reply::type, std::as_bytes(std::span<const Reply, 1>(&reply, 1)));
  }
};

class Messenger {
 public:
  // Kernel ids run from 0 to kernels - 1. `own_epoch` is this kernel's, from 1. It counts in
  // `stats`, StatsPage::bytes_for(kernels) that outlive it, for others to read; if empty, in
  // private memory.
  static Result<std::unique_ptr<Messenger>> create(KernelId self, u32 own_epoch, u16 kernels,
                                                   std::span<std::byte> stats = {});
  // Continuations still waiting are destroyed unrun.
  ~Messenger();

  // --- What this kernel understands. All of it before the first open_link(); one handler a type.
  // on<M>([](KernelId from, const M&) -> void).
  // on<Req, Rep>([](KernelId from, const Req&) -> Result<Rep>), or
  // on<Req, Rep>([](KernelId from, const Req&, ReplyToken<Rep>) -> void) to answer later.
  // The message is a private copy, valid during the call. Handlers and continuations may send and
  // request, but may not call poll(), peer_up() or peer_down().
  template <FlatMessage M, typename Handler>
    requires std::is_invocable_r_v<void, Handler&, KernelId, const M&>
  void on(Handler handler) {
    know<M>();
    add_handler(M::type, MessageKind::one_way, priority_of<M>, sizeof(M),
                [h = std::move(handler)](Received& r) mutable { h(r.from, as<M>(r.bytes)); });
  }
  template <FlatMessage Request, FlatMessage Reply, typename Handler>
    requires std::is_invocable_r_v<Result<Reply>, Handler&, KernelId, const Request&> ||
             std::is_invocable_r_v<void, Handler&, KernelId, const Request&, ReplyToken<Reply>>
  void on(Handler handler) {
    know<Request>();
    know<Reply>();
    add_handler(Request::type, MessageKind::request, priority_of<Request>, sizeof(Request),
                [h = std::move(handler)](Received& r) mutable {
                  ReplyToken<Reply> token(std::move(r.token));
                  if constexpr (std::is_invocable_v<Handler&, KernelId, const Request&>) {
                    Result<Reply> reply = h(r.from, as<Request>(r.bytes));
                    if (reply.is_error()) {
                      token.fail(reply.error().code);
                    } else {
                      token.answer(reply.value());
                    }
                  } else {
                    h(r.from, as<Request>(r.bytes), std::move(token));
                  }
                });
  }
  // A type that this kernel only sends, or only receives as a reply.
  template <FlatMessage M>
  void know() {
    links_->know(M::type, schema_hash<M>());
  }

  // --- Peers.
  // Prepares fresh outbound memory for `peer` at `peer_epoch`, and returns a descriptor of it for
  // the supervisor. What a former epoch of the peer left is dropped as by peer_down(). EEXIST if
  // this epoch's is already open. `doorbell`: its button rings the peer, its bell is rung by the
  // peer and kept here while the link lasts; without one both ends spin.
  Result<Fd> open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell = {},
                       u64 bulk_bytes = Links::default_bulk_bytes);
  // The memory that the peer writes for us has come. Connected as soon as open_link() has been
  // called too, in either order. EPROTO, EPERM, EMSGSIZE if the memory is not what it should be;
  // the peer stays unconnected.
  Result<void> peer_up(KernelId peer, u32 peer_epoch, Fd outbound);
  // A peer that is reached in another way, and found by the transport itself, whenever it is there
  // and in whatever epoch. EEXIST if it has a transport.
  Result<void> add_transport(KernelId peer, std::unique_ptr<Transport> transport) {
    return links_->add_transport(peer, std::move(transport));
  }
  // Outstanding requests fail with ECONNRESET, unsent and unread messages are discarded. An `epoch`
  // other than the present one is ignored.
  void peer_down(KernelId peer, u32 epoch);
  bool connected(KernelId peer) const;
  // The latest epoch of the peer that was heard of, also after its end; 0: none.
  u32 peer_epoch(KernelId peer) const;
  // A peer cut off for breaking the protocol since the last call, if any: to be reported to the
  // supervisor. Its requests have failed with EPROTO.
  std::optional<KernelId> take_faulted();

  // --- Sending. To oneself too. ENETDOWN: not connected. EAGAIN: no room now (poll, then retry).
  // EOPNOTSUPP: the peer does not know the type, or with another schema, or know() was not called
  // here.
  template <FlatMessage M>
  Result<void> send(KernelId to, const M& message) {
    return send_bytes<priority_of<M>>(to, M::type,
                                      std::as_bytes(std::span<const M, 1>(&message, 1)));
  }
  // Runs `continuation(Result<Reply>)` exactly once, from a later poll() or peer_down(), unless an
  // error is returned. ETIMEDOUT at `deadline`; the handler's own error; ENOSYS if the peer has no
  // handler. At most 64 bytes of captures.
  template <FlatMessage Request, FlatMessage Reply, typename F>
    requires std::is_invocable_v<F&, Result<Reply>>
  Result<void> request(KernelId to, const Request& message, Time deadline, F continuation) {
    u32 tag = 0;
    constexpr Priority priority = priority_of<Request>;
    Requests::Entry* entry = TRY(begin_request<priority>(
        to, Request::type, Reply::type, sizeof(Request), sizeof(Reply), deadline, tag));
    entry->continuation.place(
        [f = std::move(continuation)](Result<const std::byte*> reply) mutable {
          if (reply.is_error()) {
            f(Result<Reply>(reply.error()));
          } else {
            f(Result<Reply>(as<Reply>(reply.value())));
          }
        });
    write<priority>(*links_->find(to),
                    {.kind = MessageKind::request,
                     .type = Request::type,
                     .tag = tag,
                     .detail = entry->reply_lines},
                    std::as_bytes(std::span<const Request, 1>(&message, 1)));
    return {};
  }

  // --- The loop.
  // Delivers at most `budget` messages, fairly between peers, and fires the deadlines up to `now`;
  // returns how many messages it delivered.
  std::size_t poll(Time now, std::size_t budget);
  Time next_deadline() const {
    return std::min(requests_.next_deadline(), links_->next_deadline());
  }
  // Puts what wakes a sleeper into `epoll` (transports' sockets and bells; the bells given to
  // open_link() are the caller's to watch). `epoll` must outlive the Messenger.
  Result<void> watch(FdRef epoll) { return links_->watch(epoll); }
  // Owed after sending and before sleeping: publishes frames and rings the doorbells of sleepers. A
  // spinning peer sees a message already before.
  void flush() { links_->flush(); }
  // Before sleeping: set_armed(true) (ends in a full fence), then anything_pending(), and sleep
  // only if it is false. After waking: set_armed(false).
  void set_armed(bool armed) {
    if (armed) now_ = Time::never();
    links_->set_armed(armed);
  }
  bool anything_pending() const { return links_->anything_pending(); }

  Links& links() { return *links_; }
  // REQUIRES: peer < kernels.
  const PeerStats& counters(KernelId peer) const { return links_->find(peer)->counters; }
  // The peer's bell has woken this kernel: for the counters.
  void heard(KernelId peer) {
    if (Link* link = links_->find(peer)) ++link->counters.doorbells_heard;
  }
  u32 outstanding_requests() const { return requests_.waiting(); }

 private:
  friend class AnyReplyToken;

  struct Received {
    KernelId from;
    const std::byte* bytes;
    AnyReplyToken token;
  };
  struct Handler {
    std::move_only_function<void(Received&)> run;
    u16 bytes = 0;
    MessageKind kind = MessageKind::one_way;
    Priority priority = Priority::normal;
  };

  explicit Messenger(std::unique_ptr<Links> links) : links_(std::move(links)) {}

  template <typename M>
  static const M& as(const std::byte* bytes) {
    return *std::launder(reinterpret_cast<const M*>(bytes));
  }
  Result<void> make_way(KernelId peer, u32 peer_epoch);
  void add_handler(MessageType type, MessageKind kind, Priority priority, std::size_t bytes,
                   std::move_only_function<void(Received&)> run);
  template <Priority priority>
  static auto& lane(Link& link) {
    if constexpr (priority == Priority::urgent) {
      return link.urgent;
    } else {
      return link.normal;
    }
  }
  // Inline, so that a message's size is a constant where it is copied.
  template <Priority priority, std::size_t bytes>
  Result<void> send_bytes(KernelId to, MessageType type,
                          std::span<const std::byte, bytes> message) {
    Link* link = links_->find(to);
    TRY(check_send(link, type));
    TRY(find_room<priority>(*link, lines_for(bytes)));
    write<priority>(*link, {.type = type}, message);
    return {};
  }
  [[gnu::always_inline]] inline Result<void> check_send(const Link* link, MessageType type) const {
    if (link == nullptr || !link->connected) [[unlikely]]
      return Error::of(ENETDOWN, "kernel is not connected");
    if (!link->knows(type)) [[unlikely]]
      return Error::of(EOPNOTSUPP, "message type is not known on both sides");
    return {};
  }
  template <Priority priority>
  [[gnu::always_inline]] inline Result<void> find_room(Link& link, u32 lines) {
    auto& ring = lane<priority>(link);
    const Room room = ring.out.room(lines, ring.half);
    if (room != Room::yes) [[unlikely]]
      return no_room(link, room);
    return {};
  }
  template <Priority priority>
  [[gnu::always_inline]] inline void write(Link& link, const MessageHead& head,
                                           std::span<const std::byte> bytes) {
    lane<priority>(link).out.write(head, bytes);
    links_->touch(link, touched_data);
    ++link.counters.messages_out[priority];
    link.counters.bytes_out += bytes.size();
  }
  Error no_room(Link& link, Room room);
  static bool credits_changed(const Link& link) {
    return link.normal.out.credits_changed() || link.urgent.out.credits_changed();
  }
  template <Priority priority>
  Result<Requests::Entry*> begin_request(KernelId to, MessageType request, MessageType reply,
                                         std::size_t request_bytes, std::size_t reply_bytes,
                                         Time deadline, u32& tag);
  void write_reply(const AnyReplyToken& token, const MessageHead& head,
                   std::span<const std::byte> bytes);
  template <Priority priority>
  std::size_t drain(Link& link, std::size_t budget);
  template <Priority priority>
  bool deliver(Link& link, const Slot& head, const std::byte* bytes);
  template <Priority priority>
  bool deliver_reply(Link& link, const Slot& head, const std::byte* bytes);
  bool broken(Refusal why) {
    why_broken_ = why;
    return false;
  }
  void count_answer(Link& link, const Requests::Entry& entry, int error);
  void expire(Time now);
  void drop(Link& link, Error why);
  void collect_faulted();

  std::unique_ptr<Links> links_;
  Requests requests_;
  std::array<Handler, message_types> handlers_;
  std::vector<KernelId> faulted_;
  std::size_t first_ = 0;  // where the next poll starts among the active links
  bool polling_ = false;
  Refusal why_broken_{};      // set with each false of deliver()
  Time now_ = Time::never();  // of the last poll; never(): asleep since, or none yet
  Duration turn_;             // from the poll before to that one; 0: not known
  alignas(cache_line_bytes) std::byte scratch_[max_payload_bytes];
};

}  // namespace cob::message
