// What server.h promises. A handle is a slot and its generation; what it names is looked up anew
// for each request, so a released buffer is EBADF whoever asks.
#include "offload/server.h"

#include <sys/eventfd.h>

#include <algorithm>

namespace cob::offload {

using message::Incoming;
using message::ReplyToken;

namespace {

constexpr u32 handle_of(std::size_t slot, u16 generation) {
  return u32{generation} << 16 | static_cast<u32>(slot);
}

// Between little-endian and this machine's order; where those are one nothing is left of it.
void order(std::span<std::byte> bytes, u32 element) {
  if constexpr (std::endian::native == std::endian::big) {
    for (std::size_t at = 0; at + element <= bytes.size(); at += element)
      std::ranges::reverse(bytes.subspan(at, element));
  }
}

}  // namespace

Server::Server(message::Messenger& messenger, const TaskSet& tasks, const ServerOptions& options)
    : messenger_(messenger), tasks_(tasks), options_(options), workers_([&] {
        auto cores = options.cores;
        if (cores.empty()) cores.push_back(-1);
        return cores;
      }()) {
  handle();
  if (!options.beside_loop) return;
  ended_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  beside_ = std::thread([this] { live_beside(); });
}

Server::~Server() {
  if (!beside_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  beside_.join();
}

void Server::use(Arena arena) {
  forget_host();
  arena_ = std::move(arena);
}

void Server::forget_host() {
  in_order([this] {
    for (std::size_t slot = 0; slot < kept_.size(); ++slot)
      if (kept_[slot].used) release(handle_of(slot, kept_[slot].generation));
  });
}

void Server::handle() {
  messenger_.on<Greet, Greeted>([this](KernelId from, const Greet& greet) -> Result<Greeted> {
    if (!is_host(from)) return Error::of(EACCES, "not our host");
    if (greet.version != protocol_version)
      return counted(Result<Greeted>(Error::of(EPROTONOSUPPORT, "another version")));
    forget_host();
    return Greeted{protocol_version, workers_.count(), arena_.bytes(), arena_.address()};
  });
  messenger_.on<Find, Found>([this](Incoming& in, const Find& find) -> Result<Found> {
    if (!is_host(in.from)) return Error::of(EACCES, "not our host");
    const std::string_view name(reinterpret_cast<const char*>(in.tail.data()), in.tail.size());
    const u32 task = TRY(counted(tasks_.find(name, find.signature)));
    return Found{task, u32{0}};
  });
  messenger_.on<Allocate, Allocated>(
      [this](KernelId from, const Allocate& wanted) -> Result<Allocated> {
        if (!is_host(from)) return Error::of(EACCES, "not our host");
        return counted(allocate(wanted));
      });
  messenger_.on<Release>([this](KernelId from, const Release& what) {
    if (is_host(from)) in_order([this, buffer = u32{what.buffer}] { release(buffer); });
  });
  messenger_.on<Write, Written>([this](Incoming& in, const Write& what, ReplyToken<Written> token) {
    if (!is_host(in.from)) return token.fail(EACCES);
    if (running_ == nullptr) {
      const auto bytes = in.loan.valid() ? in.loan.bytes() : in.tail;
      const auto written = counted(write(what, bytes));
      return written ? token.answer(written.value()) : token.fail(written.error().code);
    }
    in_order([this, what, loan = std::move(in.loan), token = std::move(token),
              tail = std::vector<std::byte>(in.tail.begin(), in.tail.end())]() mutable {
      const auto bytes = loan.valid() ? loan.bytes() : std::span<const std::byte>(tail);
      const auto written = counted(write(what, bytes));
      written ? token.answer(written.value()) : token.fail(written.error().code);
    });
  });
  messenger_.on<Read, Contents>([this](KernelId from, const Read& what,
                                       ReplyToken<Contents> token) {
    if (!is_host(from)) return token.fail(EACCES);
    in_order([this, what, token = std::move(token)]() mutable { read(what, std::move(token)); });
  });
  messenger_.on<Launch, Finished>(
      [this](Incoming& in, const Launch& launch, ReplyToken<Finished> token) {
        if (!is_host(in.from)) [[unlikely]]
          return token.fail(EACCES);
        ++counts_.launches;
        if (!options_.beside_loop) [[likely]] {
          const auto prepared = prepare(launch, in.tail, job_);
          if (prepared.is_error()) [[unlikely]] {
            ++counts_.failed;
            return token.fail(prepared.error().code);
          }
          return token.answer({run(job_)});
        }
        in_order([this, launch, token = std::move(token),
                  tail = std::vector<std::byte>(in.tail.begin(), in.tail.end())]() mutable {
          auto running = std::make_unique<Running>();
          const auto prepared = counted(prepare(launch, tail, running->job));
          if (prepared.is_error()) return token.fail(prepared.error().code);
          running->token = std::move(token);
          start(std::move(running));
        });
      });
}

Result<Server::Kept*> Server::find(u32 buffer) {
  const std::size_t slot = buffer & 0xffff;
  if (slot >= kept_.size() || !kept_[slot].used || kept_[slot].generation != buffer >> 16)
    return Error::of(EBADF, "no such buffer");
  return &kept_[slot];
}

Result<Allocated> Server::allocate(const Allocate& wanted) {
  const u64 bytes = wanted.bytes, offset = wanted.offset;
  const u32 element = wanted.element;
  if (bytes == 0 || !(element == 1 || element == 2 || element == 4 || element == 8) ||
      bytes % element != 0)
    return Error::of(EINVAL, "an impossible buffer");
  const bool shared = offset != no_offset;
  if (shared && (!arena_.valid() || offset < arena_head_bytes || offset % 8 != 0 ||
                 offset > arena_.bytes() || bytes > arena_.bytes() - offset))
    return Error::of(EINVAL, "a buffer outside of the arena");
  if (!shared && bytes > options_.most_bytes - own_bytes_)
    return Error::of(ENOMEM, "too large for this island");
  if (free_.empty()) {
    if (kept_.size() == most_buffers) return Error::of(ENOSPC, "too many buffers");
    free_.push_back(static_cast<u16>(kept_.size()));
    kept_.emplace_back();
  }
  Kept& kept = kept_[free_.back()];
  if (shared) {
    kept.view = {.data = arena_.at(offset), .bytes = bytes};
  } else {
    try {
      kept.own.resize(bytes);
    } catch (const std::bad_alloc&) {
      return Error::of(ENOMEM, "no memory for a buffer");
    }
    own_bytes_ += bytes;
    kept.view = {.data = kept.own.data(), .bytes = bytes};
  }
  kept.used = true;
  kept.element = element;
  const u16 slot = free_.back();
  free_.pop_back();
  ++used_;
  return Allocated{handle_of(slot, kept.generation), u32{0}};
}

void Server::release(u32 buffer) {
  const auto found = find(buffer);
  if (found.is_error()) {
    ++counts_.failed;
    return;
  }
  Kept& kept = *found.value();
  own_bytes_ -= kept.own.size();
  kept.own = {};
  kept.view = {};
  kept.used = false;
  if (++kept.generation == 0) kept.generation = 1;
  free_.push_back(static_cast<u16>(buffer & 0xffff));
  --used_;
}

Result<Written> Server::write(const Write& what, std::span<const std::byte> bytes) {
  const Kept& kept = *TRY(find(what.buffer));
  const u64 offset = what.offset;
  if (offset > kept.view.bytes || bytes.size() > kept.view.bytes - offset ||
      offset % kept.element != 0 || bytes.size() % kept.element != 0)
    return Error::of(ERANGE, "not within the buffer");
  if (!bytes.empty()) std::memcpy(kept.view.data + offset, bytes.data(), bytes.size());
  order({kept.view.data + offset, bytes.size()}, kept.element);
  return Written{u64{bytes.size()}};
}

void Server::read(const Read& what, ReplyToken<Contents> token) {
  const auto found = counted(find(what.buffer));
  if (found.is_error()) return token.fail(found.error().code);
  const Kept& kept = *found.value();
  const u64 offset = what.offset, bytes = what.bytes;
  if (offset > kept.view.bytes || bytes > kept.view.bytes - offset || bytes == 0 ||
      offset % kept.element != 0 || bytes % kept.element != 0) {
    ++counts_.failed;
    return token.fail(ERANGE);
  }
  if (bytes <= Contents::max_tail) {
    std::array<std::byte, Contents::max_tail> copy;
    std::memcpy(copy.data(), kept.view.data + offset, bytes);
    order(std::span(copy).first(bytes), kept.element);
    (void)token.answer({bytes}, {.tail = std::span<const std::byte>(copy).first(bytes)});
    return;
  }
  auto lent = counted(messenger_.allocate(token.requester(), bytes));
  if (lent.is_error()) return token.fail(lent.error().code);
  const auto there = lent.value().bytes();
  std::memcpy(there.data(), kept.view.data + offset, bytes);
  order(there, kept.element);
  if (token.answer({bytes}, {.lend = &lent.value()}).is_error()) token.fail(EAGAIN);
}

Result<void> Server::prepare(const Launch& launch, std::span<const std::byte> tail, Job& job) {
  job.task = tasks_.at(launch.task);
  if (job.task == nullptr) return Error::of(ENOENT, "no such task");
  if (job.task->trusts_host && !options_.trusts_host)
    return Error::of(EPERM, "addresses come from the host that started us only");
  const Range range{.begin = launch.begin, .end = launch.end, .grain = launch.grain};
  if (range.begin > range.end || range.grain == 0) return Error::of(EINVAL, "an impossible range");
  const std::size_t buffers = launch.buffers;
  if (buffers != job.task->buffers || tail.size() < buffers * 4)
    return Error::of(EINVAL, "not the buffers of this task");
  const auto arguments = tail.subspan(buffers * 4);
  if (arguments.size() < job.task->least_arguments || arguments.size() > job.task->most_arguments)
    return Error::of(EINVAL, "not the arguments of this task");
  for (std::size_t i = 0; i < buffers; ++i) {
    le<u32> buffer;
    std::memcpy(&buffer, tail.data() + i * 4, 4);
    job.views[i] = TRY(find(buffer))->view;
  }
  const u16 ticket = launch.ticket;
  if (ticket != no_ticket && (!arena_.valid() || ticket >= arena_tickets))
    return Error::of(EINVAL, "no such ticket");
  job.views_count = buffers;
  std::ranges::copy(arguments, job.arguments.begin());
  job.arguments_count = arguments.size();
  job.parts = Parts(range);
  job.ticket = ticket == no_ticket ? nullptr : &arena_.ticket(ticket);
  return {};
}

u64 Server::run(const Job& job) {
  const Call call{.buffers = std::span(job.views).first(job.views_count),
                  .arguments = std::span(job.arguments).first(job.arguments_count)};
  if (job.ticket == nullptr && job.parts.count <= 1) {
    Part part{.begin = job.parts.range.begin, .end = job.parts.range.end, .workers = 1};
    part.workers = workers_.count();
    if (job.parts.count == 1) job.task->run(job.task->body, part, call);
    return part.end - part.begin;
  }
  std::atomic<u64>& ticket = job.ticket != nullptr ? *job.ticket : workers_.own_ticket();
  return workers_.run(job.parts, ticket,
                      [&](const Part& part) { job.task->run(job.task->body, part, call); });
}

template <typename Act>
void Server::in_order(Act act) {
  if (running_ == nullptr && waiting_.empty()) return act();
  // A host that asks for more than this loses what it asked: its tokens answer ECANCELED.
  if (waiting_.size() >= most_waiting) {
    ++counts_.failed;
    return;
  }
  waiting_.emplace_back(std::move(act));
}

void Server::start(std::unique_ptr<Running> running) {
  running_ = std::move(running);
  {
    const std::lock_guard lock(mutex_);
    to_run_ = running_.get();
  }
  changed_.notify_all();
}

void Server::live_beside() {
  pin_to(options_.cores.empty() ? -1 : options_.cores.front());
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return to_run_ != nullptr || ending_; });
    if (to_run_ == nullptr) return;
    Running& running = *std::exchange(to_run_, nullptr);
    lock.unlock();
    running.items = run(running.job);
    lock.lock();
    has_run_ = true;
    (void)::eventfd_write(ended_.get(), 1);
  }
}

void Server::poll() {
  while (running_ != nullptr) {
    {
      const std::lock_guard lock(mutex_);
      if (!std::exchange(has_run_, false)) return;
    }
    eventfd_t ignored = 0;
    (void)::eventfd_read(ended_.get(), &ignored);
    const auto ended = std::move(running_);
    ended->token.answer({ended->items});
    while (running_ == nullptr && !waiting_.empty()) {
      const auto next = std::move(waiting_.front());
      waiting_.pop_front();
      const_cast<std::move_only_function<void()>&>(next)();
    }
  }
}

}  // namespace cob::offload
