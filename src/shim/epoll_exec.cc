// Epoll sets that outlive an exec. epoll(7), execve(2), proc(5). Model: the host's set survives in
// the descriptor table, with its host members; cob members are the shim's, and go with the image.
// So before the exec each is put into the host's set, by its placeholder, with its events moved to
// bits that an eventfd never reports: it wakes nobody, also not another program that shares the
// set. The new image reads the set's members in fdinfo, takes those out and makes cob members of
// them. The thread that execs; the only thread of a new image.

#include "shim/epoll.h"
#include "shim/open_numbers.h"

namespace cob::shim {

namespace {

constexpr u32 left_here = 0x80, was_exclusive = 0x20, was_disabled = 0x40, by_a_copy = 0x100;
constexpr u32 plain_bits = 0x3fff, moved_by = 14;
constexpr u32 kept_bits = EPOLLET | u32{EPOLLONESHOT};

u32 hide(const Member* member) {
  return left_here | (member->events & plain_bits) << moved_by | (member->events & kept_bits) |
         ((member->events & EPOLLEXCLUSIVE) != 0 ? was_exclusive : 0) |
         (member->disabled ? was_disabled : 0);
}

u32 unhide(u32 events) {
  return (events >> moved_by & plain_bits) | (events & kept_bits) |
         ((events & was_exclusive) != 0 ? u32{EPOLLEXCLUSIVE} : 0);
}

bool closes_on_exec(int fd) { return (raw::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }

// A number of the member's socket that stays open: its own if that does; -1: the socket closes.
int staying_number(const Member* member) {
  if (lookup(member->fd) == member->object && !closes_on_exec(member->fd)) return member->fd;
  struct Search {
    const Object* object;
    int found;
  } search{member->object, -1};
  for_each(
      ~0U,
      [](int fd, Object* object, void* context) {
        auto* s = static_cast<Search*>(context);
        if (object == s->object && !closes_on_exec(fd)) s->found = fd;
        return s->found < 0;
      },
      &search);
  return search.found;
}

// For each cob socket in each set, both of which stay open: the call on the host's set.
void for_each_left(int operation) {
  for_each(
      ~0U,
      [](int number, Object* object, void* context) {
        if (object->kind != Kind::epoll || closes_on_exec(number)) return true;
        const int call = *static_cast<int*>(context);
        MembersGuard guard;
        for (Member* m = reinterpret_cast<EpollSet*>(object)->members; m != nullptr; m = m->next) {
          const int fd = m->object->kind == Kind::socket ? staying_number(m) : -1;
          if (fd < 0) continue;
          epoll_event event{hide(m) | (fd != m->fd ? by_a_copy : 0), m->data};
          raw::call(SYS_epoll_ctl, number, call, fd, raw::at(&event));
        }
        return true;
      },
      &operation);
}

struct Line {  // of an epoll set's fdinfo
  int fd;
  u32 events;
  u64 data;
};

u64 number_after(const char* text, const char* name, u32 base) {
  const char* at = __builtin_strstr(text, name);
  if (at == nullptr) return ~0ULL;
  for (at += __builtin_strlen(name); *at == ' ';) ++at;
  u64 value = 0;
  for (;; ++at) {
    const u32 digit = *at >= '0' && *at <= '9'   ? static_cast<u32>(*at - '0')
                      : *at >= 'a' && *at <= 'f' ? static_cast<u32>(*at - 'a') + 10
                                                 : 99;
    if (digit >= base) return value;
    value = value * base + digit;
  }
}

// Calls visit(line) for every member of the host's set. The host writes the list in one go, at the
// first read.
template <typename Visit>
void for_each_host_member(int set, Visit visit) {
  char path[40];
  __builtin_snprintf(path, sizeof path, "/proc/self/fdinfo/%d", set);
  const int file =
      static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at(path), O_RDONLY | O_CLOEXEC));
  if (file < 0) return;
  char text[2'048];
  size_t held = 0;
  long bytes = 0;
  while ((bytes = raw::read(file, text + held, sizeof text - 1 - held)) > 0) {
    held += static_cast<size_t>(bytes);
    text[held] = 0;
    char* line = text;
    for (char* end = nullptr; (end = __builtin_strchr(line, '\n')) != nullptr; line = end + 1) {
      *end = 0;
      if (__builtin_strncmp(line, "tfd:", 4) != 0) continue;
      visit(Line{static_cast<int>(number_after(line, "tfd:", 10)),
                 static_cast<u32>(number_after(line, "events:", 16)),
                 number_after(line, "data:", 16)});
    }
    held -= static_cast<size_t>(line - text);
    __builtin_memmove(text, line, held);
    if (held == sizeof text - 1) break;  // no line is that long
  }
  raw::close(file);
}

}  // namespace

void leave_sets_to_image() { for_each_left(EPOLL_CTL_ADD); }
void take_sets_back() { for_each_left(EPOLL_CTL_DEL); }

EpollSet* adopt_set(int number, bool members_too) {
  if (!names_file(number, "anon_inode:[eventpoll]")) return nullptr;
  MembersGuard guard;
  EpollSet* set = new_set();
  if (set == nullptr) return nullptr;
  install(number, object_of(set));
  for_each_host_member(number, [set, number, members_too](const Line& line) {
    Object* object = members_too ? lookup(line.fd) : nullptr;
    const bool left = (line.events & left_here) != 0 && object != nullptr;
    if (left) raw::call(SYS_epoll_ctl, number, EPOLL_CTL_DEL, line.fd, 0);
    if (!left) ++set->host_members;
    if (object == nullptr || (!left && object->kind == Kind::socket)) return;
    epoll_event event{left ? unhide(line.events) : line.events, {.u64 = line.data}};
    // A member stays after its own number, which nobody can name to epoll_ctl any more.
    const bool unnamed = left && (line.events & by_a_copy) != 0;
    Member* member = add_member(set, object, unnamed ? -1 : line.fd, event);
    if (member != nullptr) member->disabled = left && (line.events & was_disabled) != 0;
  });
  return set;
}

void adopt_sets_at_start() {
  for_each_open([](int fd) {
    if (!is_hidden(fd) && !is_cob(fd)) adopt_set(fd, true);
    return true;
  });
}

}  // namespace cob::shim
