// Pipes with due times. See simulated_stream.h.
// Model: a cut holds back what is due; nothing is judged before somebody looks.
// Owned by the simulation or test; one thread.
#include "sim/simulated_stream.h"

#include <algorithm>

namespace cob::sim {

using message::ByteStream;

class SimulatedStreams::Stream final : public ByteStream {
 public:
  Stream(SimulatedStreams& network, std::shared_ptr<Connection> connection, bool dialing)
      : network_(network), connection_(std::move(connection)), dialing_(dialing) {
    if (!dialing) state_ = State::open;
  }
  ~Stream() override {
    out().end_due = std::max(out().last_due, network_.clock_.now() + network_.delay());
  }

  State advance() override {
    look();
    if (state_ == State::opening && connection_->accepted &&
        network_.clock_.now() >= connection_->opens + network_.faults_.delay && !held())
      state_ = State::open;
    return state_;
  }
  std::size_t read(std::span<std::byte> into) override {
    look();
    std::size_t done = 0;
    Pipe& pipe = in();
    while (state_ == State::open && done < into.size() && !held() && !pipe.chunks.empty() &&
           pipe.chunks.front().due <= network_.clock_.now()) {
      Chunk& chunk = pipe.chunks.front();
      const std::size_t n = std::min(into.size() - done, chunk.bytes.size() - chunk.taken);
      std::copy_n(chunk.bytes.begin() + static_cast<std::ptrdiff_t>(chunk.taken), n,
                  into.begin() + static_cast<std::ptrdiff_t>(done));
      chunk.taken += n;
      done += n;
      pipe.bytes -= n;
      if (chunk.taken == chunk.bytes.size()) pipe.chunks.pop_front();
    }
    look();
    return done;
  }
  std::size_t write(std::span<const std::byte> from) override {
    look();
    return state_ == State::open ? network_.write(*connection_, out(), from) : 0;
  }
  void flush() override {}
  State state() const override { return state_; }
  Error why_closed() const override {
    return Error::of(ECONNRESET, connection_->reset ? "reset" : "connection has ended");
  }
  std::optional<KernelId> peer() const override { return std::nullopt; }
  FdRef descriptor() const override { return {}; }

 private:
  Pipe& in() { return dialing_ ? connection_->back : connection_->there; }
  Pipe& out() { return dialing_ ? connection_->there : connection_->back; }
  bool held() const {
    return dialing_ ? network_.is_cut(connection_->acceptor, connection_->dialer)
                    : network_.is_cut(connection_->dialer, connection_->acceptor);
  }
  void look() {
    const bool ended = in().chunks.empty() && in().end_due <= network_.clock_.now() && !held();
    if (connection_->reset || ended) state_ = State::closed;
  }

  SimulatedStreams& network_;
  std::shared_ptr<Connection> connection_;
  bool dialing_;
  State state_ = State::opening;
};

class SimulatedStreams::Dialer final : public message::StreamDialer {
 public:
  Dialer(SimulatedStreams& network, u16 from, u16 to) : network_(network), from_(from), to_(to) {}
  Result<std::unique_ptr<ByteStream>> dial() override { return network_.dial(from_, to_); }

 private:
  SimulatedStreams& network_;
  u16 from_, to_;
};

class SimulatedStreams::Acceptor final : public message::StreamAcceptor {
 public:
  Acceptor(SimulatedStreams& network, u16 at, u64 generation)
      : network_(network), at_(at), generation_(generation) {}
  std::unique_ptr<ByteStream> accept() override {
    if (network_.acceptors_[at_] != generation_) return nullptr;
    auto connection = network_.arriving(at_);
    if (connection == nullptr) return nullptr;
    return std::make_unique<Stream>(network_, std::move(connection), false);
  }
  FdRef descriptor() const override { return {}; }

