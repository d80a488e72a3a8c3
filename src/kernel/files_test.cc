// Two kernels of two islands in this process: programs of the one have files of a share of the
// other, by calls. In real time, as the host's storage is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "call/file_write.h"
#include "fs/entries.h"
#include "fs/open_flags.h"
#include "kernel/process_credentials.h"
#include "kernel/remote_files.h"

namespace cob::kernel::test {
namespace {

TEST_F(RemoteFiles, AreToldOfInTheArenaOfWhoMustAsk) {
  const auto& share = program_->ours().remote_share[0];
  EXPECT_EQ(share.number, 3);
  EXPECT_EQ(std::string(share.path, share.path_bytes), root_);
  EXPECT_EQ(program_->ours().remote_share[1].path_bytes, 0);
  EXPECT_EQ(kernels_->attached(0)->ours().remote_share[0].path_bytes, 0);
}

TEST_F(RemoteFiles, AreReadWrittenAndSought) {
  Played& p = *program_;
  const Opened f = open(p, "a", read_write);
  ASSERT_EQ(f.result, 0);
  EXPECT_GE(f.slot, call::first_kernel_socket);
  EXPECT_EQ(p.line(f.slot).state, call::SocketState::file);
  EXPECT_EQ(read(p, f, 4), "0123");
  EXPECT_EQ(read(p, f, 100, 8), "89");
  EXPECT_EQ(read(p, f, 2), "45");
  EXPECT_EQ(write(p, f, "xy"), 2);
  EXPECT_EQ(in_file("a"), "012345xy89");
  ASSERT_EQ(seek(p, f, -3, SEEK_END), 0);
  EXPECT_EQ(p.reply().value[0], 7u);
  EXPECT_EQ(read(p, f, 100), "y89");
  EXPECT_EQ(read(p, f, 100), "");
  EXPECT_EQ(control(p, f, call::FileControl::sync), 0);
  EXPECT_EQ(control(p, f, call::FileControl::allocate, 0, 64), 0);
  EXPECT_EQ(in_file("a").size(), 64u);
  EXPECT_EQ(control(p, f, call::FileControl::status_flags, fs::open_flag::append),
            static_cast<i32>(read_write | fs::open_flag::append));
  EXPECT_EQ(write(p, f, "z"), 1);
  EXPECT_EQ(in_file("a").size(), 65u);
  EXPECT_EQ(control(p, f, static_cast<call::FileControl>(77)), -EINVAL);
}

TEST_F(RemoteFiles, OfManyBytesComeInWholeChunks) {
  Played& p = *program_;
  const Opened f = open(p, "big", read_write | create);
  ASSERT_EQ(f.result, 0);
  std::string text(16'384, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  ASSERT_EQ(write(p, f, text), 16'384);
  EXPECT_EQ(in_file("big"), text);
  EXPECT_EQ(read(p, f, 100'000, 0), text);
}

TEST_F(RemoteFiles, ReadsOfManyChunksListThem) {
  Played& p = *program_;
  std::string text(1'300'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 7 % 23);
  std::ofstream(root_ + "/big") << text;
  const Opened f = open(p, "big", read_write);  // nobody caches it
  ASSERT_EQ(f.result, 0);
  const auto listed = [&](u64 bytes, i64 at) {
    auto c = slot_call(Op::file_read, f.slot, f.generation);
    c.a[0] = bytes;
    c.a[1] = static_cast<u64>(at);
    c.flags = static_cast<u16>(call::file_read_listed | (at >= 0 ? 1 : 0));
    const i32 got = kernels_->call(p, c);
    if (got <= static_cast<i32>(call::max_file_read)) return take(p, got);
    const auto list = static_cast<u32>(p.reply().value[0]);
    std::vector<u32> chunks((static_cast<u32>(got) + call::receive_chunk_payload - 1) /
                            call::receive_chunk_payload);
    const auto payload = [&](u32 chunk) {
      return reinterpret_cast<const char*>(p.ours().chunk[chunk]) + sizeof(call::ChunkHeader);
    };
    std::memcpy(chunks.data(), payload(list), chunks.size() * sizeof chunks[0]);
    std::string all;
    for (const u32 chunk : chunks)
      all.append(payload(chunk), std::min<std::size_t>(call::receive_chunk_payload,
                                                       static_cast<u32>(got) - all.size()));
    chunks.push_back(list);
    for (const u32 chunk : chunks) {
      give_back(p, chunk);
      kernels_->turns();  // the ring is shorter than the list
    }
    return all;
  };
  EXPECT_EQ(listed(u64{1} << 40, 0), text.substr(0, call::max_listed_file_read));
  EXPECT_EQ(listed(600'000, 1'000), text.substr(1'000, 600'000));
  EXPECT_EQ(listed(600'000, 1'000'000), text.substr(1'000'000));  // the end in its second piece
  EXPECT_EQ(listed(600'000, 1'299'000), text.substr(1'299'000));  // too little to list
  EXPECT_EQ(listed(600'000, 1'300'000), "");
  EXPECT_EQ(listed(100'000, -1), text.substr(0, 100'000));
  EXPECT_EQ(listed(500'000, -1), text.substr(100'000, 500'000));
  EXPECT_EQ(read(p, f, 100, -1), text.substr(600'000, 100));
  // As often as there are chunks of the arena: all came back.
  for (u64 i = 0; i < 40; ++i) ASSERT_EQ(listed(1'000'000, 0).size(), 1'000'000u) << i;
}

TEST_F(RemoteFiles, WritesOfManyChunksListThem) {
  Played& p = *program_;
  const Opened f = open(p, "big", read_write | create);
  ASSERT_EQ(f.result, 0);
  std::string text(100'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  const auto listed = [&](const std::string& data, u32 last) {
    auto c = slot_call(Op::file_write, f.slot, f.generation);
    c.flags = call::file_write_listed;
    c.a[0] = data.size();
    const u32 list = next_chunk_++;
    c.a[2] = list;
    std::vector<u32> chunks;
    for (std::size_t at = 0; at < data.size(); at += call::chunk_bytes) {
      chunks.push_back(next_chunk_++);
      std::memcpy(p.theirs().chunk[chunks.back()], data.data() + at,
                  std::min<std::size_t>(call::chunk_bytes, data.size() - at));
    }
    if (last != 0) chunks.back() = last;
    std::memcpy(p.theirs().chunk[list], chunks.data(), chunks.size() * sizeof chunks[0]);
    return c;
  };
  ASSERT_EQ(kernels_->call(p, listed(text, 0)), 100'000);
  EXPECT_EQ(in_file("big"), text);
  auto other = kernels_->attached(1, 2);
  std::swap(other, program_);  // the fault ends this one alone
  ASSERT_TRUE(p.post(listed(text, call::send_chunks)));
  EXPECT_FALSE(alive(p));
  EXPECT_TRUE(alive(*program_));
}

TEST_F(RemoteFiles, AreCachedWhileNobodyMayWrite) {
  std::string text(20'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 4'096);
  std::ofstream(root_ + "/big") << text;
  Played& p = *program_;
  const Opened f = open(p, "big", 0);
  ASSERT_EQ(f.result, 0);
  const auto& line = p.ours().cached[f.slot - call::first_kernel_socket];
  EXPECT_EQ(read(p, f, 10, 0), text.substr(0, 10));
  EXPECT_EQ(line.id, 0u);  // told, and nothing was read under it yet
  EXPECT_EQ(read(p, f, 10, 5'000), text.substr(5'000, 10));
  ASSERT_NE(line.id, 0u);
  EXPECT_EQ(line.size, text.size());
  EXPECT_GT(p.ours().cache.lease_until[line.home], static_cast<u64>(HostClock::read().ns));
  const auto page_of = [&](u64 block) -> std::string {
    const u32 first = call::cache_set(line.id, block) * call::cache_ways;
    for (u32 page = first; page < first + call::cache_ways; ++page)
      if (p.ours().cache.page[page].key == call::cache_key(line.id, block))
        return {reinterpret_cast<const char*>(p.ours().cache.bytes[page]), call::cache_page_bytes};
    return {};
  };
  EXPECT_EQ(page_of(1), text.substr(4'096, 4'096));
  // At the offset, from the pages: nothing is asked.
  const auto* there = kernels_->files(1);
  const u64 asked = there->held().operations;
  EXPECT_EQ(seek(p, f, 4'000, SEEK_SET), 0);
  EXPECT_EQ(read(p, f, 200), text.substr(4'000, 200));
  const u64 fetched = there->held().operations;
  EXPECT_EQ(read(p, f, 200), text.substr(4'200, 200));
  EXPECT_EQ(there->held().operations, fetched);
  EXPECT_LE(fetched, asked + 2);
  // A writer of the host: it gets in once the kernels have had their turns.
  int writer = -1;
  for (int i = 0; i < 10'000 && writer < 0; ++i) {
    writer = ::open((root_ + "/big").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    kernels_->host_turn();
  }
  ASSERT_GE(writer, 0);
  EXPECT_EQ(line.id, 0u);
  ASSERT_EQ(::pwrite(writer, "XYZ", 3, 5'000), 3);
  EXPECT_EQ(read(p, f, 10, 5'000), "XYZ" + text.substr(5'003, 7));
  EXPECT_EQ(line.id, 0u);
  ::close(writer);
  auto c = slot_call(Op::close, f.slot, f.generation);
  ASSERT_TRUE(p.post(c));
  kernels_->host_turn();
}

TEST_F(RemoteFiles, NamesAreAskedFor) {
  Played& p = *program_;
  call::FileAsk head = said(static_cast<u32>(fs::NameCall::make_directory), 0, 0755);
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "d")), 0);
  EXPECT_TRUE(std::filesystem::is_directory(root_ + "/d"));
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "d")), -EEXIST);
  head = said(0);
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "a")), i32{sizeof(fs::Status)});
  fs::Status status;
  const std::string told = take(p, sizeof status);
  std::memcpy(&status, told.data(), sizeof status);
  EXPECT_EQ(u64{status.size}, 10u);
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "none")), -ENOENT);
  head.share = 4;
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "a")), -ENODEV);
  // Behind an open file; one that is none.
  const Opened f = open(p, "a", read_write);
  head = said(0);
  head.directory = f.slot;
  head.directory_generation = f.generation;
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "")), i32{sizeof(fs::Status)});
  head.directory_generation += 1;
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "")), -EBADF);
}

TEST_F(RemoteFiles, ThatLeadOutAreToldWhereTo) {
  Played& p = *program_;
  std::filesystem::create_symlink("/etc", root_ + "/out");
  EXPECT_EQ(open(p, "out/passwd", 0).result, -EXDEV);
  ASSERT_GT(p.reply().value[1], 0u);
  EXPECT_EQ(take(p, static_cast<i32>(p.reply().value[1])).substr(0, 11), "/etc/passwd");
}

TEST_F(RemoteFiles, DirectoriesAreListed) {
  Played& p = *program_;
  const Opened d = open(p, ".", fs::open_flag::directory);
  ASSERT_EQ(d.result, 0);
  const i32 bytes = control(p, d, call::FileControl::entries);
  ASSERT_GT(bytes, 0);
  const std::string packed = take(p, bytes);
  fs::EntryReader reader(std::as_bytes(std::span(packed)));
  bool found = false;
  while (const auto entry = reader.next()) found |= entry->name == "a";
  EXPECT_TRUE(found);
  EXPECT_EQ(control(p, d, call::FileControl::entries), 0);
}

TEST_F(RemoteFiles, AForkedChildAndANewImageShareTheOffset) {
  Played& p = *program_;
  const Opened f = open(p, "a", read_write);
  EXPECT_EQ(read(p, f, 2), "01");
  const u64 handle = p.line(f.slot).handle;
  auto [mine, theirs] = seqpacket_pair().release_value();
  const u32 child_hello = static_cast<u32>(call::Hello::child);
  const FdRef end[] = {theirs.ref()};
  send_struct(p.liveness(), child_hello, end).release_value();
  ASSERT_EQ(kernels_->call(p, slot_call(Op::fork)), 0);
  Played child(std::move(mine));
  kernels_->attach(child);
  ASSERT_TRUE(child.attached());
  auto adopt = slot_call(Op::adopt_handle);
  adopt.a[0] = handle;
  ASSERT_EQ(kernels_->call(child, adopt), 0);
  Opened its{0, static_cast<u32>(child.reply().value[0]), 0};
  its.generation = child.line(its.slot).generation;
  EXPECT_EQ(read(child, its, 3), "234");
  EXPECT_EQ(read(p, f, 1), "5");
  // The parent ends; the child execs.
  p.die();
  kernels_->host_turn();
  EXPECT_EQ(read(child, its, 1), "6");
  kernels_->attach(child);
  ASSERT_EQ(kernels_->call(child, adopt), 0);
  its.slot = static_cast<u32>(child.reply().value[0]);
  its.generation = child.line(its.slot).generation;
  EXPECT_EQ(read(child, its, 1), "7");
}

TEST_F(RemoteFiles, EndWithTheirProgramAlsoThoseUnderWay) {
  Played& p = *program_;
  ASSERT_EQ(open(p, "a", read_write).result, 0);
  ASSERT_TRUE(p.post(ask(p, Op::file_open, said(0), "a")));
  kernels_->turns(1);
  p.die();
  EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 0; }));
}

