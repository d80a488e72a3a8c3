// Whether an image about to be executed can be attached. execve(2), elf(5), ld.so(8),
// capabilities(7). Model: LD_PRELOAD works where the image (or its interpreter, for a script) is a
// dynamically linked ELF file of our word size that the kernel does not start in secure-execution
// mode. Any thread; async-signal-safe.
#include <elf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "shim/lock.h"
#include "shim/process.h"
#include "shim/raw.h"

namespace cob::shim {

namespace {

enum class Image { attachable, statically_linked, secure, foreign, unreadable };

int open_image(int directory, const char* path, int flags) {
  if (path[0] == 0) {  // fexecve, execveat with AT_EMPTY_PATH
    char link[32] = "/proc/self/fd/";
    char digits[12];
    int n = 0;
    size_t at = strlen(link);
    for (int rest = directory; n == 0 || rest > 0; rest /= 10)
      digits[n++] = static_cast<char>('0' + rest % 10);
    while (n > 0) link[at++] = digits[--n];
    link[at] = 0;
    return static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at(link), flags | O_CLOEXEC));
  }
  return static_cast<int>(raw::call(SYS_openat, directory, raw::at(path), flags | O_CLOEXEC));
}

Image examine_elf(int fd, const Elf64_Ehdr& header) {
  constexpr unsigned char word = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
  if (header.e_ident[EI_CLASS] != word) return Image::foreign;
  for (u32 i = 0; i < header.e_phnum && i < 64; ++i) {
    Elf64_Phdr program;
    const auto offset = static_cast<off_t>(header.e_phoff + i * sizeof program);
    if (raw::pread(fd, &program, sizeof program, offset) != sizeof program)
      return Image::unreadable;
    if (program.p_type == PT_INTERP) return Image::attachable;
  }
  return Image::statically_linked;
}

bool is_secure(int fd) {
  struct stat status{};
  if (raw::call(SYS_fstat, fd, raw::at(&status)) != 0) return false;
  const bool other_user = (status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid();
  const bool other_group =
      (status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && status.st_gid != getegid();
  const long capabilities = raw::call(SYS_fgetxattr, fd, raw::at("security.capability"), 0, 0);
  return other_user || other_group || (capabilities > 0 && geteuid() != 0);
}

// A set-user-ID program is often executable and no more.
Image examine_unreadable(int directory, const char* path) {
  const int fd = open_image(directory, path, O_PATH);
  if (fd < 0) return Image::unreadable;
  const bool secure = is_secure(fd);
  raw::close(fd);
  return secure ? Image::secure : Image::unreadable;
}

Image examine(int directory, const char* path, int depth) {
  const int fd = open_image(directory, path, O_RDONLY);
  if (fd < 0) return examine_unreadable(directory, path);
  union {
    Elf64_Ehdr header;
    char text[256];
  } start{};
  const long bytes = raw::read(fd, start.text, sizeof start.text - 1);
  Image result = Image::unreadable;
  if (bytes >= static_cast<long>(sizeof start.header) && memcmp(start.text, ELFMAG, SELFMAG) == 0) {
    result = is_secure(fd) ? Image::secure : examine_elf(fd, start.header);
  }
  raw::close(fd);
  if (bytes > 2 && start.text[0] == '#' && start.text[1] == '!' && depth < 4) {
    start.text[bytes] = 0;
    char* interpreter = start.text + 2;
    interpreter += strspn(interpreter, " \t");
    interpreter[strcspn(interpreter, " \t\n")] = 0;
    return examine(AT_FDCWD, interpreter, depth + 1);
  }
  return result;
}

// Where execvp would find `file`; false when nowhere.
bool find_in_path(const char* file, char (&found)[PATH_MAX]) {
  if (strlen(file) >= PATH_MAX) return false;
  if (strchr(file, '/') != nullptr) {
    strcpy(found, file);
    return true;
  }
  const char* path = getenv("PATH");
  if (path == nullptr) path = "/bin:/usr/bin";
  while (true) {
    const size_t length = strcspn(path, ":");
    if (length + strlen(file) + 2 < PATH_MAX) {
      memcpy(found, path, length);
      found[length] = 0;
      if (length > 0) strcat(found, "/");
      strcat(found, file);
      if (raw::call(SYS_faccessat, AT_FDCWD, raw::at(found), X_OK) == 0) return true;
    }
    if (path[length] == 0) return false;
    path += length + 1;
  }
}

const char* reason(Image image) {
  switch (image) {
    case Image::statically_linked:
      return " is statically linked";
    case Image::secure:
      return " runs with other rights than its caller (set-user-ID or capabilities)";
    case Image::foreign:
      return " is of another word size";
    default:
      return nullptr;
  }
}

}  // namespace

Verdict::Verdict(int directory, const char* file, bool search) : file_(file) {
  if (search) {
    if (!find_in_path(file, found_)) return;
    file_ = found_;
  }
  why_ = reason(examine(directory, file_, 0));
}

void Verdict::warn() const {
  static bool warned;
  if (load(warned)) return;
  store(warned, true);
  constexpr char tail[] =
      ": of the cob's sockets it is given connections alone, what else it inherits is closed\n";
  const iovec parts[] = {{const_cast<char*>("cob: "), 5},
                         {const_cast<char*>(file_), strlen(file_)},
                         {const_cast<char*>(why_), strlen(why_)},
                         {const_cast<char*>(tail), sizeof tail - 1}};
  raw::call(SYS_writev, STDERR_FILENO, raw::at(parts), 4);
}

}  // namespace cob::shim
