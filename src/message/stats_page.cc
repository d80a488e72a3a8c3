// Preparing a page of statistics, copying one that its writer goes on counting in, and the words
// for what it counts. See stats_page.h. Any thread.
#include "message/stats_page.h"

#include <cmath>
#include <memory>

namespace cob::message {

namespace {

using Words = std::array<u64, sizeof(PeerStats) / sizeof(u64)>;

Words load_words(const PeerStats& from) {
  Words words;
  const auto* word = reinterpret_cast<const u64*>(&from);
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = __atomic_load_n(word + i, __ATOMIC_RELAXED);
  return words;
}

}  // namespace

const char* name_of(Failure failure) {
  constexpr std::array names{"deadline",   "cancelled", "peer_ended", "lease_ran_out",
                             "peer_broke", "handler",   "no_handler", "unanswered"};
  static_assert(names.size() == failures);
  return names[static_cast<std::size_t>(failure)];
}

const char* name_of(Refusal refusal) {
  constexpr std::array names{"unsealed_memory", "wrong_size",    "wrong_layout",    "wrong_version",
                             "wrong_kernel",    "wrong_schema",  "wrong_key",       "second_claim",
                             "bad_sequence",    "bad_length",    "bad_kind",        "bad_form",
                             "unknown_type",    "unasked_reply", "unreserved_room", "bad_credit",
                             "bad_loan",        "bad_frame"};
  static_assert(names.size() == refusals);
  return names[static_cast<std::size_t>(refusal)];
}

const char* name_of(StreamRefusal refusal) {
  constexpr std::array names{"none",       "wrong_key",      "wrong_magic", "wrong_version",
                             "wrong_cob",  "wrong_kernel",   "second_peer", "old_attempt",
                             "bad_length", "unknown_record", "bad_record",  "too_late",
                             "too_many",   "too_large",      "by_peer"};
  static_assert(names.size() == stream_refusals);
  return names[static_cast<std::size_t>(refusal)];
}

const char* name_of(StreamBreach breach) {
  constexpr std::array names{"opened_twice", "bad_window",    "too_early",
                             "not_its_own",  "beyond_window", "after_end",
                             "bad_loan",     "bad_credit",    "bad_reason"};
  static_assert(names.size() == stream_breaches);
  return names[static_cast<std::size_t>(breach)];
}

const char* name_of(TransportKind kind) {
  constexpr std::array names{"none", "self", "coherent", "window", "socket", "simulated", "other"};
  const auto index = static_cast<std::size_t>(kind);
  return names[index < names.size() ? index : names.size() - 1];
}

u64 RoundTrips::count() const {
  u64 sum = 0;
  for (const Counter& c : bucket) sum += c;
  return sum;
}

u64 RoundTrips::percentile(double percent) const {
  const u64 all = count();
  if (all == 0) return 0;
  const double wanted = std::ceil(static_cast<double>(all) * std::clamp(percent, 0.0, 100.0) / 100);
  const u64 rank = std::max<u64>(1, static_cast<u64>(wanted));
  u64 seen = 0;
  for (std::size_t i = 0; i + 1 < buckets; ++i) {
    seen += bucket[i];
    if (seen >= rank) return std::min<u64>(Scale::highest_of(i), max_ns);
  }
  return max_ns;
}

Result<StatsPage> StatsPage::create(KernelId self, u32 epoch, u16 kernels,
                                    std::span<std::byte> place) {
  StatsPage page;
  if (place.empty()) {
    page.private_memory_ = TRY(Mapping::anonymous(bytes_for(kernels)));
    place = page.private_memory_.bytes();
  }
  if (place.size() < bytes_for(kernels) ||
      reinterpret_cast<std::uintptr_t>(place.data()) % alignof(PeerStats) != 0)
    return Error::of(EINVAL, "memory for statistics is too small, or not aligned");
  auto* header = new (place.data()) StatsHeader{};
  header->kernel = self.value;
  header->kernels = kernels;
  header->epoch = epoch;
  auto* peers = reinterpret_cast<PeerStats*>(place.data() + sizeof(StatsHeader));
  std::uninitialized_value_construct_n(peers, kernels);
  page.peers_ = std::launder(peers);
  __atomic_store_n(&header->magic, StatsHeader::magic_value, __ATOMIC_RELEASE);
  return page;
}

Result<StatsSnapshot> read_stats(std::span<const std::byte> page) {
  if (page.size() < sizeof(StatsHeader)) return Error::of(EPROTO, "no statistics there");
  const auto* shared = reinterpret_cast<const StatsHeader*>(page.data());
  const u32 magic = __atomic_load_n(&shared->magic, __ATOMIC_ACQUIRE);
  if (magic != StatsHeader::magic_value) return Error::of(EPROTO, "no statistics there");
  StatsSnapshot snapshot{*shared, {}};
  const StatsHeader& header = snapshot.header;
  if (header.version != StatsHeader::layout_version || header.peer_bytes != sizeof(PeerStats))
    return Error::of(EPROTONOSUPPORT, "the statistics are of another version than this reader");
  if (page.size() < StatsPage::bytes_for(header.kernels))
    return Error::of(EMSGSIZE, "the statistics are cut short");
  const auto* peers = reinterpret_cast<const PeerStats*>(page.data() + sizeof(StatsHeader));
  snapshot.peer.reserve(header.kernels);
  for (u16 k = 0; k < header.kernels; ++k)
    snapshot.peer.push_back(std::bit_cast<PeerStats>(load_words(peers[k])));
  return snapshot;
}

PeerStats difference(const PeerStats& before, const PeerStats& after) {
  Words words = load_words(after);
  const Words old = load_words(before);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] -= old[i];
  auto delta = std::bit_cast<PeerStats>(words);
  delta.connected = after.connected;
  delta.epoch = after.epoch;
  delta.transport = after.transport;
  delta.round_trips.max_ns = after.round_trips.max_ns;
  return delta;
}

}  // namespace cob::message
