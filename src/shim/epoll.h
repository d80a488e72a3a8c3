// Epoll sets: a host epoll set for host members, and beside it the cob members with a ready list of
// their own. epoll(7). Model: a member is (number, description). The kernel announces a socket's
// changes on the set's ready ring; what is announced goes on the ready list; a wait walks the list
// and computes readiness from the lines. Members that no ring announces (a socket in a second set,
// a nested set, a set without ring) are on the scan list and are looked at each time. Any thread;
// everything under the members' lock, which nests.
#pragma once

#include <sys/epoll.h>

#include "shim/socket.h"

namespace cob::shim {

struct Member {
  EpollSet* set;  // null: free
  Object* object;
  int fd;
  u32 events;
  epoll_data_t data;
  u32 change;     // delivered last, for EPOLLET
  bool force;     // deliver whatever `change` says: added or modified since
  bool disabled;  // EPOLLONESHOT fired
  bool listed;    // on the ready list
  bool scanned;   // on the scan list
  Member* next_of_object;
  Member* previous;  // in the set
  Member* next;
  Member* previous_ready;
  Member* next_ready;
  Member* previous_scan;
  Member* next_scan;
};

// Where a kernel announces what changed at members of the set.
struct Announcer {
  u16 ring;           // of `arena`; 0: none
  bool death_listed;  // the arena's death was seen
  Arena* arena;
};
// Further kernels with members of a set; those of yet more are looked at each time.
inline constexpr u32 more_announcers = 15;

struct EpollSet : Object, Announcer {
  Member* members;
  Member* ready_first;
  Member* ready_last;
  Member* scan_first;
  Member* parents;   // this set as a member of others
  u32 host_members;  // at least as many as we know of
  bool host_shared;  // by fork: another program may add some
  u32 host_waiters;  // threads inside the host's epoll_wait for lack of cob members
  u32 sleepers;
  u32 changes;  // atomic: members added or re-armed here or below; a waiter looks at the set anew
  int kick;     // wakes them when the first cob member comes; 0: none
  i64 next_host_check_ns;
  u32 mores;
  Announcer more[more_announcers];  // `cob run --spread-threads`; a place may be free
};

// The host's set must be looked at.
inline bool has_host_members(const EpollSet* set) {
  return load(set->host_members) != 0 || load(set->host_shared);
}

bool epoll_start();
// A set without members, one reference; null: out of sets. REQUIRES: the lock.
EpollSet* new_set();
// Null: out of members. REQUIRES: the lock.
Member* add_member(EpollSet* set, Object* object, int fd, const epoll_event& event);
void end_epoll_set(EpollSet* set);
// A host epoll set that came by exec (`members_too`) or SCM_RIGHTS becomes one of ours
// (epoll_exec.cc). Null: it is none, or out of sets.
EpollSet* adopt_set(int number, bool members_too);
void adopt_sets_at_start();

class MembersGuard {
 public:
  MembersGuard();
  ~MembersGuard();
  MembersGuard(const MembersGuard&) = delete;
  MembersGuard& operator=(const MembersGuard&) = delete;
};
void reset_members_lock();

// The socket got a slot (again): its members are announced there.
void rejoin_sets(Socket* socket);
// The last number of the description is gone.
void leave_all_sets(Socket* socket);
// An undecided socket turns into a host socket: takes its members out, and puts them into the
// host's sets.
Member* detach_members(Socket* socket);
void join_host_sets(Member* members);

// Some cob member is ready. REQUIRES: the lock.
bool set_ready(EpollSet* set, int depth = 0);
// Looks at the ready ring. REQUIRES: the lock.
void drain_ready_ring(EpollSet* set);
void list_ready(Member* member);
void unlist_ready(Member* member);
void remove_member(Member* member);
// The set's announcements ring this thread's bell while it sleeps.
void arm_set(EpollSet* set, Thread* thread, int depth = 0);
void disarm_set(EpollSet* set, Thread* thread, int depth = 0);

// The death of a kernel is seen that announces to the set.
void check_deaths(EpollSet* set);
// The arena whose kernel announces to the set or to one nested in it; null: none. REQUIRES: the
// lock.
Arena* arena_under(EpollSet* set, int depth = 0);
void rename_kicks(int from, int to);           // a hidden number moved (give_up_number)
void leave_arena_in_sets(const Arena* arena);  // its memory goes to another arena
// Around a fork: the host's sets are both programs' now; in the child rings are gone with the
// arenas.
void share_sets();
void forget_rings();

}  // namespace cob::shim
