// Sealed shared memory: what the creator may do, what a foreign holder may not, and what is
// refused. Real memfds. One thread.
#include "base/memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

namespace cob {
namespace {

TEST(Memory, OnlyTheCreatorWrites) {
  SharedMemory memory = create_memory("test", 8'192, Writers::creator).release_value();
  Mapping view =
      map_foreign(memory.fd.ref(), 8'192, Writers::creator, Access::read).release_value();
  memory.mapping.data()[5'000] = std::byte{42};
  EXPECT_EQ(view.data()[5'000], std::byte{42});
  EXPECT_EQ(map_foreign(memory.fd.ref(), 8'192, Writers::creator, Access::read_write).error().code,
            EPERM);
  EXPECT_NE(::ftruncate(memory.fd.get(), 4'096), 0);
  EXPECT_NE(::fcntl(memory.fd.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(Memory, AnyoneWritesIfAsked) {
  SharedMemory memory = create_memory("test", 4'096, Writers::anyone).release_value();
  Mapping second =
      map_foreign(memory.fd.ref(), 4'096, Writers::anyone, Access::read_write).release_value();
  second.data()[0] = std::byte{1};
  EXPECT_EQ(memory.mapping.data()[0], std::byte{1});
  EXPECT_EQ(check_memory(memory.fd.ref(), 4'096, Writers::creator).error().code, EPERM);
}

TEST(Memory, RefusesWrongSizeSealsAndKind) {
  SharedMemory memory = create_memory("test", 4'096, Writers::creator).release_value();
  EXPECT_EQ(check_memory(memory.fd.ref(), 8'192, Writers::creator).error().code, EMSGSIZE);
  const Fd unsealed(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 4'096), 0);
  EXPECT_EQ(check_memory(unsealed.ref(), 4'096, Writers::anyone).error().code, EPERM);
  const Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(check_memory(file.ref(), 4'096, Writers::anyone).error().code, EPERM);
  EXPECT_EQ(check_memory(FdRef(), 4'096, Writers::anyone).error().code, EPERM);
}

TEST(Memory, MappingsMove) {
  Mapping a = Mapping::anonymous(4'096).release_value();
  a.data()[1] = std::byte{7};
  Mapping b = std::move(a);
  EXPECT_FALSE(a.valid());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(b.bytes().size(), 4'096u);
  b = Mapping::anonymous(8'192).release_value();
  b.populate(0, 8'192);
  EXPECT_EQ(b.data()[1], std::byte{0});
}

}  // namespace
}  // namespace cob
