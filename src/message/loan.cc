// The extent allocator, the lender's table and the borrower's returns.
// See loan.h. The kernel's loop.
#include "message/loan.h"

#include <algorithm>

#include "message/links.h"
#include "message/shared_word.h"

namespace cob::message {

namespace {
constexpr u64 whole_pages(u64 bytes) {
  return (bytes + ExtentAllocator::page - 1) / ExtentAllocator::page * ExtentAllocator::page;
}
}  // namespace

ExtentAllocator::ExtentAllocator(u64 bytes) {
  if (bytes > 0) free_.emplace(0, bytes);
}

u64 ExtentAllocator::allocate(u64 bytes) {
  const u64 wanted = whole_pages(bytes);
  const auto found =
      std::find_if(free_.begin(), free_.end(), [&](const auto& e) { return e.second >= wanted; });
  if (found == free_.end()) return none;
  const auto [offset, size] = *found;
  const auto next = free_.erase(found);
  if (size > wanted) free_.emplace_hint(next, offset + wanted, size - wanted);
  return offset;
}

void ExtentAllocator::free(u64 offset, u64 bytes) {
  u64 begin = offset, end = offset + whole_pages(bytes);
  auto next = free_.lower_bound(begin);
  VERIFY(next == free_.end() || next->first >= end);
  if (next != free_.end() && next->first == end) {
    end += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    VERIFY(before->first + before->second <= begin);
    if (before->first + before->second == begin) {
      begin = before->first;
      next = free_.erase(before);
    }
  }
  free_.emplace_hint(next, begin, end - begin);
}

u64 ExtentAllocator::largest() const {
  u64 most = 0;
  for (const auto& [offset, bytes] : free_) most = std::max(most, bytes);
  return most;
}

Lender::Lender(const LinkEnds& ends)
    : ends_(ends), extents_(ends.out_bulk_bytes), lent_(max_loans) {
  free_ids_.reserve(max_loans);
  for (u32 id = max_loans; id > 0; --id) free_ids_.push_back(id - 1);
}

LoanReference Lender::lend(u64 offset, u64 bytes) {
  VERIFY(can_lend());
  const u32 id = free_ids_.back();
  free_ids_.pop_back();
  lent_[id] = {offset, bytes};
  return {.id = id, .reserved = 0, .offset = offset, .bytes = bytes};
}

bool Lender::returned_changed() const {
  return load_acquire(ends_.in->state.loans_returned) != collected_;
}

bool Lender::collect() {
  const u32 returned = load_acquire(ends_.in->state.loans_returned);
  if (returned - collected_ > lent()) return false;
  for (; collected_ != returned; ++collected_) {
    const u32 id = load_relaxed(ends_.in->returned[collected_ % max_loans]);
    if (id >= max_loans || lent_[id].bytes == 0) return false;
    const Extent extent = std::exchange(lent_[id], {});
    extents_.free(extent.offset, extent.bytes);
    free_ids_.push_back(id);
  }
  return true;
}

bool Borrower::acceptable(const LoanReference& reference) const {
  return reference.id < max_loans && !borrowed_[reference.id] && reference.bytes > 0 &&
         reference.bytes <= ends_.in_bulk_bytes &&
         reference.offset <= ends_.in_bulk_bytes - reference.bytes;
}

std::span<const std::byte> Borrower::borrow(const LoanReference& reference) {
  borrowed_.set(reference.id);
  return {ends_.in->bulk() + reference.offset, reference.bytes};
}

void Borrower::give_back(u32 id) {
  borrowed_.reset(id);
  if (over_) return;
  store_relaxed(ends_.out->returned[returned_ % max_loans], id);
  store_release(ends_.out->state.loans_returned, ++returned_);
  links_.touch(link_, touched_credits);
}

}  // namespace cob::message
