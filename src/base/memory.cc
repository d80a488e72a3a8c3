// Sealed memfds. The seals go on while the creator's mapping exists: it alone stays writable.
// fcntl(2) F_ADD_SEALS, mmap(2), madvise(2). Any thread.
#include "base/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace cob {
namespace {

int seals_for(Writers writers) {
  const int size = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  return writers == Writers::creator ? size | F_SEAL_FUTURE_WRITE : size;
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Result<Mapping> Mapping::map(FdRef fd, std::size_t bytes, Access access, std::size_t offset) {
  const int protection = access == Access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  void* p = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), static_cast<off_t>(offset));
  if (p == MAP_FAILED) return Error::from_errno("mmap of shared memory");
  (void)::madvise(p, bytes, MADV_DONTFORK);
  Mapping m;
  m.data_ = static_cast<std::byte*>(p);
  m.size_ = bytes;
  return m;
}

Result<Mapping> Mapping::anonymous(std::size_t bytes) {
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return Error::from_errno("mmap of private memory");
  Mapping m;
  m.data_ = static_cast<std::byte*>(p);
  m.size_ = bytes;
  return m;
}

void Mapping::populate(std::size_t offset, std::size_t bytes) const {
  VERIFY(offset <= size_ && bytes <= size_ - offset);
#ifdef MADV_POPULATE_WRITE
  (void)::madvise(data_ + offset, bytes, MADV_POPULATE_WRITE);
#endif
}

void Mapping::populate_to_read(std::size_t bytes) const {
  VERIFY(bytes <= size_);
#ifdef MADV_POPULATE_READ
  (void)::madvise(data_, bytes, MADV_POPULATE_READ);
#endif
}

void Mapping::reset() {
  if (data_ != nullptr) ::munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

Result<SharedMemory> create_memory(const char* name, std::size_t bytes, Writers writers) {
  SharedMemory memory;
  memory.fd = Fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.fd.valid()) return Error::from_errno("memfd_create");
  if (::ftruncate(memory.fd.get(), static_cast<off_t>(bytes)) != 0)
    return Error::from_errno("ftruncate of a memfd");
  memory.mapping = TRY(Mapping::map(memory.fd.ref(), bytes, Access::read_write));
  if (::fcntl(memory.fd.get(), F_ADD_SEALS, seals_for(writers)) != 0)
    return Error::from_errno("F_ADD_SEALS");
  return memory;
}

Result<void> check_memory(FdRef fd, std::size_t bytes, Writers writers) {
  const int have = ::fcntl(fd.get(), F_GET_SEALS);
  if (have < 0) return Error::of(EPERM, "not a sealable memory descriptor");
  const int need = seals_for(writers) & ~F_SEAL_SEAL;
  if ((have & need) != need) return Error::of(EPERM, "shared memory lacks its seals");
  struct stat st{};
  if (::fstat(fd.get(), &st) != 0) return Error::from_errno("fstat of shared memory");
  if (st.st_size < 0 || static_cast<std::size_t>(st.st_size) != bytes)
    return Error::of(EMSGSIZE, "shared memory of an unexpected size");
  return {};
}

Result<Mapping> map_foreign(FdRef fd, std::size_t bytes, Writers writers, Access access) {
  TRY(check_memory(fd, bytes, writers));
  return Mapping::map(fd, bytes, access);
}

}  // namespace cob
