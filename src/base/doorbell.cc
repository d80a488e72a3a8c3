// Doorbells: creation, ringing; see doorbell.h. eventfd(2), epoll_ctl(2).
#include "base/doorbell.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/types.h"

namespace cob {

Result<Doorbell> make_doorbell() {
  Doorbell made{Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), Fd(::epoll_create1(EPOLL_CLOEXEC))};
  if (!made.button.valid() || !made.bell.valid()) return Error::from_errno("making a doorbell");
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  if (::epoll_ctl(made.bell.get(), EPOLL_CTL_ADD, made.button.get(), &event) != 0)
    return Error::from_errno("epoll_ctl of a doorbell");
  return made;
}

void ring(FdRef button) {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t written = ::write(button.get(), &one, sizeof one);
}

void reset_bell(FdRef bell) {
  epoll_event event;
  (void)::epoll_wait(bell.get(), &event, 1, 0);
}

}  // namespace cob
