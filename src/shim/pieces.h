// Pieces: an iovec list as one run of bytes that is filled or drained from the front.
// The calling thread.
#pragma once

#include <limits.h>
#include <string.h>

#include "shim/contract.h"

namespace cob::shim {

class Pieces {
 public:
  Pieces(const iovec* parts, size_t count) : part_(parts), count_(count) {}

  // Bytes in all; -1: more than ssize_t holds.
  static ssize_t total(const iovec* parts, size_t count) {
    size_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      if (parts[i].iov_len > SSIZE_MAX - sum) return -1;
      sum += parts[i].iov_len;
    }
    return static_cast<ssize_t>(sum);
  }
  void copy_in(const void* from, size_t bytes) {  // into the program's memory
    each(bytes, [&](u8* place, size_t n) {
      memcpy(place, from, n);
      from = static_cast<const u8*>(from) + n;
    });
  }
  void copy_out(void* to, size_t bytes) {
    each(bytes, [&](u8* place, size_t n) {
      memcpy(to, place, n);
      to = static_cast<u8*>(to) + n;
    });
  }

  void skip(size_t bytes) {
    each(bytes, [](u8*, size_t) {});
  }

 private:
  template <typename Step>
  void each(size_t bytes, Step step) {
    while (bytes > 0 && count_ > 0) {
      size_t left = part_->iov_len - offset_;
      size_t n = left < bytes ? left : bytes;
      if (n > 0) step(static_cast<u8*>(part_->iov_base) + offset_, n);
      bytes -= n;
      offset_ += n;
      if (offset_ == part_->iov_len) {
        ++part_;
        --count_;
        offset_ = 0;
      }
    }
  }

  const iovec* part_;
  size_t count_;
  size_t offset_ = 0;
};

}  // namespace cob::shim
