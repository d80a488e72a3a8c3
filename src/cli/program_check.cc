#include "cli/program_check.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/fd.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr int max_interpreters = 5;  // as Linux's own limit of nested #! lines

#if defined(__x86_64__)
constexpr Elf64_Half own_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half own_machine = EM_AARCH64;
#elif defined(__riscv)
constexpr Elf64_Half own_machine = EM_RISCV;
#elif defined(__s390x__)
constexpr Elf64_Half own_machine = EM_S390;
#endif

[[noreturn]] void refuse(const std::string& path, std::string_view why) {
  fail(exit_cannot_run, "{} cannot run on cob: {}", path, why);
}

bool read_at(const Fd& file, void* into, std::size_t bytes, u_int64_t offset) {
  return ::pread(file.get(), into, bytes, static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(bytes);
}

// ---- secure execution (AT_SECURE): ld.so then ignores LD_PRELOAD
// ---------------------------------------------------------

void check_secure(const std::string& path, const Fd& file) {
  struct stat status{};
  struct statvfs mount{};
  if (::fstat(file.get(), &status) != 0) return;
  const bool ignored = (::fstatvfs(file.get(), &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0) ||
                       ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  if (ignored) return;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != ::getuid()) {
    refuse(path, "it is setuid, and the dynamic linker does not load libcob.so into such programs");
  }
  if ((status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
      status.st_gid != ::getgid()) {
    refuse(path, "it is setgid, and the dynamic linker does not load libcob.so into such programs");
  }
  if (::getuid() != 0 && ::fgetxattr(file.get(), "security.capability", nullptr, 0) > 0) {
    refuse(path,
           "it has file capabilities (see: getcap), and the dynamic linker does not load libcob.so "
           "into such programs");
  }
}

// ---- ELF
// -----------------------------------------------------------------------------------------------------------------

bool has_go_note(const Fd& file, const Elf64_Phdr& segment) {
  std::array<char, 1'024> notes{};
  const std::size_t bytes = std::min<std::size_t>(notes.size(), segment.p_filesz);
  if (!read_at(file, notes.data(), bytes, segment.p_offset)) return false;
  for (std::size_t at = 0; at + sizeof(Elf64_Nhdr) + 4 <= bytes;) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data() + at, sizeof(note));
    if (note.n_namesz == 4 && std::memcmp(notes.data() + at + sizeof(note), "Go\0", 4) == 0)
      return true;
    at += sizeof(note) + ((u_int64_t{note.n_namesz} + 3) & ~u_int64_t{3}) +
          ((u_int64_t{note.n_descsz} + 3) & ~u_int64_t{3});
  }
  return false;
}

void check_elf(const std::string& path, const Fd& file) {
  Elf64_Ehdr header{};
  if (!read_at(file, &header, EI_NIDENT + 4, 0)) refuse(path, "its ELF header is cut short");
  const bool same_order = header.e_ident[EI_DATA] ==
                          (std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || !same_order || header.e_machine != own_machine) {
    refuse(path, fmt::format("it is a program for {}, and this cob runs {} programs",
                             same_order ? machine_name(header.e_machine)
                                        : "a machine of the other byte order",
                             machine_name(own_machine)));
  }
  if (!read_at(file, &header, sizeof(header), 0) || header.e_phentsize != sizeof(Elf64_Phdr) ||
      header.e_phnum > 512) {
    refuse(path, "its ELF header is damaged");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
    refuse(path, "it is an ELF file, but no program");
  std::optional<std::string> linker;
  bool go = false;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!read_at(file, &segment, sizeof(segment), header.e_phoff + i * sizeof(segment)))
      refuse(path, "its ELF header is damaged");
    if (segment.p_type == PT_NOTE) go = go || has_go_note(file, segment);
    if (segment.p_type != PT_INTERP) continue;
    std::array<char, 256> name{};
    read_at(file, name.data(), std::min<std::size_t>(name.size() - 1, segment.p_filesz),
            segment.p_offset);
    linker = name.data();
  }
  if (go) {
    refuse(path,
           "it is a Go program: those make system calls without the C library, so libcob.so cannot "
           "see them. It would silently "
           "run on plain Linux; start it without cob");
  }
  if (!linker) {
    refuse(path,
           "it is statically linked, so libcob.so cannot be loaded into it. Install or build a "
           "dynamically linked version, or "
           "start it without cob");
  }
  if (linker->find("/ld-musl") != std::string::npos) {
    refuse(path, "it is linked with the C library musl, and libcob.so is built for glibc");
  }
}

