// The text of capture filters, and frames against them. See capture_filter.h; pcap-filter(7).
// Model: a term is [not] [src|dst] PROTOCOL | host A | port N; a protocol may stand before a host
// or port, and is a term of its own then. Values; no owner.
#include "net/snap_bean/capture_filter.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "net/wire/arp.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/ipv6.h"

namespace cob::net {
namespace {

using Kind = CaptureTerm::Kind;
using Side = CaptureTerm::Side;

struct Name {
  std::string_view name;
  Kind kind;
  u32 value;
};
constexpr std::array names{Name{"ip", Kind::ethernet_type, ethernet_type_ipv4},
                           Name{"arp", Kind::ethernet_type, ethernet_type_arp},
                           Name{"tcp", Kind::protocol, 6},
                           Name{"udp", Kind::protocol, 17},
                           Name{"icmp", Kind::protocol, 1},
                           Name{"ip6", Kind::ethernet_type, ethernet_type_ipv6},
                           Name{"icmp6", Kind::protocol, 58}};

// What the terms ask about. Sides: [0] source, [1] destination.
struct Head {
  u16 ethernet_type = 0;
  std::optional<u8> protocol;
  std::array<std::optional<u32>, 2> host;
  std::array<std::optional<Ipv6Address>, 2> host_ipv6;
  std::array<std::optional<u16>, 2> port;
};

Head read_head(std::span<const std::byte> head) {
  Head out;
  if (head.size() < sizeof(EthernetHeader)) return out;
  out.ethernet_type = read_once<EthernetHeader>(head, 0).type.get();
  const auto rest = head.subspan(sizeof(EthernetHeader));
  if (out.ethernet_type == ethernet_type_arp && rest.size() >= 28) {
    out.host = {read_once<Be32>(rest, 14).get(), read_once<Be32>(rest, 24).get()};
  }
  if (out.ethernet_type == ethernet_type_ipv6 && rest.size() >= sizeof(Ipv6Header)) {
    const auto ip = read_once<Ipv6Header>(rest, 0);
    out.protocol = ip.next_header;
    out.host_ipv6 = {ip.source, ip.destination};
    if ((ip.next_header == 6 || ip.next_header == 17) && rest.size() >= sizeof ip + 4)
      out.port = {read_once<Be16>(rest, sizeof ip).get(),
                  read_once<Be16>(rest, sizeof ip + 2).get()};
    return out;
  }
  if (out.ethernet_type != ethernet_type_ipv4 || rest.size() < sizeof(Ipv4Header)) return out;
  const auto ip = read_once<Ipv4Header>(rest, 0);
  out.protocol = ip.protocol;
  out.host = {ip.source.get(), ip.destination.get()};
  const std::size_t ip_bytes = std::size_t{ip.version_and_length & 15u} * 4;
  const bool first_piece = (ip.flags_and_offset.get() & 0x1fff) == 0;
  const bool has_ports = ip.protocol == 6 || ip.protocol == 17;
  if (has_ports && first_piece && ip_bytes >= sizeof(Ipv4Header) && rest.size() >= ip_bytes + 4)
    out.port = {read_once<Be16>(rest, ip_bytes).get(), read_once<Be16>(rest, ip_bytes + 2).get()};
  return out;
}

template <typename T, typename V>
bool on_side(const std::array<std::optional<T>, 2>& sides, u8 side, const V& value) {
  const auto is = [&value](const std::optional<T>& found) { return found && *found == value; };
  return (side != static_cast<u8>(Side::destination) && is(sides[0])) ||
         (side != static_cast<u8>(Side::source) && is(sides[1]));
}

bool holds(const CaptureTerm& term, const Head& head) {
  switch (static_cast<Kind>(term.kind)) {
    case Kind::ethernet_type:
      return head.ethernet_type == term.value;
    case Kind::protocol:
      return head.protocol && *head.protocol == term.value;
    case Kind::host:
      return on_side(head.host, term.side, term.value);
    case Kind::host_ipv6:
      return on_side(head.host_ipv6, term.side, Ipv6Address{term.ipv6});
    case Kind::port:
      return on_side(head.port, term.side, term.value);
  }
  return false;
}

class Parser {
 public:
  explicit Parser(std::string_view text) {
    while (true) {
      const std::size_t begin = text.find_first_not_of(" \t\n");
      if (begin == std::string_view::npos) return;
      const std::size_t end = std::min(text.find_first_of(" \t\n", begin), text.size());
      words_.push_back(text.substr(begin, end - begin));
      text.remove_prefix(end);
    }
  }

