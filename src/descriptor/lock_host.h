// A host's locks for tests: files in memory with open descriptions, those of a home and those of
// programs outside, which take their simulated time.
// Model: record locks are a LockTable whose owners are open descriptions, flocks a map; what a
// description has goes with it. Test code only.
#pragma once

#include <map>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "descriptor/object.h"

namespace cob::descriptor::test {

// The host's open description `number`.
constexpr LockOwner host_owner(u32 number) { return {LockKind::ofd, 0, number, 0}; }

struct HostFile {
  using Work = std::move_only_function<Result<u64>()>;
  struct Late {
    Time due;
    Work work;
    Object::Done done;
  };

  HostFile(u64 inode, const Clock& its_clock, u64 seed)
      : id{1, inode}, clock(its_clock), random(seed) {}

  FileId id;
  const Clock& clock;
  Random random;
  LockTable record;
  std::map<u32, LockMode> flocks;
  u32 numbers = 0;       // descriptions made so far
  u32 records_open = 0;  // RecordLocks there are
  bool keeps = false;    // it refuses to let go (ENOMEM, as when there is no memory to cut)
  Duration slowness{};
  std::vector<Late> late;

  bool flock(u32 number, LockMode mode) {
    flocks.erase(number);
    if (mode == LockMode::none) return true;
    for (const auto& [other, there] : flocks)
      if (there == LockMode::exclusive || mode == LockMode::exclusive) return false;
    flocks[number] = mode;
    return true;
  }
  Result<void> set(u32 number, const LockRange& range, LockMode mode) {
    if (keeps && mode == LockMode::none) return Error::of(ENOMEM, "the host");
    if (record.conflict(host_owner(number), range, mode) != nullptr)
      return Error::of(EAGAIN, "held");
    record.set(host_owner(number), range, mode, 0);
    return {};
  }
  // What takes place takes place at its end.
  void later(Work work, Object::Done done) {
    if (slowness.ns == 0 || random.below(2) == 0) return done(work());
    const auto wait =
        Duration::nanoseconds(static_cast<i64>(random.below(static_cast<u64>(slowness.ns))));
    late.push_back({clock.now() + wait, std::move(work), std::move(done)});
  }
  void poll() {
    for (std::size_t i = 0; i < late.size();) {
      if (late[i].due > clock.now()) {
        ++i;
        continue;
      }
      Late one = std::move(late[i]);
      late.erase(late.begin() + static_cast<std::ptrdiff_t>(i));
      one.done(one.work());
    }
  }
};

class HostRecords final : public RecordLocks {
 public:
  HostRecords(HostFile& file, bool exclusive)
      : file_(file), number_(++file.numbers), exclusive_(exclusive) {
    ++file_.records_open;
  }
  ~HostRecords() override {
    file_.record.remove(host_owner(number_));
    --file_.records_open;
  }
  bool writes() const override { return exclusive_; }
  Result<void> set(const LockRange& range, LockMode mode) override {
    if (mode == LockMode::exclusive && !exclusive_) return Error::of(EBADF, "not for that");
    return file_.set(number_, range, mode);
  }
  Result<Found> test(const LockRange& range, LockMode mode) override {
    const auto* held = file_.record.conflict(host_owner(number_), range, mode);
    if (held == nullptr) return Found{};
    return Found{.range = held->range, .mode = held->mode, .pid = held->pid};
  }
  void perform(Call call, Done done) override { file_.later(std::move(call), std::move(done)); }

 private:
  HostFile& file_;
  u32 number_;
  bool exclusive_;
};

// A description that a home has: locks alone.
class HostDescription final : public Object {
 public:
  explicit HostDescription(HostFile& file, bool reads = true, bool writes = true)
      : file_(file), number_(++file.numbers), reads_(reads), writes_(writes) {}
  ~HostDescription() override { file_.flocks.erase(number_); }

  ObjectTraits traits() const override { return {.reads = reads_, .writes = writes_}; }
  void read(Position, std::span<std::byte>, Done done) override { refuse(done); }
  void write(Position, std::span<const std::byte>, Done done) override { refuse(done); }
  void append(std::span<const std::byte>, Done done) override { refuse(done); }
  void seek(i64, int, Done done) override { refuse(done); }
  Result<u64> offset() override { return Error::of(EIO, "none"); }
  std::optional<FileId> file() const override { return file_.id; }
  void flock(LockMode mode, Done done) override {
    file_.later(
        [this, mode]() -> Result<u64> {
          if (!file_.flock(number_, mode)) return Error::of(EAGAIN, "held");
          return u64{0};
        },
        std::move(done));
  }
  Result<std::shared_ptr<RecordLocks>> record_locks(bool exclusive) override {
    return std::shared_ptr<RecordLocks>(std::make_shared<HostRecords>(file_, exclusive));
  }

 private:
  static void refuse(Done& done) { done(Error::of(EOPNOTSUPP, "locks alone")); }

  HostFile& file_;
  u32 number_;
  bool reads_, writes_;
};

}  // namespace cob::descriptor::test
