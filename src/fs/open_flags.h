// Open flags as they travel: Linux's numbers for x86-64, translated at the border of an ISA that
// has others (arm64: O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_LARGEFILE). open(2), fcntl(2).
#pragma once

#include <fcntl.h>

#include <array>
#include <optional>

#include "base/types.h"

namespace cob::fs {

namespace open_flag {
inline constexpr u32 access = 03, read_only = 0, write_only = 01, read_write = 02;
inline constexpr u32 create = 0100, exclusive = 0200, no_terminal = 0400, truncate = 01000;
inline constexpr u32 append = 02000, nonblock = 04000, data_sync = 010000, async = 020000;
inline constexpr u32 direct = 040000, large_file = 0100000, directory = 0200000;
inline constexpr u32 no_follow = 0400000, no_access_time = 01000000, close_on_exec = 02000000;
inline constexpr u32 sync = 04010000, path = 010000000, temporary = 020200000;
}  // namespace open_flag

namespace detail {
struct FlagPair {
  u32 ours;
  int host;
};
// Each bit once; O_SYNC and O_TMPFILE contain another flag's, and are taken apart.
inline constexpr std::array<FlagPair, 17> flag_pairs{{
    {open_flag::create, O_CREAT},
    {open_flag::exclusive, O_EXCL},
    {open_flag::no_terminal, O_NOCTTY},
    {open_flag::truncate, O_TRUNC},
    {open_flag::append, O_APPEND},
    {open_flag::nonblock, O_NONBLOCK},
    {open_flag::data_sync, O_DSYNC},
    {open_flag::async, O_ASYNC},
    {open_flag::direct, O_DIRECT},
    {open_flag::directory, O_DIRECTORY},
    {open_flag::no_follow, O_NOFOLLOW},
    {open_flag::no_access_time, O_NOATIME},
    {open_flag::close_on_exec, O_CLOEXEC},
    {open_flag::sync & ~open_flag::data_sync, O_SYNC & ~O_DSYNC},
    {open_flag::path, O_PATH},
    {open_flag::temporary & ~open_flag::directory, O_TMPFILE & ~O_DIRECTORY},
    {open_flag::large_file, 0},  // all our files are
}};
}  // namespace detail

// nullopt: flags that nobody knows, or no access mode.
constexpr std::optional<int> host_flags(u32 flags) {
  int host = static_cast<int>(flags & open_flag::access);
  u32 left = flags & ~open_flag::access;
  for (const auto& pair : detail::flag_pairs) {
    if ((left & pair.ours) == 0) continue;
    host |= pair.host;
    left &= ~pair.ours;
  }
  if (left != 0) return std::nullopt;
  return host;
}

// Of what fcntl(F_GETFL) says.
constexpr u32 neutral_flags(int host) {
  u32 flags = static_cast<u32>(host) & open_flag::access;
  for (const auto& pair : detail::flag_pairs)
    if (pair.host != 0 && (host & pair.host) != 0) flags |= pair.ours;
  return flags;
}

}  // namespace cob::fs
