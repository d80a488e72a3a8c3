// Object: what a description is at its home: the host's descriptor (fs/host_object.h), or a test's
// model of one.
// Model: the host's own position is the description's offset while that is at home. Nothing waits
// for an event; what must wait for storage ends later, from poll() of whoever made the object.
// Owned by the home's table; the kernel's loop.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/types.h"

namespace cob::descriptor {

// nullopt: at the object's own offset, which moves.
using Position = std::optional<u64>;

// What the home does with an object; fixed for its life.
struct ObjectTraits {
  bool has_offset = false;  // lseek(2) works: its offset may rest elsewhere
  bool appends = false;     // O_APPEND is on: writes at the offset go behind the last byte
};

class Object {
 public:
  // Bytes moved, or where the offset is now. Called once, from within the call if that needed no
  // waiting; the call of the last one may end the object. An operation is never cancelled; its
  // buffer stays until then.
  using Done = std::move_only_function<void(Result<u64>)>;

  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  // Closes it: the last close. No operation is under way, unless the home itself ends: its callback
  // is then destroyed unrun.
  virtual ~Object() = default;

  virtual ObjectTraits traits() const = 0;
  virtual void read(Position at, std::span<std::byte> into, Done done) = 0;
  virtual void write(Position at, std::span<const std::byte> from, Done done) = 0;
  // Behind the last byte, and the offset behind that, whatever O_APPEND says.
  virtual void append(std::span<const std::byte> from, Done done) = 0;
  // lseek(2), all whences.
  virtual void seek(i64 distance, int whence, Done done) = 0;
  // Where the offset is; EIO if it has none.
  virtual Result<u64> offset() = 0;
};

}  // namespace cob::descriptor
