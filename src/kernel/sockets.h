// Sockets: the descriptions of one kernel and every operation on them; the stack's SocketLayer and
// the calls' target. Model: programs hold descriptions through slots; the seat says who operates
// one; the directory says where listeners are. Split: sockets.cc life and references; connect.cc,
// listen.cc, receive.cc, send.cc, seat.cc, datagram.cc. Kernel's loop only.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>

#include "kernel/description.h"
#include "kernel/directory.h"
#include "kernel/own_chunks.h"
#include "kernel/program.h"
#include "kernel/slab.h"
#include "kernel/syn_placement.h"
#include "net/snap_bean/steering.h"

namespace cob::kernel {

struct SocketRow;
struct MovedGroup;
struct MovedProgram;
using MovingPrograms = std::vector<Program*>;
struct MovedDescription;
struct DescriptionPart;
class ImageWriter;
class Departures;
class ListenerParts;
class FarSeats;
struct MovedEnd;

// A listener as load sees it: unaccepted.cc.
struct AcceptLoad {
  net::Endpoint local;
  u32 unaccepted = 0;  // connections that no program has accepted yet
  u32 oldest_us = 0;   // of them the first came so long ago
  u32 waiting = 0;     // threads that wait on it at this moment; 2: or more
  u64 accepted = 0;    // since it listens
};

// A connection that waits to be accepted, on its way to another kernel's listener.
struct TakenConnection {
  net::Endpoint listener;
  net::MovedConnection connection;
  u8 flags = 0;     // call::flag_peer_closed or none
  u32 came_us = 0;  // Description's
  std::vector<std::byte> unread;
};

struct SocketCounters {
  u64 bytes_in = 0, bytes_out = 0;
  u64 offers_taken_back = 0;
  u64 accepted = 0;           // by programs
  u64 datagrams_dropped = 0;  // their socket's queue was full, or the program's memory
  u64 seats_taken = 0, seats_given_back = 0;
  u64 connects_redirected = 0;  // by load, to another kernel's listener
};

struct SocketsOptions {
  KernelId self;
  u32 epoch = 0;
  net::Ipv4Address address;
  u32 prefix_bits = 24;
  u64 secret[2] = {};   // datagram sockets' local ports come from it (RFC 6056)
  bool uplink = false;  // addresses of the prefix are reached by it, with a gateway all others too
  net::Ipv4Address gateway{};
  u32 max_descriptions =
      262'144;  // reaction when full: open gives ENFILE, an incoming connection is reset
  // Bytes: buffers at first, and how far they grow when nobody chose their size.
  u32 receive_limit = 1024 * 1024;
  u32 send_limit = 1024 * 1024;
  u32 most_receive_limit = 4 * 1024 * 1024;
  u32 most_send_limit = 4 * 1024 * 1024;
};

// What a slot operation needs to reply later.
struct CallOrigin {
  u32 program = 0;
  u32 thread = 0;
  u32 sequence = 0;
};

class Sockets final : public net::SocketLayer {
 public:
  // Who knows programs by id and takes their posts when a seat is taken. Implemented by the
  // kernel's call dispatch.
  class Programs {
   public:
    virtual ~Programs() = default;
    virtual Program* find(u32 id) = 0;
    virtual void drain(Program& program) = 0;  // execute everything it has posted
    virtual void execute(Program& program, u32 thread,
                         const call::CallSlot& slot) = 0;  // a parked call
    virtual void fault(Program& program,
                       const char* what) = 0;         // broke the protocol: ended as if killed
    virtual void file_closed(Description& file) = 0;  // by its last holder
  };

  Sockets(const SocketsOptions& options, Directory& directory, Programs& programs)
      : options_(options), directory_(directory), programs_(programs) {
    directory_.on_claim_lost([this](u32 handle) { claim_lost(handle); });
  }
  // The uplink has come, or gone: new connections only.
  void set_uplink(bool uplink) { options_.uplink = uplink; }
  bool has_uplink() const { return options_.uplink; }
  void set_stack(net::Stack& stack) { stack_ = &stack; }
  // What is told to the other parts of a listener; it outlives the programs.
  void set_parts(ListenerParts& parts) { parts_ = &parts; }
  void set_far_seats(FarSeats& seats) { far_seats_ = &seats; }
  // By which the uplink's frames come to kernels; they outlive this.
  void set_tables(const net::SteeringReader& tables) { tables_ = &tables; }