  ParsedFilter parse() {
    if (words_.empty()) return out_;
    do term();
    while (out_.problem.empty() && take("and"));
    if (out_.problem.empty() && at_ < words_.size()) {
      complain(peek() == "or" ? "'or' is not supported: terms are joined by 'and'"
                              : "'and' is missing before '" + std::string(peek()) + "'");
    }
    return out_;
  }

 private:
  std::string_view peek() const { return at_ < words_.size() ? words_[at_] : std::string_view{}; }
  bool take(std::string_view word) {
    if (peek() != word || word.empty()) return false;
    ++at_;
    return true;
  }
  void complain(std::string problem) { out_.problem = std::move(problem); }

  void add(Kind kind, Side side, u32 value, bool negated) {
    CaptureFilter& f = out_.filter;
    if (f.count == CaptureFilter::max_terms) return complain("more than 12 terms");
    f.term[f.count++] = {.kind = static_cast<u8>(kind),
                         .side = static_cast<u8>(side),
                         .negated = negated,
                         .value = value};
  }

  void term() {
    const bool negated = take("not") || take("!");
    const auto* name = std::ranges::find(names, peek(), &Name::name);
    const bool named = name != names.end();
    if (named) ++at_;
    const Side side = take("src") ? Side::source : take("dst") ? Side::destination : Side::either;
    const std::string_view what = peek();
    if (what == "host" || what == "port") {
      if (named && negated)
        return complain("'not' before a protocol and a " + std::string(what) +
                        " together: write them as two terms");
      if (named) add(name->kind, Side::either, name->value, false);
      ++at_;
      return what == "host" ? host(side, negated) : port(side, negated);
    }
    if (named && side == Side::either) return add(name->kind, side, name->value, negated);
    if (what.empty()) return complain("it ends where a term is due");
    complain("'" + std::string(what) +
             "' is no term (ip, ip6, arp, tcp, udp, icmp, icmp6, host A, port N)");
  }

  void host(Side side, bool negated) {
    in_addr address{};
    const std::string word(peek());
    std::array<u8, 16> ipv6{};
    if (::inet_pton(AF_INET6, word.c_str(), ipv6.data()) == 1) {
      ++at_;
      add(Kind::host_ipv6, side, 0, negated);
      if (out_.problem.empty()) out_.filter.term[out_.filter.count - 1].ipv6 = ipv6;
      return;
    }
    if (::inet_pton(AF_INET, word.c_str(), &address) != 1)
      return complain("'" + word + "' is no IP address");
    ++at_;
    add(Kind::host, side, ntohl(address.s_addr), negated);
  }

  void port(Side side, bool negated) {
    const std::string_view word = peek();
    u16 number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (word.empty() || error != std::errc{} || end != word.data() + word.size())
      return complain("'" + std::string(word) + "' is no port");
    ++at_;
    add(Kind::port, side, number, negated);
  }

  std::vector<std::string_view> words_;
  std::size_t at_ = 0;
  ParsedFilter out_;
};

}  // namespace

bool is_valid(const CaptureFilter& filter) {
  if (filter.count > CaptureFilter::max_terms) return false;
  return std::all_of(filter.term, filter.term + filter.count, [](const CaptureTerm& term) {
    return term.kind >= static_cast<u8>(Kind::ethernet_type) &&
           term.kind <= static_cast<u8>(Kind::host_ipv6) &&
           term.side <= static_cast<u8>(Side::destination) && term.negated <= 1;
  });
}

bool matches(const CaptureFilter& filter, std::span<const std::byte> head) {
  if (filter.count == 0) return true;
  const Head read = read_head(head.first(std::min(head.size(), filter_head_bytes)));
  return std::all_of(filter.term, filter.term + filter.count, [&](const CaptureTerm& term) {
    return holds(term, read) != (term.negated != 0);
  });
}

ParsedFilter parse_capture_filter(std::string_view text) { return Parser(text).parse(); }

}  // namespace cob::net
