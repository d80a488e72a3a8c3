// Holder, file leases: which files may be cached here, and what ends that. docs/descriptors.md, 3.
// Model: as holder.h; a lease is of a file and of all its descriptions here that were told of it;
// it ends with the last of them, by the home's word, with a fence or the session. Owned by the
// kernel's loop.
#include <algorithm>

#include "descriptor/holder.h"

namespace cob::descriptor {

std::optional<Holder::FileLease> Holder::file_lease(Ref ref) const {
  const Remote& remote = remotes_[ref.slot];
  if (remote.file_lease == 0) return std::nullopt;
  const auto& leased = pairs_[remote.home.value].leased;
  return FileLease{
      .home = remote.home, .number = remote.file_lease, .size = leased.at(remote.file_lease).size};
}

// What was asked at `asked` has been answered with something leased, or renewed that.
void Holder::extend(KernelId home, Time asked) {
  Pair& pair = pairs_[home.value];
  pair.lease.extend(asked);
  if (pair.renew_at == Time::never()) pair.renew_at = asked + renew_interval;
  if (lease_events_.extended && !pair.leased.empty())
    lease_events_.extended(home, pair.lease.until());
}

void Holder::take_file_lease(Remote& remote, u64 number, u64 size, Time asked) {
  if (remote.file_lease != number) {
    leave_file_lease(remote);
    auto& leased = pairs_[remote.home.value].leased;
    const auto [file, is_new] = leased.try_emplace(number);
    if (is_new) {
      file->second.size = size;
      ++counters_.file_leases;
    }
    ++file->second.descriptions;
    remote.file_lease = number;
  }
  extend(remote.home, asked);
}

void Holder::leave_file_lease(Remote& remote) {
  const u64 number = std::exchange(remote.file_lease, 0);
  if (number == 0) return;
  auto& leased = pairs_[remote.home.value].leased;
  const auto found = leased.find(number);
  if (--found->second.descriptions > 0) return;
  leased.erase(found);
  if (lease_events_.ended) lease_events_.ended(remote.home, number);
}

void Holder::end_file_lease(KernelId home, u64 number) {
  Pair& pair = pairs_[home.value];
  if (pair.leased.erase(number) == 0) return;
  for (const auto& [name, slot] : pair.slots)
    if (remotes_[slot].file_lease == number) remotes_[slot].file_lease = 0;
  if (lease_events_.ended) lease_events_.ended(home, number);
}

void Holder::end_file_leases(KernelId home) {
  std::vector<u64> numbers;
  for (const auto& [number, leased] : pairs_[home.value].leased) numbers.push_back(number);
  for (const u64 number : numbers) end_file_lease(home, number);
}

std::optional<u64> Holder::resting_offset(Ref ref) const {
  const Remote& remote = remotes_[ref.slot];
  const bool mine = remote.grant != 0 && !remote.lost && !remote.busy && !remote.starved &&
                    remote.waiting.empty() && !remote.recall.valid();
  if (!mine || !pairs_[remote.home.value].lease.good(clock_.now())) return std::nullopt;
  return remote.offset;
}

bool Holder::advance(Ref ref, u64 from, u64 bytes) {
  const auto at = resting_offset(ref);
  if (!at || *at != from || remotes_[ref.slot].file_lease == 0) return false;
  ++counters_.moved_alone;
  remotes_[ref.slot].offset = from + bytes;
  return true;
}

}  // namespace cob::descriptor