  // Life and references.
  Description* at_handle(u32 handle);
  Result<Description*> open();
  void retain(Description& d) { ++d.references; }
  // An open file, in a slot of the program that opened it.
  void hold_file(Program& program, u32 slot, Description& d, descriptor::Holder::Ref file,
                 u32 share);
  // At 0: closed as close(2); `reset`: its user left received bytes unread.
  void release(Description& d, bool reset = false);
  u32 open_count() const { return open_count_; }
  // The token of the placeholders that stand for it in descriptor tables; one a description.
  void publish_token(Description& d, u64 token);
  Description* at_token(u64 token);

  // Binds a description to a program's slot: fills the kernel line, counts a reference, makes it a
  // holder.
  void hold(Program& program, u32 slot, Description& d, u32 generation);
  // The program's reference by this slot is over (close, exit). `reset`: SO_LINGER 0.
  void let_go(Program& program, u32 slot, bool reset);

  // One-way operations; errors go to the socket's line.
  void connect(Program& program, u32 slot, net::Endpoint remote, net::Endpoint local,
               bool fast_open = false);
  void send(Program& program, u32 slot, const call::CallSlot& call);
  void send_urgent(Program& program, u32 slot, const call::CallSlot& call);
  void refuse_send(Program& program, const call::CallSlot& call);  // chunks go back unused
  void consumed(Program& program, u32 slot);
  void shutdown(Program& program, u32 slot, u32 how);
  void set_option(Program& program, u32 slot, const call::CallSlot& call);
  void remember(Description& d, const call::u64* words);  // six; Op::remember
  void want_accept(Program& program, u32 slot);
  void released(Program& program, u32 slot);

  // Synchronous operations: result >= 0 or -errno.
  i32 connect_local(Program& program, u32 slot, net::Endpoint remote, net::Endpoint local,
                    bool fast_open = false);
  // Answers through `done`, possibly later (another kernel keeps the port).
  void bind(Program& program, u32 slot, net::Endpoint local, bool reuse_address, bool reuse_port,
            const CallOrigin& origin);
  // `any`: where it listens if it is not bound.
  void listen(Program& program, u32 slot, u32 backlog, net::Ipv4Address any,
              const CallOrigin& origin);
  // datagram.cc
  void bind_datagram(Program& program, u32 slot, net::Endpoint local, bool reuse_address,
                     bool reuse_port, const CallOrigin& origin);
  // `any`: to what it is bound if it is not yet.
  i32 connect_datagram(Program& program, u32 slot, net::Endpoint remote, call::DatagramConnect how,
                       net::Ipv4Address any);
  void send_to(Program& program, u32 slot, const call::CallSlot& call);
  // The chunks are lent to the program.
  i32 receive_datagram(Program& program, u32 slot, bool peek, u64* first_chunk);
  i32 change_membership(Program& program, u32 slot, net::Ipv4Address group, bool join);

  // seat.cc: true when the kernel has the seat now; false when the call was parked.
  bool take_seat(Description& d, Program& caller, u32 slot, u32 thread, const call::CallSlot& call);
  // Gives the seat to the only holder, if it may have it. True if that happened.
  bool give_seat_back(Description& d);
  i32 send_shared(Program& program, u32 slot, const call::CallSlot& call);
  i32 receive_shared(Program& program, u32 slot, u64 max_bytes, bool peek, u64* chunks,
                     bool keep_error = false);
  // urgent.cc
  i32 urgent(Program& program, u32 slot, call::UrgentCall what, u64* values);
  i32 peek_behind_mark(Program& program, u32 slot, u64 max_bytes, u64* chunks);
  u64 readable_bytes(const Description& d) const;  // as FIONREAD tells them
  // `part`: 0 or 1; docs/calls.md, `info`.
  i32 tcp_info(Program& program, u32 slot, u64 part, u64* values);
  i32 path_mtu(const Description& d, u64* values) const;

  // stream.cc: a connection whose seat the kernel has, as relays use it.
  // True when the kernel has the seat; false: its holder was asked, and the description is stirred
  // when it comes.
  bool claim_seat(Description& d);
  std::size_t send_room(const Description& d, std::size_t limit) const;
  // REQUIRES: bytes fit in send_room().
  void append_send(Description& d, std::span<const std::byte> bytes);
  void finish_send(Description& d);                                     // a FIN follows
  std::span<const std::byte> kept_to_mark(const Description& d) const;  // the urgent one, if any
  std::size_t step_over_mark(Description& d, bool peek);
  void take_kept(Description& d, std::size_t bytes);
  void put_back_kept(Description& d, std::span<const std::byte> bytes);  // in front
  u32 shared_events(const Description& d) const;
  void write_flags(Description& d);
  // Notes that something changed that a relay of the description acts on.
  void stir(Description& d);
  std::vector<u32> take_stirred();  // their handles
  std::size_t own_chunks_held() const { return own_chunks_.held(); }
  u32 small_copies_held() const { return small_copies_.held(); }
  const std::shared_ptr<BufferMemory>& memory() const { return memory_; }

