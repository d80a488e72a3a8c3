// Supervisor: spawns a cob's kernels, introduces them to each other, watches and respawns them, and
// answers the CLI. One epoll loop over {signals, control socket, clients, kernels' channels and
// pidfds, the attach right, the cable}; it is never on the data path, every table is bounded, and
// its death ends the kernels (their channels close, and PR_SET_PDEATHSIG). One thread: the process
// that `cob up` left behind. Protocols: message/control.h below, requests.cc above.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/passing.h"
#include "base/result.h"
#include "cli/arguments.h"
#include "cli/cable_end.h"
#include "cli/cable_place.h"
#include "cli/island_plan.h"
#include "cli/kernel_slot.h"
#include "cli/run_directory.h"
#include "cli/uplink.h"
#include "net/stack/stack.h"

namespace cob::cli {

struct SupervisorOptions {
  std::string name;
  CobAddress address;
  std::vector<IslandPlan> islands;
  message::IslandLink link = message::IslandLink::window;
  std::vector<SharePlan> shares;
  CobIpv6 ipv6;
  std::string kernel_executable;  // absolute path of cob-kernel
  std::string cable_place;        // absolute path where to meet another cob; empty: nowhere
  UplinkPlan uplink;
  net::CongestionControl congestion = net::CongestionControl::cubic;
  net::Ecn ecn = net::Ecn::when_asked;
  u32 angel = message::angel_all;  // its policies
  u16 room = 0;                    // for kernels of islands that are added later
};

class Supervisor {
 public:
  static constexpr std::size_t max_clients = 64;  // beyond: the one idle longest is closed
  static constexpr std::size_t max_request_bytes = 4'096;
  // A kernel that others cut off for a broken protocol is ended, but lives a second first. Who
  // accuses too often is ended too: he lies, or no peer will do for him.
  static constexpr Duration accused_lives = Duration::seconds(1);
  static constexpr Duration accusations_window = Duration::seconds(10);
  static constexpr u32 accusations_tolerated = 2;  // in the window, of one accuser's

  // Called once: describe() with "ok", and if that is false "error" and "log_tail": why the cob
  // could not come up. False: nobody listened any more; then the cob goes down again.
  using OnReady = std::function<bool(const nlohmann::json& report)>;

  // On failure `problem` may say why, in words for the user.
  static Result<std::unique_ptr<Supervisor>> create(SupervisorOptions options,
                                                    RunDirectory directory, OnReady on_ready,
                                                    std::string& problem);

  // Until `down`, SIGTERM or SIGINT; removes the run directory. False: the cob never came up.
  bool run();

  nlohmann::json describe() const;  // what `status` answers

 private:
  struct Client {
    Fd socket;
    Time last_heard;
  };
  struct Reply {
    nlohmann::json body;
    std::vector<FdRef> descriptors;
    std::vector<Fd> owned;  // descriptors made for this reply
  };
  enum class Source : u32 {
    signals,
    listener,
    client,
    channel,
    process,
    attach_right,
    cable,
    cable_place
  };

  Supervisor(SupervisorOptions options, RunDirectory directory, OnReady on_ready);
  Result<void> prepare();
  void describe_ipv6(message::Config& config) const;
  void spawn(KernelSlot& kernel);
  void loop();
  void dispatch(Source source, u32 index, u32 events);
  void on_deadlines();
  Time next_deadline() const;
  Result<void> watch(FdRef fd, Source source, u32 index, u32 events);
  void watch_channel(const KernelSlot& kernel, bool register_now);

  void on_signal();
  void on_connection();
  void on_client(u32 index);
  void on_channel(KernelSlot& kernel);
  void on_process_end(KernelSlot& kernel);
  void on_attach_again();

  // islanding.cc
  Result<void> prepare_islands(message::Config& config);
  std::vector<int> all_cores() const;
  std::vector<ShareGrant> shares_for(u16 island) const;
  void describe_islands(nlohmann::json& all) const;
  std::string island_of(const KernelSlot& kernel) const;
  std::string island_names() const;
  // An index; -1: there is none.
  int find_island(std::string_view name) const;
  // Where the command that asks for a kernel is; -1: `problem` says why it is nowhere.
  int callers_island(const nlohmann::json& request, std::string& problem) const;
  // The kernel there that its descriptors go by; nullptr: none runs.
  const KernelSlot* giver_on(const nlohmann::json& request, int island);
  static bool together(const KernelSlot& a, const KernelSlot& b) {
    return a.island() == b.island();
  }
  // Whether the supervisor introduces them: by sockets kernels find each other.
  bool is_introduced(const KernelSlot& a, const KernelSlot& b) const {
    if (a.elsewhere() || b.elsewhere()) return false;
    return together(a, b) || options_.link == message::IslandLink::window;
  }

