// See boot.h.
#include "island/agent/boot.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/log.h"

namespace cob::island {
namespace {

constexpr int port_attempts = 500, port_pause_us = 10'000;

Result<void> mount_one(const char* type, const char* where, unsigned long flags, const char* data) {
  ::mkdir(where, 0755);
  if (::mount(type, where, type, flags, data) != 0 && errno != EBUSY)
    return Error::from_errno(where);
  return {};
}

bool set_address(int socket, const char* interface, const char* address, const char* mask) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  sockaddr_in in{};
  in.sin_family = AF_INET;
  ::inet_pton(AF_INET, address, &in.sin_addr);
  std::memcpy(&request.ifr_addr, &in, sizeof in);
  if (::ioctl(socket, SIOCSIFADDR, &request) != 0) return false;
  ::inet_pton(AF_INET, mask, &in.sin_addr);
  std::memcpy(&request.ifr_netmask, &in, sizeof in);
  if (::ioctl(socket, SIOCSIFNETMASK, &request) != 0) return false;
  if (::ioctl(socket, SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return ::ioctl(socket, SIOCSIFFLAGS, &request) == 0;
}

// "" while there is none.
std::string find_port() {
  constexpr char ports[] = "/sys/class/virtio-ports";
  DIR* directory = ::opendir(ports);
  if (directory == nullptr) return "";
  std::string found;
  while (const dirent* entry = ::readdir(directory)) {
    std::ifstream file(std::string(ports) + "/" + entry->d_name + "/name");
    std::string name;
    if (std::getline(file, name) && name == "cob") found = std::string("/dev/") + entry->d_name;
  }
  ::closedir(directory);
  return found;
}

}  // namespace

Result<void> mount_file_systems() {
  TRY(mount_one("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""));
  TRY(mount_one("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""));
  TRY(mount_one("devtmpfs", "/dev", MS_NOSUID, "mode=0755"));
  TRY(mount_one("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"));
  TRY(mount_one("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"));
  TRY(mount_one("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"));
  (void)!::symlink("/proc/self/fd", "/dev/fd");
  (void)!::symlink("/proc/self/fd/0", "/dev/stdin");
  (void)!::symlink("/proc/self/fd/1", "/dev/stdout");
  (void)!::symlink("/proc/self/fd/2", "/dev/stderr");
  return {};
}

void load_modules() {
  std::ifstream list("/usr/lib/cob/modules");
  std::vector<std::string> left;
  for (std::string path; std::getline(list, path);) left.push_back(path);
  // One that lacks another's symbols (ENOENT) is tried again behind it.
  for (std::size_t before = left.size() + 1; !left.empty() && left.size() < before;) {
    before = left.size();
    std::erase_if(left, [](const std::string& path) {
      const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      return !file.valid() || ::syscall(SYS_finit_module, file.get(), "", 0) == 0 ||
             errno != ENOENT;
    });
  }
  for (const std::string& path : left) COB_LOG(warn, "module {} lacks others", path);
}

Result<void> set_up_network() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Error::from_errno("socket");
  if (!set_address(socket.get(), "lo", "127.0.0.1", "255.0.0.0")) return Error::from_errno("lo");
  if (!set_address(socket.get(), "eth0", "10.0.2.15", "255.255.255.0"))
    return Error::from_errno("eth0");
  return {};
}

Result<Fd> open_port() {
  for (int attempt = 0; attempt < port_attempts; ++attempt) {
    if (const std::string path = find_port(); !path.empty()) {
      Fd port(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
      if (port.valid()) return port;
      if (errno != ENOENT && errno != ENXIO) return Error::from_errno("the port to the cob");
    }
    ::usleep(port_pause_us);
  }
  return Error::of(ENODEV, "there is no port to the cob");
}

}  // namespace cob::island
