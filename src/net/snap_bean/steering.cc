// Writing and reading the steering tables; see steering.h. Every shared byte and word that may
// change is read and written whole, once. The writer's and each reader's thread.
#include "net/snap_bean/steering.h"

#include <algorithm>
#include <memory>
#include <new>

#include "message/shared_word.h"

namespace cob::net {
namespace {

u16 load(const message::le<u16>& word) {
  message::le<u16> copy;
  __atomic_load(&word, &copy, __ATOMIC_ACQUIRE);
  return copy;
}
void store(message::le<u16>& word, u16 value) {
  message::le<u16> copy = value;
  __atomic_store(&word, &copy, __ATOMIC_RELEASE);
}
u8 load(const u8& byte) { return __atomic_load_n(&byte, __ATOMIC_RELAXED); }
void store(u8& byte, u8 value) { __atomic_store_n(&byte, value, __ATOMIC_RELAXED); }

}  // namespace

GroupTable spread_over(std::span<const KernelId> kernels) {
  VERIFY(!kernels.empty());
  GroupTable groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const KernelId kernel = kernels[i % kernels.size()];
    VERIFY(kernel.value < max_steered_kernels);
    groups[i] = static_cast<u8>(kernel.value);
  }
  return groups;
}

// ---- the writer

SteeringWriter::SteeringWriter(SharedMemory shared, u16 kernels)
    : shared_(std::move(shared)), kernels_(kernels) {
  for (u16 i = 1; i < steering_tables; ++i) unused_.push_back(i);  // 0 means none
}

Result<SteeringWriter> SteeringWriter::create(u16 kernels, const ToeplitzKey& key) {
  if (kernels == 0 || kernels > max_steered_kernels)
    return Error::of(EINVAL, "number of kernels to steer to");
  SharedMemory shared =
      TRY(create_memory("cob-steering", sizeof(SteeringMemory), Writers::creator));
  auto* memory = new (shared.mapping.data()) SteeringMemory;  // all zeros, which is left
  SteeringWriter writer(std::move(shared), kernels);
  memory->header.kernels = kernels;
  memory->header.key = key;
  memory->header.version = SteeringMemory::layout_version;
  std::array<KernelId, max_steered_kernels> all;
  for (u16 i = 0; i < kernels; ++i) all.at(i) = KernelId(i);
  TRY(writer.steer_default(spread_over(std::span(all).first(kernels))));
  memory->header.magic = SteeringMemory::magic_value;
  return writer;
}

// A table that was unused and now holds `groups`.
Result<u16> SteeringWriter::fill(const GroupTable& groups) {
  if (std::ranges::any_of(groups, [this](u8 kernel) { return kernel >= kernels_; }))
    return Error::of(EINVAL, "steering to a kernel that does not exist");
  if (unused_.empty()) return Error::of(ENOSPC, "all steering tables are used");
  const u16 table = unused_.front();
  unused_.pop_front();
  for (std::size_t i = 0; i < groups.size(); ++i) store(memory().table[table][i], groups[i]);
  return table;
}

Result<void> SteeringWriter::steer_port(SteeredProtocol protocol, Port port,
                                        const GroupTable& groups) {
  const u16 table = TRY(fill(groups));
  message::le<u16>& entry = memory().port[std::to_underlying(protocol)][port.value];
  const u16 before = entry;
  store(entry, table);
  if (before != SteeringMemory::no_table) unused_.push_back(before);
  return {};
}

void SteeringWriter::release_port(SteeredProtocol protocol, Port port) {
  message::le<u16>& entry = memory().port[std::to_underlying(protocol)][port.value];
  if (entry == SteeringMemory::no_table) return;
  unused_.push_back(entry);
  store(entry, SteeringMemory::no_table);
}

Result<void> SteeringWriter::steer_default(const GroupTable& groups) {
  const u16 table = TRY(fill(groups));
  const u16 before = memory().header.default_table;
  store(memory().header.default_table, table);
  if (before != SteeringMemory::no_table) unused_.push_back(before);
  return {};
}

Result<void> SteeringWriter::set_group(u16 table, u16 group, KernelId kernel) {
  if (group >= flow_groups || kernel.value >= kernels_)
    return Error::of(EINVAL, "no such flow group or kernel");
  store(memory().table[table][group], static_cast<u8>(kernel.value));
  return {};
}

Result<void> SteeringWriter::move_group(SteeredProtocol protocol, Port port, u16 group,
                                        KernelId kernel) {
  const u16 table = memory().port[std::to_underlying(protocol)][port.value];
  if (table == SteeringMemory::no_table)
    return Error::of(ENOENT, "the port is steered by the default table");
  return set_group(table, group, kernel);
}

Result<void> SteeringWriter::move_default_group(u16 group, KernelId kernel) {
  return set_group(memory().header.default_table, group, kernel);
}

bool SteeringWriter::has_table(SteeredProtocol protocol, Port port) const {
  return memory().port[std::to_underlying(protocol)][port.value] != SteeringMemory::no_table;
}

GroupTable SteeringWriter::groups(SteeredProtocol protocol, Port port) const {
  const u16 table = has_table(protocol, port)
                        ? memory().port[std::to_underlying(protocol)][port.value]
                        : memory().header.default_table;
  GroupTable copy;
  std::ranges::copy(memory().table[table], copy.begin());
  return copy;
}

// ---- the reader

Result<SteeringReader> SteeringReader::open(FdRef fd) {
  Mapping mapping = TRY(map_foreign(fd, sizeof(SteeringMemory), Writers::creator, Access::read));
  SteeringMemory::Header header;
  message::copy_once(&header, mapping.data(), sizeof header);
  if (header.magic != SteeringMemory::magic_value ||
      header.version != SteeringMemory::layout_version)
    return Error::of(EPROTO, "not a steering memory of this version");
  if (header.kernels == 0 || header.kernels > max_steered_kernels)
    return Error::of(EPROTO, "number of kernels in a steering memory");
  return SteeringReader(std::move(mapping), header.key, header.kernels);
}

std::optional<KernelId> SteeringReader::kernel_for(SteeredProtocol protocol, Port destination,
                                                   u32 hash) const {
  const auto& memory = *std::launder(reinterpret_cast<const SteeringMemory*>(mapping_.data()));
  u16 table = load(memory.port[std::to_underlying(protocol)][destination.value]);
  if (table == SteeringMemory::no_table) table = load(memory.header.default_table);
  if (table >= steering_tables) return std::nullopt;
  const u8 kernel = load(memory.table[table][flow_group(hash)]);
  if (kernel >= kernels_) return std::nullopt;
  return KernelId(kernel);
}

}  // namespace cob::net