  void begin_turn(Time now) { now_ = now; }
  // Listeners with waiting connections, offers to settle or take back. Call once a poll.
  void poll(Time now);
  Time next_deadline() const {
    const Time leaves = leaving_.empty() ? Time::never() : leaving_.front().until;
    return std::min({offers_check_, offers_retry_, deferred_check_, leaves});
  }

  // Calls f(local, net::ListenerInfo) for every listener that still listens; what programs have
  // accepted meanwhile has left the queues.
  template <typename F>
  void for_each_listener(F f) {
    for (const auto& [id, group] : by_listener_) {
      bool listens = false;
      for (Description* d : group.members) {
        for (Holder& h : d->holders) settle(*d, h);
        listens |= (d->flags & call::flag_reset) == 0;
      }
      if (listens) f(group.members.front()->local, stack_->info(net::ListenerId(id)));
    }
  }

  // unaccepted.cc. Connections that nobody has accepted, of all listeners; 0 costs nothing.
  u32 unaccepted() const { return unaccepted_; }
  // Where a connect goes that this kernel's own listener would get. `placement` outlives this.
  void set_placement(SynPlacement* placement) { placement_ = placement; }
  // Of the first `most` listeners on which other kernels listen too. Settles what programs have
  // accepted meanwhile.
  void accept_loads(std::size_t most, std::vector<AcceptLoad>& out);
  // Of who listens at `to`; nullopt: nobody.
  std::optional<AcceptLoad> accept_load(net::Endpoint to);
  // The connection that has waited longest there leaves without a word, for another kernel's
  // listener; nullopt: there is none that may. Its frames are the caller's to hold.
  static constexpr std::size_t most_taken_unread = 3'072;
  std::optional<TakenConnection> give_waiting(net::Endpoint listener);
  // It waits in the queue here: last, or, if it comes back, first. False: it cannot.
  bool take_waiting(const TakenConnection& taken, bool first);
  Result<void> may_take_waiting(const TakenConnection& taken);

  const SocketCounters& counters() const { return counters_; }

  // listing.cc: a piece of what `cob ss` shows; cursor and places as Stack::list_connections.
  std::size_t list_connections(u32& cursor, u32 places, std::span<SocketRow> rows) const;
  std::size_t list_time_wait(u32& cursor, u32 places, std::span<SocketRow> rows) const;
  std::size_t list_listeners(u32& cursor, u32 places, std::span<SocketRow> rows);
  std::size_t list_datagrams(u32& cursor, u32 places, std::span<SocketRow> rows) const;

  // net::SocketLayer
  void on_incoming(net::ListenerId listener, net::TcbId tcb) override;
  void on_connected(net::TcbId tcb, u64 cookie) override;
  std::size_t on_data(net::TcbId tcb, u64 cookie, std::span<const std::byte> payload) override;
  u32 grow_receive_buffer(net::TcbId tcb, u64 cookie, u32 wanted) override;
  void on_urgent(net::TcbId tcb, u64 cookie, u32 ahead, std::optional<std::byte> byte) override;
  void on_peer_closed(net::TcbId tcb, u64 cookie) override;
  void on_acked(net::TcbId tcb, u64 cookie, std::size_t bytes) override;
  void read_send_buffer(net::TcbId tcb, u64 cookie, std::size_t offset,
                        std::span<std::byte> out) override;
  void on_error(net::TcbId tcb, u64 cookie, int error) override;
  void on_closed(net::TcbId tcb, u64 cookie) override;
  void on_datagram(u64 cookie, const net::UdpReceived& from,
                   std::span<const std::byte> payload) override;
  void on_datagram_error(u64 cookie, int error) override;

  void arena_orphaned(std::unique_ptr<Arena> arena);

