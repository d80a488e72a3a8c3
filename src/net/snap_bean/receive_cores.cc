// Setting a device's rps_cpus; see receive_cores.h. The supervisor's thread.
#include "net/snap_bean/receive_cores.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

namespace cob::net {
namespace {

constexpr std::size_t cores_a_word = 32;

// The root of a sysfs that shows this process's network namespace, mounted nowhere.
Result<Fd> mount_sysfs() {
  const Fd context(::fsopen("sysfs", FSOPEN_CLOEXEC));
  if (!context.valid()) return Error::from_errno("fsopen sysfs");
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return Error::from_errno("making a sysfs");
  Fd root(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!root.valid()) return Error::from_errno("fsmount sysfs");
  return root;
}

std::string read_mask(FdRef file) {
  std::array<char, 1'024> text{};
  const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
  std::string mask(text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return mask;
}

bool write_mask(FdRef file, const std::string& mask) {
  return ::pwrite(file.get(), mask.data(), mask.size(), 0) == static_cast<ssize_t>(mask.size());
}

}  // namespace

std::string core_mask(std::span<const int> cores) {
  std::vector<u32> words(1);
  for (const int core : cores) {
    const auto at = static_cast<std::size_t>(core);
    if (at / cores_a_word >= words.size()) words.resize(at / cores_a_word + 1);
    words[at / cores_a_word] |= 1u << at % cores_a_word;
  }
  std::string text;
  for (std::size_t i = words.size(); i-- > 0;) {
    std::array<char, 16> word{};
    std::snprintf(word.data(), word.size(), text.empty() ? "%x" : ",%08x", words[i]);
    text += word.data();
  }
  return text;
}

Result<ReceiveCores> ReceiveCores::set(const std::string& device, u16 queues,
                                       std::span<const int> cores) {
  const Fd root = TRY(mount_sysfs());
  const std::string wanted = core_mask(cores);
  ReceiveCores all;
  for (u16 i = 0; i < queues; ++i) {
    const std::string path =
        "class/net/" + device + "/queues/rx-" + std::to_string(i) + "/rps_cpus";
    Fd mask(::openat(root.get(), path.c_str(), O_RDWR | O_CLOEXEC));
    if (!mask.valid()) return Error::from_errno("rps_cpus");
    std::string before = read_mask(mask.ref());
    if (!write_mask(mask.ref(), wanted)) return Error::from_errno("setting rps_cpus");
    all.queues_.push_back({std::move(mask), std::move(before)});
  }
  return all;
}

// A queue that has gone with its device takes nothing any more.
ReceiveCores::~ReceiveCores() {
  for (const Queue& queue : queues_) write_mask(queue.mask.ref(), queue.before);
}

}  // namespace cob::net
