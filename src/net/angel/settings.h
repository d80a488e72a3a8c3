// Settings: which of Angel's policies are on, and their marks, rates and budgets with their
// reasons. Model: a value that a kernel hands its Policy; docs/angel-model.md has what the figures
// rest on.
#pragma once

#include "base/clock.h"

namespace cob::net::angel {

struct Settings {
  // ---- the switches
  bool redirect = true;     // a SYN goes to a kernel where someone waits
  bool take = true;         // an idle kernel takes what others have queued
  bool move_groups = true;  // flow groups without connections go to other kernels
  bool judge = true;        // suspicion of hung kernels; off: only what draining says counts

  // ---- redirecting
  // The wait here from which a redirect pays: it costs both kernels about a microsecond for the
  // SYN and a tenth for each later frame, and wakes a sleeper; ten times that is a clear gain.
  // Below half of it the kernel is under its mark again.
  Duration redirect_mark = Duration::microseconds(20);
  // Of the candidates so many are drawn and the best is taken. Two are enough against herding; more
  // find the freer ones no oftener, because a candidate is free already.
  u32 choices = 2;
  // Where nobody waits anywhere, a SYN leaves only for a backlog of less than half of this
  // kernel's, and less by this many: kernels that are equally busy differ by less most of the time.
  u32 backlog_gap = 8;
  // Redirects of one kernel: twice the connections that one core serves (docs/angel-costs.json).
  // Fewer, and a group that has a quarter of 64 kernels' load overruns its owner. Beyond: kept.
  u32 redirects_per_second = 800'000;
  u32 redirect_burst = 256;
  // A board cannot show yet what was sent so shortly before it was written.
  Duration transit = Duration::microseconds(5);

  // ---- taking
  // A connection has to be queued for this long where someone waits: that one is about to have it.
  Duration take_age = Duration::microseconds(20);
  // A kernel whose threads are all busy, but have just accepted, takes a connection that is older
  // by this than its own oldest, or has waited for so long where it has none: so accepting stays
  // within about this of the order of one queue, and nothing waits behind a long turn while short
  // ones pass it elsewhere.
  bool keep_order = true;
  Duration order_bound = Duration::microseconds(100);
  // Of those that have connections queued so many are drawn, and the oldest is taken: others look
  // at the same boards.
  u32 take_choices = 4;
  // In one request: an idle kernel has few threads that wait, and more may be idle.
  u32 take_batch = 4;
  // A kernel that gave nothing is left alone for a moment: its board was old, or others came first.
  // After this many refusals in a row its board is false, and the pause doubles, to the last.
  Duration refused_pause = Duration::microseconds(5);
  u32 refusals_forgiven = 16;
  Duration refused_pause_max = Duration::milliseconds(10);

  // ---- believing boards
  // A kernel gets this many connections on its word; one more for each that it served, to the last.
  u32 window = 4;
  u32 window_max = 64;
  // So long without any outcome, of those it has: half the window, and nothing for the pause,
  // doubling to the last. Kernels answer within their loop; programs have 10 ms to accept.
  Duration patience = Duration::milliseconds(10);
  Duration pause = Duration::milliseconds(100);
  Duration pause_max = Duration::seconds(10);
  // In each period one kernel gets no more than the burst, or twice an even share of what this
  // kernel redirects in it.
  Duration share_period = Duration::milliseconds(10);
  u32 share_burst = 16;

  // ---- hung kernels
  // Input not consumed for so long; consuming for as long again lifts the suspicion. Two slices of
  // a computing neighbour under the host's scheduler (2.8 ms, with 4 ms ticks) are no hang.
  Duration hung_after = Duration::milliseconds(10);

  // ---- group moves
  // Demand is compared once a period, averaged over about four. A kernel above the mean by the
  // first percentage three times running moves groups until it is below the second. With the least
  // demand that counts, chance alone exceeds 25 % by five standard deviations.
  Duration group_period = Duration::milliseconds(50);
  u32 demand_high_percent = 125;
  u32 demand_low_percent = 110;
  u32 demand_least = 64;  // SYNs in a period
  u32 groups_per_period = 16;
  // A group that came stays for this long, so that two kernels do not play ball with it.
  Duration group_dwell = Duration::seconds(1);
  // SYN cookies sent for a group bind it for their lifetime (net/stack, tcp_cookie.cc).
  Duration cookie_lifetime = Duration::seconds(128);
};

}  // namespace cob::net::angel