TEST_F(RemoteFiles, RefuseWhatIsForSockets) {
  Played& p = *program_;
  const Opened f = open(p, "a", read_write);
  EXPECT_EQ(kernels_->call(p, slot_call(Op::listen, f.slot, f.generation)), -ENOTSOCK);
  EXPECT_EQ(kernels_->call(p, slot_call(Op::receive_shared, f.slot, f.generation)), -ENOTSOCK);
  for (const Op op : {Op::connect, Op::consumed, Op::shutdown, Op::released, Op::want_accept})
    ASSERT_TRUE(p.post(slot_call(op, f.slot, f.generation)));
  EXPECT_EQ(read(p, f, 4), "0123");
  ASSERT_TRUE(p.post(slot_call(Op::close, f.slot, f.generation)));
  EXPECT_EQ(read(p, f, 4), "error 9");
  EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 0; }));
}

constexpr u64 flocks = 0, posix = 1, ofd = 2, none = 0, shared = 1, exclusive = 2;
using call::FileLock;

TEST_F(RemoteFiles, LocksExcludeProgramsHereAndOnTheHost) {
  Played& p = *program_;
  const auto q = kernels_->attached(1);
  const Opened f = open(p, "a", read_write), g = open(*q, "a", read_write);
  const Fd host(::open((root_ + "/a").c_str(), O_RDWR | O_CLOEXEC));
  for (const u64 kind : {flocks, posix, ofd}) {
    EXPECT_EQ(lock(p, f, FileLock::set, kind, exclusive), 0);
    EXPECT_EQ(lock(*q, g, FileLock::set, kind, shared), -EAGAIN);
    struct ::flock range{};
    range.l_type = F_RDLCK;
    range.l_len = 5;
    EXPECT_EQ(kind == flocks ? ::flock(host.get(), LOCK_SH | LOCK_NB)
                             : ::fcntl(host.get(), F_OFD_SETLK, &range),
              -1);
    EXPECT_EQ(lock(p, f, FileLock::set, kind, none), 0);
    EXPECT_EQ(lock(*q, g, FileLock::set, kind, shared), 0);
    EXPECT_EQ(lock(*q, g, FileLock::set, kind, none), 0);
  }
  EXPECT_EQ(lock(p, f, FileLock::set, posix, shared, 3, 5), 0);
  EXPECT_EQ(lock(*q, g, FileLock::test, posix, exclusive, 0, 100), 0);
  EXPECT_EQ(q->reply().value[0], shared);
  EXPECT_EQ(q->reply().value[1], 3u);
  EXPECT_EQ(q->reply().value[2], 5u);
  EXPECT_EQ(lock(*q, g, FileLock::test, posix, shared), 0);
  EXPECT_EQ(q->reply().value[0], none);
}

