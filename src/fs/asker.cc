// Requests written, replies read. See asker.h.
#include "fs/asker.h"

#include <algorithm>
#include <cstring>

namespace cob::fs {
namespace {

using message::Incoming;
using message::With;

Place place_of(const Asker::Base& base) {
  return {.directory = descriptor::field_of(base.directory), .share = base.share};
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Asker::Asker(message::Messenger& messenger) : messenger_(messenger) {
  messenger_.know<TellCredentials>();
  messenger_.know<Open>();
  messenger_.know<Opened>();
  messenger_.know<Name>();
  messenger_.know<Named>();
}

Result<u32> Asker::who_number(const Credentials& credentials) {
  Credentials wanted = credentials;
  wanted.normalize();
  if (wanted.groups.size() > max_groups) return Error::of(E2BIG, "too many groups");
  const auto found = std::find(numbers_.begin(), numbers_.end(), wanted);
  if (found != numbers_.end()) return static_cast<u32>(found - numbers_.begin());
  if (numbers_.size() == max_credentials) return Error::of(ENOBUFS, "too many credentials");
  numbers_.push_back(std::move(wanted));
  return static_cast<u32>(numbers_.size() - 1);
}

Result<void> Asker::tell(KernelId entry, u32 number) {
  if (number >= numbers_.size()) return Error::of(EINVAL, "no such credentials");
  std::vector<bool>& told = told_[entry.value];
  told.resize(numbers_.size());
  if (told[number]) return {};
  const Credentials& credentials = numbers_[number];
  std::vector<message::le<u32>> groups(credentials.groups.begin(), credentials.groups.end());
  TRY(messenger_.send(entry,
                      TellCredentials{.number = number,
                                      .uid = credentials.uid,
                                      .gid = credentials.gid,
                                      .groups = static_cast<u32>(groups.size())},
                      With{.tail = std::as_bytes(std::span(groups))}));
  told[number] = true;
  return {};
}

Result<void> Asker::open(const Base& base, const As& as, std::string_view path, u32 flags, u32 mode,
                         OpenThen then) {
  if (path.size() > max_path_bytes) return Error::of(ENAMETOOLONG, "path");
  TRY(tell(base.entry, as.number));
  const Open request{.place = place_of(base),
                     .credentials = as.number,
                     .flags = flags,
                     .mode = static_cast<u16>(mode & 07777),
                     .umask = as.umask,
                     .reserved = 0U};
  // No deadline: what was opened for somebody who had given up would stay open.
  (void)TRY((messenger_.request<Open, Opened>(
      base.entry, request, With{.tail = std::as_bytes(std::span(path))}, Time::never(),
      [then = std::move(then)](Result<Opened> reply, Incoming& incoming) mutable {
        if (reply.is_error()) return then(reply.error());
        OpenedFile file{.opened = reply.value(), .outside = {}};
        if (file.opened.outside) file.outside = text_of(incoming.tail);
        if (file.opened.outside && file.outside.empty())
          return then(Error::of(EPROTO, "it leads nowhere"));
        then(std::move(file));
      })));
  return {};
}

Result<void> Asker::call(const Base& base, const As& as, const NameRequest& request, Then then) {
  const std::string payload =
      std::string(request.path).append(request.second).append(request.value);
  if (request.path.size() > max_path_bytes || request.second.size() > max_path_bytes)
    return Error::of(ENAMETOOLONG, "path");
  if (request.value.size() > max_value_bytes) return Error::of(E2BIG, "value");
  TRY(tell(base.entry, as.number));
  const Name name{.place = place_of(base),
                  .second_place = place_of(request.second_base),
                  .credentials = as.number,
                  .call = request.call,
                  .umask = as.umask,
                  .flags = request.flags,
                  .mode = request.mode,
                  .uid = request.uid,
                  .gid = request.gid,
                  .number = request.number,
                  .path_bytes = static_cast<u16>(request.path.size()),
                  .second_bytes = static_cast<u16>(request.second.size()),
                  .value_bytes = static_cast<u32>(request.value.size())};
  With with{.tail = std::as_bytes(std::span(payload))};
  message::Buffer buffer;
  if (payload.size() > Name::max_tail) {
    buffer = TRY(messenger_.allocate(base.entry, payload.size()));
    std::memcpy(buffer.bytes().data(), payload.data(), payload.size());
    with = {.tail = {}, .lend = &buffer};
  }
  (void)TRY((messenger_.request<Name, Named>(
      base.entry, name, with, Time::never(),
      [then = std::move(then)](Result<Named> reply, Incoming& incoming) mutable {
        if (reply.is_error()) return then(reply.error());
        const Named& named = reply.value();
        const auto bytes = incoming.loan.valid() ? incoming.loan.bytes() : incoming.tail;
        if (named.bytes > bytes.size() || (named.outside && named.bytes == 0))
          return then(Error::of(EPROTO, "fewer bytes than it says"));
        Answer answer{.number = named.number, .value = {}, .outside = {}, .second = named.second};
        (named.outside ? answer.outside : answer.value) = text_of(bytes.first(named.bytes));
        then(std::move(answer));
      })));
  return {};
}

}  // namespace cob::fs
