// A terminal's requests. Model: terminal.h.
#include "shim/terminal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shim/file.h"

namespace cob::shim {

using namespace call;

namespace {

// As fs/terminal.h has them.
struct Request {
  unsigned long number;
  u32 reads, writes;
  bool by_value;
};
constexpr Request requests[] = {
    {TCGETS, 0, 36, false},    {TCSETS, 36, 0, false},  {TCSETSW, 36, 0, false},
    {TCSETSF, 36, 0, false},   {TCSBRK, 4, 0, true},    {TCXONC, 4, 0, true},
    {TCFLSH, 4, 0, true},      {TIOCOUTQ, 0, 4, false}, {TIOCGWINSZ, 0, 8, false},
    {TIOCSWINSZ, 8, 0, false}, {FIONREAD, 0, 4, false},
};

const Request* find(unsigned long number) {
  for (const Request& known : requests)
    if (known.number == number) return &known;
  return nullptr;
}

// FIONREAD of a regular file: what is behind the offset.
int unread(int number, void* into) {
  struct stat status{};
  if (file_stat(number, &status) < 0) return -1;
  if (!S_ISREG(status.st_mode)) return fail(ENOTTY);
  const off_t at = file_seek(number, 0, SEEK_CUR);
  if (at < 0) return -1;
  if (into == nullptr) return fail(EFAULT);
  const int bytes = static_cast<int>(status.st_size - at);
  memcpy(into, &bytes, sizeof bytes);
  return 0;
}

}  // namespace

int file_terminal(int number, unsigned long request, void* argument) {
  const Request* known = find(request);
  if (known == nullptr) return fail(ENOTTY);
  const HeldFile held(number);
  if (!held.is_file()) return fail(EBADF);
  if (!held.get()->stream) return request == FIONREAD ? unread(number, argument) : fail(ENOTTY);
  if (argument == nullptr && !known->by_value) return fail(EFAULT);
  Call c{.op = Op::file_control};
  c.a[0] = static_cast<u64>(FileControl::terminal) | u64{request} << 32;
  if (known->by_value) {
    c.a[1] = static_cast<u32>(reinterpret_cast<unsigned long>(argument));
  } else if (known->reads > 0) {
    memcpy(&c.a[1], argument, known->reads);
  }
  const Reply reply = file_call(held.get(), c);
  if (reply.result < 0) return fail(-reply.result);
  if (static_cast<u32>(reply.result) != known->writes) return fail(EPROTO);
  if (known->writes > 0) memcpy(argument, reply.value, known->writes);
  return 0;
}

}  // namespace cob::shim
