// See socket_filter.h. The grammar:
//   expression = conjunction { ("or" | "||") conjunction }
//   conjunction = term { ["and" | "&&"] term }
//   term  = ("not" | "!") term | "(" expression ")" | end
//   end   = ("src" | "dst") [= | !=] ADDRESS[/BITS][:PORT] | ("sport" | "dport") [OP] [:]PORT
// One thread.
#include "cli/socket_filter.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

namespace cob::cli {
namespace {

using kernel::SocketRow;
using net::TcpState;

constexpr u32 bit(TcpState state) { return SocketFilter::bit(static_cast<u8>(state)); }
constexpr u32 listening = SocketFilter::bit(kernel::state_listening);
constexpr u32 connected = SocketFilter::all_states & ~listening & ~bit(TcpState::closed);
constexpr u32 bucket = bit(TcpState::time_wait) | bit(TcpState::syn_received);

struct NamedStates {
  std::string_view name;
  u32 states;
};
constexpr std::array named_states{NamedStates{"all", SocketFilter::all_states},
                                  NamedStates{"connected", connected},
                                  NamedStates{"synchronized", connected & ~bit(TcpState::syn_sent)},
                                  NamedStates{"bucket", bucket},
                                  NamedStates{"big", SocketFilter::all_states & ~bucket},
                                  NamedStates{"established", bit(TcpState::established)},
                                  NamedStates{"syn-sent", bit(TcpState::syn_sent)},
                                  NamedStates{"syn-recv", bit(TcpState::syn_received)},
                                  NamedStates{"fin-wait-1", bit(TcpState::fin_wait_1)},
                                  NamedStates{"fin-wait-2", bit(TcpState::fin_wait_2)},
                                  NamedStates{"time-wait", bit(TcpState::time_wait)},
                                  NamedStates{"closed", bit(TcpState::closed)},
                                  NamedStates{"close-wait", bit(TcpState::close_wait)},
                                  NamedStates{"last-ack", bit(TcpState::last_ack)},
                                  NamedStates{"listening", listening},
                                  NamedStates{"listen", listening},
                                  NamedStates{"closing", bit(TcpState::closing)}};

enum class Order : u8 { equal, not_equal, less, greater, at_most, at_least };
struct NamedOrder {
  std::string_view name;
  Order order;
};
constexpr std::array orders{NamedOrder{"=", Order::equal},      NamedOrder{"==", Order::equal},
                            NamedOrder{"eq", Order::equal},     NamedOrder{"!=", Order::not_equal},
                            NamedOrder{"ne", Order::not_equal}, NamedOrder{"neq", Order::not_equal},
                            NamedOrder{"<", Order::less},       NamedOrder{"lt", Order::less},
                            NamedOrder{">", Order::greater},    NamedOrder{"gt", Order::greater},
                            NamedOrder{"<=", Order::at_most},   NamedOrder{"le", Order::at_most},
                            NamedOrder{">=", Order::at_least},  NamedOrder{"ge", Order::at_least}};

bool compare(u32 a, Order order, u32 b) {
  switch (order) {
    case Order::equal:
      return a == b;
    case Order::not_equal:
      return a != b;
    case Order::less:
      return a < b;
    case Order::greater:
      return a > b;
    case Order::at_most:
      return a <= b;
    case Order::at_least:
      return a >= b;
  }
  return false;
}

template <typename T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

u32 SocketFilter::connected_states() { return connected & ~bucket; }

class SocketFilter::Parser {
 public:
  Parser(std::vector<std::string> words, std::string& problem)
      : words_(std::move(words)), problem_(problem) {}

  Test parse() {
    Test test = expression(0);
    if (problem_.empty() && at_ < words_.size()) fail("'{}' is not understood there", words_[at_]);
    return test;
  }

 private:
  static constexpr int max_depth = 64;

  template <typename... Args>
  Test fail(fmt::format_string<Args...> format, Args&&... args) {
    if (problem_.empty()) problem_ = fmt::format(format, std::forward<Args>(args)...);
    return {};
  }
  std::string_view peek() const { return at_ < words_.size() ? words_[at_] : std::string_view{}; }
  bool take(std::initializer_list<std::string_view> any) {
    if (at_ == words_.size() || std::ranges::find(any, peek()) == any.end()) return false;
    ++at_;
    return true;
  }

  Test expression(int depth) {
    Test left = conjunction(depth);
    while (problem_.empty() && take({"or", "||", "|"})) {
      Test right = conjunction(depth);
      if (problem_.empty())
        left = [a = std::move(left), b = std::move(right)](const SocketRow& r) {
          return a(r) || b(r);
        };
    }
    return left;
  }

  Test conjunction(int depth) {
    Test left = term(depth);
    while (problem_.empty()) {
      const bool joined = take({"and", "&&", "&"});
      const bool ends = at_ == words_.size() || peek() == ")" || peek() == "or" || peek() == "||" ||
                        peek() == "|";
      if (!joined && ends) break;
      Test right = term(depth);
      if (problem_.empty())
        left = [a = std::move(left), b = std::move(right)](const SocketRow& r) {
          return a(r) && b(r);
        };
    }
    return left;
  }

  Test term(int depth) {
    if (depth > max_depth) return fail("more than {} parentheses and negations", max_depth);
    if (take({"not", "!"})) {
      Test inner = term(depth + 1);
      if (!problem_.empty()) return {};
      return [inner = std::move(inner)](const SocketRow& r) { return !inner(r); };
    }
    if (take({"("})) {
      Test inner = expression(depth + 1);
      if (problem_.empty() && !take({")"})) return fail("a ')' is missing");
      return inner;
    }
    const std::string_view what = peek();
    if (what == "src" || what == "dst") return ++at_, host(what == "src");
    if (what == "sport" || what == "dport") return ++at_, port(what == "sport");
    if (what.empty()) return fail("it ends where src, dst, sport or dport is due");
    return fail("'{}' is none of src, dst, sport, dport, not, (", what);
  }

