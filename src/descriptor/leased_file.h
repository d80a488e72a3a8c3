// LeasedFile: for tests, a file in memory that the host leases out, and that programs of the host
// write: each write makes it another version, which every byte says.
// Model: who wants to write tells each lease's holder and waits until none is left, as open(2)
// does; while somebody writes there are no leases. Test code only.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "descriptor/object.h"

namespace cob::descriptor::test {

class LeasedFile {
 public:
  static constexpr u64 size = 64 * 1'024;
  u8 version = 1;
  u32 writers = 0;
  FileId id{1, 1};

  class Lease final : public CacheLease {
   public:
    Lease(LeasedFile& file, std::move_only_function<void()> broken)
        : file_(file), broken_(std::move(broken)) {
      file_.leases_.push_back(this);
    }
    ~Lease() override { std::erase(file_.leases_, this); }
    u64 size() const override { return LeasedFile::size; }
    void tell() {
      if (broken_) std::exchange(broken_, {})();
    }

   private:
    LeasedFile& file_;
    std::move_only_function<void()> broken_;
  };

  // True: it is open for writing. Else somebody waits: again later.
  bool open_to_write() {
    for (Lease* lease : std::vector<Lease*>(leases_))
      if (std::ranges::find(leases_, lease) != leases_.end()) lease->tell();
    if (!leases_.empty()) return false;
    ++writers;
    return true;
  }
  void write() { ++version; }
  void close() { --writers; }
  std::size_t leases() const { return leases_.size(); }

 private:
  std::vector<Lease*> leases_;
};

class LeasedObject final : public Object {
 public:
  explicit LeasedObject(LeasedFile& file) : file_(file) {}
  ObjectTraits traits() const override { return {.has_offset = true}; }
  void read(Position at, std::span<std::byte> into, Done done) override {
    const u64 from = at.value_or(offset_);
    const u64 left = from < LeasedFile::size ? LeasedFile::size - from : 0;
    const u64 bytes = std::min<u64>(into.size(), left);
    std::ranges::fill(into.first(bytes), std::byte{file_.version});
    if (!at) offset_ += bytes;
    done(bytes);
  }
  void write(Position, std::span<const std::byte>, Done done) override {
    done(Error::of(EBADF, "read only"));
  }
  void append(std::span<const std::byte>, Done done) override {
    done(Error::of(EBADF, "read only"));
  }
  void seek(i64 distance, int, Done done) override {
    offset_ = static_cast<u64>(distance);
    done(offset_);
  }
  Result<u64> offset() override { return offset_; }
  std::optional<FileId> file() const override { return file_.id; }
  Result<std::unique_ptr<CacheLease>> cache_lease(std::move_only_function<void()> broken) override {
    if (file_.writers > 0) return Error::of(EAGAIN, "open for writing");
    return std::unique_ptr<CacheLease>(
        std::make_unique<LeasedFile::Lease>(file_, std::move(broken)));
  }

 private:
  LeasedFile& file_;
  u64 offset_ = 0;
};

}  // namespace cob::descriptor::test
