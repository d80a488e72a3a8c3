// Copies file actions record by record. Model: spawn_actions.h; glibc's posix/spawn_int.h.
#include "shim/spawn_actions.h"

#include <stdlib.h>

#include "shim/lock.h"
#include "shim/open_numbers.h"
#include "shim/raw.h"
#include "shim/table.h"

namespace cob::shim {

namespace {

enum class Action : int { close = 0, dup2, open, chdir, fchdir, closefrom, set_foreground };

struct Dup {
  int from, to;
};
struct Open {
  int fd;
  const char* path;
  int flags;
  mode_t mode;
};
struct Record {
  Action action;
  union {
    int fd;  // close, fchdir, closefrom's first, set_foreground
    Dup dup;
    Open open;
    const char* path;
  };
};
static_assert(sizeof(Record) == 32);

// The four kinds of record that matter here, made by libc, must read back through Record.
bool layout_is_known() {
  static int known;  // 0: not looked, 1: yes, 2: no
  if (load(known) == 0) {
    posix_spawn_file_actions_t probe;
    posix_spawn_file_actions_init(&probe);
    posix_spawn_file_actions_addclose(&probe, 0);
    posix_spawn_file_actions_adddup2(&probe, 1, 2);
    posix_spawn_file_actions_addopen(&probe, 2, "/", O_RDONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&probe, 3);
    const auto* record = reinterpret_cast<const Record*>(probe.__actions);
    const bool same = probe.__used == 4 && record[0].action == Action::close && record[0].fd == 0 &&
                      record[1].action == Action::dup2 && record[1].dup.from == 1 &&
                      record[1].dup.to == 2 && record[2].action == Action::open &&
                      record[2].open.fd == 2 && record[3].action == Action::closefrom &&
                      record[3].fd == 3;
    posix_spawn_file_actions_destroy(&probe);
    store(known, same ? 1 : 2);
  }
  return load(known) == 1;
}

int made_by(const Record& record) {
  if (record.action == Action::dup2) return record.dup.to;
  if (record.action == Action::open) return record.open.fd;
  return -1;
}

// Records that close everything from `first` up but the hidden numbers, behind the `done` records
// before them.
u32 close_from(int first, const Record* before, u32 done, Record* out) {
  u32 count = 0;
  auto add = [&](int fd) {
    if (out != nullptr) {
      out[count].action = Action::close;
      out[count].fd = fd;
    }
    ++count;
  };
  for_each_open([&](int fd) {
    if (fd >= first && !is_hidden(fd)) add(fd);
    return true;
  });
  for (u32 i = 0; i < done; ++i) {
    if (made_by(before[i]) >= first) add(made_by(before[i]));
  }
  return count;
}

constexpr u32 slack = 64;  // numbers that other threads may open between counting and writing

// The most records that the copy can need.
u32 room_for(const posix_spawn_file_actions_t* actions, const RelayedNumbers& relayed) {
  u32 room = 3 + 2 * relayed.count();
  if (actions == nullptr) return room;
  const auto* record = reinterpret_cast<const Record*>(actions->__actions);
  const auto used = static_cast<u32>(actions->__used);
  for (u32 i = 0; i < used; ++i) {
    room += record[i].action == Action::closefrom
                ? close_from(record[i].fd, record, i, nullptr) + slack
                : 1;
  }
  return room;
}

bool is_made(const posix_spawn_file_actions_t* actions, int fd) {
  for (int i = 0; actions != nullptr && i < actions->__used; ++i) {
    if (made_by(reinterpret_cast<const Record*>(actions->__actions)[i]) == fd) return true;
  }
  return false;
}

// A dup2 of our own would let a number stay that is close-on-exec: it goes at the end, if none of
// the program's actions made it anew.
u32 close_relayed(const RelayedNumbers& relayed, const posix_spawn_file_actions_t* actions,
                  Record* out) {
  u32 count = 0;
  for (u32 i = 0; i < relayed.count(); ++i) {
    if (!relayed[i].close_on_exec || relayed[i].end < 0 || is_made(actions, relayed[i].fd))
      continue;
    out[count].action = Action::close;
    out[count++].fd = relayed[i].fd;
  }
  return count;
}

}  // namespace

bool duplicates(const posix_spawn_file_actions_t* actions, int fd) {
  if (actions == nullptr || !layout_is_known()) return false;
  for (int i = 0; i < actions->__used; ++i) {
    const Record& record = reinterpret_cast<const Record*>(actions->__actions)[i];
    if (record.action == Action::dup2 && record.dup.from == fd) return true;
  }
  return false;
}

SpawnActions::SpawnActions(const posix_spawn_file_actions_t* actions, int attach_right,
                           int liveness, const RelayedNumbers& relayed)
    : scratch_(layout_is_known() ? room_for(actions, relayed) * sizeof(Record) : 0) {
  auto* out = reinterpret_cast<Record*>(scratch_.data());
  if (out == nullptr) return;
  u32 count = 0;
  for (u32 i = 0; i < relayed.count(); ++i) {
    if (relayed[i].end < 0) continue;
    out[count].action = Action::dup2;
    out[count++].dup = {relayed[i].end, relayed[i].fd};
  }
  const auto used = actions == nullptr ? 0U : static_cast<u32>(actions->__used);
  for (u32 i = 0; i < used; ++i) {
    const Record& record = reinterpret_cast<const Record*>(actions->__actions)[i];
    if (record.action == Action::closefrom) {
      count += close_from(record.fd, reinterpret_cast<const Record*>(actions->__actions), i,
                          out + count);
    } else {
      out[count++] = record;
    }
  }
  count += close_relayed(relayed, actions, out + count);
  const int inherited_numbers[] = {attach_right, liveness, relayed.liveness()};
  for (const int inherited : inherited_numbers) {
    if (inherited < 0) continue;
    out[count].action = Action::dup2;  // onto itself: libc clears close-on-exec
    out[count++].dup = {inherited, inherited};
  }
  posix_spawn_file_actions_init(&copy_);
  copy_.__allocated = static_cast<int>(count);
  copy_.__used = static_cast<int>(count);
  copy_.__actions = reinterpret_cast<__spawn_action*>(out);
  ready_ = true;
}

}  // namespace cob::shim
