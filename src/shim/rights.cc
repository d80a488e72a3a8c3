// Descriptors passed over host unix sockets: unix(7), cmsg(3). Model: what goes for a cob socket is
// made by begin_flight, and what arrives is examined and adopted by adopt_arrived (flight.cc). Any
// thread.
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "glue.h"
#include "shim/process.h"
#include "shim/raw.h"
#include "shim/socket.h"
#include "shim/table.h"

namespace cob::shim {

namespace {

bool carries_rights(const cmsghdr* header) {
  return header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
         header->cmsg_len >= CMSG_LEN(0);
}

size_t rights_count(const cmsghdr* header) {
  return (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

// What needs a placeholder: not what is the host's own beneath.
bool is_socket(int fd) {
  const Socket* socket = lookup_description(fd);
  return socket != nullptr && !socket->twin;
}

int right_at(const cmsghdr* header, size_t index) {
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof fd);
  return fd;
}

enum class Rights : u8 { plain, cob, hidden };

// What travels with the message: ordinary descriptors, cob sockets too, or what cannot be passed.
Rights rights_of(const msghdr* message) {
  if (message == nullptr || message->msg_control == nullptr) return Rights::plain;
  auto* mutable_message = const_cast<msghdr*>(message);
  Rights found = Rights::plain;
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(mutable_message, header)) {
    if (!carries_rights(header)) continue;
    for (size_t i = 0; i < rights_count(header); ++i) {
      const int fd = right_at(header, i);
      if (is_hidden(fd)) return Rights::hidden;
      if (is_socket(fd)) found = Rights::cob;
    }
  }
  return found;
}

// A copy of a message in which each cob socket is replaced by what travels for it.
class Passing {
 public:
  explicit Passing(const msghdr* message) : copy_(*message), scratch_(message->msg_controllen) {
    if (scratch_.data() == nullptr) {
      error_ = ENOMEM;
      return;
    }
    memcpy(scratch_.data(), message->msg_control, message->msg_controllen);
    copy_.msg_control = scratch_.data();
    for (cmsghdr* header = CMSG_FIRSTHDR(&copy_); header != nullptr && error_ == 0;
         header = CMSG_NXTHDR(&copy_, header)) {
      for (size_t i = 0; carries_rights(header) && i < rights_count(header) && error_ == 0; ++i)
        replace(header, i);
    }
  }
  ~Passing() {
    const int saved = errno;
    for (u32 i = 0; i < ends_; ++i) raw::close(end_[i]);
    errno = saved;
  }
  Passing(const Passing&) = delete;
  Passing& operator=(const Passing&) = delete;

  const msghdr* message() const { return &copy_; }
  int error() const { return error_; }

 private:
  void replace(cmsghdr* header, size_t index) {
    const int fd = right_at(header, index);
    if (!is_socket(fd)) return;
    const int end = ends_ < most ? begin_flight(fd) : -EINVAL;
    if (end < 0) {
      error_ = -end;
      return;
    }
    end_[ends_++] = end;
    memcpy(CMSG_DATA(header) + index * sizeof(int), &end, sizeof end);
  }

  static constexpr u32 most = 253;  // SCM_MAX_FD, unix(7)
  msghdr copy_;
  Scratch scratch_;
  int end_[most];
  u32 ends_ = 0;
  int error_ = 0;
};

ssize_t send_with_rights(int fd, const msghdr* message, int flags) {
  switch (rights_of(message)) {
    case Rights::hidden:
      return fail(EBADF);
    case Rights::plain:
      return real_sendmsg(fd, message, flags);
    case Rights::cob:
      break;
  }
  const Passing passing(message);
  if (passing.error() != 0) return fail(passing.error());
  return real_sendmsg(fd, passing.message(), flags);
}

void adopt_rights(msghdr* message) {
  if (message->msg_control == nullptr || message->msg_controllen == 0) return;
  const int saved = errno;
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (!carries_rights(header)) continue;
    for (size_t i = 0; i < rights_count(header); ++i) {
      // A socket whose kernel is gone stays the placeholder it is: its every use fails, as a
      // socket's would.
      (void)adopt_arrived(right_at(header, i));
    }
  }
  errno = saved;
}

}  // namespace

ssize_t own_sendmsg(int fd, const msghdr* message, int flags) {
  if (!attached()) return real_sendmsg(fd, message, flags);
  if (is_cob(fd)) return cob_sendmsg(fd, message, flags);
  if (is_hidden(fd)) return hidden_number();
  return send_with_rights(fd, message, flags);
}

int own_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (!attached()) return real_sendmmsg(fd, messages, count, flags);
  if (is_cob(fd)) return cob_sendmmsg(fd, messages, count, flags);
  if (is_hidden(fd)) return hidden_number();
  bool plain = true;
  for (unsigned i = 0; i < count; ++i)
    plain = plain && rights_of(&messages[i].msg_hdr) == Rights::plain;
  if (plain) return real_sendmmsg(fd, messages, count, flags);
  for (unsigned i = 0; i < count; ++i) {
    const ssize_t sent = send_with_rights(fd, &messages[i].msg_hdr, flags);
    if (sent < 0) return i > 0 ? static_cast<int>(i) : -1;
    messages[i].msg_len = static_cast<unsigned>(sent);
  }
  return static_cast<int>(count);
}

ssize_t own_recvmsg(int fd, msghdr* message, int flags) {
  if (!attached()) return real_recvmsg(fd, message, flags);
  if (is_cob(fd)) return cob_recvmsg(fd, message, flags);
  if (is_hidden(fd)) return hidden_number();
  if (message != nullptr && message->msg_controllen > 0) host_gives_number();
  const ssize_t result = real_recvmsg(fd, message, flags);
  if (result >= 0) adopt_rights(message);
  return result;
}

int own_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (!attached()) return real_recvmmsg(fd, messages, count, flags, timeout);
  if (is_cob(fd)) return cob_recvmmsg(fd, messages, count, flags, timeout);
  if (is_hidden(fd)) return hidden_number();
  host_gives_number();
  const int result = real_recvmmsg(fd, messages, count, flags, timeout);
  for (int i = 0; i < result; ++i) adopt_rights(&messages[i].msg_hdr);
  return result;
}

}  // namespace cob::shim
