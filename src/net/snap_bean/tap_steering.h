// TapSteering: the steering tables inside Linux: an eBPF program that chooses the TAP queue of each
// frame exactly as SteeringReader::kernel_for() would; TUNSETSTEERINGEBPF, bpf(2), the eBPF
// instruction set (RFC 9669).
// Model: two array maps that are mapped here: the hash's tables, ports and the default table; and
// the groups of all tables. mirror() copies what has changed, tables before the ports that name
// them. Queue k is kernel k's. The supervisor's thread.
#pragma once

#include "base/memory.h"
#include "net/snap_bean/steering.h"

namespace cob::net {

class TapSteering {
 public:
  // `tables`: of which this is the image. EPERM: needs CAP_BPF (or root); others of bpf(2).
  static Result<TapSteering> create(const SteeringWriter& tables);

  // From now on the device behind `queue` chooses its queues so.
  Result<void> attach(FdRef queue) const;
  // After each change of the tables.
  void mirror();
  // Who gets what is no TCP: ARP, ICMP, fragments.
  void set_first(KernelId kernel);

  // The program's choice for a frame, by BPF_PROG_TEST_RUN. For tests.
  Result<u32> run(std::span<const std::byte> frame) const;

 private:
  struct Image {  // what the program looks up; native byte order
    u16 default_table;
    u16 first;
    u8 reserved[4'092];
    u16 port[65'536];
    u32 toeplitz[Toeplitz::most_bytes][256];  // by byte of the input, IPv4's and IPv6's
  };
  static_assert(sizeof(Image) == Toeplitz::most_bytes * 1'024 + 4'096 + 131'072);
  using Groups = u8[steering_tables][flow_groups];

  TapSteering(Mapping source, Fd image_map, Mapping image, Fd group_map, Mapping groups,
              Fd program);
  static Result<Fd> load(FdRef image_map, FdRef group_map);

  const SteeringMemory& source() const {
    return *std::launder(reinterpret_cast<const SteeringMemory*>(source_.data()));
  }
  Image& image() const { return *reinterpret_cast<Image*>(image_.data()); }
  Groups& groups() const { return *reinterpret_cast<Groups*>(groups_.data()); }

  Mapping source_;
  Fd image_map_, group_map_, program_;
  Mapping image_, groups_;
};

}  // namespace cob::net