TEST_F(RemoteFiles, AWaitIsAnnouncedAndCanBeCancelled) {
  Played& p = *program_;
  const auto q = kernels_->attached(1);
  const Opened f = open(p, "a", read_write), g = open(*q, "a", read_write);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, exclusive), 0);
  ASSERT_EQ(lock(*q, g, FileLock::wait, posix, exclusive), 0);
  u64 wait = q->reply().value[0];
  EXPECT_EQ(lock(*q, g, FileLock::look, posix, none, 0, 9, wait), 1);
  EXPECT_EQ(lock(p, f, FileLock::look, posix, none, 0, 9, wait), -EINVAL) << "another's";
  const u32 change = q->line(g.slot).change;
  EXPECT_EQ(lock(p, f, FileLock::set, posix, none), 0);
  EXPECT_TRUE(kernels_->until([&] { return q->line(g.slot).change != change; }));
  EXPECT_EQ(lock(*q, g, FileLock::look, posix, none, 0, 9, wait), 0);
  EXPECT_EQ(lock(*q, g, FileLock::look, posix, none, 0, 9, wait), -EINVAL) << "it is over";

  ASSERT_EQ(lock(p, f, FileLock::wait, posix, shared), 0);
  wait = p.reply().value[0];
  EXPECT_EQ(lock(p, f, FileLock::cancel, posix, none, 0, 9, wait), -EINTR);
  ASSERT_EQ(lock(p, f, FileLock::wait, posix, shared), 0);
  EXPECT_EQ(lock(p, f, FileLock::abandon, posix, none), 0);
  EXPECT_EQ(lock(*q, g, FileLock::set, posix, none), 0);
  EXPECT_EQ(lock(*q, g, FileLock::set, posix, exclusive), 0) << "what was left is not had";
}

