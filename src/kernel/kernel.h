// Kernel: one instance of cob: its loop, its programs, and the parts that they use.
// Model: one process, one thread, run to completion; poll() does bounded work, then the loop
// flushes, announces and rests. docs/ARCHITECTURE.md. Everything here belongs to the loop's thread.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernel/angel.h"
#include "kernel/board.h"
#include "kernel/departures.h"
#include "kernel/directory.h"
#include "kernel/far_seats.h"
#include "kernel/file_calls.h"
#include "kernel/files.h"
#include "kernel/finding.h"
#include "kernel/flows.h"
#include "kernel/islands.h"
#include "kernel/leaving.h"
#include "kernel/moving.h"
#include "kernel/nearby.h"
#include "kernel/parts.h"
#include "kernel/program.h"
#include "kernel/relay.h"
#include "kernel/rest.h"
#include "kernel/sockets.h"
#include "kernel/view.h"
#include "message/control.h"
#include "message/messenger.h"
#include "net/snap_bean/cable.h"
#include "net/snap_bean/snap_bean.h"
#include "net/stack/stack.h"

namespace cob::kernel {

struct HandRequest;

class Kernel final : private Sockets::Programs, private net::FrameSink, private Taking::Host {
 public:
  // `supervisor`: the SOCK_SEQPACKET pair on which the Config came. `uplink`: this kernel's share
  // of the cob's way out, if it has one. `islands`: what it has of a cob of several.
  static Result<std::unique_ptr<Kernel>> create(const message::Config& config, Fd supervisor,
                                                Uplink uplink = {}, IslandSetup islands = {});
  ~Kernel() override = default;

  // Until the supervisor says shutdown or goes.
  Result<void> run();
  // One turn of the loop; true if it found work. For tests that drive a kernel in simulated time.
  bool turn(Time now);
  // When a turn has work at the latest, unless a message, frame or call comes before.
  Time next_deadline() const;

  const IslandMap& islands() const { return islands_; }
  // The cob's shares, by number.
  std::span<const Share> shares() const { return shares_; }
  // nullptr: there are none of other islands, nor for them.
  const Files* files() const { return files_.get(); }

