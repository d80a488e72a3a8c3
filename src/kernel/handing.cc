// Kernel, descriptors for programs of other kernels: what `cob run` hands over here becomes
// descriptions whose home is this kernel, and is passed on; what other kernels pass waits for its
// program. docs/descriptors.md, 5; handing.h.
#include "kernel/handing.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {
namespace {

using descriptor::Passes;

constexpr Duration luggage_waits = Duration::seconds(10);  // for its program to be known
constexpr std::size_t most_luggage = 256;

bool is_token(u64 name) { return (name & call::token_mark_mask) == call::token_mark; }

}  // namespace

// --- What is handed over here.

// False: the command does not keep to the protocol.
bool Kernel::hand_over(u32 viewer, const HandRequest& request, std::vector<Fd>& descriptors) {
  const auto fresh = std::span(request.one).first(std::min(request.count, most_handed));
  const auto wanted = std::ranges::count_if(fresh, [](const auto& one) { return one.held == 0; });
  if (request.count == 0 || request.count > most_handed ||
      static_cast<std::size_t>(wanted) != descriptors.size())
    return false;
  u32 which = most_handed;
  const auto handed = std::make_shared<Handed>();
  const auto begun = collect(request, descriptors, *handed, which);
  if (begun.is_error()) {
    settle_handed(*handed, false);
    answer_hand_over(viewer, begun.error().code, which);
    return true;
  }
  files_->passes().pass(KernelId(static_cast<u16>(request.to)), request.program, handed->items,
                        [this, viewer, handed](Result<void> passed) {
                          settle_handed(*handed, !passed.is_error());
                          answer_hand_over(viewer, passed.is_error() ? passed.error().code : 0,
                                           most_handed);
                        });
  return true;
}

Result<void> Kernel::collect(const HandRequest& request, std::vector<Fd>& descriptors,
                             Handed& handed, u32& which) {
  if (files_ == nullptr || files_->home() == nullptr)
    return Error::of(EOPNOTSUPP, "there is one island");
  if (request.to >= config_.kernels) return Error::of(EINVAL, "no such kernel");
  handed.to = KernelId(static_cast<u16>(request.to));
  std::size_t next = 0;
  for (u32 i = 0; i < request.count; ++i) {
    const HandRequest::One& one = request.one[i];
    which = i;
    if (!is_token(one.name)) return Error::of(EINVAL, "no name");
    for (u32 k = 0; k < i; ++k)
      if (request.one[k].name == one.name) return Error::of(EEXIST, "a name twice");
    if (one.held != 0) {
      Description* d = sockets_->at_token(one.held);
      if (d == nullptr || d->state != call::SocketState::file)
        return Error::of(EOPNOTSUPP, "a socket of the cob");
      sockets_->retain(*d);
      handed.held.push_back(d->handle);
      handed.items.push_back(item_of(*d, one.name));
      continue;
    }
    auto given = TRY(files_->take_in(std::move(descriptors[next++]), handed.to));
    given.name = one.name;
    handed.given.push_back(given.handle);
    handed.items.push_back(given);
  }
  which = most_handed;
  return {};
}

// A file of another island that is known here goes on by its home's name.
Passes::Item Kernel::item_of(Description& d, u64 name) {
  Passes::Item item{.home = files_->holder().home(d.file->ref),
                    .handle = files_->holder().handle(d.file->ref),
                    .name = name};
  const auto traits = files_->holder().traits(d.file->ref);
  if (traits.has_offset) item.traits |= descriptor::pass_has_offset;
  if (traits.appends) item.traits |= descriptor::pass_appends;
  if (d.shared->memory != nullptr) {
    item.status_flags = static_cast<u32>((*d.shared->memory)[0]);
    if (((*d.shared->memory)[1] & call::file_is_stream) != 0)
      item.traits |= descriptor::pass_stream;
  }
  return item;
}

// What was opened for the pass, and referred to while it lasted, is let go.
void Kernel::settle_handed(Handed& handed, bool passed) {
  if (!passed)
    for (const descriptor::Handle handle : handed.given) files_->withdraw(handle, handed.to);
  for (const u32 handle : handed.held)
    if (Description* d = sockets_->at_handle(handle)) sockets_->release(*d);
}

void Kernel::answer_hand_over(u32 viewer, i32 error, u32 which) {
  const auto found = viewers_.find(viewer);
  if (found == viewers_.end()) return;  // the command has ended; so has its program
  const HandReply reply{.error = error, .which = which};
  if (send_struct(found->second.socket.ref(), reply, {}, Blocking::never).is_error())
    end_viewer(viewer);
}

// --- What is passed to a program here.

// The supervisor has introduced the program, or is about to.
Result<void> Kernel::take_passed(u32 program, std::span<const Passes::Arrived> passed) {
  for (const auto& one : passed) {
    if (!is_token(one.item.name)) return Error::of(EPROTO, "no name");
    const auto same = [&](const Passes::Arrived& other) {
      return other.item.name == one.item.name;
    };
    if (sockets_->at_token(one.item.name) != nullptr || std::ranges::count_if(passed, same) != 1)
      return Error::of(EEXIST, "a name twice");
  }
  if (luggage_.size() >= most_luggage) return Error::of(ENOBUFS, "too many programs are awaited");
  std::vector<Description*> made;
  for (std::size_t i = 0; i < passed.size(); ++i) {
    const auto d = sockets_->open();
    if (d.is_error()) {  // the references stay the caller's
      for (Description* one : made) {
        one->file.reset();
        one->state = call::SocketState::undecided;
        sockets_->release(*one);
      }
      return d.error();
    }
    sockets_->retain(*d.value());
    made.push_back(d.value());
  }
  for (std::size_t i = 0; i < passed.size(); ++i) {
    Description& d = *made[i];
    const Passes::Item& item = passed[i].item;
    d.state = call::SocketState::file;
    d.file = std::make_unique<OpenFile>(OpenFile{.ref = passed[i].ref, .share = fs::passed_share});
    sockets_->publish_token(d, item.name);
    const bool is_stream = (item.traits & descriptor::pass_stream) != 0;
    d.shared.make().memory = std::make_unique<std::array<u64, 6>>(std::array<u64, 6>{
        item.status_flags | u64{fs::passed_share} << 32, is_stream ? call::file_is_stream : 0});
  }
  luggage_.push_back({.program = program, .until = now_ + luggage_waits, .descriptions = made});
  for (const auto& [id, known] : programs_)
    if (known->pid() == program) give_luggage(*known);
  return {};
}

// It adopts them by their names; what it has not adopted at its start is dropped then.
void Kernel::give_luggage(Program& program) {
  if (program.attached() || program.dead) return;
  for (auto one = luggage_.begin(); one != luggage_.end();) {
    if (one->program != program.pid()) {
      ++one;
      continue;
    }
    program.unadopted.insert(program.unadopted.end(), one->descriptions.begin(),
                             one->descriptions.end());
    one = luggage_.erase(one);
  }
}

// Nobody came for it.
void Kernel::drop_old_luggage(Time now) {
  while (!luggage_.empty() && now >= luggage_.front().until) {
    const Luggage old = std::move(luggage_.front());
    luggage_.pop_front();
    COB_LOG(warn, "kernel {}: descriptors for process {} are dropped: it did not come",
            config_.kernel, old.program);
    for (Description* d : old.descriptions) sockets_->release(*d);
  }
}

}  // namespace cob::kernel
