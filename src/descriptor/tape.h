// Tape: an Object for tests: a file in memory that takes simulated time for each operation.
// Model: words at multiples of eight, each its own position unless it was written; the end grows.
// Test code only.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "descriptor/object.h"

namespace cob::descriptor::test {

inline constexpr u64 word = 8;

class Tape;

// What outlives the object: the file, and how often it was closed.
struct TapeFile {
  Tape* open = nullptr;
  u64 size = u64{1} << 40;
  std::map<u64, u64> written;
  u64 closed = 0;
  u64 at(u64 position) const {
    const auto found = written.find(position);
    return found == written.end() ? position : found->second;
  }
};

class Tape final : public Object {
 public:
  Tape(TapeFile& file, const Clock& clock, u64 seed, bool appends)
      : file_(file), clock_(clock), random_(seed), appends_(appends) {
    file_.open = this;
  }
  ~Tape() override {
    file_.open = nullptr;
    ++file_.closed;
  }

  ObjectTraits traits() const override { return {.has_offset = true, .appends = appends_}; }
  void read(Position at, std::span<std::byte> into, Done done) override {
    later(
        [this, at, into]() -> Result<u64> {
          const u64 from = at.value_or(offset_);
          const u64 left = from < file_.size ? file_.size - from : 0;
          const u64 bytes = std::min<u64>(into.size(), left) / word * word;
          for (u64 i = 0; i < bytes; i += word) {
            const u64 value = file_.at(from + i);
            std::memcpy(into.data() + i, &value, word);
          }
          if (!at.has_value()) offset_ += bytes;
          return bytes;
        },
        std::move(done));
  }
  void write(Position at, std::span<const std::byte> from, Done done) override {
    later(
        [this, at, from]() -> Result<u64> {
          put(at.value_or(offset_), from);
          if (!at.has_value()) offset_ += from.size();
          return u64{from.size()};
        },
        std::move(done));
  }
  void append(std::span<const std::byte> from, Done done) override {
    later(
        [this, from]() -> Result<u64> {
          offset_ = file_.size + from.size();
          put(file_.size, from);
          return u64{from.size()};
        },
        std::move(done));
  }
  void seek(i64 distance, int whence, Done done) override {
    later(
        [this, distance, whence]() -> Result<u64> {
          const u64 base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? offset_ : file_.size;
          const i64 to = static_cast<i64>(base) + distance;
          if (to < 0) return Error::of(EINVAL, "before the beginning");
          offset_ = static_cast<u64>(to);
          return offset_;
        },
        std::move(done));
  }
  Result<u64> offset() override { return offset_; }

  // Ends what is due; the last of it may end the tape.
  void poll() {
    const auto waits = [this](const Late& one) { return one.due > clock_.now(); };
    const auto due = std::stable_partition(late_.begin(), late_.end(), waits);
    std::vector<Late> ready(std::make_move_iterator(due), std::make_move_iterator(late_.end()));
    late_.erase(due, late_.end());
    for (Late& one : ready) one.done(one.work());
  }
  void set_slowness(Duration most) { slowness_ = most; }

 private:
  using Work = std::move_only_function<Result<u64>()>;
  struct Late {
    Time due;
    Work work;
    Done done;
  };
  // The work takes place at its end, as the host's does for all one knows.
  void later(Work work, Done done) {
    if (slowness_.ns == 0 || random_.below(2) == 0) return done(work());
    const auto wait =
        Duration::nanoseconds(static_cast<i64>(random_.below(static_cast<u64>(slowness_.ns))));
    late_.push_back({clock_.now() + wait, std::move(work), std::move(done)});
  }
  void put(u64 at, std::span<const std::byte> from) {
    for (u64 i = 0; i + word <= from.size(); i += word)
      std::memcpy(&file_.written[at + i], from.data() + i, word);
    file_.size = std::max(file_.size, at + from.size());
  }

  TapeFile& file_;
  const Clock& clock_;
  Random random_;
  bool appends_;
  u64 offset_ = 0;
  Duration slowness_{};
  std::vector<Late> late_;
};

}  // namespace cob::descriptor::test