TEST_F(RemoteFiles, LocksGoWithClosesAndDeaths) {
  Played& p = *program_;
  const auto q = kernels_->attached(1);
  const Opened g = open(*q, "a", read_write);
  for (const u64 kind : {flocks, posix, ofd}) {
    const Opened f = open(p, "a", read_write);
    EXPECT_EQ(lock(p, f, FileLock::set, kind, exclusive), 0);
    ASSERT_TRUE(p.post(slot_call(Op::close, f.slot, f.generation)));
    EXPECT_EQ(settled(p), 0);
    EXPECT_EQ(lock(*q, g, FileLock::set, kind, exclusive), 0);
    EXPECT_EQ(lock(*q, g, FileLock::set, kind, none), 0);
  }
  const Opened f = open(p, "a", read_write), other = open(p, "a", read_write);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, exclusive), 0);
  EXPECT_EQ(lock(p, other, FileLock::close, posix, none), 0);
  EXPECT_EQ(lock(*q, g, FileLock::set, posix, exclusive), 0);
  ASSERT_EQ(lock(p, f, FileLock::wait, posix, exclusive), 0);
  EXPECT_EQ(lock(p, f, FileLock::set, flocks, exclusive), 0);
  p.die();
  kernels_->host_turn();
  EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 1; }));
  EXPECT_TRUE(kernels_->until([&] { return lock(*q, g, FileLock::set, flocks, exclusive) == 0; }));
  EXPECT_EQ(lock(*q, g, FileLock::set, posix, none), 0);
  EXPECT_EQ(lock(*q, g, FileLock::set, posix, exclusive), 0) << "the dead do not wait";
}

