// Finding: asking, answering, holding; see finding.h.
#include "kernel/finding.h"

#include <utility>

namespace cob::kernel {

using FileHolder = descriptor::Holder;
using descriptor::PassField;

Finding::Finding(message::Messenger& messenger, Files& files, KernelId self, u16 kernels)
    : messenger_(messenger), files_(files), self_(self), kernels_(kernels) {
  messenger.on<FindMessage, FoundMessage>(
      [this](KernelId, const FindMessage& m, message::ReplyToken<FoundMessage> reply) {
        on_find(m, std::move(reply));
      });
}

// ---- Who is asked.

PassField Finding::field_of(const Description& d, u64 name) const {
  const FileHolder& holder = files_.holder();
  const FileHolder::Ref ref = d.file->ref;
  const FileHolder::Traits traits = holder.traits(ref);
  PassField field{};
  field.handle = descriptor::field_of(holder.handle(ref));
  field.home = holder.home(ref).value;
  field.name = name;
  u8 told = 0;
  if (traits.has_offset) told |= descriptor::pass_has_offset;
  if (traits.appends) told |= descriptor::pass_appends;
  if (const auto* memory = d.shared->memory.get(); memory != nullptr) {
    field.status_flags = static_cast<u32>((*memory)[0]);
    if (((*memory)[1] & call::file_is_stream) != 0) told |= descriptor::pass_stream;
  }
  field.traits = told;
  return field;
}

void Finding::on_find(const FindMessage& m, message::ReplyToken<FoundMessage> reply) {
  const Description* d = sockets_ == nullptr ? nullptr : sockets_->at_token(m.name);
  if (d == nullptr) return reply.fail(ENOENT);
  if (d->state != call::SocketState::file) return reply.fail(EOPNOTSUPP);
  if (!files_.holder().lives(d->file->ref)) return reply.fail(ESTALE);
  FoundMessage found{};
  found.field = field_of(*d, m.name);
  found.share = d->file->share;
  (void)reply.answer(found);
}

// ---- Who asks.

int Finding::find(u64 name, const Asker& asker) {
  const auto known = wanted_.find(name);
  if (known == wanted_.end() && wanted_.size() >= max_names) return EAGAIN;
  Wanted& wanted = known == wanted_.end() ? wanted_[name] : known->second;
  if (wanted.askers.size() >= max_askers) return EAGAIN;
  wanted.askers.push_back(asker);
  if (known != wanted_.end()) return 0;
  wanted.round = ++rounds_;
  for (u16 k = 0; k < kernels_; ++k)
    if (k != self_.value && messenger_.connected(KernelId(k))) wanted.to_ask.push_back(k);
  if (wanted.to_ask.empty()) {
    wanted_.erase(name);
    return ENOENT;
  }
  ask(name, wanted);
  return 0;
}

// Whom there is no room for is asked in another turn.
void Finding::ask(u64 name, Wanted& wanted) {
  std::erase_if(wanted.to_ask, [&](u16 k) {
    FindMessage m{};
    m.name = name;
    const auto sent = messenger_.request<FindMessage, FoundMessage>(
        KernelId(k), m, {}, Time::never(),
        [this, name, round = wanted.round](const Result<FoundMessage>& answer) {
          heard(name, round, answer);
        });
    if (!sent && sent.error().code == EAGAIN) return false;
    if (sent) ++wanted.asked;
    return true;
  });
  unsent_ += wanted.to_ask.empty() ? 0 : 1;
}

void Finding::poll() {
  if (unsent_ == 0) return;
  unsent_ = 0;
  std::vector<u64> over;
  for (auto& [name, wanted] : wanted_) {
    if (wanted.to_ask.empty()) continue;
    ask(name, wanted);
    if (wanted.to_ask.empty() && wanted.asked == 0 && !wanted.found) over.push_back(name);
  }
  for (const u64 name : over) end(name, ENOENT);
}

void Finding::heard(u64 name, u64 round, const Result<FoundMessage>& answer) {
  const auto there = wanted_.find(name);
  if (there == wanted_.end() || there->second.round != round) return;
  Wanted& wanted = there->second;
  --wanted.asked;
  if (!answer.is_error() && !wanted.found) {
    wanted.found = true;
    return hold(name, answer.value());
  }
  if (answer.is_error() && answer.error().code != ENOENT && wanted.error == ENOENT)
    wanted.error = answer.error().code;
  if (!wanted.found && wanted.asked == 0 && wanted.to_ask.empty()) end(name, wanted.error);
}

void Finding::hold(u64 name, const FoundMessage& found) {
  const PassField field = found.field;
  const KernelId home(field.home);
  const descriptor::Handle handle = descriptor::handle_of(field.handle);
  if (!handle || home.value >= kernels_ || (field.traits & ~descriptor::pass_traits) != 0 ||
      field.name != name)
    return end(name, EPROTO);
  files_.holder().adopt(
      home, handle, (field.traits & descriptor::pass_appends) != 0,
      (field.traits & descriptor::pass_has_offset) != 0,
      [this, name, field, share = found.share.get()](Result<FileHolder::Ref> ref) {
        if (ref.is_error()) return end(name, ref.error().code);
        if (sockets_->at_token(name) != nullptr) {  // it has come another way
          files_.holder().drop(ref.value(), [](const Result<u64>&) {});
          return end(name, 0);
        }
        const auto made = make(ref.value(), field, share);
        if (made.is_error()) {
          files_.holder().drop(ref.value(), [](const Result<u64>&) {});
          return end(name, made.error().code);
        }
        end(name, 0);
        sockets_->release(*made.value());
      });
}

Result<Description*> Finding::make(FileHolder::Ref ref, const PassField& field, u32 share) {
  Description* d = TRY(sockets_->open());
  sockets_->retain(*d);
  d->state = call::SocketState::file;
  // Who had it may have locked it: its end is waited for.
  d->file = std::make_unique<OpenFile>(OpenFile{.ref = ref, .share = share, .locked = true});
  sockets_->publish_token(*d, field.name);
  const bool is_stream = (field.traits & descriptor::pass_stream) != 0;
  d->shared.make().memory = std::make_unique<std::array<u64, 6>>(std::array<u64, 6>{
      field.status_flags | u64{share} << 32, is_stream ? call::file_is_stream : 0});
  return d;
}

void Finding::end(u64 name, int error) {
  const auto there = wanted_.find(name);
  if (there == wanted_.end()) return;
  const std::vector<Asker> askers = std::move(there->second.askers);
  wanted_.erase(there);
  if (error == ECONNRESET || error == ENETDOWN || error == EHOSTDOWN) error = ESTALE;
  done_(askers, name, error);
}

}  // namespace cob::kernel
