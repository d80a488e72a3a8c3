// Handlers, and the ways that a request takes. See names.h.
#include "fs/names.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>

#include "fs/open_flags.h"
#include "fs/requests.h"

namespace cob::fs {
namespace {

using message::Incoming;
using message::With;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Neither a way through others nor out of its directory.
bool is_single_name(std::string_view path) {
  return !path.empty() && path.find('/') == std::string_view::npos && path != "." && path != "..";
}

}  // namespace

Names::Names(Parts parts) : parts_(std::move(parts)) {
  message::Messenger& messenger = parts_.messenger;
  messenger.on<TellCredentials>([this](Incoming& incoming, const TellCredentials& told) {
    take_credentials(incoming, told);
  });
  messenger.on<Open, Opened>([this](Incoming& incoming, const Open& request, OpenToken token) {
    open(incoming, request, std::move(token));
  });
  messenger.on<Name, Named>([this](Incoming& incoming, const Name& request, NameToken token) {
    call(incoming, request, std::move(token));
  });
}

Result<void> Names::add_share(u32 number, const std::string& path, bool read_only) {
  if (shares_.contains(number)) return Error::of(EEXIST, "there is a share of that number");
  Fd root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return Error::from_errno("the share's directory");
  const Waits waits = waits_of(root.ref());
  const Status status = TRY(status_of(root.ref()));
  shares_.emplace(number,
                  std::make_shared<const Share>(std::move(root), read_only, waits, status.device));
  return {};
}

void Names::take_credentials(Incoming& incoming, const TellCredentials& told) {
  const auto credentials = check_credentials(told, incoming.tail);
  if (credentials.is_error()) {
    ++counters_.refused;
    return;
  }
  std::vector<Told>& table = told_[incoming.from.value];
  const std::size_t number = told.number;
  if (table.size() <= number) table.resize(number + 1);
  const Who who = parts_.ring.who(credentials.value());
  table[number] = {.who = who, .known = true, .refused = parts_.ring.admit(who).is_error()};
}

Result<Who> Names::who_of(KernelId from, u32 number) const {
  const auto table = told_.find(from.value);
  if (table == told_.end() || number >= table->second.size() || !table->second[number].known)
    return Error::of(EINVAL, "credentials that were not told");
  const Told& told = table->second[number];
  if (told.refused) return Error::of(EACCES, "this kernel may not act for that user");
  return told.who;
}

Result<Start> Names::start_of(KernelId from, const Place& place, std::string_view path) {
  if (place.share == passed_share) return start_at_passed(from, place, path);
  const auto share = shares_.find(place.share);
  if (share == shares_.end()) return Error::of(ENODEV, "no such share");
  Start start{.share = share->second};
  const descriptor::Handle handle = descriptor::handle_of(place.directory);
  if (!handle) return start;
  const HostObject* object = parts_.find(handle, from);
  if (object == nullptr) return Error::of(EBADF, "a handle that is not held");
  start.held = object->fd();
  return start;
}

// No share bounds what is below it, so nothing but itself is asked about.
Result<Start> Names::start_at_passed(KernelId from, const Place& place, std::string_view path) {
  const HostObject* object = parts_.find(descriptor::handle_of(place.directory), from);
  if (object == nullptr || !object->is_passed()) return Error::of(EBADF, "not passed");
  if (!path.empty()) return Error::of(EACCES, "a path behind a passed descriptor");
  return Start{.share = std::make_shared<const Share>(Fd(), false, object->waits()),
               .held = object->fd()};
}

u64 Names::Remembered::key(const Place& place, std::string_view name) {
  u64 hash = std::hash<std::string_view>{}(name);
  for (const u64 part :
       {u64{place.share}, u64{place.directory.slot}, u64{place.directory.generation}})
    hash = (hash ^ part) * 0x9e3779b97f4a7c15;
  return hash ^ hash >> 32;
}

void Names::refuse(message::AnyReplyToken& token, int code) {
  // EACCES and ENODEV befall the honest too.
  if (code == EINVAL || code == EBADF || code == E2BIG) ++counters_.refused;
  token.fail(code);
}

// --- Opening.

void Names::open(Incoming& incoming, const Open& request, OpenToken token) {
  ++counters_.opens;
  auto parts = check_open(request, incoming.tail);
  if (parts.is_error()) return refuse(token, parts.error().code);
  auto who = who_of(incoming.from, request.credentials);
  if (who.is_error()) return refuse(token, who.error().code);
  auto start = start_of(incoming.from, request.place, parts.value().path);
  if (start.is_error()) return refuse(token, start.error().code);

  struct Job {
    OpenWanted wanted;
    OpenOutcome outcome;
    OpenToken token;
  };
  OpenWanted wanted{.start = start.release_value(),
                    .path = std::move(parts.value().path),
                    .flags = request.flags,
                    .mode = request.mode};
  constexpr u32 makes =
      open_flag::create | open_flag::truncate | (open_flag::temporary & ~open_flag::directory);
  if (who.value() == nullptr && (wanted.flags & makes) == 0 &&
      !wanted.start.share->waits.for_status) {
    OpenOutcome outcome = open_in_share(wanted, true);
    if (!outcome.fd.is_error() || outcome.fd.error().code != EAGAIN) {
      ++counters_.at_once;
      return answer(token, wanted.start, outcome, nullptr);
    }
  }
  if (const auto kept = wanted.start.keep(); kept.is_error())
    return refuse(token, kept.error().code);
  auto job = std::make_shared<Job>(Job{std::move(wanted), {}, std::move(token)});
  const auto started = parts_.ring.workers().run(
      {.who = who.value(),
       .umask = request.umask,
       .work =
           [job](int refused) {
             if (refused != 0) {
               job->outcome.fd = Error::of(refused, "credentials");
             } else {
               job->outcome = open_in_share(job->wanted, false);
             }
           },
       .done = [this, job,
                who = who.value()] { answer(job->token, job->wanted.start, job->outcome, who); }});
  if (started.is_error()) job->token.fail(EAGAIN);
}

void Names::answer(OpenToken& token, const Start& start, OpenOutcome& outcome, const Who& who) {
  if (outcome.fd.is_error()) {
    if (outcome.outside.empty()) return token.fail(outcome.fd.error().code);
    Opened leads_out{};
    leads_out.outside = true;
    if (token.answer(leads_out, With{.tail = bytes_of(outcome.outside)}).is_error())
      token.fail(ENAMETOOLONG);
    return;
  }
  if (token.cancelled()) return token.fail(ECANCELED);  // nobody would ever drop it
  const Status& status = outcome.status;
  const u64 device = status.device;
  // Behind a mount in the share another filesystem may lie.
  const bool same = device == start.share->device;
  const HostObject::Fresh fresh{
      .mode = status.mode,
      .id = {.device = ::makedev(static_cast<u32>(device >> 32), static_cast<u32>(device)),
             .inode = status.inode},
      .waits = same ? start.share->waits : waits_of(outcome.fd.value().ref()),
      .flags = outcome.host_flags,
      .nonblocking = outcome.nonblocking};
  auto object = HostObject::create(outcome.fd.release_value(), parts_.ring, who, fresh);
  if (object.is_error()) return token.fail(object.error().code);
  const auto adopted = parts_.adopt(object.release_value(), token.requester());
  if (adopted.is_error()) return token.fail(adopted.error().code);
  token.answer({.handle = descriptor::field_of(adopted.value().handle),
                .grant = adopted.value().grant.value,
                .file_lease = adopted.value().file_lease,
                .home = parts_.self.value,
                .outside = false,
                .reserved_a = 0,
                .reserved_b = 0U,
                .status = outcome.status});
}

// --- Calls by name.

void Names::call(Incoming& incoming, const Name& request, NameToken token) {
  ++counters_.calls;
  const bool lent = incoming.loan.valid();
  auto parts = check_name(request, lent ? incoming.loan.bytes() : incoming.tail, lent);
  incoming.loan.reset();
  if (parts.is_error()) return refuse(token, parts.error().code);
  auto who = who_of(incoming.from, request.credentials);
  if (who.is_error()) return refuse(token, who.error().code);
  auto start = start_of(incoming.from, request.place, parts.value().path);
  if (start.is_error()) return refuse(token, start.error().code);
  const NameCall kind = request.call;
  const bool two = kind == NameCall::rename || kind == NameCall::link;
  auto second =
      two ? start_of(incoming.from, request.second_place, parts.value().second) : start.value();
  if (second.is_error()) return refuse(token, second.error().code);

  struct Job {
    NameWanted wanted;
    NameOutcome outcome;
    NameToken token;
  };
  NameWanted wanted{.start = start.release_value(),
                    .second_start = second.release_value(),
                    .path = std::move(parts.value().path),
                    .second = std::move(parts.value().second),
                    .value = std::move(parts.value().value),
                    .call = kind,
                    .flags = request.flags,
                    .mode = request.mode,
                    .uid = request.uid,
                    .gid = request.gid,
                    .number = request.number};
  if (who.value() == nullptr && may_be_cached(kind) && !wanted.start.share->waits.for_status) {
    const bool single =
        parts_.clock != nullptr && kind == NameCall::status && is_single_name(wanted.path);
    const u64 key = single ? Remembered::key(request.place, wanted.path) : 0;
    const Time now = single ? parts_.clock->now() : Time{};
    wanted.in_memory = single && remembered_.has(key, now);
    NameOutcome outcome = call_in_share(wanted, true);
    if (!outcome.number.is_error() || outcome.number.error().code != EAGAIN) {
      ++counters_.at_once;
      if (single && !outcome.number.is_error()) remembered_.add(key, now);
      if (used_.size() < max_used && outcome.used.valid()) used_.push_back(std::move(outcome.used));
      return answer(token, outcome);
    }
  }
  if (const auto kept = wanted.start.keep(); kept.is_error())
    return refuse(token, kept.error().code);
  if (!two) wanted.second_start = wanted.start;
  if (const auto kept = wanted.second_start.keep(); kept.is_error())
    return refuse(token, kept.error().code);
  auto job = std::make_shared<Job>(Job{std::move(wanted), {}, std::move(token)});
  const auto started =
      parts_.ring.workers().run({.who = who.value(),
                                 .umask = request.umask,
                                 .work =
                                     [job](int refused) {
                                       if (refused != 0) {
                                         job->outcome.number = Error::of(refused, "credentials");
                                       } else {
                                         job->outcome = call_in_share(job->wanted, false);
                                       }
                                     },
                                 .done = [this, job] { answer(job->token, job->outcome); }});
  if (started.is_error()) job->token.fail(EAGAIN);
}

void Names::answer(NameToken& token, NameOutcome& outcome) {
  const bool outside = !outcome.outside.empty();
  if (outcome.number.is_error() && !outside) return token.fail(outcome.number.error().code);
  const std::string& value = outside ? outcome.outside : outcome.value;
  Named reply{.number = outside ? u64{0} : outcome.number.value(),
              .bytes = static_cast<u32>(value.size()),
              .outside = outside,
              .second = outcome.second,
              .reserved = u16{0}};
  if (value.size() <= Named::max_tail) {
    if (token.answer(reply, With{.tail = bytes_of(value)}).is_error()) token.fail(EMSGSIZE);
    return;
  }
  auto buffer = parts_.messenger.allocate(token.requester(), value.size());
  if (buffer.is_error()) return token.fail(buffer.error().code == EMSGSIZE ? E2BIG : EAGAIN);
  std::memcpy(buffer.value().bytes().data(), value.data(), value.size());
  if (token.answer(reply, With{.lend = &buffer.value()}).is_error()) token.fail(EAGAIN);
}

}  // namespace cob::fs
