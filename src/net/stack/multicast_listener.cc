// Telling groups. See multicast_listener.h; RFC 3810 sections 6 and 8, RFC 2710 sections 4 and 5.
// Owned by the Ipv6Interface.
#include "net/stack/multicast_listener.h"

#include <algorithm>

namespace cob::net {
namespace {

constexpr std::size_t most_report_bytes = 1'280;

}  // namespace

// In (0, most], as far as there is any.
u32 MulticastListener::delay(u32 most_ms) {
  return most_ms == 0 ? 0 : 1 + static_cast<u32>(siphash(key_, ++draws_, 0) % most_ms);
}

MulticastListener::Group* MulticastListener::find(const Ipv6Address& group) {
  const auto found = std::ranges::find(groups_, group, &Group::group);
  return found == groups_.end() ? nullptr : &*found;
}

// Section 6.1: at once, and robustness - 1 times more.
void MulticastListener::change(Group& g, u64 now_ms) {
  g.changes_left = robustness_;
  g.change_ms = now_ms;
  g.answer_ms = forever;
}

void MulticastListener::join(const Ipv6Address& group, u64 now_ms) {
  Group* g = find(group);
  if (g == nullptr) g = find({});
  if (g == nullptr || g->joined) return;
  g->group = group;
  g->joined = true;
  change(*g, now_ms);
  poll(now_ms);
}

void MulticastListener::leave(const Ipv6Address& group, u64 now_ms) {
  Group* g = find(group);
  if (g == nullptr || !g->joined) return;
  g->joined = false;
  change(*g, now_ms);
  poll(now_ms);
}

void MulticastListener::set_source(const Ipv6Address& source, u64 now_ms) {
  if (source == source_) return;
  source_ = source;
  if (source.is_any()) return;
  for (Group& g : groups_)
    if (g.joined) change(g, now_ms);
  poll(now_ms);
}

// Sections 6.2 and 8.2.1.
void MulticastListener::on_query(const MldQuery& query, bool answers, u64 now_ms) {
  if (query.version_1) {
    if (!version_1(now_ms)) {
      answer_all_ms_ = forever;
      for (Group& g : groups_) {
        g.answer_ms = forever;
        if (!g.joined) g = {};
        g.changes_left = 0;
        g.change_ms = forever;
      }
    }
    version_1_until_ms_ = now_ms + u64{robustness_} * query_interval_s * 1'000 +
                          std::min(query.max_response_ms, 65'535u);
  } else if (query.robustness != 0) {
    robustness_ = query.robustness;
  }
  if (!answers) return;
  if (version_1(now_ms)) return ask_all_v1(query, now_ms);
  const u64 due_ms = now_ms + delay(query.max_response_ms);
  if (answer_all_ms_ <= due_ms) return;
  if (query.group.is_any()) {
    answer_all_ms_ = due_ms;
  } else if (Group* g = find(query.group); g != nullptr && g->joined) {
    ask_group(*g, query, due_ms);
  }
}

// The third to the fifth rule of section 6.2.
void MulticastListener::ask_group(Group& g, const MldQuery& query, u64 due_ms) {
  const bool pending = g.answer_ms != forever;
  const bool about_all = query.sources == 0 || (pending && g.sources == 0);
  if (!pending || about_all) g.sources = 0;
  for (u32 i = 0; i < query.sources && !about_all; ++i) {
    const auto known = std::span(g.source).first(g.sources);
    if (std::ranges::find(known, query.source[i]) != known.end()) continue;
    if (g.sources == max_mld_sources) {
      g.sources = 0;  // the whole group says it too
      break;
    }
    g.source[g.sources++] = query.source[i];
  }
  g.answer_ms = pending ? std::min(g.answer_ms, due_ms) : due_ms;
}

// RFC 2710 section 4: each group has a time of its own.
void MulticastListener::ask_all_v1(const MldQuery& query, u64 now_ms) {
  for (Group& g : groups_) {
    if (!g.joined || (!query.group.is_any() && query.group != g.group)) continue;
    g.sources = 0;
    const u64 latest = now_ms + query.max_response_ms;
    if (g.answer_ms > latest) g.answer_ms = now_ms + delay(query.max_response_ms);
  }
}

void MulticastListener::on_report_v1(const Ipv6Address& group, u64 now_ms) {
  if (Group* g = find(group); g != nullptr && version_1(now_ms)) g->answer_ms = forever;
}

void MulticastListener::poll(u64 now_ms) {
  tell_changes(now_ms);
  answer(now_ms);
}

void MulticastListener::tell_changes(u64 now_ms) {
  std::array<MldRecord, max_groups> records;
  u32 count = 0;
  const bool older = version_1(now_ms);
  for (Group& g : groups_) {
    if (g.change_ms > now_ms) continue;
    if (older) {
      report_v1(g.joined ? mld_report_v1 : mld_done_v1, g.group);
      if (!g.joined) g.changes_left = 1;  // told once
    } else {
      records[count++] = {.type = g.joined ? MldRecordType::to_exclude : MldRecordType::to_include,
                          .group = g.group,
                          .sources = {}};
    }
    const bool more = --g.changes_left > 0;
    g.change_ms = more ? now_ms + delay(older ? unsolicited_v1_ms : unsolicited_ms) : u64{forever};
    if (!more && !g.joined) g = {};
  }
  if (count > 0) report(std::span(records).first(count));
}

void MulticastListener::answer(u64 now_ms) {
  std::array<MldRecord, max_groups> records;
  u32 count = 0;
  const bool all = answer_all_ms_ <= now_ms;
  if (all) answer_all_ms_ = forever;
  for (Group& g : groups_) {
    if (!g.joined || (!all && g.answer_ms > now_ms)) continue;
    const bool about_sources = !all && g.sources > 0;
    g.answer_ms = forever;
    if (version_1(now_ms)) {
      report_v1(mld_report_v1, g.group);
    } else {
      records[count++] = {
          .type = about_sources ? MldRecordType::is_include : MldRecordType::is_exclude,
          .group = g.group,
          .sources = std::span<const Ipv6Address>(g.source).first(about_sources ? g.sources : 0)};
    }
  }
  if (count > 0) report(std::span(records).first(count));
}

// Bounded by an MTU that every link has: what does not fit goes in a further one.
void MulticastListener::report(std::span<const MldRecord> records) {
  std::byte out[most_report_bytes];
  constexpr std::size_t most = 3;
  static_assert(64 + most * (20 + max_mld_sources * sizeof(Ipv6Address)) <= most_report_bytes);
  while (!records.empty()) {
    const bool all_short = std::ranges::all_of(records, [](auto& r) { return r.sources.empty(); });
    const auto part = records.first(all_short ? records.size() : std::min(most, records.size()));
    const std::size_t bytes = emit_mld_report(source_, part, out);
    if (bytes > 0) send_(mld_routers, std::span<const std::byte>(out).first(bytes));
    records = records.subspan(part.size());
  }
}

void MulticastListener::report_v1(u8 type, const Ipv6Address& group) {
  std::byte out[128];
  const std::size_t bytes = emit_mld_v1(source_, type, group, out);
  send_(type == mld_done_v1 ? ipv6_all_routers : group,
        std::span<const std::byte>(out).first(bytes));
}

u64 MulticastListener::next_deadline_ms() const {
  u64 next = answer_all_ms_;
  for (const Group& g : groups_) next = std::min({next, g.change_ms, g.answer_ms});
  return next;
}

}  // namespace cob::net