  // sockets_pack.cc, docs/moving.md: all that programs have which move together. REQUIRES: nobody
  // else holds, or is to take over, what they do.
  // EBUSY: not just now; else never, as things are: `what` says why.
  Result<void> may_move(const MovingPrograms& group) const;
  // What pack() will write at most, but for what TCP has out of order.
  std::size_t image_bytes(const MovingPrograms& group) const;
  // What it will be, or a little more.
  std::size_t likely_image_bytes(const MovingPrograms& group) const;
  // Writes the programs' image; their sockets are hollow from now on, until install() or
  // drop_moved(). REQUIRES: may_move(), room for image_bytes() and most_pieces_bytes. Returns the
  // connections' ends.
  std::vector<MovedEnd> pack(const MovingPrograms& group, ImageWriter& out, Departures& departures,
                             u32 move);
  static constexpr std::size_t most_pieces_bytes = std::size_t{32} << 20;
  // The programs have gone: nothing is closed, nobody is told. Their ports are still reached here
  // until a moment after leave_ports(), when every kernel has heard of the new ones.
  void drop_moved(const MovingPrograms& group);
  void leave_ports(Time now);
  // sockets_install.cc. What install() needs of this kernel. The programs' own ends do not count,
  // if they are here.
  Result<void> may_install(const MovedGroup& moved) const;
  // REQUIRES: may_install(); `group` as the image has them, attached alike, without an open slot.
  // What fails all the same ends as a connection that was reset.
  void install(const MovingPrograms& group, const MovedGroup& moved, KernelId from);

  // sockets_alone.cc: one description goes, whoever holds it here (far_seats.h).
  static bool is_away(const Description& d) {
    return d.shared->far != nullptr && d.shared->far->where != FarSeat::Where::here;
  }
  // Programs of other kernels hold it too.
  static bool held_afar(const Description& d) {
    return is_away(d) || (d.shared->far != nullptr && !d.shared->far->others.empty());
  }
  // EBUSY: not just now; else never, as things are. `now`: asks its user for the seat; the calls
  // that this runs may end all references but the caller's.
  Result<void> may_go_alone(Description& d, bool now);
  // Its image, as a MovedGroup of one program reads it; the description is hollow from now on,
  // until take_alone() or leave_alone(). REQUIRES: may_go_alone(d, true).
  std::vector<std::byte> pack_alone(Description& d, Departures& departures, u32 move,
                                    std::optional<MovedEnd>& end);
  // It comes: into a hollow one, whose references stay, or into a new one, with the caller's.
  // REQUIRES: may_install(); programs and descriptions: one each. ENFILE.
  Result<Description*> take_alone(const MovedGroup& moved, Description* into, KernelId from);
  // The hollow one has gone for good: its ports are another kernel's.
  void leave_alone(Description& d);

 private:
  friend class ListenerParts;
  friend class FarSeats;
  static Description& from_cookie(u64 cookie) { return *reinterpret_cast<Description*>(cookie); }
  static u64 to_cookie(Description& d) { return reinterpret_cast<u64>(&d); }

  void free_description(Description& d);
  void close_now(Description& d, bool reset);
  void set_line(Program& program, u32 slot, Description& d);
  void touch_holders(Description& d);
  void write_names(Description& d);
  void fail(Description& d, int error);
  void claim_lost(u32 handle);
  void end_listening(Description& d);
  enum class Placing : u8 { by_load, here };
  Result<void> start_connect(Description& d, net::Endpoint remote, net::Endpoint local,
                             bool fast_open, Placing placing = Placing::by_load);
  Result<Port> ephemeral_port(net::Endpoint remote, net::Ipv4Address local);
  std::optional<KernelId> find_listener(net::Endpoint remote);
  Result<Port> ephemeral_port(net::Endpoint remote, net::Ipv4Address local,
                              const net::ReplyPorts* reply);
  bool ours(net::Ipv4Address address) const {
    return address == options_.address || address.is_loopback() ||
           (address.is_ipv6() && stack_->is_own_ipv6(address));
  }
  call::SocketNames names_of(const Description& d) const;
  std::optional<KernelId> placed_elsewhere(KernelId listener, net::Endpoint remote);
  bool settle_placed(net::TcbId tcb, bool served);
  bool connect_here(Description& d);
  bool goes_out(net::Ipv4Address address) const;
  void apply_options(Description& d);
  // False: there is no such option, or it is not one of descriptions.
  bool change_option(Description& d, const call::CallSlot& call);
  void set_congestion(Description& d);

  // listing.cc
  void mark_names(net::AddressNames& names) const override;
  u64 peek_unread(const Description& d) const;
  u64 unread_in_chunks(const Description& d) const;  // of the seat's holder
  u32 waiting_at(const Description& d) const;