  Order order() {
    const auto* found = std::ranges::find(orders, peek(), &NamedOrder::name);
    if (at_ == words_.size() || found == orders.end()) return Order::equal;
    ++at_;
    return found->order;
  }

  // "[fd00::1]", with ":PORT" behind it or not.
  Test host_ipv6(bool source, Order how) {
    const std::string_view word = peek();
    const std::size_t end = word.find(']');
    const std::string address(word.substr(1, end == std::string_view::npos ? end : end - 1));
    std::array<u8, 16> wanted{};
    if (end == std::string_view::npos || ::inet_pton(AF_INET6, address.c_str(), wanted.data()) != 1)
      return fail("'{}' is no IPv6 address in brackets", word);
    const std::string_view behind = word.substr(end + 1);
    std::optional<u16> wanted_port;
    if (!behind.empty() && behind != ":*") {
      if (behind[0] == ':') wanted_port = number<u16>(behind.substr(1));
      if (!wanted_port) return fail("'{}' is no port", behind);
    }
    ++at_;
    return [=](const SocketRow& r) {
      const bool ipv6 = (source ? r.local_address : r.remote_address) == net::ipv6_elsewhere.value;
      const u16 p = source ? r.local_port : r.remote_port;
      const bool same = ipv6 && std::ranges::equal(source ? r.local_ipv6 : r.remote_ipv6, wanted) &&
                        (!wanted_port || *wanted_port == p);
      return same == (how == Order::equal);
    };
  }

  Test host(bool source) {
    const Order how = order();
    const std::string_view word = peek();
    if (how != Order::equal && how != Order::not_equal)
      return fail("addresses are compared by = and != only");
    if (word.starts_with('[')) return host_ipv6(source, how);
    const std::size_t colon = word.find(':');
    const std::string_view before = word.substr(0, colon);
    const std::size_t slash = before.find('/');
    const std::string address(before.substr(0, slash));
    std::optional<u16> wanted_port;
    u32 wanted = 0, bits = 0;
    if (!address.empty() && address != "*") {
      in_addr parsed{};
      if (::inet_pton(AF_INET, address.c_str(), &parsed) != 1)
        return fail("'{}' is no IPv4 address", address);
      wanted = ntohl(parsed.s_addr);
      bits = 32;
      if (slash != std::string_view::npos) {
        const auto given = number<u32>(before.substr(slash + 1));
        if (!given || *given > 32) return fail("'{}' has no prefix length of 0 to 32", word);
        bits = *given;
      }
    }
    if (colon != std::string_view::npos && word.substr(colon + 1) != "*") {
      wanted_port = number<u16>(word.substr(colon + 1));
      if (!wanted_port) return fail("'{}' is no port", word.substr(colon + 1));
    }
    if (word.empty()) return fail("an address is missing behind {}", source ? "src" : "dst");
    ++at_;
    const u32 mask = bits == 0 ? 0 : ~u32{0} << (32 - bits);
    return [=](const SocketRow& r) {
      const u32 a = source ? r.local_address : r.remote_address;
      const u16 p = source ? r.local_port : r.remote_port;
      const bool same = (a & mask) == (wanted & mask) && (!wanted_port || *wanted_port == p);
      return same == (how == Order::equal);
    };
  }

  Test port(bool source) {
    const Order how = order();
    std::string_view word = peek();
    if (word.starts_with(':')) word.remove_prefix(1);
    const auto wanted = number<u16>(word);
    if (!wanted) return fail("'{}' is no port", word);
    ++at_;
    return [=](const SocketRow& r) {
      return compare(source ? r.local_port : r.remote_port, how, *wanted);
    };
  }

  std::vector<std::string> words_;
  std::size_t at_ = 0;
  std::string& problem_;
};

std::string SocketFilter::parse(const std::vector<std::string>& given) {
  std::vector<std::string> words;  // a parenthesis may touch its neighbours: "( sport = :80 )"
  for (const std::string& word : given) {
    std::size_t begin = 0, end = word.size();
    while (begin < end && (word[begin] == '(' || (word[begin] == '!' && word != "!="))) {
      words.emplace_back(1, word[begin++]);
    }
    std::size_t closing = 0;
    while (end > begin && word[end - 1] == ')') --end, ++closing;
    if (end > begin) words.push_back(word.substr(begin, end - begin));
    words.insert(words.end(), closing, ")");
  }
  std::size_t at = 0;
  while (at < words.size() && (words[at] == "state" || words[at] == "exclude")) {
    const bool include = words[at] == "state";
    if (at + 1 == words.size()) return "a state is missing behind '" + words[at] + "'";
    const auto* found = std::ranges::find(named_states, words[at + 1], &NamedStates::name);
    if (found == named_states.end()) {
      std::string names;
      for (const auto& known : named_states)
        names += (names.empty() ? "" : ", ") + std::string(known.name);
      return fmt::format("'{}' is no state ({})", words[at + 1], names);
    }
    if (!states_given_) states_ = include ? 0 : all_states;
    states_given_ = true;
    states_ = include ? states_ | found->states : states_ & ~found->states;
    at += 2;
  }
  if (at == words.size()) return "";
  std::string problem;
  expression_ =
      Parser({words.begin() + static_cast<std::ptrdiff_t>(at), words.end()}, problem).parse();
  return problem;
}

}  // namespace cob::cli