TEST_F(RemoteFiles, LocksThatCannotBeAreRefused) {
  Played& p = *program_;
  const Opened f = open(p, "a", 0);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, exclusive), -EBADF);
  EXPECT_EQ(lock(p, f, FileLock::set, 3, shared), -EINVAL);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, 3), -EINVAL);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, shared, 9, 8), -EINVAL);
  EXPECT_EQ(lock(p, f, FileLock::set, posix, shared, 0, ~u64{0}), -EINVAL);
  EXPECT_EQ(lock(p, f, FileLock::wait, posix, none), -EINVAL);
  EXPECT_EQ(lock(p, f, FileLock::test, flocks, shared), -EINVAL);
  EXPECT_EQ(lock(p, f, static_cast<FileLock>(200), posix, shared), -EINVAL);
  EXPECT_EQ(lock(p, {0, f.slot, f.generation + 1}, FileLock::set, posix, shared), -EBADF);
  EXPECT_EQ(settled(p), 0);
}

TEST_F(RemoteFiles, AForgerEndsAlone) {
  const Opened f = open(*program_, "a", read_write);
  const auto forge = [&](auto make) {
    auto p = kernels_->attached(1);
    ASSERT_TRUE(p->post(make(*p)));
    EXPECT_TRUE(kernels_->until([&] { return !p->take_answers(); }, Duration::seconds(5)));
  };
  forge([](Played&) {
    auto c = slot_call(Op::file_open);
    c.a[0] = 100;
    c.a[1] = call::send_chunks;
    return c;
  });
  forge([](Played&) {
    auto c = slot_call(Op::file_write, call::first_kernel_socket, 1);
    c.a[0] = 100'000;
    return c;
  });
  forge([&](Played& p) { return ask(p, Op::file_open, said(0), std::string("a\0b", 3)); });
  forge([&](Played& p) {
    auto c = ask(p, Op::file_open, said(0), "a");
    c.a[0] += 1;
    return c;
  });
  forge([&](Played& p) {
    call::FileAsk head = said(0);
    head.for_others = 2;
    return ask(p, Op::file_open, head, "a");
  });
  forge([](Played&) { return slot_call(Op::file_read, call::max_sockets); });
  EXPECT_EQ(read(*program_, f, 4), "0123");
}

