// What an ICMP error means to a program: icmp(7), Linux's icmp_err_convert.
// Values; no owner.
#pragma once

#include <array>
#include <cerrno>

#include "net/wire/icmp.h"

namespace cob::net {

struct IcmpMeaning {
  int error;
  bool fatal;  // to a datagram socket too
};

inline IcmpMeaning icmp_meaning(const IcmpError& e) {
  constexpr std::array<IcmpMeaning, 16> unreachable{{{ENETUNREACH, false},
                                                     {EHOSTUNREACH, false},
                                                     {ENOPROTOOPT, true},
                                                     {ECONNREFUSED, true},
                                                     {EMSGSIZE, false},
                                                     {EOPNOTSUPP, false},
                                                     {ENETUNREACH, true},
                                                     {EHOSTDOWN, true},
                                                     {ENONET, true},
                                                     {ENETUNREACH, true},
                                                     {EHOSTUNREACH, true},
                                                     {ENETUNREACH, false},
                                                     {EHOSTUNREACH, false},
                                                     {EHOSTUNREACH, true},
                                                     {EHOSTUNREACH, true},
                                                     {EHOSTUNREACH, true}}};
  if (e.type == icmp_parameter_problem) return {EPROTO, true};
  if (e.type == icmp_unreachable && e.code < unreachable.size()) return unreachable[e.code];
  return {EHOSTUNREACH, false};
}

}  // namespace cob::net