 private:
  static constexpr u64 event_doorbell = u64{1} << 32,                // a program's
      event_peer_doorbell = event_doorbell | u64{1} << 16,           // and the peer
      event_supervisor = u64{2} << 32, event_flight = u64{3} << 32,  // and its id
      event_uplink = event_doorbell | u64{1} << 17, event_files = event_doorbell | u64{1} << 18,
                       event_move = event_doorbell | u64{1} << 19,
                       event_viewer = u64{5} << 32;  // and its id
  static constexpr bool is_doorbell(u64 event) { return event >> 32 == event_doorbell >> 32; }
  static_assert(Relays::event_mark > (event_flight | 0xffff'ffff));  // relays look alike
  static_assert(event_viewer > (Relays::event_mark | 0xffff'ffff));

  Kernel(const message::Config& config, Fd supervisor)
      : config_(config),
        supervisor_(std::move(supervisor)),
        islands_(config),
        directory_(KernelId(config.kernel), config.kernels, message::declared_kernels(config)) {}
  Result<void> start(Uplink uplink, Fd link_listener);

  // Something of a move is to be done at each turn.
  bool moving() const {
    return departure_.has_value() || !arrivals_.empty() || !rerouted_owed_.empty() ||
           !untold_.empty() || departures_->has_openings();
  }

  // loop.cc
  bool poll(Time now);
  void flush();
  bool look_near();
  bool nap(Time now);
  void sleep(Time now);
  bool anything_pending();
  bool program_busy() const;
  void show_resting(u32 looks);
  void set_armed(bool armed);
  bool poll_host(int timeout_ms_or_now, Time deadline, Time now);
  // `event`: what an epoll event stands for: a program's id, or one of event_*.
  Result<void> watch(FdRef fd, u64 event);
  // Before closing what others may hold too: their copies would keep the watch.
  void unwatch(FdRef fd);

  Angel::Work work() const;

  // control.cc
  Result<void> see_board(KernelId peer, FdRef board);
  void on_supervisor();
  Result<void> say_hello();
  Result<void> open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell);
  Result<void> call_added(KernelId peer, u16 port);
  Result<void> peer_up(KernelId peer, u32 peer_epoch, Fd memory);
  void greet_peer(KernelId peer);
  void lose_peer(KernelId peer);
  void report_peer(KernelId peer);
  u32 add_program(u32 pid, Fd liveness);
  void tell_listening();

  // cable.cc
  Result<void> on_cable(message::ControlKind kind, std::span<const std::byte> bytes,
                        std::vector<Fd>& descriptors);
  Result<void> plug_cable(FdRef steering);
  void set_way_out(bool way_out);
  void report_cut_wires();
  void show_cable(BoardCable& shown) const;
  // view.cc
  struct Viewer {
    Fd socket;
    u32 capture = 0;  // the tap's id; 0: none
  };
  void add_viewer(Fd socket);
  void end_viewer(u32 id);
  void on_viewer(u32 id);
  bool answer_view(Viewer& viewer, const ViewRequest& request);
  // handing.cc
  struct Handed {
    KernelId to{0};
    std::vector<descriptor::Passes::Item> items;
    std::vector<descriptor::Handle> given;  // at this home, for `to`
    std::vector<u32> held;                  // handles of descriptions here, a reference each
  };
  struct Luggage {
    u32 program = 0;
    Time until;
    std::vector<Description*> descriptions;  // a reference each
  };
  bool hand_over(u32 viewer, const HandRequest& request, std::vector<Fd>& descriptors);
  Result<void> collect(const HandRequest& request, std::vector<Fd>& descriptors, Handed& handed,
                       u32& which);
  descriptor::Passes::Item item_of(Description& d, u64 name);
  void settle_handed(Handed& handed, bool passed);
  void answer_hand_over(u32 viewer, i32 error, u32 which);
  Result<void> take_passed(u32 program, std::span<const descriptor::Passes::Arrived> passed);
  void give_luggage(Program& program);
  void drop_old_luggage(Time now);
  std::size_t list_sockets(const ViewRequest& request, u32& cursor, std::span<SocketRow> rows);
  u32 view_mtu() const;

  // moving.cc, docs/moving.md
  void move_out(const message::Simple& order, std::vector<Fd>& descriptors);
  void move_in(const message::Simple& order, std::vector<Fd>& descriptors);
  bool poll_moves(Time now);
  bool poll_departure(Time now);
  bool hear_departure(Time now);
  std::vector<Program*> sharing_with(Program& first);
  std::vector<Program*> departing();
  Result<void> offer_programs(const std::vector<Program*>& group);
  Result<void> quiesce(const std::vector<Program*>& group);
  bool pass_buttons(Program& program, u32 number);
  void freeze(Time now);
  void thaw(Time now);
  void leave(Time now);
  void fail_departure(Time now, i32 error, const char* why);
  void report_departure(const MoveReport& report);
  // arriving.cc
  bool poll_arrival(Arrival& arrival, Time now);
  Result<void> on_offer(Arrival& arrival, const MoveWord& word, std::vector<Fd>& descriptors);
  Result<void> on_program_offered(Arrival& arrival, const MoveWord& word,
                                  std::vector<Fd>& descriptors);
  Result<void> on_buttons(Arrival& arrival, const MoveWord& word, std::vector<Fd>& descriptors);
  Result<void> on_image(Arrival& arrival, u64 bytes);
  Program* take_in(Arriving& arriving, const MovedProgram& moved);
  void settle_in(Arrival& arrival, Time now);
  // Taking::Host
  u32 new_move() override { return next_move_++; }
  void take_held(const std::vector<Departures::HeldFrame>& frames, Time now) override;
  bool tell_moved(Program& program);
  // served_threads.cc, docs/moving.md, 9
  void order_thread(u32 tid, KernelId to);
  void show_threads(Program& program, BoardProgram& row) const;
  // leaving.cc, docs/moving.md, 10
  static constexpr std::size_t most_given = 4'096;  // of a program, unadopted; then EMFILE
  Leaving* leaving_of(const Program& program);
  bool can_go_by_itself(Program& program) const;
  void ask_to_leave(Program& program, KernelId target, Fd report, Fd liveness);
  void begin_leaving(Program& program);
  void end_leaving(Program& program, const call::LeftNotice& notice);
  void forget_leaving(Program& program, i32 error, const char* why);
  void tell_gone(u32 program);
  void poll_leavings(Time now);
  Time leavings_due() const;
  void take_in_given(Program& program, const CallOrigin& origin, u64 name);
  void hand_over_locks(Program& program, const CallOrigin& origin, u64 to, u64 heir);
  void seek(Program& program, const CallOrigin& origin, u64 name);
  void sought(const std::vector<Finding::Asker>& askers, u64 name, int error);
  bool tell_rerouted(KernelId peer, const MovedFlow& flow, KernelId to);
  void reroute(KernelId peer, const MovedFlow& flow, KernelId to) override;
  void fill_header(Program& program, call::ArenaHeader& header);

  // attach.cc
  void on_program(Program& program);
  void read_hellos(Program& program, call::Hello until = {});
  void add_thread(Program& program, u32 index);
  void attach(Program& program, const call::AttachRequest& request);
  Result<void> give_arena(Program& program);
  void end(Program& program);
  i32 fork_program(Program& program, bool spreads, u64* values);
  bool join_listener(Program& program, const call::CallSlot& call, const CallOrigin& origin);
  void bring_socket(const CallOrigin& origin, u64 token, u32 image, std::optional<KernelId> first);
  void let_go_all(Program& program, bool keep_descriptions);
  void collect_dead();

  // calls.cc
  std::size_t take_calls(Program& program, u32 thread, std::size_t budget);
  Description* slot_for(Program& program, const call::CallSlot& call);
  void run_call(Program& program, u32 thread, const call::CallSlot& call);
  bool run_post(Program& program, u32 thread, const call::CallSlot& call);
  void run_synchronous(Program& program, u32 thread, const call::CallSlot& call);
  Program* add_child(Program& program);
  i32 relay(Program& program, Description& d, u64 child_id, u64* values);
  i32 publish_tokens(Program& program, const call::CallSlot& call);
  i32 adopt(Program& program, Description* d, bool from_ticket, u64* values);
  i32 begin_flight(Program& program, Description& d);
  void end_flight(u32 id);
  void drop_unadopted(Program& program);

  // Sockets::Programs
  Program* find(u32 id) override;
  net::Ipv4Address named(u64 address, u64 first, u64 second);
  void show_own_addresses();
  std::vector<Ipv6Row> ipv6_rows() const;
  void show_own_addresses(call::ArenaHeader& header) const;
  void drain(Program& program) override;
  void execute(Program& program, u32 thread, const call::CallSlot& slot) override;
  void fault(Program& program, const char* what) override;
  void file_closed(Description& file) override;
  // net::FrameSink
  void on_frame(std::span<const std::byte> frame, net::Route from, net::FrameFlags flags) override;
  net::FramePlace look_up(std::span<const std::byte> frame) const override {
    return stack_->look_up(frame);
  }
  void fetch(net::FramePlace place) const override { stack_->fetch(place); }

  // board.cc
  Result<void> create_board();
  void update_board(Time now);
  void update_tables();
  message::TransportKind transport_to(KernelId peer) const;

  message::Config config_;
  Fd supervisor_;
  IslandMap islands_;
  std::vector<Share> shares_;
  Directory directory_;
  SharedMemory board_memory_;  // before the messenger, which counts in it
  Board* board_ = nullptr;
  std::unique_ptr<message::Messenger> messenger_;
  std::unique_ptr<IslandLinks> island_links_;
  std::unique_ptr<Files> files_;  // none: no files of other islands, nor for them
  std::unique_ptr<net::SnapBean> device_;
  HostClock clock_;  // captures': frames of one turn have times of their own
  net::FrameTap tap_{clock_};
  std::unique_ptr<net::PcapDevice<net::SnapBean>> tapped_;  // what stack and loop use
  std::unique_ptr<Flows> flows_;
  // Ports of which the supervisor has yet to hear whether this kernel listens there.
  std::map<u16, bool> listening_owed_;
  net::CableDevice* cable_ = nullptr;  // the device's uplink, once a cable was plugged in
  std::unique_ptr<Sockets> sockets_;
  std::unique_ptr<ListenerParts> parts_;
  std::unique_ptr<FileCalls> file_calls_;
  std::unique_ptr<Finding> finding_;  // none: there is one island
  std::unique_ptr<net::Stack> stack_;
  std::unique_ptr<Relays> relays_;
  // A description under way by SCM_RIGHTS: a reference, until all copies of the descriptor that
  // travels are closed: it arrived (and was adopted), or nobody will ever receive it.
  struct Flight {
    Fd end;
    u32 handle = 0;
    u32 sender = 0;
  };
  static constexpr std::size_t max_flights = 1'024;  // reaction when full: ETOOMANYREFS, unix(7)
  static constexpr u32 max_flights_a_program = 256;
  std::unordered_map<u32, Flight> flights_;
  u32 next_flight_ = 1;

  static constexpr std::size_t max_viewers = 8;  // reaction when full: the new one is closed
  std::unordered_map<u32, Viewer> viewers_;
  u32 next_viewer_ = 1;
  std::deque<Luggage> luggage_;  // passed to programs that are not known yet, the oldest first

  std::unique_ptr<Departures> departures_;
  std::unique_ptr<Taking> taking_;
  std::unique_ptr<FarSeats> far_seats_;
  std::unique_ptr<Angel> angel_;
  Time input_since_{};  // budgets have not sufficed since; 0 ns: they do
  u32 input_left_ = 0;  // so much was taken of what budgets bound
  std::optional<Departure> departure_;
  std::vector<Arrival> arrivals_;
  u32 next_move_ = 1;
  struct Rerouted {
    KernelId peer;
    MovedFlow flow;
    KernelId to;
  };
  std::deque<Rerouted> rerouted_owed_;  // peers whose rings were full
  Time hurry_until_;                    // another kernel's next word is near: no sleep
  std::vector<u32> untold_;             // programs that have not been told where they are
  std::vector<Leaving> leavings_;
  u32 leave_numbers_ = 0;

  Fd events_;

  std::unordered_map<u32, std::unique_ptr<Program>> programs_;
  std::vector<Program*> attached_;
  u32 next_program_ = 1;
  bool any_dead_ = false;
  std::unique_ptr<Arena> spare_arena_;

  Rest rest_;
  Time now_;
  Time next_host_poll_;
  Time last_wake_;  // from an armed sleep
  bool may_nap_ = false;
  u32 fruitless_looks_ = 0;
  Time next_board_;
  u32 own_addresses_shown_ = 0;
  bool board_behind_ = false;  // something may have changed since it was written
  bool stopping_ = false;
  u32 draining_ = 0;  // depth
  u64 loops_ = 0, idle_loops_ = 0, yields_ = 0, sleeps_ = 0, naps_ = 0, calls_ = 0, faults_ = 0,
      introduced_ = 0, bells_ = 0, children_spread_ = 0, children_kept_ = 0;
  u32 arms_ = 1;  // tells the sleeps apart: a program rings once a sleep
  Nearby nearby_;
  u64 files_answered_ = 0;  // as file_calls_ counts them
};

}  // namespace cob::kernel