 private:
  SimulatedStreams& network_;
  u16 at_;
  u64 generation_;
};

std::unique_ptr<message::StreamDialer> SimulatedStreams::dialer(u16 from, u16 to) {
  return std::make_unique<Dialer>(*this, from, to);
}

std::unique_ptr<message::StreamAcceptor> SimulatedStreams::acceptor(u16 at) {
  return std::make_unique<Acceptor>(*this, at, ++acceptors_[at]);
}

Duration SimulatedStreams::delay() {
  const auto more = static_cast<i64>(random_.below(static_cast<u64>(faults_.jitter.ns) + 1));
  return faults_.delay + Duration::nanoseconds(more);
}

std::unique_ptr<ByteStream> SimulatedStreams::dial(u16 from, u16 to) {
  ++counters_.dials;
  auto connection = std::make_shared<Connection>();
  connection->dialer = from;
  connection->acceptor = to;
  connection->opens = clock_.now() + delay();
  connection->recorded = random_.chance(faults_.duplicate_ppm);
  std::erase_if(all_, [](const auto& one) { return one.expired(); });
  all_.push_back(connection);
  dialed_.push_back(connection);
  if (connection->recorded) {
    const auto within = static_cast<u64>(faults_.duplicate_within.ns);
    const auto later = Duration::nanoseconds(static_cast<i64>(random_.below(within + 1)));
    copies_.push_back({connection, clock_.now() + later});
  }
  return std::make_unique<Stream>(*this, std::move(connection), true);
}

// Puts what was said so far into a connection of its own, whose dialer is nobody.
void SimulatedStreams::replay(Copy& copy) {
  ++counters_.duplicates;
  auto again = std::make_shared<Connection>();
  again->dialer = copy.original->dialer;
  again->acceptor = copy.original->acceptor;
  again->opens = copy.due;
  for (const Chunk& chunk : copy.original->record) {
    again->there.bytes += chunk.bytes.size();
    again->there.chunks.push_back(chunk);
  }
  dialed_.push_back(std::move(again));
  copy.original = nullptr;
}

std::shared_ptr<SimulatedStreams::Connection> SimulatedStreams::arriving(u16 at) {
  for (Copy& copy : copies_)
    if (copy.due <= clock_.now()) replay(copy);
  std::erase_if(copies_, [](const Copy& copy) { return copy.original == nullptr; });
  const auto found = std::find_if(dialed_.begin(), dialed_.end(), [&](const auto& one) {
    return one->acceptor == at && one->opens <= clock_.now() && !is_cut(one->dialer, at);
  });
  if (found == dialed_.end()) return nullptr;
  auto connection = *found;
  dialed_.erase(found);
  connection->accepted = true;
  return connection;
}

std::size_t SimulatedStreams::write(Connection& connection, Pipe& pipe,
                                    std::span<const std::byte> from) {
  if (random_.chance(faults_.reset_ppm)) {
    ++counters_.resets;
    connection.reset = true;
    return from.size();
  }
  const std::size_t n = std::min(from.size(), window_bytes - std::min(window_bytes, pipe.bytes));
  if (n == 0) return 0;
  Time due = std::max(clock_.now() + delay(), pipe.last_due);
  if (faults_.bytes_per_second > 0)
    due =
        due + Duration::nanoseconds(static_cast<i64>(n * 1'000'000'000 / faults_.bytes_per_second));
  if (random_.chance(faults_.stall_ppm)) {
    ++counters_.stalls;
    const auto stall = static_cast<u64>(faults_.stall.ns);
    due = due + Duration::nanoseconds(static_cast<i64>(random_.below(stall + 1)));
  }
  pipe.last_due = due;
  const auto taken = from.first(n);
  pipe.chunks.push_back({due, {taken.begin(), taken.end()}});
  pipe.bytes += n;
  if (connection.recorded && &pipe == &connection.there)
    connection.record.push_back(pipe.chunks.back());
  return n;
}

void SimulatedStreams::reset(u16 a, u16 b) {
  for (const auto& weak : all_) {
    const auto one = weak.lock();
    if (one == nullptr) continue;
    if ((one->dialer == a && one->acceptor == b) || (one->dialer == b && one->acceptor == a)) {
      one->reset = true;
      ++counters_.resets;
    }
  }
}

}  // namespace cob::sim
