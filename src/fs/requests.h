// What came with a request about names, checked: paths and values cut apart, no byte taken on
// trust. docs/descriptors.md, 8. Values.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "fs/credentials.h"
#include "fs/protocol.h"

namespace cob::fs {

struct OpenParts {
  std::string path;
};
struct NameParts {
  std::string path, second, value;
};

// EINVAL: a path with a NUL, flags nobody knows, sizes that do not add up.
Result<OpenParts> check_open(const Open& request, std::span<const std::byte> tail);
// `payload`: the tail or, if it is a loan, all that is lent: at least what the sizes say.
Result<NameParts> check_name(const Name& request, std::span<const std::byte> payload, bool lent);
Result<Credentials> check_credentials(const TellCredentials& told, std::span<const std::byte> tail);

}  // namespace cob::fs
