// Kernel, viewers: what it tells of its sockets, counters, neighbours and frames, piece by piece;
// see view.h. Model: level-triggered: one request a viewer and event, so that a viewer that asks
// without end gets its share of the host looks and no more. unix(7), epoll(7).
#include "kernel/view.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/handing.h"
#include "kernel/kernel.h"

namespace cob::kernel {
namespace {

using net::StackCounters;

// SNMP's names (RFC 4022, 4293; Linux's TcpExt) where the meaning is theirs, Cob... where not.
struct StackCounterName {
  const char* name;
  u64 StackCounters::* counter;
};
constexpr StackCounterName stack_counters[] = {
    {"TcpActiveOpens", &StackCounters::active_opens},
    {"TcpPassiveOpens", &StackCounters::passive_opens},
    {"TcpInSegs", &StackCounters::segments_in},
    {"TcpOutSegs", &StackCounters::segments_out},
    {"TcpRetransSegs", &StackCounters::segments_retransmitted},
    {"TcpOutRsts", &StackCounters::resets_out},
    {"TcpExtListenOverflows", &StackCounters::accept_overflows},
    {"TcpExtSyncookiesSent", &StackCounters::cookies_sent},
    {"TcpExtSyncookiesRecv", &StackCounters::cookies_received},
    {"TcpExtSyncookiesFailed", &StackCounters::cookies_failed},
    {"TcpExtTCPFastOpenActive", &StackCounters::fast_open_active},
    {"TcpExtTCPFastOpenActiveFail", &StackCounters::fast_open_active_failed},
    {"TcpExtTCPFastOpenPassive", &StackCounters::fast_open_passive},
    {"TcpExtTCPFastOpenPassiveFail", &StackCounters::fast_open_passive_failed},
    {"TcpExtTCPFastOpenCookieReqd", &StackCounters::fast_open_asked},
    {"TcpExtTCPFastOpenListenOverflow", &StackCounters::fast_open_overflows},
    {"TcpExtPAWSEstab", &StackCounters::paws_dropped},
    {"TcpExtTCPChallengeACK", &StackCounters::challenge_acks},
    {"IpReasmReqds", &StackCounters::fragments_in},
    {"IpReasmOKs", &StackCounters::reassembled},
    {"IpReasmFails", &StackCounters::reassembly_failed},
    {"IpReasmTimeout", &StackCounters::reassembly_timed_out},
    {"CobTcpInRsts", &StackCounters::resets_in},
    {"CobTcpConnections", &StackCounters::connections},
    {"CobTcpTimeWait", &StackCounters::time_wait},
    {"CobInChecksumErrors", &StackCounters::checksum_errors},
    {"CobInMalformed", &StackCounters::frames_malformed},
    {"CobInNotOurs", &StackCounters::frames_not_ours},
};

using DeviceCounters = net::InsideDevice::Counters;
struct DeviceCounterName {
  const char* name;
  u64 DeviceCounters::* counter;
};
constexpr DeviceCounterName device_counters[] = {
    {"CobInFrames", &DeviceCounters::frames_in},
    {"CobOutFrames", &DeviceCounters::frames_out},
    {"CobInOctets", &DeviceCounters::bytes_in},
    {"CobOutOctets", &DeviceCounters::bytes_out},
    {"CobOutDropsFull", &DeviceCounters::dropped_full},
    {"CobOutDropsNoRoute", &DeviceCounters::dropped_route},
};

using UplinkCounters = net::SnapBean::UplinkCounters;
struct UplinkCounterName {
  const char* name;
  u64 UplinkCounters::* counter;
};
constexpr UplinkCounterName uplink_counters[] = {
    {"CobUplinkInFrames", &UplinkCounters::frames_in},
    {"CobUplinkOutFrames", &UplinkCounters::frames_out},
    {"CobUplinkInOctets", &UplinkCounters::bytes_in},
    {"CobUplinkOutOctets", &UplinkCounters::bytes_out},
    {"CobUplinkOutForOthers", &UplinkCounters::frames_for_others},
};

// A reply under construction.
struct Answer {
  explicit Answer(const ViewRequest& request) { head.kind = request.kind; }
  ViewReply head;
  std::vector<std::byte> bytes = std::vector<std::byte>(sizeof(ViewReply));

