// Keys: who has another, who has none, and what happens to one that is used for long.
// Model: see stream_world.h; the loopback's TCP.
#include "message/socket/tls_stream.h"

#include "message/socket/stream_world.h"

namespace cob::message::test {
namespace {

TlsOptions with_key(u8 fill, const char* name = "test") {
  TlsOptions options{.cob_name = name};
  options.key.fill(fill);
  return options;
}

TEST(Tls, RefusesAnotherKeyAndSaysSo) {
  Pair pair(Kind::tls);
  pair.tls[0] = TlsContext::create(KernelId(0), with_key(8)).release_value();
  pair.start_dialer(1);
  pair.run(Duration::seconds(3));
  EXPECT_FALSE(pair.end[1]->up(0));
  EXPECT_GT(pair.listener->refusals()[StreamRefusal::wrong_key], 1U);
  EXPECT_GT(pair.transport(0).refusals()[StreamRefusal::wrong_key], 1U);
}

TEST(Tls, RefusesAnotherCobsName) {
  Pair pair(Kind::tls);
  pair.tls[0] = TlsContext::create(KernelId(0), with_key(7, "other")).release_value();
  pair.start_dialer(1);
  pair.run(Duration::seconds(3));
  EXPECT_FALSE(pair.end[1]->up(0));
  EXPECT_GT(pair.listener->refusals()[StreamRefusal::wrong_key], 1U);
}

TEST(Tls, HoldsAKernelToTheNumberItHasProven) {
  Pair pair(Kind::tls);
  pair.tls[0] = TlsContext::create(KernelId(4), with_key(7)).release_value();
  pair.start_dialer(1);
  pair.run(Duration::seconds(1));
  EXPECT_FALSE(pair.end[1]->up(0));
  EXPECT_GT(pair.listener->refusals()[StreamRefusal::wrong_kernel], 1U);
  EXPECT_GT(pair.transport(0).refusals()[StreamRefusal::by_peer], 1U);
}

TEST(Tls, TurnsAwayWhoDoesNotSpeakIt) {
  Pair pair(Kind::tls);
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  UnixDialer plain(pair.address);
  const auto stream = plain.dial().release_value();
  ASSERT_TRUE(pair.until([&] { return stream->advance() == ByteStream::State::open; }));
  const std::string_view words = "GET / HTTP/1.1\r\n\r\n";
  (void)stream->write(std::as_bytes(std::span(words)));
  std::array<std::byte, 64> answer;
  ASSERT_TRUE(pair.until([&] {
    (void)stream->read(answer);
    return stream->state() == ByteStream::State::closed;
  }));
  EXPECT_EQ(pair.listener->refusals()[StreamRefusal::wrong_key], 1U);
  EXPECT_EQ(pair.listener->greeting(), 0U);
}

TEST(Tls, LosesNothingWhenSomebodyWritesIntoTheConnection) {
  Pair pair(Kind::tls);
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  u64 sent = 0;
  ASSERT_TRUE(pair.until([&] {
    if (sent == 500 || sent == 1'000) (void)::send(pair.dialed, "garbage", 7, MSG_DONTWAIT);
    if (sent < 2'000 && (*pair.end[0])->send(KernelId(1), Note{sent})) ++sent;
    return pair.end[1]->notes.size() == 2'000;
  }));
  for (u64 i = 0; i < 2'000; ++i) ASSERT_EQ(pair.end[1]->notes[i], i);
  EXPECT_GT(pair.transport(0).counters().connections, 1U);
  EXPECT_EQ(pair.transport(0).session(), 1U);
}

TEST(Tls, ChangesItsKeysEverySoManyRecords) {
  TlsOptions options = with_key(7);
  options.records_per_key = 5;
  const auto ours = TlsContext::create(KernelId(0), options).release_value();
  const auto theirs = TlsContext::create(KernelId(1), options).release_value();
  const auto any = SocketAddress::ip("127.0.0.1:0").release_value();
  const auto acceptor = TlsAcceptor::listen(theirs, any).release_value();
  TlsDialer dialer(ours, address_of(acceptor->descriptor()).release_value());
  const auto writer = dialer.dial().release_value();
  std::unique_ptr<ByteStream> reader;
  while (reader == nullptr || reader->advance() == ByteStream::State::opening ||
         writer->advance() == ByteStream::State::opening) {
    (void)writer->advance();
    if (reader == nullptr) reader = acceptor->accept();
  }
  for (u8 i = 0; i < 23; ++i) {
    const std::byte said{i};
    std::byte heard{0xff};
    ASSERT_EQ(writer->write({&said, 1}), 1U);
    writer->flush();
    while (reader->state() == ByteStream::State::open && reader->read({&heard, 1}) == 0) {
    }
    ASSERT_EQ(heard, said);
  }
  EXPECT_EQ(dynamic_cast<TlsStream&>(*writer).key_updates(), 4U);
}

TEST(Tls, CarriesALinkThroughChangesOfItsKeys) {
  Pair pair(Kind::tls);
  for (u16 i : {u16{0}, u16{1}}) {
    TlsOptions options = with_key(7);
    options.records_per_key = 5;
    pair.tls[i] = TlsContext::create(KernelId(i), options).release_value();
  }
  pair.start_listener(2);
  pair.start_dialer(2);
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  u64 sent = 0;
  ASSERT_TRUE(pair.until([&] {
    if (sent < 2'000 && (*pair.end[0])->send(KernelId(1), Note{sent})) ++sent;
    if (sent < 2'000) (void)(*pair.end[1])->send(KernelId(0), Note{sent});
    return pair.end[1]->notes.size() == 2'000;
  }));
  EXPECT_EQ(pair.transport(0).counters().connections, 1U);
}

TEST(Tls, HasNamesOfBoundedLength) {
  EXPECT_EQ(TlsContext::create(KernelId(0), with_key(1, "")).error().code, EINVAL);
}

TEST(Addresses, AreNumbersAlone) {
  EXPECT_TRUE(SocketAddress::ip("127.0.0.1:7000"));
  EXPECT_TRUE(SocketAddress::ip("[::1]:7000"));
  for (const char* wrong : {"", ":1", "localhost:7000", "127.0.0.1", "127.0.0.1:70000",
                            "127.0.0.1:", "::1:7000", "127.0.0.1:7x", "[:1"})
    EXPECT_TRUE(SocketAddress::ip(wrong).is_error()) << wrong;
  EXPECT_TRUE(SocketAddress::local(std::string(200, 'x')).is_error());
}

}  // namespace
}  // namespace cob::message::test
