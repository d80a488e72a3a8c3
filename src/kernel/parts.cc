// Parts of listeners on several kernels; see parts.h. listen(2), fork(2).
#include "kernel/parts.h"

#include <algorithm>
#include <utility>

#include "kernel/move_switches.h"
#include "kernel/wire_address.h"
#include "message/messenger.h"

namespace cob::kernel {

using call::SocketState;

namespace {

constexpr u64 state_here = 1, state_accepts = 2, state_asked = 4;
constexpr u32 has_settings = 1, has_memory = 2;
// Of for_each_switch: what a part has of the listener that it is made of.
constexpr u32 told_switches = 1u << 1 | 0x1fe0;

void keep_memory(Description& d, const std::array<message::le<u64>, 6>& words) {
  auto& memory = d.shared.make().memory;
  if (memory == nullptr) memory = std::make_unique<std::array<u64, 6>>();
  std::ranges::copy(words, memory->begin());
}

}  // namespace

void ListenerParts::attach(message::Messenger& messenger) {
  messenger_ = &messenger;
  messenger.on<JoinMessage, JoinReply>(
      [this](KernelId from, const JoinMessage& m) -> Result<JoinReply> {
        Description* d = other_kernel(from) ? sockets_.at_token(m.token) : nullptr;
        if (d == nullptr) return Error::of(ENOENT, "a listener with this token");
        if (d->claiming) return Error::of(EAGAIN, "it does not listen yet");
        if (d->state != SocketState::listening || (d->flags & call::flag_reset) != 0)
          return Error::of(ENOENT, "it does not listen");
        become_part(*d, sockets_.group_of(*d));
        return describe(*d);
      });
  messenger.on<PartMessage>([this](KernelId from, const PartMessage& m) { on_news(from, m); });
}

SharedListener& ListenerParts::become_part(Description& d, u64 group) {
  auto& part = d.shared.make().part;
  if (part != nullptr) return *part;
  part = std::make_unique<SharedListener>();
  sockets_.has_parts_ = true;
  part->group = group;
  part->accepts = std::ranges::any_of(d.holders, &Holder::wants_accept);
  parts_.push_back(d.handle);
  return *part;
}

JoinReply ListenerParts::describe(Description& d) const {
  const WireAddress at = to_wire(&sockets_.stack_->names(), d.local.address);
  u16 switches = 0;
  for_each_switch(d, [&](u32 bit, bool on, auto) {
    if (on) switches = static_cast<u16>(switches | 1u << bit);
  });
  JoinReply reply{};
  reply.group = d.shared->part->group;
  reply.address = at.address;
  reply.port = d.local.port.value;
  reply.switches = switches;
  reply.ipv6_first = at.ipv6[0];
  reply.ipv6_second = at.ipv6[1];
  reply.backlog = d.queue->backlog;
  reply.has = (d.settings.made() ? has_settings : 0) | (d.shared->memory ? has_memory : 0);
  reply.receive_limit = d.receive_limit;
  reply.send_limit = d.send_limit;
  const SettingsPart& settings = *d.settings;
  JoinedSettings& told = reply.settings;
  told.keep_alive_idle_s = settings.keep_alive_idle_s;
  told.keep_alive_interval_s = settings.keep_alive_interval_s;
  told.keep_alive_probes = settings.keep_alive_probes;
  told.congestion = static_cast<u32>(settings.congestion);
  told.defer_accept_s = settings.defer_accept_s;
  told.fast_open_queue = settings.fast_open_queue;
  told.max_segment_bytes = settings.max_segment_bytes;
  told.urgent_inline = settings.urgent_inline;
  told.syn_retries = settings.limits.syn_retries;
  told.fin_wait_2_s = settings.limits.fin_wait_2_s;
  told.no_fin_wait_2 = settings.limits.no_fin_wait_2 ? 1u : 0u;
  told.user_timeout_ms = static_cast<u64>(settings.limits.user_timeout.to_ms());
  if (d.shared->memory != nullptr) std::ranges::copy(*d.shared->memory, reply.memory.begin());
  return reply;
}

// What another kernel says is clamped as what a program says.
void ListenerParts::settle(Description& d, const JoinReply& reply) {
  const u32 switches = reply.switches & told_switches;
  for_each_switch(d, [&](u32 bit, bool, auto set) {
    if ((told_switches & 1u << bit) != 0) set((switches & 1u << bit) != 0);
  });
  constexpr u32 least = 4 * 1024, most = 8 * 1024 * 1024;
  d.receive_limit = std::clamp<u32>(reply.receive_limit, least, most);
  d.send_limit = std::clamp<u32>(reply.send_limit, least, most);
  const u32 has = reply.has;
  if ((has & has_memory) != 0) keep_memory(d, reply.memory);
  if ((has & has_settings) == 0) return;
  const JoinedSettings& told = reply.settings;
  SettingsPart& s = d.settings.make();
  s.keep_alive_idle_s = std::clamp<u32>(told.keep_alive_idle_s, 1, 32'767);
  s.keep_alive_interval_s = std::clamp<u32>(told.keep_alive_interval_s, 1, 32'767);
  s.keep_alive_probes = std::clamp<u32>(told.keep_alive_probes, 1, 127);
  s.congestion = static_cast<call::CongestionName>(std::min<u32>(told.congestion, 2));
  s.defer_accept_s = std::min<u32>(told.defer_accept_s, 3'600);
  s.fast_open_queue = std::min<u32>(told.fast_open_queue, 65'535);
  s.max_segment_bytes = static_cast<u16>(std::min<u32>(told.max_segment_bytes, 32'767));
  s.urgent_inline = told.urgent_inline != 0;
  s.limits.syn_retries = static_cast<u8>(std::min<u32>(told.syn_retries, 127));
  s.limits.fin_wait_2_s = static_cast<u8>(std::min<u32>(told.fin_wait_2_s, 120));
  s.limits.no_fin_wait_2 = told.no_fin_wait_2 != 0;
  s.limits.user_timeout =
      Duration::milliseconds(static_cast<i64>(std::min<u64>(told.user_timeout_ms, INT32_MAX)));
}

void ListenerParts::join(u64 token, std::optional<KernelId> first, Time now, Joined done) {
  now_ = now;
  if (joins_.size() >= max_joins) return done(nullptr, ENOBUFS);
  const auto [found, fresh] = joins_.try_emplace(token);
  found->second.waiting.push_back(std::move(done));
  if (!fresh) return;
  if (first && other_kernel(*first)) found->second.first = first;
  ask_next(token);
}

void ListenerParts::ask_next(u64 token) {
  Join& join = joins_.at(token);
  while (join.asked <= kernels_) {
    const u32 turn = join.asked++;
    if (turn == 0 && !join.first) continue;
    const KernelId peer = turn == 0 ? *join.first : KernelId(static_cast<u16>(turn - 1));
    if (turn != 0 && (join.first == peer || !other_kernel(peer))) continue;
    if (!messenger_->connected(peer)) {
      const auto found = appeared_.find(peer.value);
      if (found != appeared_.end() && now_ < found->second) join.error = EAGAIN;
      continue;
    }
    const auto sent = messenger_->request<JoinMessage, JoinReply>(
        peer, JoinMessage{.token = token}, now_ + join_patience,
        [this, token, peer](Result<JoinReply> reply) {
          if (!reply.is_error()) return make_part(token, peer, reply.value());
          if (reply.error().code == EAGAIN) joins_.at(token).error = EAGAIN;
          ask_next(token);
        });
    if (!sent.is_error()) return;
    if (sent.error().code == EAGAIN) join.error = EAGAIN;
  }
  finish(token, nullptr, join.error != 0 ? join.error : ENOENT);
}

void ListenerParts::make_part(u64 token, KernelId from, const JoinReply& reply) {
  // A program may have made one meanwhile.
  if (sockets_.at_token(token) != nullptr) return finish(token, nullptr, EAGAIN);
  const net::Endpoint local{
      from_wire(&sockets_.stack_->names(), reply.address, reply.ipv6_first, reply.ipv6_second),
      Port(reply.port)};
  if (local.port.value == 0 || reply.group == 0 ||
      (!local.address.is_any() && !sockets_.ours(local.address)))
    return finish(token, nullptr, EPROTO);
  const auto opened = sockets_.open();
  if (opened.is_error()) return finish(token, nullptr, opened.error().code);
  Description& d = *opened.value();
  d.references = 1;  // the join's
  settle(d, reply);
  d.local = local;
  become_part(d, reply.group).others.add(from);
  sockets_.publish_token(d, token);
  d.claiming = true;
  const PortClaim claim{.local = local,
                        .owner = self_,
                        .handle = d.handle,
                        .reuse_address = d.reuse_address,
                        .reuse_port = d.reuse_port,
                        .listening = true,
                        .group = reply.group};
  directory_.claim(claim, now_,
                   [this, token, local, handle = d.handle,
                    backlog = std::clamp<u32>(reply.backlog, 1, 4'096)](i32 result) {
                     const i32 listens = sockets_.finish_listen(handle, local, backlog, result);
                     Description* part = sockets_.at_handle(handle);
                     if (listens == 0) {
                       ++counters_.joined;
                       tell_state(*part, std::nullopt, true);
                     }
                     finish(token, listens == 0 ? part : nullptr, -listens);
                     if (part != nullptr) sockets_.release(*part);
                   });
}

void ListenerParts::finish(u64 token, Description* part, i32 error) {
  const auto found = joins_.find(token);
  if (found == joins_.end()) return;
  std::vector<Joined> waiting = std::move(found->second.waiting);
  joins_.erase(found);
  for (Joined& done : waiting) done(part, error);
}

void ListenerParts::look(Description& d) {
  SharedListener& part = *d.shared.make().part;
  const bool accepts =
      d.state == SocketState::listening && std::ranges::any_of(d.holders, &Holder::wants_accept);
  if (accepts != part.accepts) {
    part.accepts = accepts;
    tell_state(d, std::nullopt, false);
  }
  sockets_.fit_announcement(d);
}

void ListenerParts::left(Description& d) {
  std::erase(parts_, d.handle);
  PartMessage message{};
  message.token = d.shared->token;
  message.news = std::to_underlying(PartNews::state);
  send_all(message);
}

void ListenerParts::tell_state(const Description& d, std::optional<KernelId> only, bool ask) {
  PartMessage message{};
  message.token = d.shared->token;
  message.news = std::to_underlying(PartNews::state);
  message.a[0] =
      state_here | (d.shared->part->accepts ? state_accepts : 0) | (ask ? state_asked : 0);
  if (only) {
    send(*only, message);
  } else {
    send_all(message);
  }
}

void ListenerParts::tell(const Description& d, PartNews news, const call::u64* words) {
  PartMessage message{};
  message.token = d.shared->token;
  message.news = std::to_underlying(news);
  if (words != nullptr) std::copy_n(words, 6, message.a.begin());
  d.shared->part->others.for_each([&](KernelId peer) { send(peer, message); });
}

void ListenerParts::tell_listen(const Description& d, u32 backlog) {
  const call::u64 words[6] = {backlog};
  tell(d, PartNews::listen, words);
}

void ListenerParts::send_all(const PartMessage& message) {
  for (u16 k = 0; k < kernels_; ++k)
    if (other_kernel(KernelId(k)) && messenger_->connected(KernelId(k))) send(KernelId(k), message);
}

// Now, or by poll() when the peer's ring has room; all in order.
void ListenerParts::send(KernelId peer, const PartMessage& message) {
  if (owed_.empty()) {
    const auto sent = messenger_->send(peer, message);
    if (!sent.is_error() || sent.error().code != EAGAIN) return;
  }
  if (owed_.size() == max_owed) {
    owed_.pop_front();
    ++counters_.lost_news;
  }
  owed_.push_back({peer, message});
}

void ListenerParts::on_news(KernelId from, const PartMessage& m) {
  Description* d = sockets_.at_token(m.token);
  if (d == nullptr || d->shared->part == nullptr || !other_kernel(from)) return;
  const auto news = static_cast<PartNews>(u32{m.news});
  if (news == PartNews::state) return on_state(from, *d, m.a[0]);
  if (!d->shared->part->others.contains(from)) return;
  switch (news) {
    case PartNews::option: {
      call::CallSlot call{};
      std::ranges::copy(m.a, call.a);
      (void)sockets_.change_option(*d, call);
      return;
    }
    case PartNews::memory:
      return keep_memory(*d, m.a);
    case PartNews::listen:
      return listen_again(*d, std::clamp<u32>(static_cast<u32>(u64{m.a[0]}), 1, 4'096));
    case PartNews::shutdown:
      if (d->state == SocketState::listening) sockets_.stop_listening(*d);
      return;
    case PartNews::state:
      return;
  }
}

void ListenerParts::on_state(KernelId from, Description& d, u64 bits) {
  SharedListener& part = *d.shared.make().part;
  if ((bits & state_here) != 0) {
    part.others.add(from);
  } else {
    part.others.remove(from);
  }
  if ((bits & (state_here | state_accepts)) == (state_here | state_accepts)) {
    part.accepting.add(from);
  } else {
    part.accepting.remove(from);
  }
  if ((bits & state_asked) != 0) tell_state(d, from, false);
  sockets_.fit_announcement(d);
}

void ListenerParts::listen_again(Description& d, u32 backlog) {
  if (d.state == SocketState::listening) {
    d.queue->backlog = backlog;
    sockets_.stack_->set_backlog(d.queue->listener, backlog);
    return;
  }
  if (d.state != SocketState::undecided || d.claiming || d.local.port.value == 0) return;
  d.claiming = true;
  const PortClaim claim{.local = d.local,
                        .owner = self_,
                        .handle = d.handle,
                        .reuse_address = d.reuse_address,
                        .reuse_port = d.reuse_port,
                        .listening = true,
                        .group = sockets_.group_of(d)};
  directory_.claim(claim, now_, [this, local = d.local, handle = d.handle, backlog](i32 result) {
    if (sockets_.finish_listen(handle, local, backlog, result) != 0) return;
    Description& part = *sockets_.at_handle(handle);
    look(part);
    for (const Holder& h : part.holders)
      if (h.wants_accept) sockets_.mark_busy(part);
  });
}

void ListenerParts::poll(Time now) {
  now_ = now;
  while (!owed_.empty()) {
    const auto sent = messenger_->send(owed_.front().peer, owed_.front().message);
    if (sent.is_error() && sent.error().code == EAGAIN) break;
    owed_.pop_front();
  }
  for_each_part([&](Description& d, SharedListener& part) {
    const bool waits = d.queue != nullptr && !d.queue->pending.empty();
    if (!waits || part.accepts || part.accepting.empty()) {
      part.stranded_since = Time::never();
    } else if (part.stranded_since == Time::never()) {
      part.stranded_since = now;
    } else if (now - part.stranded_since >= strand_patience) {
      part.stranded_since = Time::never();
      counters_.stranded += sockets_.reset_waiting(d);
    }
  });
}

Time ListenerParts::next_deadline() const {
  Time next = Time::never();
  for_each_part([&](Description&, const SharedListener& part) {
    if (part.stranded_since != Time::never())
      next = std::min(next, part.stranded_since + strand_patience);
  });
  return next;
}

void ListenerParts::peer_appeared(KernelId peer, Time now) {
  if (other_kernel(peer)) appeared_[peer.value] = now + appear_patience;
}

void ListenerParts::peer_up(KernelId peer) {
  appeared_.erase(peer.value);
  if (!other_kernel(peer)) return;
  for_each_part([&](const Description& d, SharedListener&) { tell_state(d, peer, true); });
}

void ListenerParts::peer_down(KernelId peer) {
  appeared_.erase(peer.value);
  std::erase_if(owed_, [&](const Owed& owed) { return owed.peer == peer; });
  for_each_part([&](Description& d, SharedListener& part) {
    part.others.remove(peer);
    part.accepting.remove(peer);
    sockets_.fit_announcement(d);
  });
}

}  // namespace cob::kernel