  // datagram.cc
  Result<Port> ephemeral_datagram_port();
  Result<void> bind_itself(Description& d, net::Ipv4Address any);
  Result<void> open_datagram(Description& d, net::Endpoint local);
  void close_datagram(Description& d);
  void unbind_datagram(Description& d);
  bool is_group(net::Ipv4Address address) const;
  net::Ipv4Address source_towards(net::Ipv4Address to) const;
  bool has_chunks_for(const Description& d, std::size_t bytes) const;
  void send_datagram(Description& d, net::UdpSend& send, std::span<const net::UdpPiece> pieces,
                     bool loop);

  // receive.cc
  std::size_t append_to_arena(Description& d, std::span<const std::byte> payload);
  // As append_to_arena, but the program sees it only once `received` is published.
  std::size_t copy_to_arena(Description& d, std::span<const std::byte> payload, u64& received);
  u64 take_consumed(Description& d);  // bytes newly consumed by the seat's holder
  void free_passed_chunks(Description& d);
  void free_receive_chunks(Description& d);  // all of them
  u64 unread_bytes(Description& d);
  bool take_in_kept(Description& d);
  void fit_window(Description& d);
  u32 receive_buffer(const Description& d) const {
    return d.window_limit != 0 ? d.window_limit : d.receive_limit;
  }

  // urgent.cc
  bool at_mark(const Description& d) const;
  bool has_seat(const Description& d, const Program& program, u32 number) const;
  void leave_bytes_before_mark(Description& d, u64 bytes);
  void settle_mark(Description& d);
  void look_for_mark(Description& d);
  void pour_kept(Description& d);
  std::size_t keep_behind_mark(Description& d, std::span<const std::byte> payload);
  i32 pass_mark(Program& program, u32 number);
  i32 urgent_byte(Description& d, bool peek);
  void set_owner(const Program& program, Description& d, i32 id, bool thread);
  void tell_owner(const Description& d);

  // send.cc
  bool take_pieces(Program& program, Description& d, const call::CallSlot& call, u64 limit,
                   u64* taken);
  void drop_pieces(Description& d, u64 bytes);
  SendQueue& send_queue(Description& d);
  void end_send_queue(Description& d);
  void fit_send_limit(Description& d);
  void show_send_limit(Description& d, u32 limit);
  void give_piece(const SendPiece& piece);
  bool copy_small(std::vector<SendPiece>& pieces, Arena& arena, u32 chunk, std::size_t bytes);
  const std::byte* piece_bytes(const SendPiece& piece) const;

  // listen.cc
  void offer(Description& listener);
  bool offer_to(Description& listener, Holder& holder, Description& connection);
  void settle(Description& listener, Holder& holder);
  void take_offers_back(Description& listener, Holder& holder);
  void mark_accepted(Description& connection);
  void check_patience(Description& listener);
  void mark_busy(Description& listener);
  void defer(Description& connection, Description& listener);
  void undefer(Description& connection);
  void check_deferred();
  static void inherit_settings(Description& d, const SettingsPart& from);
  void inherit(Description& d, const Description& listener);
  // unaccepted.cc
  struct ListenerGroup;
  void count_unaccepted(Description& d, bool waits);
  AcceptLoad load_of(ListenerGroup& group);
  ListenerGroup* group_at(net::Endpoint to);
  bool may_give(const Description& d) const;
  Result<net::ListenerId> join_listener(Description& d, u32 backlog);
  void leave_listener(Description& d);
  i32 finish_listen(u32 handle, net::Endpoint local, u32 backlog, i32 result);
  bool take_offer_ring(Holder& holder);
  void give_offer_ring(Holder& holder);
  void end_queue(Description& d);
  std::size_t reset_waiting(Description& d);
  void fit_announcement(Description& d);
  void fit_quiet(net::ListenerId listener);
  // Of all claims of the description, on whichever kernel its parts are.
  u64 group_of(const Description& d) const {
    if (d.shared->part != nullptr) return d.shared->part->group;
    return u64{options_.self.value} << 48 | u64{options_.epoch & 0xffff} << 32 | d.handle;
  }
  void stop_listening(Description& d);
  void forget_offers(Description& d);
  void answer(const CallOrigin& origin, i32 result, const u64* values = nullptr, u32 count = 0);

