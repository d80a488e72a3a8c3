// Going to another kernel. Model: leave.h.
#include "shim/leave.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shim/epoll.h"
#include "shim/file.h"
#include "shim/inherit.h"
#include "shim/locks.h"
#include "shim/passage.h"
#include "shim/placeholder.h"
#include "shim/socket.h"
#include "shim/thread.h"

namespace cob::shim {

using namespace call;

namespace {
constexpr u32 never_asked = 0;
}
const u32* leave_word = &never_asked;
u32 leave_seen;
u32 leaves;

bool may_leave() { return load(leave_word) != &never_asked; }

void follow_leave_word(const Arena* arena) {
  const bool several = arena != nullptr && load(arena->kernel->header.islands) != 0;
  store(leave_seen, 0U);
  store(leave_word, several ? &arena->kernel->header.leave : &never_asked);
}

namespace {

constexpr u32 most_moved = 8'192;
constexpr i64 passage_patience_ns = 1'000'000'000;
constexpr i64 attach_patience_ms = 2'000;

u32 under_way;  // atomic; 1: a thread is at it

// One description: as it is here and as it will be.
struct Moved {
  Socket* before;  // null: the host's, at `number`
  Socket* after;
  u64 token;
  int number;
  u64 device, inode;  // of the host's
};

// Calls f(number, context) for each of the program's numbers until it says false; false: it did.
bool for_each_number(bool (*f)(int number, void* context), void* context) {
  struct Entry {  // linux_dirent64
    u64 inode;
    i64 offset;
    u16 bytes;
    u8 type;
    char name[1];
  };
  const auto directory = static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at("/proc/self/fd"),
                                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory < 0) return false;
  bool all = true;
  alignas(8) char buffer[4'096];
  for (;;) {
    const long n = raw::call(SYS_getdents64, directory, raw::at(buffer), sizeof buffer);
    if (n <= 0) break;
    for (long at = 0; at < n && all;) {
      const auto* entry = reinterpret_cast<const Entry*>(buffer + at);
      at += entry->bytes;
      int number = 0;
      const char* digit = entry->name;
      for (; *digit >= '0' && *digit <= '9'; ++digit) number = number * 10 + (*digit - '0');
      if (digit != entry->name && number != directory) all = f(number, context);
    }
  }
  raw::close(directory);
  return all;
}

// The number still is what was given: names that no passage guards may have closed it.
bool is_still(const Moved& one) {
  struct stat status{};
  return raw::call(SYS_fstat, one.number, raw::at(&status)) == 0 && status.st_dev == one.device &&
         status.st_ino == one.inode;
}

void install_also(int number, Socket* socket) {
  __atomic_add_fetch(&socket->references, 1, __ATOMIC_RELAXED);
  install(number, object_of(socket));
}

struct Failure {
  LeftReason reason = LeftReason::none;
  u32 number = 0;
  int error = 0;
};

class Going {
 public:
  explicit Going(Arena* from) : from_(from) {}
  ~Going() {
    if (list_ != nullptr) raw::call(SYS_munmap, raw::at(list_), sizeof(Moved) * most_moved);
    if (directory_ >= 0) raw::close(directory_);
  }
  Going(const Going&) = delete;
  Going& operator=(const Going&) = delete;

  void run();

 private:
  bool begin();
  bool prepare();
  bool look_at_numbers();
  bool join();
  bool name_all();
  bool take_over_all();
  bool give_host_files();
  bool give_one(int number);
  bool open_directory();
  bool hand_over_locks();
  void commit();
  void withdraw();
  void tell();
  bool failed(LeftReason reason, int error, int number = 0) {
    failure_ = {reason, static_cast<u32>(number), error};
    return false;
  }

