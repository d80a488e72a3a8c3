// See machine_check.h. elf(5).
#include "cli/machine_check.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/fd.h"
#include "cli/failure.h"
#include "cli/program_check.h"
#include "island/machine.h"

namespace cob::cli {
namespace {

// 0: it is no ELF file that can be read.
unsigned elf_machine_of(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  Elf64_Ehdr header{};
  if (!file.valid() || ::pread(file.get(), &header, sizeof header, 0) != sizeof header ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    return 0;
  const bool big = header.e_ident[EI_DATA] == ELFDATA2MSB;
  return big ? __builtin_bswap16(header.e_machine) : header.e_machine;
}

// "arm0 (kernel 2)"; "": none runs such programs.
std::string islands_for(ControlClient& client, unsigned machine) {
  std::string names;
  const ControlReply status = client.ask({{"do", "status"}});
  for (const auto& kernel : status.body["kernels"]) {
    const auto* architecture = island::find_architecture(kernel.value("machine", ""));
    const unsigned runs =
        architecture != nullptr ? architecture->elf_machine : elf_machine_of("/proc/self/exe");
    if (runs != machine) continue;
    names += fmt::format("{}kernel {} (island {})", names.empty() ? "" : ", ",
                         kernel["kernel"].dump(), kernel.value("island", ""));
  }
  return names;
}

[[noreturn]] void refuse(ControlClient& client, const std::string& path, unsigned machine,
                         unsigned wanted) {
  const std::string names = islands_for(client, machine);
  fail(exit_cannot_run, "{} cannot run there: it is a program for {}, not {}; {}", path,
       machine_name(machine), machine_name(wanted),
       names.empty() ? "no kernel of this cob runs such programs"
                     : fmt::format("such programs run on {}", names));
}

}  // namespace

void check_program_elsewhere(ControlClient& client, const std::string& program,
                             const std::string& architecture, const std::string& island) {
  const auto* known = island::find_architecture(architecture);
  if (known == nullptr || program.find('/') == std::string::npos) return;
  std::error_code failed;
  const std::string path = std::filesystem::canonical(program, failed).string();
  if (failed) return;
  const ControlReply status = client.ask({{"do", "status"}});
  for (const auto& share : status.body["shares"]) {
    if (!path.starts_with(share.value("path", "") + "/") || share.value("island", "") == island)
      continue;
    const unsigned machine = elf_machine_of(path);
    if (machine != 0 && machine != known->elf_machine)
      refuse(client, program, machine, known->elf_machine);
  }
}

void check_program_here(ControlClient& client, const std::string& path) {
  const unsigned machine = elf_machine_of(path), own = elf_machine_of("/proc/self/exe");
  if (machine != 0 && own != 0 && machine != own && !islands_for(client, machine).empty())
    refuse(client, path, machine, own);
  check_program(path);
}

}  // namespace cob::cli