  // sockets_pack.cc
  Error why_stays(const Description& d, const MovingPrograms& group) const;
  Error why_never(const Description& d) const;
  Error why_not_now(const Description& d) const;
  std::vector<Description*> moving_with(const MovingPrograms& group) const;
  u32 packed_as(const Description* d) const;
  static void put_head(ImageWriter& out, std::size_t programs, std::size_t descriptions);
  void pack_program(Program& program, ImageWriter& out);
  net::MovedConnection take_connection(Description& d, Departures& departures, u32 move,
                                       std::size_t& room);
  void pack_description(Description& d, const net::MovedConnection& connection,
                        const MovingPrograms& group, ImageWriter& out);
  void pack_listener(Description& d, ImageWriter& out, Departures& departures, u32 move,
                     std::vector<MovedEnd>& ends);
  void own_pieces_of(Arena& arena);
  void give_up_moved(Description& d);
  void leave_its_ports(const Description& d);
  void queue_own(Description& d, std::span<const std::byte> bytes);
  // sockets_install.cc
  void install_program(Program& program, const MovedProgram& moved);
  void install_slots(Program& program, const MovedProgram& moved);
  void install_socket(const MovingPrograms& group, const MovedDescription& m, Description& d,
                      KernelId from);
  void install_network(const MovedDescription& m, Description& d, KernelId from);
  bool install_listener(const MovedDescription& m, Description& d);
  bool install_datagram(const MovedDescription& m, Description& d, KernelId from);
  void install_connection(const MovedDescription& m, Description& d, net::ListenerId queue,
                          KernelId from);
  void install_queue(const MovedDescription& m, Description& d);
  net::Route route_here(const MovedDescription& m, KernelId from) const;

  // seat.cc
  void take_unread(Description& d);
  void seat_taken(Description& d);
  void leave_holder(Description& d, std::size_t index);

  SocketsOptions options_;
  Directory& directory_;
  Programs& programs_;
  net::Stack* stack_ = nullptr;
  ListenerParts* parts_ = nullptr;
  FarSeats* far_seats_ = nullptr;
  const net::SteeringReader* tables_ = nullptr;
  Slab<Description> descriptions_;  // stable addresses; handle - 1 = index | generation << 20
  std::vector<u32> free_;
  u32 open_count_ = 0;
  // A listener of the stack and the descriptions behind it: several with SO_REUSEPORT, served in
  // turn.
  u32 unaccepted_ = 0;
  // Those of by_listener_ on which others listen too, looked for now and then.
  std::vector<u32> shared_listeners_;
  Time shared_listeners_due_;
  struct ListenerGroup {
    std::vector<Description*> members;
    u32 turn = 0;
  };
  std::unordered_map<u32, ListenerGroup> by_listener_;
  std::vector<Description*> busy_listeners_;
  std::vector<std::unique_ptr<Arena>> orphans_;
  OwnChunks own_chunks_;
  SmallCopies small_copies_;
  std::vector<std::unique_ptr<SendQueue>> spare_sends_;  // at most spare_sends
  static constexpr std::size_t spare_sends = 256, spare_pieces = 16;
  std::shared_ptr<BufferMemory> memory_ = std::make_shared<BufferMemory>();
  // Where in a long send buffer the last piece read begins, so that the next need not look for it.
  struct SendCursor {
    u32 handle = 0;
    std::size_t piece = 0, offset = 0;  // of its first byte, from the first unacknowledged one
  } send_cursor_;
  std::vector<u32> stirred_;
  // Ports of programs that have moved on, and until when they are still reached here.
  struct Leaving {
    Time until;
    Reached reached;
  };
  std::deque<Leaving> leaving_;
  std::vector<Description*> installing_;                 // by the image's numbers
  std::unordered_map<const Description*, u32> packing_;  // likewise
  Time offers_check_ = Time::never();
  Time deferred_check_ = Time::never();
  Time offers_retry_ = Time::never();  // connections wait, and who wants them has its hands full
  bool has_parts_ = false;             // there is, or was, a part of a listener of several kernels
  SynPlacement* placement_ = nullptr;
  std::unordered_map<u32, KernelId> placed_;  // TCBs that it sent elsewhere, and no answer yet
  u32 next_port_ = 0;
  // Towards whom there was no free port when last looked; a look takes half a millisecond.
  struct NoPort {
    net::Endpoint remote;
    net::Ipv4Address local;
    Time until;
  } no_port_;
  u64 datagram_ports_ = 0;               // how many were chosen
  std::unordered_map<u64, u32> tokens_;  // token -> handle
  Time now_;
  SocketCounters counters_;
};

}  // namespace cob::kernel
