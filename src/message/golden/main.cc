// Writes down what messages look like on the wire, what is read from it and what two versions agree
// on, the same text on every ISA: golden [FILE]. With FILE, says where it differs, with status 1.
// Model: bytes from values, values from the bytes. One thread; needs libc and libstdc++ alone.
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "message/golden/messages.h"
#include "message/schema.h"

namespace cob::message::golden {

namespace {

constexpr std::size_t bytes_a_line = 32;

template <typename... T>
std::string format(const char* text, T... values) {
  std::array<char, 200> buffer{};
  std::snprintf(buffer.data(), buffer.size(), text, values...);
  return buffer.data();
}

std::string number(u64 value) { return std::to_string(value); }
std::string number(i64 value) { return std::to_string(value); }

std::string value_of(u8 value) { return number(u64{value}); }
std::string value_of(std::byte value) { return number(std::to_integer<u64>(value)); }
std::string value_of(Flag value) { return value ? "yes" : "no"; }
std::string value_of(f32le value) { return format("%a", static_cast<double>(value.get())); }
std::string value_of(f64le value) { return format("%a", value.get()); }

template <typename T>
std::string value_of(le<T> value) {
  if constexpr (std::is_enum_v<T>) {
    return value_of(le(static_cast<std::underlying_type_t<T>>(value.get())));
  } else if constexpr (std::is_signed_v<T>) {
    return number(i64{value.get()});
  } else {
    return number(u64{value.get()});
  }
}

template <FlatStruct T>
std::string value_of(const T& value);

template <typename T, std::size_t size>
std::string value_of(const std::array<T, size>& values) {
  if constexpr (size > bytes_a_line) return format("%zu items", size);
  std::string text = "[";
  for (const T& each : values) text += value_of(each) + ' ';
  text.back() = ']';
  return text;
}

template <FlatStruct T>
std::string value_of(const T& value) {
  return detail::with_members(value, [](const auto&... members) {
    std::string text = "{";
    ((text += value_of(members) + ' '), ...);
    text.back() = '}';
    return text;
  });
}

std::string hexadecimal(std::span<const std::byte> bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i % bytes_a_line == 0) text += "\n  bytes ";
    text += format("%02x", std::to_integer<unsigned>(bytes[i]));
  }
  return text + '\n';
}

template <FlatStruct As>
std::string read_as(std::span<const std::byte> bytes) {
  As message;
  read_message(bytes, message);
  return value_of(message);
}

template <FlatMessage T>
std::string describe(const char* name) {
  const T message;
  const auto bytes = std::as_bytes(std::span(&message, 1));
  std::string text = format("%s, type %u, %zu bytes", name, unsigned{T::type.value}, sizeof(T));
  if (priority_of<T> == Priority::urgent) text += ", urgent";
  if (max_tail_of<T> > 0) text += format(", tail up to %zu", max_tail_of<T>);
  text += hexadecimal(bytes);
  text += "  value " + read_as<T>(bytes) + '\n';
  for (const SchemaPoint& point : schema_points<T>())
    text += format("  up to %u: %016llx\n", unsigned{point.bytes.get()},
                   static_cast<unsigned long long>(point.hash.get()));
  return text + '\n';
}

std::string describe_messages() {
  return describe<Byte>("Byte") + describe<Integers>("Integers") + describe<Extremes>("Extremes") +
         describe<Enums>("Enums") + describe<Floats>("Floats") + describe<Flags>("Flags") +
         describe<Nested>("Nested") + describe<Members24>("Members24") +
         describe<Sized<9, 47>>("Sized") + describe<Sized<10, 48>>("Sized") +
         describe<Sized<11, 49>>("Sized") + describe<Sized<12, 108>>("Sized") +
         describe<Sized<13, 109>>("Sized") + describe<Sized<14, max_message_bytes>>("Sized") +
         describe<UrgentWithTail>("UrgentWithTail");
}

template <FlatMessage Sent, FlatMessage Known>
std::string describe_pair(const char* name) {
  SchemaTable there, here;
  there.add<Byte>();
  there.add<Sent>();
  here.add<Known>();
  here.add<Flags>();
  const SchemaAgreement agreed = agree(here, there.points()).release_value();
  const u16 bytes = agreed.bytes[Sent::type.value];
  std::string text = format("%s: %u bytes agreed, %zu conflicts\n", name, unsigned{bytes},
                            agreed.conflicts.size());
  text += "  table" + hexadecimal(std::as_bytes(there.points()));
  const Sent message;
  if (bytes > 0) {
    text += "  value ";
    text += read_as<Known>(std::as_bytes(std::span(&message, 1)).first(bytes)) + '\n';
  }
  return text + '\n';
}

std::string describe_evolution() {
  return describe_pair<OlderIntegers, Integers>("OlderIntegers read as Integers") +
         describe_pair<NewerIntegers, Integers>("NewerIntegers read as Integers") +
         describe_pair<NewerIntegers, OlderIntegers>("NewerIntegers read as OlderIntegers") +
         describe_pair<OtherIntegers, Integers>("OtherIntegers read as Integers");
}

int compare(const std::string& text, const char* path) {
  std::ifstream file(path);
  std::istringstream stream(text);
  for (int number = 1;; ++number) {
    std::string wanted, found;
    const bool more_wanted = static_cast<bool>(std::getline(file, wanted));
    const bool more_found = static_cast<bool>(std::getline(stream, found));
    if (!more_wanted && !more_found) break;
    if (wanted == found && more_wanted == more_found) continue;
    std::printf("%s:%d:\nshould be %s\nis        %s\n", path, number, wanted.c_str(),
                found.c_str());
    return 1;
  }
  std::printf("%zu characters as in %s\n", text.size(), path);
  return 0;
}

}  // namespace

}  // namespace cob::message::golden

int main(int argc, char** argv) {
  using namespace cob::message::golden;
  const std::string text = describe_messages() + describe_evolution();
  if (argc == 2) return compare(text, argv[1]);
  std::fputs(text.c_str(), stdout);
  return 0;
}
