// The checks. A loan's bytes may change while they are looked at: they are copied first.
#include "fs/requests.h"

#include <cstring>

#include "fs/open_flags.h"

namespace cob::fs {
namespace {

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Calls whose second text is a path or a name, and calls whose value is one.
bool has_second(NameCall call) {
  return call == NameCall::rename || call == NameCall::link || call == NameCall::set_attribute;
}
bool value_is_text(NameCall call) {
  return call == NameCall::symlink || call == NameCall::get_attribute ||
         call == NameCall::remove_attribute;
}

}  // namespace

Result<OpenParts> check_open(const Open& request, std::span<const std::byte> tail) {
  if (!host_flags(request.flags)) return Error::of(EINVAL, "flags that nobody knows");
  if (tail.size() > max_path_bytes) return Error::of(ENAMETOOLONG, "path");
  OpenParts parts{.path = text_of(tail)};
  if (has_nul(parts.path)) return Error::of(EINVAL, "a path with a NUL");
  return parts;
}

Result<NameParts> check_name(const Name& request, std::span<const std::byte> payload, bool lent) {
  const NameCall call = request.call;
  const std::size_t path = request.path_bytes, second = request.second_bytes;
  const std::size_t value = request.value_bytes;
  if (!known(call)) return Error::of(EINVAL, "no such call");
  if (path > max_path_bytes || second > max_path_bytes) return Error::of(ENAMETOOLONG, "path");
  if (value > max_value_bytes) return Error::of(E2BIG, "value");
  if ((request.flags & ~(no_follow | follow | own_flags)) != 0)
    return Error::of(EINVAL, "flags that nobody knows");
  const std::size_t all = path + second + value;
  if (lent ? payload.size() < all : payload.size() != all)
    return Error::of(EINVAL, "sizes that do not add up");
  if (second > 0 && !has_second(call)) return Error::of(EINVAL, "a second path");
  NameParts parts{.path = text_of(payload.first(path)),
                  .second = text_of(payload.subspan(path, second)),
                  .value = text_of(payload.subspan(path + second, value))};
  if (has_nul(parts.path) || has_nul(parts.second) || (value_is_text(call) && has_nul(parts.value)))
    return Error::of(EINVAL, "a path with a NUL");
  return parts;
}

Result<Credentials> check_credentials(const TellCredentials& told,
                                      std::span<const std::byte> tail) {
  if (told.number >= max_credentials || told.groups > max_groups ||
      tail.size() != std::size_t{told.groups} * 4)
    return Error::of(EINVAL, "credentials");
  if (told.uid == ~u32{0} || told.gid == ~u32{0}) return Error::of(EINVAL, "credentials of nobody");
  Credentials credentials{.uid = told.uid, .gid = told.gid, .groups = {}};
  for (std::size_t i = 0; i < told.groups; ++i) {
    message::le<u32> group;
    std::memcpy(&group, tail.data() + 4 * i, 4);
    credentials.groups.push_back(group);
  }
  credentials.normalize();
  return credentials;
}

}  // namespace cob::fs