  template <typename Row>
  void add(const Row& row) {
    head.row_bytes = sizeof row;
    ++head.rows;
    const auto raw = std::as_bytes(std::span(&row, 1));
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  }
  std::span<const std::byte> finish() {
    std::memcpy(bytes.data(), &head, sizeof head);
    return bytes;
  }
};

CounterRow counter_row(const char* name, u64 value) {
  CounterRow row{.value = value};
  std::strncpy(row.name, name, sizeof row.name - 1);
  return row;
}

}  // namespace

void Kernel::add_viewer(Fd socket) {
  if (viewers_.size() == max_viewers) return;  // it sees the socket close
  const u32 id = next_viewer_++;
  if (watch(socket.ref(), event_viewer | id).is_error()) return;
  viewers_[id] = {std::move(socket)};
}

void Kernel::end_viewer(u32 id) {
  const auto found = viewers_.find(id);
  if (found == viewers_.end()) return;
  if (found->second.capture != 0) tap_.close(found->second.capture);
  unwatch(found->second.socket.ref());
  viewers_.erase(found);
}

void Kernel::on_viewer(u32 id) {
  const auto found = viewers_.find(id);
  if (found == viewers_.end()) return;
  Viewer& viewer = found->second;
  alignas(8) std::byte bytes[std::max(sizeof(ViewRequest), sizeof(HandRequest)) + 8];
  auto received = receive_datagram(viewer.socket.ref(), bytes, Blocking::never);
  if (received.is_error() && received.error().code == EAGAIN) return;
  HandRequest hand;
  if (!received.is_error() && received.value().bytes == sizeof hand) {
    std::memcpy(&hand, bytes, sizeof hand);
    const bool good = hand.version == view_version &&
                      hand.kind == static_cast<u32>(ViewKind::hand) &&
                      hand_over(id, hand, received.value().descriptors);
    return good ? void() : end_viewer(id);
  }
  ViewRequest request;
  if (received.is_error() || received.value().bytes != sizeof request) return end_viewer(id);
  std::memcpy(&request, bytes, sizeof request);
  if (request.version != view_version || !answer_view(viewer, request)) end_viewer(id);
}

std::vector<Ipv6Row> Kernel::ipv6_rows() const {
  std::vector<Ipv6Row> rows;
  for (u32 place = 0; place < net::max_own_addresses; ++place) {
    const net::OwnAddress a = stack_->own_address(place);
    if (a.address.is_any()) continue;
    Ipv6Row& row = rows.emplace_back(Ipv6Row{.valid_s = a.valid_s,
                                             .preferred_s = a.preferred_s,
                                             .prefix_bits = a.prefix_bits,
                                             .tentative = a.tentative,
                                             .deprecated = a.deprecated,
                                             .automatic = a.automatic});
    std::memcpy(row.address, a.address.bytes.data(), sizeof row.address);
  }
  net::Ipv6RouteInfo routes[32];
  for (const auto& r : std::span(routes).first(stack_->list_ipv6_routes(routes))) {
    Ipv6Row& row = rows.emplace_back(
        Ipv6Row{.valid_s = r.left_s, .prefix_bits = r.prefix_bits, .is_route = 1});
    std::memcpy(row.address, r.destination.bytes.data(), sizeof row.address);
    std::memcpy(row.router, r.router.bytes.data(), sizeof row.router);
  }
  return rows;
}

// False: the viewer does not read, or asks for what there is not.
bool Kernel::answer_view(Viewer& viewer, const ViewRequest& request) {
  Answer answer(request);
  answer.head.cursor = request.cursor;
  u32& cursor = answer.head.cursor;
  std::vector<FdRef> passed;
  switch (static_cast<ViewKind>(request.kind)) {
    case ViewKind::device: {
      DeviceRow row{.address = config_.address,
                    .prefix_bits = config_.prefix_bits,
                    .kernels = config_.kernels,
                    .mtu = view_mtu()};
      std::memcpy(row.mac, config_.mac, sizeof row.mac);
      answer.add(row);
      cursor = 0;
      break;
    }
    case ViewKind::counters:
      for (const auto& [name, counter] : stack_counters)
        answer.add(counter_row(name, stack_->counters().*counter));
      for (const auto& [name, counter] : device_counters)
        answer.add(counter_row(name, device_->inside().*counter));
      for (const auto& [name, counter] : uplink_counters)
        answer.add(counter_row(name, device_->uplink().*counter));
      if (files_ != nullptr) {
        const auto& held = files_->held();
        answer.add(counter_row("CobFilesOperations", held.operations));
        answer.add(counter_row("CobFilesByToken", held.by_token));
        answer.add(counter_row("CobFilesMovedAlone", held.moved_alone));
        answer.add(counter_row("CobFilesLost", held.lost));
      }
      if (files_ != nullptr && files_->home() != nullptr) {
        const auto& home = files_->home()->counters();
        answer.add(counter_row("CobSharesOpened", home.opened));
        answer.add(counter_row("CobSharesOperations", home.operations));
        answer.add(counter_row("CobSharesRecalled", home.recalled));
        answer.add(counter_row("CobSharesRefused", home.refused));
      }
      answer.add(counter_row("CobUplinkInDrops", device_->dropped_in()));
      answer.add(counter_row("CobUplinkOutDrops",
                             device_->uplink().dropped_full + device_->dropped_out()));
      cursor = 0;
      break;
    case ViewKind::listeners:
    case ViewKind::datagrams:
    case ViewKind::connections:
    case ViewKind::time_wait: {
      SocketRow rows[view_rows];
      for (const SocketRow& row : std::span(rows).first(list_sockets(request, cursor, rows)))
        answer.add(row);
      break;
    }
    case ViewKind::neighbours: {
      net::NeighbourInfo found[view_rows];
      for (const auto& n :
           std::span(found).first(stack_->list_neighbours(cursor, view_places, found))) {
        NeighbourRow row{.address = n.ipv6.is_any() ? n.address.value : 0,
                         .answered = n.answered,
                         .fresh = n.fresh,
                         .heard_ms = n.heard_ms};
        std::memcpy(row.ipv6, n.ipv6.bytes.data(), sizeof row.ipv6);
        std::memcpy(row.mac, n.mac.bytes.data(), sizeof row.mac);
        answer.add(row);
      }
      break;
    }
    case ViewKind::ipv6:
      for (const Ipv6Row& row : ipv6_rows()) answer.add(row);
      cursor = 0;
      break;
    case ViewKind::capture: {
      if (viewer.capture != 0) return false;
      const auto opened = tap_.open(request.capture);
      if (opened.is_error()) {
        answer.head.error = opened.error().code;
        break;
      }
      viewer.capture = opened.value().id;
      passed = {opened.value().ring, opened.value().progress};
      break;
    }
    default:
      return false;
  }
  return !send_datagram(viewer.socket.ref(), answer.finish(), passed, Blocking::never).is_error();
}

std::size_t Kernel::list_sockets(const ViewRequest& request, u32& cursor,
                                 std::span<SocketRow> rows) {
  switch (static_cast<ViewKind>(request.kind)) {
    case ViewKind::listeners:
      return sockets_->list_listeners(cursor, view_places, rows);
    case ViewKind::datagrams:
      return sockets_->list_datagrams(cursor, view_places, rows);
    case ViewKind::connections:
      return sockets_->list_connections(cursor, view_places, rows);
    default:
      return sockets_->list_time_wait(cursor, view_places, rows);
  }
}

// Of the route to itself, which all inside routes are like; RFC 791's Total Length bounds it.
u32 Kernel::view_mtu() const {
  constexpr std::size_t ethernet_bytes = 14, longest_packet = 0xffff;
  const auto own = net::Route::inside(KernelId(config_.kernel));
  return static_cast<u32>(std::min(device_->max_frame_bytes(own) - ethernet_bytes, longest_packet));
}

}  // namespace cob::kernel