  // machines.cc
  KernelSlot* free_slot(KernelPlan& plan);
  Reply answer_island_add(const nlohmann::json& request);
  Reply answer_island_remove(const nlohmann::json& request);
  void remove_island(KernelSlot& kernel);
  void on_added_end(KernelSlot& kernel, bool was_running);
  void tell_link(const KernelSlot& added, u16 port);
  void tell_link_to(KernelSlot& told, const KernelSlot& added, u16 port);
  void join_added(KernelSlot& kernel);

  // cabling.cc
  Result<void> prepare_cable();
  Result<void> plug(Fd socket, CableEnd::Role role);
  void on_cable(u32 events);
  void on_cable_place();
  void on_cable_deadlines();
  void watch_cable();
  Time cable_deadline() const;
  bool on_cable_word(KernelSlot& kernel, u32 kind, std::span<const std::byte> bytes,
                     Datagram& datagram);

  void on_hello(KernelSlot& kernel, const std::byte* bytes, Datagram& datagram);
  void introduce(KernelSlot& one, KernelSlot& other);
  void on_link(KernelSlot& kernel, const message::LinkNotice& link, Datagram& datagram);
  void on_peer_faulted(KernelSlot& accuser, const message::Simple& report);
  void on_listening(KernelSlot& kernel, const message::Simple& news);
  void tell_steered();
  void end_accused(KernelSlot& kernel);
  void broken_protocol(KernelSlot& kernel, const char* what);

  Reply answer(const nlohmann::json& request, pid_t sender, std::vector<Fd> descriptors);
  Reply answer_attach(const nlohmann::json& request, pid_t sender);
  Reply answer_cable(const nlohmann::json& request, std::vector<Fd> descriptors);
  Reply answer_migrate(const nlohmann::json& request);  // migrating.cc
  Reply answer_migrate_thread(const nlohmann::json& request);
  // angeling.cc
  Reply answer_angel(const nlohmann::json& request);
  Reply answer_drain(const nlohmann::json& request);
  void tell_angel(KernelSlot& kernel);
  void on_suspicion(KernelSlot& accuser, const message::Simple& news);
  void judge_suspect(KernelSlot& kernel);
  void no_suspect(KernelSlot& kernel);
  void on_group_order(KernelSlot& kernel, const message::GroupOrder& order);
  bool drains(const KernelSlot& kernel) const { return (draining_ >> kernel.id() & 1) != 0; }
  Reply answer_status() const;
  Reply answer_view(const nlohmann::json& request);
  // `island` -1: of all.
  KernelSlot* least_used(int island);

  void begin_shutdown(const std::string& problem);
  bool all_ended() const;
  void report(const std::string& problem);
  void log(const std::string& text) const;

  SupervisorOptions options_;
  RunDirectory directory_;
  OnReady on_ready_;
  bool reported_ = false;
  bool came_up_ = false;
  bool ending_ = false;
  Time now_, started_, next_log_trim_;
  Fd epoll_, signals_, listener_;
  Fd attach_right_inlet_, attach_right_;  // what programs hold; our end
  std::optional<Uplink> uplink_;
  std::string problem_;             // why the uplink or a share could not be opened, for the user
  std::vector<Fd> link_listeners_;  // by kernel, where lower ones of other islands call
  std::vector<Fd> share_roots_;     // O_PATH, by number
  message::Config whole_{};         // what all kernels are told alike
  std::map<u16, std::string> name_of_added_;  // islands on other machines, by kernel
  std::vector<KernelSlot> kernels_;
  std::vector<Time> last_attach_;  // a kernel: for choosing among equals
  struct Standing {                // a kernel's, over all its lives
    Time window_began;
    u32 accusations = 0;    // that it made in the window
    u32 accused_epoch = 0;  // this life of it is to be ended; 0: none
    Time moves_groups;      // not before
    // It is said to hang: by its board's heartbeat it has not turned since; looked at again then.
    bool hangs = false;
    u64 heartbeat = 0;
    Time judged = Time::never();
  };
  std::vector<Standing> standing_;
  u32 angel_ = 0;     // policies
  u64 draining_ = 0;  // kernels, a bit each
  std::optional<CableEnd> cable_;
  std::optional<CablePlace> cable_place_;
  bool cable_watched_ = false;
  Time next_cable_call_ = Time::never();
  std::map<u32, Client> clients_;
  u32 next_client_ = 0;
};

}  // namespace cob::cli
