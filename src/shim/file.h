// Files of another island: descriptions that this program has by its kernel's calls. docs/calls.md,
// "Files". Model: a file is a description as a socket is, of Kind::file: it lives in the same slab,
// has a slot, a placeholder and references, and goes over fork, exec and SCM_RIGHTS by the same
// steps; every use is a synchronous call, the offset is its home's. Any thread.
#pragma once

#include "call/ask_as.h"
#include "shim/paths.h"
#include "shim/pieces.h"
#include "shim/socket.h"

namespace cob::shim {

// fs/status.h's Status and FilesystemStatus, fs/protocol.h's NameCall: the same bytes and numbers.
struct WireTime {
  i64 seconds;
  u32 nanoseconds, reserved;
};
struct WireStatus {
  u64 device, inode, size, blocks, special_device, attributes, attributes_mask, mount;
  u32 mask, mode, links, uid, gid, block_bytes, direct_memory_align, direct_offset_align;
  WireTime accessed, modified, changed, born;
};
static_assert(sizeof(WireStatus) == 160);
struct WireFilesystem {
  u64 type, block_bytes, fragment_bytes, blocks, blocks_free, blocks_available, files, files_free,
      id, name_bytes, flags;
};
enum class NameCall : u32 {
  status = 0,
  access,
  make_directory,
  make_node,
  unlink,
  remove_directory,
  rename,
  link,
  symlink,
  read_link,
  change_mode,
  change_owner,
  set_times,
  truncate,
  filesystem,
  get_attribute,
  set_attribute,
  list_attributes,
  remove_attribute,
  name
};

// ---- names (ask.cc)

struct Ask {
  NameCall call = NameCall::status;
  u32 flags = 0, mode = 0, uid = ~0U, gid = ~0U;
  u64 number = 0;
  const void* value = nullptr;
  u32 value_bytes = 0;
  Target* second = nullptr;
  const char* second_text = nullptr;  // an attribute's name, in the second path's place
  void* told = nullptr;               // what comes back goes here
  u32 told_room = 0;
};
// Bytes told, or -errno. Follows ways out of the share: afterwards a target may be the host's
// (result -EXDEV).
long ask(Target& target, const Ask& asked);
// A number, or -errno; -EXDEV with the target the host's: go on there.
int open_target(Target& target, int flags, mode_t mode);
u32 current_umask();
// call/ask_as.h, of the calling thread.
void ask_as(const call::AskAs* whom);
const WireStatus& opened_status();
void note_umask(u32 mask);

// ---- descriptions (file.cc)

// The answer of a call on the file, 0 or more, or -errno. Inside a critical section.
Reply file_call(const Socket* file, Call& c);
bool is_path(int number);  // opened with O_PATH: good for its place alone
// O_APPEND and O_NONBLOCK are in force as its home has them, also where others share the file.
int status_flags_of(int number, const Socket* file);
// Copies `bytes` out of the chunks a reply names, and gives those back. False: no such chunks.
bool take_loan(Arena* arena, const Reply& reply, u32 bytes, Pieces* into);
void give_back_chunk(Arena* arena, u64 chunk);
// The shim's notes about a file, kept with it for who adopts it.
void remember_file(Socket* file);
void recall_file(Socket* file);

// A file held over a call: the description at a number. Inside a critical section.
class HeldFile {
 public:
  explicit HeldFile(int number) : object_(hold(number)) {
    if (object_ != nullptr && object_->kind == Kind::file) settle(get());
  }
  ~HeldFile() {
    if (object_ != nullptr) drop(object_);
  }
  HeldFile(const HeldFile&) = delete;
  HeldFile& operator=(const HeldFile&) = delete;
  Socket* get() const { return reinterpret_cast<Socket*>(object_); }
  bool is_file() const { return object_ != nullptr && object_->kind == Kind::file; }

 private:
  const Critical critical_;
  const Passage passage_;
  Object* object_;
};

ssize_t file_read(int number, const iovec* parts, size_t count, off_t offset);  // -1: at the offset
ssize_t file_write(int number, const iovec* parts, size_t count, off_t offset);  // libc's results
off_t file_seek(int number, off_t offset, int whence);
int file_control(int number, u32 control, u64 first, u64 second, u16 flags = 0);
int file_fcntl(int number, int command, long value);
ssize_t file_entries(int number, void* data, size_t room);  // as getdents64 lays them
int file_stat(int number, struct stat* status);
ssize_t copy_file(int out, off_t* out_offset, int in, off_t* in_offset, size_t bytes);

void fill_stat(const WireStatus& from, struct stat* to);

}  // namespace cob::shim
