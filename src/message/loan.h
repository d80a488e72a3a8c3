// Bulk: large buffers filled in place and lent with a message; the borrower reads the lender's own
// pages and gives them back. docs/messaging.md, 5.
// Model: an extent allocator and a table of ids, both the lender's private memory; the borrower
// returns ids through a ring that cannot overflow. Owned by the kernel's loop; Buffers and Loans
// may outlive the session, not the Messenger.
#pragma once

#include <bitset>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "message/link_layout.h"
#include "message/transport.h"

namespace cob::message {

// Extents of whole pages in [0, bytes), first fit.
class ExtentAllocator {
 public:
  static constexpr u64 page = 4'096;

  explicit ExtentAllocator(u64 bytes);
  static constexpr u64 none = ~u64{0};
  // The offset of `bytes` (> 0), or none.
  u64 allocate(u64 bytes);
  // What allocate() gave, whole.
  void free(u64 offset, u64 bytes);
  u64 largest() const;

 private:
  std::map<u64, u64> free_;  // offset -> bytes, never adjacent
};

// The lending side of one session.
class Lender {
 public:
  explicit Lender(const LinkEnds& ends);

  u64 capacity() const { return ends_.out_bulk_bytes; }
  u64 allocate(u64 bytes) { return extents_.allocate(bytes); }
  void free(u64 offset, u64 bytes) { extents_.free(offset, bytes); }
  std::byte* at(u64 offset) const { return ends_.bulk + offset; }

  bool can_lend() const { return !free_ids_.empty(); }
  // REQUIRES: can_lend(). Room is free again when the id comes back.
  LoanReference lend(u64 offset, u64 bytes);
  bool returned_changed() const;
  // Takes the ids that the borrower has given back. False: it gave back what it did not have.
  bool collect();
  u32 lent() const { return static_cast<u32>(max_loans - free_ids_.size()); }

 private:
  struct Extent {
    u64 offset = 0, bytes = 0;  // 0 bytes: not lent
  };
  LinkEnds ends_;
  ExtentAllocator extents_;
  std::vector<Extent> lent_;
  std::vector<u32> free_ids_;
  u32 collected_ = 0;
};

class Links;
struct Link;

// The borrowing side of one session.
class Borrower {
 public:
  Borrower(Links& links, Link& link, const LinkEnds& ends)
      : links_(links), link_(link), ends_(ends) {}

  // Whether `reference`, a copy, lies in the lender's area and is not borrowed already.
  bool acceptable(const LoanReference& reference) const;
  std::span<const std::byte> borrow(const LoanReference& reference);
  // Gives the id back; the next flush() tells the lender.
  void give_back(u32 id);
  // The session is over: nothing is given back any more.
  void end() { over_ = true; }

 private:
  Links& links_;  // not used once over
  Link& link_;
  LinkEnds ends_;
  std::bitset<max_loans> borrowed_;
  u32 returned_ = 0;
  bool over_ = false;
};

// A buffer of ours in a link's bulk area, to be filled and lent with a message, or dropped.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::shared_ptr<Lender> lender, u64 offset, u64 bytes)
      : lender_(std::move(lender)), offset_(offset), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this == &other) return *this;
    reset();
    lender_ = std::move(other.lender_);
    offset_ = std::exchange(other.offset_, 0);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { reset(); }

  bool valid() const { return lender_ != nullptr; }
  // Zeroed when the link was new; later whatever was there before.
  std::span<std::byte> bytes() const { return {lender_->at(offset_), bytes_}; }
  void reset() {
    if (lender_ != nullptr) std::exchange(lender_, nullptr)->free(offset_, bytes_);
  }

 private:
  friend class Messenger;

  std::shared_ptr<Lender> lender_;
  u64 offset_ = 0, bytes_ = 0;
};

// A buffer of the peer's, ours to read until it is dropped, also when the peer has ended meanwhile.
// A hostile peer may still change the bytes: decide on a copy.
class Loan {
 public:
  Loan() = default;
  Loan(std::shared_ptr<Borrower> borrower, u32 id, std::span<const std::byte> bytes)
      : borrower_(std::move(borrower)), id_(id), bytes_(bytes) {}
  Loan(Loan&& other) noexcept { *this = std::move(other); }
  Loan& operator=(Loan&& other) noexcept {
    if (this == &other) return *this;
    reset();
    borrower_ = std::move(other.borrower_);
    id_ = other.id_;
    bytes_ = std::exchange(other.bytes_, {});
    return *this;
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  ~Loan() { reset(); }

  bool valid() const { return borrower_ != nullptr; }
  std::span<const std::byte> bytes() const { return bytes_; }
  // The next flush() tells the lender.
  void reset() {
    if (borrower_ != nullptr) std::exchange(borrower_, nullptr)->give_back(id_);
    bytes_ = {};
  }

 private:
  std::shared_ptr<Borrower> borrower_;
  u32 id_ = 0;
  std::span<const std::byte> bytes_;
};

}  // namespace cob::message
