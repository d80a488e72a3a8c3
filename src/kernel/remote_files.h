// A fixture of tests: two kernels of two islands in this process, in real time, as the host's
// storage is: programs of the second have files of a share of the first, by calls.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fs/open_flags.h"
#include "kernel/test_kernels.h"

namespace cob::kernel::test {

using call::Op;

class RemoteFiles : public ::testing::Test {
 protected:
  RemoteFiles() {
    char name[] = "/tmp/cob-files-XXXXXX";
    root_ = ::mkdtemp(name);
    std::ofstream(root_ + "/a") << "0123456789";
    kernels_ = std::make_unique<TwoKernels>(root_);
    program_ = kernels_->attached(1, 2);
  }
  ~RemoteFiles() override {
    program_.reset();
    kernels_.reset();
    std::filesystem::remove_all(root_);
  }

  static call::FileAsk said(u32 call, u32 flags = 0, u32 mode = 0, u32 share = 3) {
    call::FileAsk head{};
    head.share = share;
    head.call = call;
    head.flags = flags;
    head.mode = mode;
    return head;
  }
  struct Opened {
    i32 result = 0;
    u32 slot = 0, generation = 0;
  };
  // The ask lies in send chunks from `chunk` on.
  call::CallSlot ask(Played& p, Op op, call::FileAsk head, const std::string& path,
                     const std::string& second = {}) {
    head.path_bytes = static_cast<u16>(path.size());
    head.second_bytes = static_cast<u16>(second.size());
    std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
    bytes += path + second;
    return with_chunks(p, slot_call(op), bytes, 1);
  }
  call::CallSlot with_chunks(Played& p, call::CallSlot c, const std::string& bytes, u32 first) {
    c.a[0] = bytes.size();
    for (std::size_t at = 0, i = 0; at < bytes.size(); at += call::chunk_bytes, ++i) {
      const u32 chunk = next_chunk_++ % call::send_chunks;
      std::memcpy(p.theirs().chunk[chunk], bytes.data() + at,
                  std::min<std::size_t>(call::chunk_bytes, bytes.size() - at));
      c.a[first + i / 2] |= u64{chunk} << (i % 2 == 0 ? 0 : 32);
    }
    return c;
  }
  Opened open(Played& p, const std::string& path, u32 flags) {
    const auto c = ask(p, Op::file_open, said(0, flags, 0644), path);
    const i32 result = kernels_->call(p, c);
    const auto& values = p.reply().value;
    if (result == 0) give_back(p, static_cast<u32>(values[2]));
    return {result, static_cast<u32>(values[0]), static_cast<u32>(values[1])};
  }
  void give_back(Played& p, u32 chunk) {
    auto c = slot_call(Op::free_receive);
    c.a[0] = 1;
    c.a[1] = chunk;
    ASSERT_TRUE(p.post(c));
  }
  std::string read(Played& p, Opened f, u64 bytes, i64 at = -1) {
    auto c = slot_call(Op::file_read, f.slot, f.generation);
    c.a[0] = bytes;
    c.a[1] = static_cast<u64>(at);
    c.flags = at >= 0 ? 1 : 0;
    i32 left = kernels_->call(p, c);
    if (left < 0) return "error " + std::to_string(-left);
    return take(p, left);
  }
  std::string take(Played& p, i32 left) {
    std::string text;
    const auto reply = p.reply();
    for (u32 i = 0; left > 0; ++i) {
      const u32 chunk = static_cast<u32>(reply.value[i / 2] >> (i % 2 == 0 ? 0 : 32));
      const i32 part = std::min<i32>(left, call::receive_chunk_payload);
      text.append(reinterpret_cast<const char*>(p.ours().chunk[chunk]) + sizeof(call::ChunkHeader),
                  static_cast<std::size_t>(part));
      give_back(p, chunk);
      left -= part;
    }
    return text;
  }
  i32 write(Played& p, Opened f, const std::string& text) {
    return kernels_->call(p,
                          with_chunks(p, slot_call(Op::file_write, f.slot, f.generation), text, 2));
  }
  i32 seek(Played& p, Opened f, i64 distance, int whence) {
    auto c = slot_call(Op::file_seek, f.slot, f.generation);
    c.a[0] = static_cast<u64>(distance);
    c.a[1] = static_cast<u64>(whence);
    return kernels_->call(p, c);
  }
  i32 control(Played& p, Opened f, call::FileControl what, u64 a = 0, u64 b = 0) {
    auto c = slot_call(Op::file_control, f.slot, f.generation);
    c.a[0] = static_cast<u64>(what);
    c.a[1] = a;
    c.a[2] = b;
    return kernels_->call(p, c);
  }
  // Of kinds and modes as descriptor/lock_table.h numbers them.
  i32 lock(Played& p, Opened f, call::FileLock what, u64 kind, u64 mode, u64 first = 0,
           u64 last = 9, u64 number = 0) {
    auto c = slot_call(Op::file_lock, f.slot, f.generation);
    c.a[0] = static_cast<u64>(what) | kind << 8 | mode << 16;
    c.a[1] = first;
    c.a[2] = last;
    c.a[3] = number;
    return kernels_->call(p, c);
  }
  i32 settled(Played& p) {
    auto c = slot_call(Op::file_lock);
    c.a[0] = static_cast<u64>(call::FileLock::settled);
    return kernels_->call(p, c);
  }
  std::string in_file(const std::string& name) const {
    std::ifstream file(root_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  bool alive(Played& p) {
    kernels_->host_turn();
    return p.take_answers();
  }

  std::string root_;
  std::unique_ptr<TwoKernels> kernels_;
  std::unique_ptr<Played> program_;
  u32 next_chunk_ = 0;
};

inline constexpr u32 read_write = fs::open_flag::read_write, create = fs::open_flag::create;

}  // namespace cob::kernel::test
