// Kernel, programs that go to another kernel by themselves; leaving.h.
#include "kernel/leaving.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/doorbell.h"
#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

std::string text_of(call::LeftReason reason, u32 number, i32 error) {
  using call::LeftReason;
  switch (reason) {
    case LeftReason::cob_socket:
      return fmt::format(
          "descriptor {} is a socket of the cob, and frames do not cross islands: close it",
          number);
    case LeftReason::epoll_member:
      return fmt::format(
          "descriptor {} is a description of another island that an epoll set watches: remove it",
          number);
    case LeftReason::busy:
      return "calls on files or descriptors were under way for more than a second";
    case LeftReason::attach:
      return fmt::format("the other kernel does not take it: {}", std::strerror(error));
    case LeftReason::file:
      return fmt::format("descriptor {} cannot be had there: {}", number, std::strerror(error));
    case LeftReason::locks:
      return fmt::format("its locks cannot be handed over: {}", std::strerror(error));
    case LeftReason::directory:
      return fmt::format("its working directory is not to be had there: {}", std::strerror(error));
    case LeftReason::too_many:
      return "more of its descriptors are files than can go at a time";
    default:
      return std::strerror(error);
  }
}

namespace {

void report(FdRef socket, const MoveReport& words) {
  (void)send_struct(socket, words, {}, Blocking::never);
}

void report_failure(FdRef socket, i32 error, const std::string& why) {
  MoveReport words;
  words.error = error;
  std::strncpy(words.text, why.c_str(), sizeof words.text - 1);
  report(socket, words);
}

}  // namespace

Leaving* Kernel::leaving_of(const Program& program) {
  const auto found = std::ranges::find(leavings_, program.id(), &Leaving::program);
  return found == leavings_.end() ? nullptr : &*found;
}

// It has files of other islands and nothing that only an image can move.
bool Kernel::can_go_by_itself(Program& program) const {
  bool files = false, others = false;
  program.for_each_slot([&](u32, const Slot& slot) {
    (slot.description->state == call::SocketState::file ? files : others) = true;
  });
  return files && !others;
}

void Kernel::ask_to_leave(Program& program, KernelId target, Fd report_to, Fd liveness) {
  if (leaving_of(program) != nullptr)
    return report_failure(report_to.ref(), EBUSY, "it is going to another kernel just now");
  if (leavings_.size() >= max_leavings)
    return report_failure(report_to.ref(), EBUSY, "too many programs are going just now");
  leavings_.push_back({.program = program.id(),
                       .target = target,
                       .liveness = std::move(liveness),
                       .report = std::move(report_to),
                       .deadline = now_ + leave_patience,
                       .begun = false,
                       .gone = {}});
  ++leave_numbers_;
  if (leave_numbers_ == 0) ++leave_numbers_;
  publish(program.arena().ours().header.leave, leave_numbers_);
  for (const Program::Thread& thread : program.threads())
    if (thread.button.valid()) cob::ring(thread.button.ref());
}

// One of its threads has come to it.
void Kernel::begin_leaving(Program& program) {
  Leaving* leaving = leaving_of(program);
  call::AttachReply reply{.kind = static_cast<u32>(call::Hello::leave), .result = -ECANCELED};
  if (leaving != nullptr && !leaving->begun) {
    reply.result = leaving->target.value;
    const FdRef fds[] = {leaving->liveness.ref()};
    if (!send_struct(program.liveness(), reply, fds, Blocking::never).is_error()) {
      leaving->begun = true;
      leaving->liveness.reset();
      leaving->deadline = now_ + gone_patience;
      return;
    }
    reply.result = -EAGAIN;
  }
  (void)send_struct(program.liveness(), reply, {}, Blocking::never);
}

void Kernel::end_leaving(Program& program, const call::LeftNotice& notice) {
  Leaving* leaving = leaving_of(program);
  if (leaving == nullptr || !leaving->begun) return;
  if (notice.reason != call::LeftReason::none || notice.result != 0) {
    const i32 error = notice.result < 0 ? -notice.result : EPROTO;
    const std::string why = text_of(notice.reason, notice.number, error);
    COB_LOG(warn, "kernel {}: program {} did not go to kernel {}: {}", config_.kernel,
            program.pid(), leaving->target.value, why);
    return forget_leaving(program, error, why.c_str());
  }
  MoveReport words;
  words.programs = 1;
  words.pid[0] = program.pid();
  words.paused_at_ns = notice.stood_at_ns;
  words.pause_ns = notice.stood_ns;
  leaving->gone = words;
}

void Kernel::forget_leaving(Program& program, i32 error, const char* why) {
  Leaving* leaving = leaving_of(program);
  if (leaving == nullptr || leaving->gone) return;
  report_failure(leaving->report.ref(), error, why);
  if (program.attached()) publish(program.arena().ours().header.leave, 0u);
  std::erase_if(leavings_, [&](const Leaving& one) { return &one == leaving; });
}

// It has ended here, and the board says so: the command may look for it at once.
void Kernel::tell_gone(u32 program) {
  update_board(now_);
  std::erase_if(leavings_, [&](const Leaving& one) {
    if (one.program != program) return false;
    if (one.gone) report(one.report.ref(), *one.gone);
    return true;
  });
}

