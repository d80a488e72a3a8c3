// Sockets, one description that goes to another kernel, whoever holds it here; far_seats.h.
// Model: the kernel has its seat, so all that it is lies in the description; its image is that of a
// program which has yet to take over one socket (move_image.h), and what it sends goes as bytes.
// Who holds it here keeps a hollow description. Kernel's loop only.
#include <algorithm>
#include <cstring>

#include "kernel/departures.h"
#include "kernel/moved_program.h"
#include "kernel/sockets.h"

namespace cob::kernel {

using call::SocketState;

Result<void> Sockets::may_go_alone(Description& d, bool now) {
  if (const Error why = why_never(d); why.code != 0) return why;
  if (d.state == SocketState::listening || d.state == SocketState::file)
    return Error::of(EOPNOTSUPP, "it is no socket that goes by itself");
  if (!now) return {};
  if (d.accept_counted) {
    // Accepted, and nobody has looked since.
    if (d.holders.size() != 1 ||
        load(d.holders[0].program->theirs(d.holders[0].slot).seat) == call::seat_offered)
      return Error::of(EBUSY, "it is not accepted yet");
    mark_accepted(d);
  }
  if (!claim_seat(d)) return Error::of(EBUSY, "a thread is using it");
  if (const Error why = why_not_now(d); why.code != 0) return why;
  if (d.kept.size() + d.send_buffered + d.receive_limit > (std::size_t{24} << 20))
    return Error::of(ENOBUFS, "too much lies in its buffers");
  return {};
}

std::vector<std::byte> Sockets::pack_alone(Description& d, Departures& departures, u32 move,
                                           std::optional<MovedEnd>& end) {
  std::size_t room = most_pieces_bytes;
  const net::MovedConnection connection = take_connection(d, departures, move, room);
  if (!connection.state.empty()) end = MovedEnd{{d.local, d.remote}, connection.route};
  if (d.datagram != nullptr && d.datagram->id != net::no_udp) {
    departures.hold_port(d.datagram->bound.port, Transport::datagram, move);
    stack_->udp_close(d.datagram->id);
    d.datagram->id = net::no_udp;
  }
  std::vector<std::byte> image(4'096 + connection.state.size() + d.kept.size() + d.send_buffered);
  ImageWriter out(image);
  Program heir(0, 0, Fd());
  heir.unadopted.push_back(&d);
  packing_.emplace(&d, 0);
  put_head(out, 1, 1);
  pack_program(heir, out);
  pack_description(d, connection, {}, out);
  packing_.clear();
  VERIFY(!out.full());
  image.resize(out.bytes());
  d.kept.clear();
  drop_pieces(d, d.send_buffered);
  return image;
}

// What lies behind the pieces is what the image says was announced to TCP.
void Sockets::queue_own(Description& d, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  auto& pieces = send_queue(d).pieces;
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t part = std::min(bytes.size() - done, own_chunk_bytes);
    const u32 chunk = own_chunks_.take();
    std::memcpy(own_chunks_.at(chunk), bytes.data() + done, part);
    pieces.push_back({.chunk = chunk, .end = static_cast<u16>(part)});
    done += part;
  }
  d.send_buffered += bytes.size();
}

Result<Description*> Sockets::take_alone(const MovedGroup& moved, Description* into,
                                         KernelId from) {
  const MovedDescription& m = moved.descriptions[0];
  Description* d = into != nullptr ? into : TRY(open());
  const u32 references = into != nullptr ? d->references : 1;
  const u32 shown = d->send_limit_shown;
  d->kept.clear();
  install_socket({}, m, *d, from);
  d->references = references;
  d->seat = -1;
  d->send_limit_shown = std::max(shown, d->send_limit_shown);
  queue_own(*d, m.sent);
  installing_.assign(1, d);
  install_network(m, *d, from);
  installing_.clear();
  return d;
}

void Sockets::leave_alone(Description& d) {
  leave_its_ports(d);
  leave_ports(now_);
  directory_.give_up(d.handle);
  d.bound = false;
  d.datagram.reset();
  d.kept.clear();
  if (send_cursor_.handle == d.handle) send_cursor_ = {};
}

}  // namespace cob::kernel