  Arena* from_;
  Arena* to_ = nullptr;
  u32 kernel_ = 0;
  int liveness_ = -1;
  Moved* list_ = nullptr;
  u32 count_ = 0;
  int directory_ = -1;
  bool handed_over_ = false;
  i64 stood_at_ns_ = 0;
  Failure failure_;
};

// False: it shall not go any more.
bool Going::begin() {
  AttachReply reply{};
  const int error = ask_by_liveness(from_, Hello::leave, reply, liveness_);
  if (liveness_ < 0) return false;
  if (error < 0 || reply.result < 0) {
    raw::close(liveness_);
    return false;
  }
  kernel_ = static_cast<u32>(reply.result);
  liveness_ = make_hidden(liveness_);
  return true;
}

// What cannot go is found before anything is asked of others.
bool Going::look_at_numbers() {
  list_ = static_cast<Moved*>(reserve(sizeof(Moved) * most_moved));
  if (list_ == nullptr) return failed(LeftReason::attach, ENOMEM);
  for_each(
      ~0U,
      [](int fd, Object* object, void* context) {
        auto* self = static_cast<Going*>(context);
        if (object->kind == Kind::epoll) return true;
        auto* socket = reinterpret_cast<Socket*>(object);
        if (object->kind == Kind::socket)
          return !is_live(socket) || self->failed(LeftReason::cob_socket, EOPNOTSUPP, fd);
        if (load(socket->members) != nullptr)
          return self->failed(LeftReason::epoll_member, EOPNOTSUPP, fd);
        if (socket->arena != self->from_ || !is_live(socket)) return true;
        for (u32 i = 0; i < self->count_; ++i)
          if (self->list_[i].before == socket) return true;
        if (self->count_ == most_moved) return self->failed(LeftReason::too_many, EMFILE);
        self->list_[self->count_++] = {socket, nullptr, socket->placeholder.token, fd, 0, 0};
        return true;
      },
      this);
  return failure_.reason == LeftReason::none;
}

bool Going::join() {
  to_ = new_arena();
  if (to_ == nullptr) return failed(LeftReason::attach, EMFILE);
  const int error = join_arena(to_, liveness_, attach_patience_ms);
  if (error == 0) return true;
  to_->liveness = -1;
  to_->dead = 1;
  to_ = nullptr;
  return failed(LeftReason::attach, -error);
}

// This kernel knows them by their names.
bool Going::name_all() {
  for (u32 i = 0; i < count_; ++i) {
    Moved& one = list_[i];
    // What is the host's own beneath has no placeholder: it has a name for this alone.
    if (one.before->twin) one.token = one.before->placeholder.token = random_token();
    const int error = call_publish(one.before, 0);
    if (error != 0) return failed(LeftReason::file, error, one.number);
  }
  return true;
}

// The other kernel holds what this one knows by those names.
bool Going::take_over_all() {
  for (u32 i = 0; i < count_; ++i) {
    Moved& one = list_[i];
    const int error = adopt_elsewhere(to_, one.token, one.after);
    if (error != 0) return failed(LeftReason::file, error, one.number);
  }
  return true;
}

// A file or directory of the host's that lies in what is a share of another island there.
bool Going::give_one(int number) {
  struct stat status{};
  char name[path_room];
  if (raw::call(SYS_fstat, number, raw::at(&status)) < 0) return true;
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return true;
  if ((raw::fcntl(number, F_GETFL) & O_PATH) != 0) return true;
  if (!name_of_number(number, name) || !is_in_shares_of(to_, name)) return true;
  if (count_ == most_moved) return failed(LeftReason::too_many, EMFILE);
  Moved& one = list_[count_];
  one = {nullptr, nullptr, random_token(), number, status.st_dev, status.st_ino};
  const u32 hello = static_cast<u32>(Hello::give);
  const long sent = send_with_fds(from_->liveness, &hello, sizeof hello, &number, 1);
  if (sent < 0) return failed(LeftReason::file, static_cast<int>(-sent), number);
  Call c{.op = Op::give};
  c.a[0] = one.token;
  const Reply reply = call_kernel(from_, c);
  if (reply.result < 0) return failed(LeftReason::file, -reply.result, number);
  ++count_;
  return true;
}

bool Going::give_host_files() {
  if (to_->kernel->remote_share[0].path_bytes == 0) return true;
  return for_each_number(
      [](int number, void* context) {
        return is_cob(number) || is_hidden(number) ||
               static_cast<Going*>(context)->give_one(number);
      },
      this);
}

bool Going::open_directory() {
  const char* here = virtual_directory();
  if (here == nullptr || is_in_shares_of(to_, here)) return true;
  const long opened =
      raw::call(SYS_openat, AT_FDCWD, raw::at(here), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) return failed(LeftReason::directory, static_cast<int>(-opened));
  directory_ = static_cast<int>(opened);
  return true;
}

bool Going::hand_over_locks() {
  if (!may_have_posix_locks()) return true;
  Call c{.op = Op::hand_over};
  c.a[0] = kernel_;
  c.a[1] = to_->kernel->header.program;
  handed_over_ = true;
  const Reply reply = call_kernel(from_, c);
  return reply.result == 0 || failed(LeftReason::locks, -reply.result);
}

bool Going::prepare() {
  return look_at_numbers() && join() && name_all() && give_host_files() && take_over_all() &&
         open_directory() && hand_over_locks();
}

// From here on it is the other kernel's.
void Going::commit() {
  {
    Guard guard(attach_lock);
    g.liveness = liveness_;
    store(g.kernel, kernel_);
    publish_word(g.current, to_);
  }
  follow_leave_word(to_);
  if (directory_ >= 0) raw::call(SYS_fchdir, directory_);
  learn_shares_anew(to_);
  for (u32 i = 0; i < count_; ++i) {
    Moved& one = list_[i];
    const bool from_host = one.before == nullptr;
    Socket* after = one.after;
    after->twin = from_host || one.before->twin;
    if (from_host) {
      recall_file(after);
    } else {
      after->status_flags = one.before->status_flags;
      after->share = one.before->share;
      note_passed_file(after->share);
      after->stream = one.before->stream;
      after->placeholder = one.before->placeholder;
      one.before->placeholder.pool_index = no_pool_entry;
      remember_file(after);
    }
    after->inherited_flags = true;
    after->locked = true;
    // The home is on the new kernel's island: what is beneath is the file itself.
    const bool is_hosts_again = after->twin && after->home_is_near;
    if (from_host) {
      if (!after->home_is_near && is_still(one)) install_also(one.number, after);
    } else {
      __atomic_add_fetch(&one.before->references, 1, __ATOMIC_RELAXED);
      install_in_all(object_of(one.before), is_hosts_again ? nullptr : object_of(after));
      drop(object_of(one.before));
    }
    drop(object_of(after));
  }
  if (directory_ >= 0) leave_virtual_directory();
}

void Going::withdraw() {
  if (handed_over_ && to_ != nullptr) {
    Call c{.op = Op::hand_over};
    c.a[0] = load(g.kernel);
    c.a[1] = from_->kernel->header.program;
    call_kernel(to_, c);
  }
  for (u32 i = 0; i < count_; ++i)
    if (list_[i].after != nullptr) drop(object_of(list_[i].after));
  if (to_ != nullptr) leave_behind(to_);
  if (to_ == nullptr && liveness_ >= 0) close_hidden(liveness_);
  call_kernel(from_, {.op = Op::adopted});  // what was given is dropped
}

void Going::tell() {
  LeftNotice notice{};
  notice.kind = static_cast<u32>(Hello::left);
  notice.reason = failure_.reason;
  notice.result = -failure_.error;
  notice.number = failure_.number;
  notice.stood_at_ns = stood_at_ns_;
  notice.stood_ns = now_ns() - stood_at_ns_;
  send_with_fds(from_->liveness, &notice, sizeof notice, nullptr, 0);
}

void Going::run() {
  if (!begin()) return;
  const RaisedLimit raised;
  stood_at_ns_ = now_ns();
  if (!close_passage(passage_patience_ns)) {
    failed(LeftReason::busy, EBUSY);
    if (liveness_ >= 0) close_hidden(liveness_);
    return tell();
  }
  if (!prepare() || check_death(to_)) {
    if (failure_.reason == LeftReason::none) failed(LeftReason::attach, ENETDOWN);
    withdraw();
    open_passage();
    return tell();
  }
  commit();
  __atomic_add_fetch(&leaves, 1, __ATOMIC_RELEASE);
  tell();
  leave_behind(from_);
  open_passage();
  ring_sleeping_threads();
}

}  // namespace

void forget_leave() {
  store(under_way, 0U);
  follow_leave_word(nullptr);
}

void leave_slow() {
  if (thread_signals.critical_depth != 0 || passage_depth != 0 || confined()) return;
  if (!change_if(under_way, 0U, 1U)) {
    const timespec others_turn{0, 50'000};
    raw::call(SYS_nanosleep, raw::at(&others_turn), 0);
    return;
  }
  const int saved = errno;
  {
    Critical critical;
    Arena* arena = current_arena();
    const u32 asked = load(*load(leave_word));
    if (arena != nullptr && !arena->is_dead() && asked != 0 && asked != leave_seen) {
      store(leave_seen, asked);
      Going(arena).run();
    }
  }
  publish_word(under_way, 0U);
  errno = saved;
}

}  // namespace cob::shim
