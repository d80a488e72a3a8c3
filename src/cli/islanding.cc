// The supervisor's islands and shares: what each kernel is told of them, and what `status` shows.
// docs/islands.md. Model: fixed when the cob comes up; the sockets between islands and the shares'
// directories stay open here, for kernels to come. The supervisor's thread.
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "cli/supervisor.h"
#include "message/socket/stream_socket.h"

namespace cob::cli {
namespace {

i64 number_of(const nlohmann::json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && found->is_number_integer() ? found->get<i64>() : -1;
}

struct Listening {
  Fd socket;
  u16 port = 0;
};

Result<Listening> listen_on_loopback() {
  const auto any_port = TRY(message::SocketAddress::ip("127.0.0.1:0"));
  Listening listening{.socket = TRY(message::listen_socket(any_port))};
  const auto address = TRY(message::address_of(listening.socket.ref()));
  sockaddr_in bound{};
  std::memcpy(&bound, &address.storage, sizeof bound);
  listening.port = ntohs(bound.sin_port);
  return listening;
}

}  // namespace

Result<void> Supervisor::prepare_islands(message::Config& config) {
  config.link = options_.link;
  std::size_t kernel = 0;
  for (std::size_t island = 0; island < options_.islands.size(); ++island) {
    for (std::size_t i = 0; i < options_.islands[island].cores.size(); ++i)
      config.island[kernel++] = static_cast<u8>(island);
  }
  // Each of those that are added has a kernel.
  for (u16 i = 0; i < options_.room; ++i)
    config.island[kernel + i] = static_cast<u8>(message::added_island | i);
  link_listeners_.resize(kernel);
  if (options_.link == message::IslandLink::socket || options_.room != 0) {
    if (::getrandom(config.link_key.data(), config.link_key.size(), 0) !=
        static_cast<ssize_t>(config.link_key.size()))
      return Error::from_errno("getrandom");
  }
  if (options_.link == message::IslandLink::socket) {
    for (std::size_t k = 0; k < kernel; ++k) {
      if (config.island[k] == 0) continue;  // nobody calls the first island's: they call
      Listening listening = TRY(listen_on_loopback());
      link_listeners_[k] = std::move(listening.socket);
      config.link_port[k] = listening.port;
    }
  }
  for (const SharePlan& share : options_.shares) {
    Fd root(::open(share.path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root.valid()) {
      const Error error = Error::from_errno("open a share");
      problem_ = fmt::format("--share {}: {}", share.path, std::strerror(error.code));
      return error;
    }
    share_roots_.push_back(std::move(root));
  }
  config.shares = static_cast<u8>(share_roots_.size());
  return {};
}

std::vector<int> Supervisor::all_cores() const {
  std::vector<int> cores;
  for (const IslandPlan& island : options_.islands)
    cores.insert(cores.end(), island.cores.begin(), island.cores.end());
  return cores;
}

std::vector<ShareGrant> Supervisor::shares_for(u16 island) const {
  std::vector<ShareGrant> grants;
  for (std::size_t i = 0; i < share_roots_.size(); ++i) {
    const SharePlan& share = options_.shares[i];
    const message::ShareNotice notice{.kind = std::to_underlying(message::ControlKind::share),
                                      .number = static_cast<u16>(i),
                                      .island = share.island,
                                      .read_only = share.read_only ? u16{1} : u16{0},
                                      .path_bytes = static_cast<u16>(share.path.size())};
    const auto head = std::as_bytes(std::span(&notice, 1));
    const auto path = std::as_bytes(std::span(share.path));
    ShareGrant grant{.bytes = {head.begin(), head.end()}, .root = {}};
    grant.bytes.insert(grant.bytes.end(), path.begin(), path.end());
    if (share.island == island) grant.root = share_roots_[i].ref();
    grants.push_back(std::move(grant));
  }
  return grants;
}

void Supervisor::describe_islands(nlohmann::json& all) const {
  nlohmann::json islands = nlohmann::json::array();
  for (const IslandPlan& island : options_.islands)
    islands.push_back({{"island", island.name}, {"kernels", nlohmann::json::array()}});
  for (const KernelSlot& kernel : kernels_)
    if (!kernel.elsewhere()) islands[kernel.island()]["kernels"].push_back(kernel.id());
  for (const auto& [kernel, name] : name_of_added_)
    islands.push_back({{"island", name}, {"kernels", nlohmann::json::array({kernel})}});
  all["room"] = options_.room;
  if (options_.islands.size() > 1)
    all["link"] = options_.link == message::IslandLink::socket ? "socket" : "window";
  all["islands"] = std::move(islands);
  all["shares"] = nlohmann::json::array();
  for (std::size_t i = 0; i < options_.shares.size(); ++i) {
    const SharePlan& share = options_.shares[i];
    all["shares"].push_back({{"number", i},
                             {"path", share.path},
                             {"read_only", share.read_only},
                             {"island", options_.islands[share.island].name}});
  }
}

std::string Supervisor::island_names() const {
  std::string names;
  for (const IslandPlan& island : options_.islands)
    names += (names.empty() ? "" : ", ") + island.name;
  for (const auto& [kernel, name] : name_of_added_) names += ", " + name;
  return names;
}

int Supervisor::find_island(std::string_view name) const {
  const auto found = std::ranges::find(options_.islands, name, &IslandPlan::name);
  if (found != options_.islands.end()) return static_cast<int>(found - options_.islands.begin());
  for (const auto& [kernel, added] : name_of_added_)
    if (added == name) return kernels_[kernel].island();
  return -1;
}

std::string Supervisor::island_of(const KernelSlot& kernel) const {
  if (kernel.elsewhere()) {
    const auto found = name_of_added_.find(kernel.id());
    return found == name_of_added_.end() ? "" : found->second;
  }
  return options_.islands[kernel.island()].name;
}

// Its own kernel's, if it is a program of the cob; a shell outside is on the first.
int Supervisor::callers_island(const nlohmann::json& request, std::string& problem) const {
  if (const auto name = request.find("from"); name != request.end() && name->is_string()) {
    const int island = find_island(name->get<std::string>());
    if (island < 0)
      problem = fmt::format("there is no island '{}'; '{}' has {}", name->get<std::string>(),
                            options_.name, island_names());
    return island;
  }
  const i64 caller = number_of(request, "caller");
  const bool known = caller >= 0 && caller < static_cast<i64>(kernels_.size());
  return known ? kernels_[static_cast<std::size_t>(caller)].island() : 0;
}

const KernelSlot* Supervisor::giver_on(const nlohmann::json& request, int island) {
  const i64 caller = number_of(request, "caller");
  if (caller >= 0 && caller < static_cast<i64>(kernels_.size())) {
    const KernelSlot& own = kernels_[static_cast<std::size_t>(caller)];
    if (own.island() == island && own.running()) return &own;
  }
  return least_used(island);
}

}  // namespace cob::cli
