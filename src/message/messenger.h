// Messenger: typed messages and requests between kernels, over its Links. docs/messaging.md.
// Model: run to completion: send() and request() write, flush() publishes and rings sleepers,
// poll() delivers and fires deadlines; no room is EAGAIN, a reply's room is reserved. Owned by the
// kernel's loop.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "message/kernel_set.h"
#include "message/links.h"
#include "message/reply_token.h"
#include "message/requests.h"

namespace cob::message {

// One outstanding request, to cancel it by.
struct RequestId {
  u32 tag = 0;
};

template <typename Handler, typename M>
concept HandlesOneWay = std::is_invocable_r_v<void, Handler&, KernelId, const M&> ||
                        std::is_invocable_r_v<void, Handler&, Incoming&, const M&>;
template <typename Handler, typename Request, typename Reply>
concept HandlesRequest =
    std::is_invocable_r_v<Result<Reply>, Handler&, KernelId, const Request&> ||
    std::is_invocable_r_v<Result<Reply>, Handler&, Incoming&, const Request&> ||
    std::is_invocable_r_v<void, Handler&, KernelId, const Request&, ReplyToken<Reply>> ||
    std::is_invocable_r_v<void, Handler&, Incoming&, const Request&, ReplyToken<Reply>>;

class Messenger {
 public:
  // Kernel ids run from 0 to kernels - 1, at most max_kernels. `own_epoch` is this kernel's,
  // from 1. It counts in `stats`, StatsPage::bytes_for(kernels) that outlive it, for others to
  // read; if empty, in private memory.
  static Result<std::unique_ptr<Messenger>> create(KernelId self, u32 own_epoch, u16 kernels,
                                                   std::span<std::byte> stats = {});
  // Continuations still waiting are destroyed unrun.
  ~Messenger();