// Those that have gone, and those that do not go.
void Kernel::poll_leavings(Time now) {
  std::vector<std::pair<u32, bool>> late;
  for (const Leaving& leaving : leavings_)
    if (now >= leaving.deadline || find(leaving.program) == nullptr)
      late.emplace_back(leaving.program, leaving.begun);
  for (const auto& [id, begun] : late) {
    Program* program = find(id);
    const Leaving* leaving = program == nullptr ? nullptr : leaving_of(*program);
    if (leaving == nullptr || leaving->gone) {
      tell_gone(id);
      continue;
    }
    forget_leaving(*program, ETIMEDOUT,
                   begun ? "it has not come there in eight seconds"
                         : "no thread of it has made a call in five seconds: again later");
  }
}

Time Kernel::leavings_due() const {
  Time due = Time::never();
  for (const Leaving& leaving : leavings_) due = std::min(due, leaving.deadline);
  return due;
}

// ---- What it needs of this kernel, or of the one it comes to.

// The descriptor has come, or comes before this call. Answered when it is a description.
void Kernel::take_in_given(Program& program, const CallOrigin& origin, u64 name) {
  if (!program.given.valid()) read_hellos(program, call::Hello::give);
  Fd given = std::move(program.given);
  if (program.dead || !program.attached()) return;
  const auto refuse_it = [&](i32 error) {
    program.reply(origin.thread, origin.sequence, -error, nullptr, 0);
  };
  if (!given.valid()) return refuse_it(EPROTO);
  if (finding_ == nullptr || files_->home() == nullptr) return refuse_it(EOPNOTSUPP);
  if ((name & call::token_mark_mask) != call::token_mark) return refuse_it(EINVAL);
  if (sockets_->at_token(name) != nullptr) return refuse_it(EEXIST);
  if (program.unadopted.size() >= most_given) return refuse_it(EMFILE);
  const KernelId self(config_.kernel);
  const auto item = files_->take_in(std::move(given), self);
  if (item.is_error()) return refuse_it(item.error().code);
  descriptor::PassField field{};
  field.handle = descriptor::field_of(item.value().handle);
  field.home = self.value;
  field.name = name;
  field.status_flags = item.value().status_flags;
  field.traits = item.value().traits;
  const u32 image = program.image();
  files_->holder().adopt(
      self, item.value().handle, (field.traits & descriptor::pass_appends) != 0,
      (field.traits & descriptor::pass_has_offset) != 0,
      [this, origin, image, field](Result<descriptor::Holder::Ref> ref) {
        if (ref.is_error())
          files_->withdraw(descriptor::handle_of(field.handle), KernelId(config_.kernel));
        Program* asker = find(origin.program);
        const bool there = asker != nullptr && asker->attached() && asker->image() == image;
        i32 result = ref.is_error() ? -ref.error().code : 0;
        if (result == 0) {
          const auto made = finding_->make(ref.value(), field, fs::passed_share);
          if (made.is_error() || !there) {
            if (made.is_error())
              files_->holder().drop(ref.value(), [](const Result<u64>&) {});
            else
              sockets_->release(*made.value());
            result = -ENFILE;
          } else {
            asker->unadopted.push_back(made.value());
          }
        }
        if (there) asker->reply(origin.thread, origin.sequence, result, nullptr, 0);
      });
}

// All files that it has here; each home hears of the heir.
void Kernel::hand_over_locks(Program& program, const CallOrigin& origin, u64 to, u64 heir) {
  const auto answer = [this, origin, image = program.image()](i32 result) {
    Program* asker = find(origin.program);
    if (asker != nullptr && asker->attached() && asker->image() == image)
      asker->reply(origin.thread, origin.sequence, result, nullptr, 0);
  };
  if (finding_ == nullptr || to >= config_.kernels || to == config_.kernel || heir > UINT32_MAX)
    return answer(-EINVAL);
  struct Under {
    u32 left = 1;
    i32 result = 0;
  };
  const auto under = std::make_shared<Under>();
  const auto one_less = [under, answer](i32 result) {
    if (result != 0) under->result = result;
    if (--under->left == 0) answer(under->result);
  };
  if (program.posix_locks) {
    program.for_each_slot([&](u32, const Slot& slot) {
      if (slot.description->state != call::SocketState::file) return;
      ++under->left;
      files_->locker().give(slot.description->file->ref, program.id(),
                            KernelId(static_cast<u16>(to)), static_cast<u32>(heir),
                            [one_less](const Result<descriptor::Locked>& result) {
                              // EINVAL: nothing that has locks.
                              const int code = result.is_error() ? result.error().code : 0;
                              one_less(code == EINVAL ? 0 : -code);
                            });
    });
  }
  one_less(0);
}

// ---- Placeholders that this kernel does not know.

void Kernel::seek(Program& program, const CallOrigin& origin, u64 name) {
  const int error = finding_->find(name, {.origin = origin, .image = program.image()});
  if (error != 0) program.reply(origin.thread, origin.sequence, -error, nullptr, 0);
}

void Kernel::sought(const std::vector<Finding::Asker>& askers, u64 name, int error) {
  for (const Finding::Asker& asker : askers) {
    Program* program = find(asker.origin.program);
    if (program == nullptr || !program->attached() || program->image() != asker.image) continue;
    u64 values[6] = {};
    i32 result = -error;
    if (error == 0) {
      result = adopt(*program, sockets_->at_token(name), false, values);
      // Its locks, if it has some from before, end with what it closes here.
      program->posix_locks = true;
    }
    program->reply(asker.origin.thread, asker.origin.sequence, result, values, 6);
  }
}

}  // namespace cob::kernel
