// Descriptors passed over host unix sockets: unix(7), cmsg(3). Model: a cob socket travels as its
// placeholder; before it goes its kernel is told (publish), and what arrives is examined and
// adopted where it is one (adopt_arrived). Any thread.
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "glue.h"
#include "shim/raw.h"

namespace cob::shim {

namespace {

bool carries_rights(const cmsghdr* header) {
  return header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
         header->cmsg_len >= CMSG_LEN(0);
}

size_t rights_count(const cmsghdr* header) {
  return (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

int right_at(const cmsghdr* header, size_t index) {
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof fd);
  return fd;
}

// 0 or an errno: a hidden number cannot be passed, a socket must be known to its kernel first.
int publish_rights(const msghdr* message) {
  if (message == nullptr || message->msg_control == nullptr) return 0;
  auto* mutable_message = const_cast<msghdr*>(message);
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(mutable_message, header)) {
    if (!carries_rights(header)) continue;
    for (size_t i = 0; i < rights_count(header); ++i) {
      const int fd = right_at(header, i);
      if (is_hidden(fd)) return EBADF;
      if (!is_cob(fd)) continue;
      if (const int error = publish(fd); error != 0) return error;
    }
  }
  return 0;
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
  if (const int error = publish_rights(message); error != 0) return fail(error);
  return real_sendmsg(fd, message, flags);
}

int own_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (!attached()) return real_sendmmsg(fd, messages, count, flags);
  if (is_cob(fd)) return cob_sendmmsg(fd, messages, count, flags);
  if (is_hidden(fd)) return hidden_number();
  for (unsigned i = 0; i < count; ++i) {
    if (const int error = publish_rights(&messages[i].msg_hdr); error != 0) return fail(error);
  }
  return real_sendmmsg(fd, messages, count, flags);
}

ssize_t own_recvmsg(int fd, msghdr* message, int flags) {
  if (!attached()) return real_recvmsg(fd, message, flags);
  if (is_cob(fd)) return cob_recvmsg(fd, message, flags);
  if (is_hidden(fd)) return hidden_number();
  const ssize_t result = real_recvmsg(fd, message, flags);
  if (result >= 0) adopt_rights(message);
  return result;
}

int own_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (!attached()) return real_recvmmsg(fd, messages, count, flags, timeout);
  if (is_cob(fd)) return cob_recvmmsg(fd, messages, count, flags, timeout);
  if (is_hidden(fd)) return hidden_number();
  const int result = real_recvmmsg(fd, messages, count, flags, timeout);
  for (int i = 0; i < result; ++i) adopt_rights(&messages[i].msg_hdr);
  return result;
}

}  // namespace cob::shim