  // --- What this kernel understands. All of it before the first open_link(); one handler a type.
  // on<M>([](KernelId from, const M&) -> void).
  // on<Req, Rep>([](KernelId from, const Req&) -> Result<Rep>), or
  // on<Req, Rep>([](KernelId from, const Req&, ReplyToken<Rep>) -> void) to answer later.
  // Where a tail or a loan may come, Incoming& in place of KernelId.
  // The message is a private copy, valid during the call. Handlers and continuations may send and
  // request, but may not call poll(), peer_up() or peer_down().
  template <FlatMessage M, typename Handler>
    requires HandlesOneWay<Handler, M>
  void on(Handler handler) {
    know<M>();
    add_handler({.kind = MessageKind::one_way, .type = M::type}, handler_of<M>(),
                [h = std::move(handler)](Arrival& a) mutable {
                  M room;
                  h(from_of<Handler, M>(a), as_message<M>(a, room));
                });
  }
  template <FlatMessage Request, FlatMessage Reply, typename Handler>
    requires HandlesRequest<Handler, Request, Reply>
  void on(Handler handler) {
    know<Request>();
    know<Reply>();
    add_handler(
        {.kind = MessageKind::request, .type = Request::type}, handler_of<Request>(),
        [h = std::move(handler)](Arrival& a) mutable {
          Request room;
          const Request& request = as_message<Request>(a, room);
          ReplyToken<Reply> token(std::move(a.token));
          using Token = ReplyToken<Reply>;
          if constexpr (std::is_invocable_v<Handler&, KernelId, const Request&, Token>) {
            h(a.incoming.from, request, std::move(token));
          } else if constexpr (std::is_invocable_v<Handler&, Incoming&, const Request&, Token>) {
            h(a.incoming, request, std::move(token));
          } else {
            Result<Reply> reply = h(from_of<Handler, Request>(a), request);
            if (reply.is_error()) {
              token.fail(reply.error().code);
            } else {
              token.answer(reply.value());
            }
          }
        });
  }
  // A type that this kernel only sends, or only receives as a reply.
  template <FlatMessage M>
  void know() {
    static_assert(
        priority_of<M> == Priority::normal || sizeof(M) + max_tail_of<M> <= max_urgent_bytes,
        "an urgent message is short");
    links_->know<M>();
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
  // Takes it away again, for another: the session ends as by peer_down(). ENOENT if there is none.
  Result<void> remove_transport(KernelId peer);
  // Who hears in poll(), before anything is delivered, that a session of such a peer has begun or
  // has ended; it may send and request.
  void on_session(std::move_only_function<void(KernelId peer, bool begun)> changed) {
    session_changed_ = std::move(changed);
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
  // EOPNOTSUPP: not known to the peer, or know() was not called here. EPROTONOSUPPORT: the peer has
  // another schema of it. EMSGSIZE: the tail is longer than the type allows.
  template <FlatMessage M>
  Result<void> send(KernelId to, const M& message) {
    return send_bytes<priority_of<M>>(to, M::type, bytes_of(message));
  }
  // With a tail, and with a buffer of allocate(`to`, ...) if M::may_lend.
  template <FlatMessage M>
  Result<void> send(KernelId to, const M& message, const With& with) {
    static_assert(max_tail_of<M> > 0 || lends<M>, "the type has neither tail nor loan");
    Link* link = links_->find(to);
    TRY(check_send(link, M::type));
    TRY(check_with<M>(*link, with));
    TRY(find_room<priority_of<M>>(*link, lines_for(length_of(sizeof(M), with))));
    write_with<priority_of<M>>(*link, {.type = M::type}, bytes_of(message), with);
    return {};
  }
  // To each of `to`, as send(). Returns those that it was not sent to; one without room does not
  // hold up the others. Why not: send() to it says.
  template <FlatMessage M>
  KernelSet multicast(const KernelSet& to, const M& message, std::span<const std::byte> tail = {}) {
    KernelSet missed;
    to.for_each([&](KernelId kernel) {
      const auto sent = tail.empty() ? send(kernel, message) : send_tail(kernel, message, tail);
      if (sent.is_error()) missed.add(kernel);
    });
    return missed;
  }
  // Runs `continuation(Result<Reply>)`, or `continuation(Result<Reply>, Incoming&)` where a tail or
  // a loan may come, exactly once, from a later poll(), cancel() or peer_down(), unless an error is
  // returned. ETIMEDOUT at `deadline`; ECANCELED; the handler's own error; ENOSYS if the peer has
  // no handler. EMSGSIZE: the peer's newer reply to an urgent request is too long. At most 64 bytes
  // of captures. The reply travels with the request's priority.
  template <FlatMessage Request, FlatMessage Reply, typename F>
    requires std::is_invocable_v<F&, Result<Reply>> ||
             std::is_invocable_v<F&, Result<Reply>, Incoming&>
  Result<RequestId> request(KernelId to, const Request& message, Time deadline, F continuation) {
    return request<Request, Reply>(to, message, With{}, deadline, std::move(continuation));
  }
  template <FlatMessage Request, FlatMessage Reply, typename F>
    requires std::is_invocable_v<F&, Result<Reply>> ||
             std::is_invocable_v<F&, Result<Reply>, Incoming&>
  Result<RequestId> request(KernelId to, const Request& message, const With& with, Time deadline,
                            F continuation) {
    constexpr Priority priority = priority_of<Request>;
    static_assert(
        priority == Priority::normal || sizeof(Reply) + max_tail_of<Reply> <= max_urgent_bytes,
        "the reply to an urgent request is short");
    Link* link = links_->find(to);
    TRY(check_send(link, Request::type));
    TRY(check_send(link, Reply::type));
    TRY(check_with<Request>(*link, with));
    TRY(find_room<priority>(*link, lines_for(length_of(sizeof(Request), with))));
    RequestId id;
    Requests::Entry* entry = TRY(begin_request<priority>(
        *link, Reply::type, {.max_tail = max_tail_of<Reply>, .lends = lends<Reply>}, deadline, id));
    entry->continuation.place([f = std::move(continuation)](Arrival* arrival,
                                                            const Error* why) mutable {
      Reply room;
      Incoming none;
      Incoming& incoming = arrival == nullptr ? none : arrival->incoming;
      Result<Reply> reply = arrival == nullptr ? Result<Reply>(*why)
                                               : Result<Reply>(as_message<Reply>(*arrival, room));
      if constexpr (std::is_invocable_v<F&, Result<Reply>>) {
        f(std::move(reply));
      } else {
        f(std::move(reply), incoming);
      }
    });
    write_with<priority>(*link,
                         {.kind = MessageKind::request,
                          .type = Request::type,
                          .tag = id.tag,
                          .detail = entry->reply_lines},
                         bytes_of(message), with);
    return id;
  }
  // Ends the request now: its continuation runs with ECANCELED, the peer is told if there is room,
  // and a late reply is dropped. False if it has already ended.
  bool cancel(RequestId id);
  // A buffer of `bytes` to fill and to lend to `to`. EAGAIN: no room until the peer gives back;
  // EMSGSIZE: more than the link's bulk area; ENETDOWN.
  Result<Buffer> allocate(KernelId to, u64 bytes);

  // --- The loop.
  // Delivers at most `budget` messages, fairly between peers, but up to 16 urgent ones of each peer
  // whatever the budget, and fires the deadlines up to `now`;
  // returns how many messages it delivered.
  std::size_t poll(Time now, std::size_t budget);
  Time next_deadline() const {
    return std::min(requests_.next_deadline(), links_->next_deadline());
  }
  // Puts what wakes a sleeper into `epoll` (transports' sockets and bells; the bells given to
  // open_link() are the caller's to watch). `epoll` must outlive the Messenger.
  Result<void> watch(FdRef epoll) { return links_->watch(epoll); }
  // Owed after sending and before sleeping: publishes messages and frames, and rings the doorbells
  // of sleepers. poll() publishes messages too, before and after it delivers.
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

  // What may come beside a type's struct.
  struct Beside {
    std::size_t max_tail = 0;
    bool lends = false;
  };
  struct Handler {
    std::move_only_function<void(Arrival&)> run;
    Beside beside;
    MessageKind kind = MessageKind::one_way;
    Priority priority = Priority::normal;
  };
  // Of a message that nobody handles.
  static constexpr Beside any_beside{.max_tail = max_message_bytes, .lends = true};

  template <FlatMessage M>
  static constexpr Handler handler_of() {
    return {.run = {},
            .beside = {.max_tail = max_tail_of<M>, .lends = lends<M>},
            .priority = priority_of<M>};
  }
  // Whom or with what: as the handler wants it.
  template <typename Handler, typename M>
  static decltype(auto) from_of(Arrival& arrival) {
    if constexpr (std::is_invocable_v<Handler&, KernelId, const M&>) {
      return KernelId(arrival.incoming.from);
    } else {
      return (arrival.incoming);
    }
  }
  template <FlatMessage M>
  static std::span<const std::byte, sizeof(M)> bytes_of(const M& message) {
    return std::as_bytes(std::span<const M, 1>(&message, 1));
  }
  static std::size_t length_of(std::size_t bytes, const With& with) {
    return bytes + with.tail.size() + (with.lend != nullptr ? sizeof(LoanReference) : 0);
  }

  explicit Messenger(std::unique_ptr<Links> links) : links_(std::move(links)) {}

  Result<void> make_way(KernelId peer, u32 peer_epoch);
  void add_handler(const MessageHead& head, Handler handler,
                   std::move_only_function<void(Arrival&)> run);
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
    if (link->agreed.bytes[type.value] == 0) [[unlikely]]
      return unknown(*link, type);
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
  template <Priority priority, std::size_t extent>
  [[gnu::always_inline]] inline void write(Link& link, MessageHead head,
                                           std::span<const std::byte, extent> bytes) {
    lane<priority>(link).out.write(head, bytes);
    links_->touch(link, touched_data);
    ++link.counters.messages_out[priority];
    link.counters.bytes_out += bytes.size();
  }
  template <FlatMessage M>
  Result<void> check_with(Link& link, const With& with) {
    if (with.tail.size() > max_tail_of<M>) [[unlikely]]
      return Error::of(EMSGSIZE, "tail is longer than its type allows");
    if (with.lend == nullptr) return {};
    VERIFY(lends<M>);
    return check_loan(link, *with.lend);
  }
  template <FlatMessage M>
  Result<void> send_tail(KernelId to, const M& message, std::span<const std::byte> tail) {
    if constexpr (max_tail_of<M> > 0) {
      return send(to, message, With{.tail = tail});
    } else {
      return Error::of(EMSGSIZE, "the type has no tail");
    }
  }
  template <Priority priority, std::size_t extent>
  [[gnu::always_inline]] inline void write_with(Link& link, MessageHead head,
                                                std::span<const std::byte, extent> bytes,
                                                const With& with) {
    if (with.tail.empty() && with.lend == nullptr) [[likely]] {
      write<priority>(link, head, bytes);
    } else {
      const auto whole = assemble(link, bytes, with, head.flags);
      write<priority>(link, head, whole);
    }
  }
  static Error unknown(const Link& link, MessageType type);
  Error no_room(Link& link, Room room);
  Result<void> check_loan(Link& link, const Buffer& buffer);
  // Struct, tail and loan in one piece, in `assembled_`; lends the buffer.
  std::span<const std::byte> assemble(Link& link, std::span<const std::byte> bytes,
                                      const With& with, u8& flags);
  template <Priority priority>
  Result<Requests::Entry*> begin_request(Link& link, MessageType reply, const Beside& beside,
                                         Time deadline, RequestId& id);
  Result<void> write_reply(const AnyReplyToken& token, MessageHead head,
                           std::span<const std::byte> bytes, const With& with);
  template <Priority priority>
  [[gnu::always_inline]] inline void put_reply(Link& link, MessageHead head, u32 tag, u32 lines,
                                               std::span<const std::byte> bytes, const With& with);
  template <Priority priority>
  std::size_t drain(Link& link, std::size_t budget);
  template <Priority priority>
  [[gnu::always_inline]] inline Handler* plain(const Link& link, const Slot& head);
  template <Priority priority>
  bool deliver(Link& link, const Slot& head, const std::byte* bytes, Arrival& arrival);
  template <Priority priority>
  bool deliver_reply(Link& link, const Slot& head, const std::byte* bytes, Arrival& arrival);
  enum class Parts { whole, tail_too_long, broken };
  Parts take_apart(Link& link, const Slot& head, const std::byte* bytes, const Beside& beside,
                   Arrival& arrival);
  bool collect_loans(Link& link);  // false: link cut
  static void note_cancel(Link& link, u32 tag);
  static bool is_cancelled(const Link& link, u32 tag);
  static void forget_cancel(Link& link, u32 tag) {
    if (link.cancels != 0) [[unlikely]]
      std::ranges::replace(link.cancelled, tag, ~tag);
  }
  void begin_answer(Link& link, const Slot& head, Priority priority, Arrival& arrival) {
    ++link.counters.requests_in;
    forget_cancel(link, head.tag);
    arrival.token = AnyReplyToken(*this, link, head, priority);
  }
  bool broken(Refusal why) {
    why_broken_ = why;
    return false;
  }
  void count_answer(Link& link, const Requests::Entry& entry, int error);
  void expire(Time now);
  void drop(Link& link, Error why);
  void collect_faulted();
  void drive(Time now);

  std::unique_ptr<Links> links_;
  Requests requests_;
  std::array<Handler, message_types> handlers_;
  std::vector<KernelId> faulted_;
  std::move_only_function<void(KernelId, bool)> session_changed_;
  std::size_t first_ = 0;  // where the next poll starts among the active links
  bool polling_ = false;
  Refusal why_broken_{};      // set with each false of deliver()
  Arrival arrival_;           // blank but while a message is delivered
  Time now_ = Time::never();  // of the last poll; never(): asleep since, or none yet
  Duration turn_;             // from the poll before to that one; 0: not known
  alignas(cache_line_bytes) std::byte scratch_[max_payload_bytes];
  alignas(cache_line_bytes) std::byte assembled_[max_payload_bytes];
};

}  // namespace cob::message
