// MulticastListener: tells switches and routers of the link which groups the cob hears, so that
// they let neighbour discovery through: RFC 3810, RFC 2710 beside an older router, RFC 3590. Model:
// a listener only, of any source: each group is in EXCLUDE mode with no sources. A change is told
// at once and again within a second; queries are answered after a random time. max_groups, more
// than the cob has addresses; what has no place is not told of.
// Owned by the Ipv6Interface.
#pragma once

#include <array>
#include <functional>
#include <span>

#include "net/stack/keyed_hash.h"
#include "net/wire/mld.h"

namespace cob::net {

class MulticastListener {
 public:
  static constexpr u32 max_groups = 16;
  // RFC 3810 section 9, RFC 2710 section 7.
  static constexpr u8 robustness = 2;
  static constexpr u32 unsolicited_ms = 1'000, unsolicited_v1_ms = 10'000;
  static constexpr u32 query_interval_s = 125;
  static constexpr u64 forever = ~u64{0};

  // A whole packet, for this group's MAC address.
  using Send = std::function<void(const Ipv6Address& group, std::span<const std::byte> packet)>;
  MulticastListener(HashKey key, Send send) : key_(key), send_(std::move(send)) {}

  // Where reports come from: the link-local address; any until there is one that is settled. The
  // first one lets all be told anew (RFC 3590 section 4).
  void set_source(const Ipv6Address& source, u64 now_ms);
  void join(const Ipv6Address& group, u64 now_ms);
  void leave(const Ipv6Address& group, u64 now_ms);

  // `answers`: false: another kernel of the cob answers.
  void on_query(const MldQuery& query, bool answers, u64 now_ms);
  // Another listener has reported the group to a router of MLDv1.
  void on_report_v1(const Ipv6Address& group, u64 now_ms);

  void poll(u64 now_ms);
  u64 next_deadline_ms() const;  // forever: none

 private:
  struct Group {
    Ipv6Address group;  // any: the place is free
    bool joined = false;
    u8 changes_left = 0;  // times that its joining or leaving is still to be told
    u64 change_ms = forever;
    u64 answer_ms = forever;
    std::array<Ipv6Address, max_mld_sources> source{};  // that the answer is about; none: the group
    u8 sources = 0;
  };
  bool version_1(u64 now_ms) const { return now_ms < version_1_until_ms_; }
  u32 delay(u32 most_ms);
  Group* find(const Ipv6Address& group);
  void change(Group& g, u64 now_ms);
  void ask_group(Group& g, const MldQuery& query, u64 due_ms);
  void ask_all_v1(const MldQuery& query, u64 now_ms);
  void tell_changes(u64 now_ms);
  void answer(u64 now_ms);
  void report(std::span<const MldRecord> records);
  void report_v1(u8 type, const Ipv6Address& group);

  HashKey key_;
  Send send_;
  u64 draws_ = 0;
  Ipv6Address source_;
  std::array<Group, max_groups> groups_{};
  u64 answer_all_ms_ = forever;  // to a general query
  u64 version_1_until_ms_ = 0;   // a router of MLDv1 was heard
  u8 robustness_ = robustness;
};

}  // namespace cob::net
