// Fd owns a host descriptor and closes it; FdRef borrows one and does not.
// Plain RAII over close(2); used by the thread that holds it.
#pragma once

#include <unistd.h>

#include <utility>

namespace cob {

class FdRef {
 public:
  constexpr FdRef() = default;
  constexpr explicit FdRef(int fd) : fd_(fd) {}
  constexpr int get() const { return fd_; }
  constexpr bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  FdRef ref() const { return FdRef(fd_); }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

}  // namespace cob
