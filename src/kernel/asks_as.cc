// FileCalls, as whom other islands are asked: the program, or whom it names. Model: what /proc says
// of a process is believed for 10 ms. A superuser's program may name anybody, for it could become
// anybody. Kernel's loop only.
#include <algorithm>

#include "kernel/file_calls.h"
#include "kernel/process_credentials.h"

namespace cob::kernel {

namespace {

constexpr Duration credentials_are_good = Duration::milliseconds(10);
constexpr std::size_t max_others = 64;  // reaction when full: the oldest is looked up again

}  // namespace

// EPERM: not a superuser's program.
Result<fs::Asker::As> FileCalls::as_whom(Program& program, const call::FileAsk& ask, Time now) {
  if (!program.asks_as || now - program.asked_as > credentials_are_good) {
    program.asks_as.reset();
    const fs::Credentials own = credentials_of(program.liveness(), program.pid());
    program.asks_as = TRY(files_->asker().who_number(own));
    program.asks_for_others = own.uid == 0;
    program.asked_as = now;
  }
  const auto umask = static_cast<u16>(ask.umask);
  if (ask.for_others == 0) return fs::Asker::As{.number = *program.asks_as, .umask = umask};
  if (!program.asks_for_others) return Error::of(EPERM, "only a superuser's program names others");
  return fs::Asker::As{.number = TRY(number_of_other(ask, now)), .umask = umask};
}

Result<u32> FileCalls::number_of_other(const call::FileAsk& ask, Time now) {
  const auto known = std::ranges::find_if(others_, [&](const Other& other) {
    return other.pid == ask.as_pid && other.uid == ask.as_uid && other.gid == ask.as_gid;
  });
  if (known != others_.end() && now - known->since <= credentials_are_good) return known->number;
  const u32 number =
      TRY(files_->asker().who_number(credentials_of_other(ask.as_uid, ask.as_gid, ask.as_pid)));
  const Other found{
      .pid = ask.as_pid, .uid = ask.as_uid, .gid = ask.as_gid, .number = number, .since = now};
  if (known != others_.end()) {
    *known = found;
  } else if (others_.size() < max_others) {
    others_.push_back(found);
  } else {
    *std::ranges::min_element(others_, {}, &Other::since) = found;
  }
  return number;
}

}  // namespace cob::kernel