// ---- scripts
// ---------------------------------------------------------------------------------------------------------------

std::optional<std::string> interpreter_of(std::string_view head) {
  if (!head.starts_with("#!")) return std::nullopt;
  head.remove_prefix(2);
  head = head.substr(0, head.find('\n'));
  auto word = [&head] {
    const std::size_t begin = std::min(head.find_first_not_of(" \t"), head.size());
    const std::size_t end = std::min(head.find_first_of(" \t", begin), head.size());
    const std::string text(head.substr(begin, end - begin));
    head.remove_prefix(end);
    return text;
  };
  std::string interpreter = word();
  // `env NAME` and `env -S NAME`: NAME is what matters. env itself is an ordinary dynamic program.
  if (interpreter.ends_with("/env")) {
    std::string name = word();
    while (name.starts_with('-') || name.find('=') != std::string::npos) name = word();
    if (!name.empty()) return find_program(name);
  }
  return interpreter;
}

}  // namespace

std::string machine_name(unsigned machine) {
  switch (machine) {
    case EM_386:
      return "32-bit x86";
    case EM_X86_64:
      return "x86-64";
    case EM_ARM:
      return "32-bit ARM";
    case EM_AARCH64:
      return "aarch64";
    case EM_RISCV:
      return "RISC-V";
    case EM_S390:
      return "s390x";
    case EM_PPC64:
      return "POWER";
    default:
      return fmt::format("ELF machine {}", machine);
  }
}

std::string find_program(const std::string& name) {
  auto executable = [](const std::string& path, int& problem) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) {
      if (errno != ENOENT && errno != ENOTDIR) problem = errno;
      return false;
    }
    if (!S_ISREG(status.st_mode)) {
      problem = S_ISDIR(status.st_mode) ? EISDIR : EACCES;
      return false;
    }
    if (::access(path.c_str(), X_OK) != 0) problem = errno;
    return ::access(path.c_str(), X_OK) == 0;
  };
  int problem = 0;
  if (name.find('/') != std::string::npos) {
    if (executable(name, problem)) return name;
    if (problem == 0) fail(exit_not_found, "{}: no such program", name);
    fail(exit_cannot_run, "{}: {}", name, std::strerror(problem));
  }
  const char* variable = std::getenv("PATH");
  std::string_view path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
  while (!name.empty()) {
    const std::size_t colon = path.find(':');
    const std::string_view directory = path.substr(0, colon);
    const std::string candidate = fmt::format("{}/{}", directory.empty() ? "." : directory, name);
    int here = 0;
    if (executable(candidate, here)) return candidate;
    if (here == EACCES) problem = here;
    if (colon == std::string_view::npos) break;
    path.remove_prefix(colon + 1);
  }
  if (problem != 0) fail(exit_cannot_run, "{}: {}", name, std::strerror(problem));
  fail(exit_not_found, "{}: no such program in PATH", name);
}

void check_program(const std::string& path) {
  std::string current = path;
  for (int depth = 0; depth <= max_interpreters; ++depth) {
    Fd file(::open(current.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid() && errno == EACCES)
      return;  // executable but unreadable: the kernel will tell, if anything is wrong
    if (!file.valid() && (errno == EMFILE || errno == ENFILE))
      fail(exit_state, "cannot open {}: {}", current, std::strerror(errno));
    if (!file.valid() && depth == 0) fail(exit_cannot_run, "{}: {}", path, std::strerror(errno));
    if (!file.valid())
      fail(exit_cannot_run, "{}: its interpreter {}: {}", path, current, std::strerror(errno));
    std::array<char, 512> head{};
    const ssize_t got = ::pread(file.get(), head.data(), head.size(), 0);
    const std::string_view text(head.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    if (text.starts_with(ELFMAG)) {
      check_secure(current, file);
      return check_elf(current, file);
    }
    const auto interpreter = interpreter_of(text);
    current = interpreter.value_or("/bin/sh");  // execvp runs a file without #! by the shell
    if (current.empty()) fail(exit_cannot_run, "{}: its #! line names no interpreter", path);
  }
  fail(exit_cannot_run, "{}: too many interpreters of interpreters", path);
}

}  // namespace cob::cli
