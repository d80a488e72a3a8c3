// Result<T>: the one error type. An error is a Linux errno and a static text saying what failed.
// TRY(expr) propagates an error; VERIFY(cond) stops the process on what cannot happen (kept in
// release). Owned by whoever holds it; no exceptions cross a module.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

namespace cob {

struct Error {
  int code = 0;           // a Linux errno, > 0
  const char* what = "";  // static storage

  static Error from_errno(const char* what) { return {errno, what}; }
  static Error of(int code, const char* what) { return {code, what}; }
};

[[noreturn]] void verify_failed(const char* condition, std::source_location where);

#define VERIFY(condition)                                                  \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::cob::verify_failed(#condition, ::std::source_location::current()); \
  } while (false)

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error) : error_(error) {}         // NOLINT(google-explicit-constructor)

  bool is_error() const { return !value_.has_value(); }
  explicit operator bool() const { return value_.has_value(); }
  Error error() const { return error_; }
  T& value() & {
    VERIFY(value_.has_value());
    return *value_;
  }
  const T& value() const& {
    VERIFY(value_.has_value());
    return *value_;
  }
  T&& value() && {
    VERIFY(value_.has_value());
    return std::move(*value_);
  }
  T release_value() {
    VERIFY(value_.has_value());
    return std::move(*value_);
  }

 private:
  std::optional<T> value_;
  Error error_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(error) {}  // NOLINT(google-explicit-constructor)

  bool is_error() const { return error_.code != 0; }
  explicit operator bool() const { return error_.code == 0; }
  Error error() const { return error_; }
  void release_value() const { VERIFY(error_.code == 0); }

 private:
  Error error_;
};

// Evaluates to the value, or returns the error from the enclosing function (GNU statement
// expression).
#define TRY(expression)                      \
  __extension__({                            \
    auto&& try_result_ = (expression);       \
    if (try_result_.is_error()) [[unlikely]] \
      return try_result_.error();            \
    try_result_.release_value();             \
  })

}  // namespace cob