TEST_F(RemoteFiles, AreAskedForOthersByASuperusersProgramAlone) {
  Played& p = *program_;
  constexpr u32 nobody = 65'534;
  call::FileAsk head = said(static_cast<u32>(fs::NameCall::make_directory), 0, 0755);
  head.for_others = 1;
  head.as_uid = head.as_gid = nobody;
  const i32 refused = ::geteuid() == 0 ? -EACCES : -EPERM;  // the root is mkdtemp(3)'s
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "d")), refused);
  if (::geteuid() != 0) return;
  std::filesystem::permissions(root_, std::filesystem::perms::all);
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "d")), 0);
  struct stat status{};
  ASSERT_EQ(::stat((root_ + "/d").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, nobody);
  EXPECT_EQ(status.st_gid, nobody);
  // The next is asked for as the program.
  head.for_others = 0;
  EXPECT_EQ(kernels_->call(p, ask(p, Op::file_name, head, "e")), 0);
  ASSERT_EQ(::stat((root_ + "/e").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0u);
}

TEST_F(RemoteFiles, AreStaleOnceTheirKernelHasEnded) {
  Played& p = *program_;
  const Opened f = open(p, "a", read_write);
  ASSERT_EQ(f.result, 0);
  kernels_->end(0);
  ASSERT_TRUE(p.post(slot_call(Op::nothing)));
  const std::string told = read(p, f, 4, 0);
  EXPECT_EQ(told, "error " + std::to_string(ESTALE));
  EXPECT_EQ(open(p, "a", 0).result, -EHOSTDOWN);
}

TEST(ProcessCredentials, AreReadFromItsStatus) {
  fs::Credentials found;
  std::array<u32, 4> may_be{};
  ASSERT_TRUE(read_credentials("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n",
                               found, may_be));
  EXPECT_EQ(found.uid, 4u);
  EXPECT_EQ(found.gid, 8u);
  EXPECT_EQ(found.groups, (std::vector<u32>{9, 10}));
  EXPECT_EQ(may_be, (std::array<u32, 4>{1, 2, 3, 4}));
  EXPECT_FALSE(read_credentials("Name:\tx\nUid:\t1\n", found, may_be));
}

TEST(ProcessCredentials, OfAnotherHaveItsGroupsIfItIsThatUserStill) {
  const u32 self = static_cast<u32>(::getpid());
  const fs::Credentials own = fs::Credentials::own();
  fs::Credentials found = credentials_of_other(own.uid, own.gid, self);
  found.normalize();
  EXPECT_EQ(found, own);
  for (const auto& [uid, gid, pid] :
       {std::array{own.uid + 1, own.gid, self}, std::array{own.uid, own.gid + 1, self},
        std::array{own.uid, own.gid, u32{0}}})
    EXPECT_EQ(credentials_of_other(uid, gid, pid),
              (fs::Credentials{.uid = uid, .gid = gid, .groups = {}}));
}

}  // namespace
}  // namespace cob::kernel::test
