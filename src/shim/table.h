// The descriptor table's inside: which number of this program names which cob socket or epoll set.
// Model: the host's table is the truth, this is a cache: one pointer a number in reserved memory,
// read without a lock. An entry is cleared before the host closes the number and set after the host
// has given it. Objects are counted: one reference a number and one a blocked call; their memory is
// reused for objects of the same kind only. Any thread.
#pragma once

#include "shim/lock.h"

namespace cob::shim {

enum class Kind : u8 { socket = 1, epoll = 2, file = 3 };

struct Object {
  Kind kind;
  u32 references;
};

struct Socket;
struct EpollSet;

inline constexpr u32 table_entries = 1U << 20;

bool table_start();
u32 limit_of_numbers();  // RLIMIT_NOFILE now, at most table_entries

inline Object* lookup(int fd) {
  if (static_cast<u32>(fd) >= table_view.size) return nullptr;
  return acquire(table_view.entry[fd]);
}
inline Socket* lookup_socket(int fd) {
  Object* object = lookup(fd);
  if (object == nullptr || object->kind != Kind::socket) return nullptr;
  return reinterpret_cast<Socket*>(object);
}
// A file of another island; file.h.
inline Socket* lookup_file(int fd) {
  Object* object = lookup(fd);
  if (object == nullptr || object->kind != Kind::file) return nullptr;
  return reinterpret_cast<Socket*>(object);
}
// Either: what the kernel knows as a description.
inline bool is_description(const Object* object) { return object->kind != Kind::epoll; }
inline Socket* lookup_description(int fd) {
  Object* object = lookup(fd);
  return object == nullptr || !is_description(object) ? nullptr : reinterpret_cast<Socket*>(object);
}
inline EpollSet* lookup_epoll(int fd) {
  Object* object = lookup(fd);
  if (object == nullptr || object->kind != Kind::epoll) return nullptr;
  return reinterpret_cast<EpollSet*>(object);
}
inline Object* object_of(Socket* socket) { return reinterpret_cast<Object*>(socket); }
inline Object* object_of(EpollSet* set) { return reinterpret_cast<Object*>(set); }

// Gives the number to the object; the table takes over one reference. Drops what was there. False
// (and the reference is dropped) when the number is beyond the table.
bool install(int fd, Object* object);
// Every number of `before` is `after`'s, or, if that is null, the host's. REQUIRES: the caller has
// references to both.
void install_in_all(Object* before, Object* after);
// Clears the entry; the caller now has its reference. Null when it was empty.
Object* take_out(int fd);
// A reference of the caller's own to what is at `fd`, or null.
Object* hold(int fd);
// Gives a reference back; the last one ends the object.
void drop(Object* object);
// One past the highest number ever installed.
u32 table_high();

// The shim's own descriptors. make_hidden moves one to a high number (closing the old) and protects
// it; close-on-exec is set. -errno on failure, the old one is closed then too.
int make_hidden(int fd);
void hide(int fd);    // an open number below table_entries, where it is
void unhide(int fd);  // it stays open
int make_hidden_copy(int fd);
void close_hidden(int fd);
// Closes first..last except the shim's own. 0 or -errno.
int close_range_around_hidden(u32 first, u32 last, u32 flags);
// While it lives the program may open numbers up to the hard limit: attaching needs a few, also
// when its table is full.
class RaisedLimit {
 public:
  RaisedLimit();
  ~RaisedLimit();
  RaisedLimit(const RaisedLimit&) = delete;
  RaisedLimit& operator=(const RaisedLimit&) = delete;

 private:
  u64 before_[2];
  bool raised_ = false;
};

// The program wants a hidden number for itself (dup2): what is there moves to another. The number
// stays open for the dup to replace. A thread that is about to ring the old number this instant may
// ring what replaces it.
void give_up_number(int fd);
// In a forked child: closes every hidden descriptor but `keep_a` and `keep_b`.
void close_all_hidden_but(int keep_a, int keep_b);

// True if the number is open on what /proc/self/fd calls so.
bool names_file(int fd, const char* name);
void* reserve(size_t bytes);  // zeroed memory, untouched pages cost nothing; null when exhausted

}  // namespace cob::shim
