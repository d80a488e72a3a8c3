// Parsing and checking islands and shares. See island_plan.h.
#include "cli/island_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "cli/arguments.h"
#include "cli/failure.h"
#include "message/control.h"

namespace cob::cli {
namespace {

struct Asked {
  std::string_view text;  // as typed
  IslandPlan plan;
  std::size_t kernels = 0;
};

Asked parse_island(std::string_view text) {
  const std::size_t first = text.find(':');
  if (first == std::string_view::npos) {
    fail(exit_usage,
         "--island {}: how many kernels? An island is NAME:KERNELS[:CORES] (examples: a:1   "
         "b:2:2,3)",
         text);
  }
  const std::size_t second = text.find(':', first + 1);
  const std::string_view count = text.substr(
      first + 1, second == std::string_view::npos ? std::string_view::npos : second - first - 1);
  Asked asked{.text = text, .plan = {checked_island(text.substr(0, first)), {}}};
  const char* end = count.end();
  const auto [parsed, error] = std::from_chars(count.begin(), end, asked.kernels);
  if (count.empty() || error != std::errc() || parsed != end || asked.kernels > max_kernels) {
    fail(exit_usage, "--island {}: '{}' is not a number of kernels, 1 to {}", text, count,
         max_kernels);
  }
  if (asked.kernels == 0) fail(exit_usage, "--island {}: an island needs a kernel", text);
  if (second == std::string_view::npos) return asked;
  const std::string option = fmt::format("--island {}: cores", text);
  std::vector<int>& cores = asked.plan.cores;
  cores = parse_cores(text.substr(second + 1), option);
  check_usable(cores);
  if (cores.size() < asked.kernels) {
    fail(exit_usage,
         "--island {}: {} kernels need {} cores, one each, and {} named; to let kernels share a "
         "core name it twice",
         text, asked.kernels, asked.kernels,
         cores.size() == 1 ? "1 is" : fmt::format("{} are", cores.size()));
  }
  cores.resize(asked.kernels);
  return asked;
}

void give_cores(std::vector<Asked>& islands) {
  std::vector<int> left = usable_cores();
  for (const Asked& island : islands)
    for (const int core : island.plan.cores) std::erase(left, core);
  for (Asked& island : islands) {
    if (!island.plan.cores.empty()) continue;
    if (left.size() < island.kernels) {
      fail(exit_usage,
           "--island {}: {} kernel{} of one core each, and {} left of cores {}. To let kernels "
           "share a core, name it (--island {}:{}:0)",
           island.text, island.kernels, island.kernels == 1 ? "" : "s",
           left.size() == 1 ? "1 is" : fmt::format("{} are", left.size()),
           format_cores(usable_cores()), island.plan.name, island.kernels);
    }
    const auto end = left.begin() + static_cast<std::ptrdiff_t>(island.kernels);
    island.plan.cores.assign(left.begin(), end);
    left.erase(left.begin(), end);
  }
}

std::string names_of(const std::vector<IslandPlan>& islands) {
  std::string names;
  for (const IslandPlan& island : islands) names += (names.empty() ? "" : ", ") + island.name;
  return names;
}

bool is_within(const std::string& inner, const std::string& outer) {
  return inner == outer || outer == "/" || inner.starts_with(outer + "/");
}

SharePlan parse_share(std::string_view text, const std::vector<IslandPlan>& islands) {
  SharePlan share;
  std::string_view directory = text;
  const std::size_t at = text.rfind('@');
  if (at != std::string_view::npos && text.find('/', at) == std::string_view::npos) {
    const std::string_view name = text.substr(at + 1);
    const auto found = std::ranges::find(islands, name, &IslandPlan::name);
    if (found == islands.end()) {
      fail(exit_usage, "--share {}: there is no island '{}'; there {} {}", text, name,
           islands.size() == 1 ? "is" : "are", names_of(islands));
    }
    share.island = static_cast<u16>(found - islands.begin());
    directory = text.substr(0, at);
  }
  if (directory.ends_with(":ro")) {
    share.read_only = true;
    directory.remove_suffix(3);
  }
  if (directory.empty()) fail(exit_usage, "--share {}: which directory?", text);
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  if (error) fail(exit_usage, "--share {}: {}: {}", text, directory, error.message());
  if (!std::filesystem::is_directory(path, error))
    fail(exit_usage, "--share {}: {} is not a directory", text, directory);
  share.path = path.string();
  if (share.path.size() > message::most_path_bytes) {
    fail(exit_usage, "--share {}: the path is longer than {} bytes", text,
         message::most_path_bytes);
  }
  return share;
}

}  // namespace

std::vector<IslandPlan> plan_islands(const std::vector<std::string>& islands, int kernels,
                                     std::string_view cores) {
  if (islands.empty()) return {{default_island, plan_cores(kernels, cores)}};
  if (kernels > 0)
    fail(exit_usage, "--kernels beside --island: say it there (--island {}:{})", "a", kernels);
  if (!cores.empty())
    fail(exit_usage, "--cores beside --island: say them there (--island a:1:{})", cores);
  std::vector<Asked> asked;
  std::size_t total = 0;
  for (const std::string& text : islands) {
    Asked island = parse_island(text);
    for (const Asked& other : asked) {
      if (other.plan.name == island.plan.name)
        fail(exit_usage, "--island {}: there is an island '{}' already", text, island.plan.name);
    }
    total += island.kernels;
    asked.push_back(std::move(island));
  }
  if (total > max_kernels) {
    fail(exit_usage, "the islands have {} kernels together, and a cob at most {}", total,
         max_kernels);
  }
  give_cores(asked);
  std::vector<IslandPlan> plans;
  plans.reserve(asked.size());
  for (Asked& island : asked) plans.push_back(std::move(island.plan));
  return plans;
}

std::vector<SharePlan> plan_shares(const std::vector<std::string>& shares,
                                   const std::vector<IslandPlan>& islands) {
  if (shares.size() > message::most_shares)
    fail(exit_usage, "{} shares, and a cob has at most {}", shares.size(), message::most_shares);
  std::vector<SharePlan> plans;
  for (const std::string& text : shares) {
    SharePlan share = parse_share(text, islands);
    for (const SharePlan& other : plans) {
      if (is_within(share.path, other.path) || is_within(other.path, share.path)) {
        fail(exit_usage, "--share {}: {} and the share {} lie within each other", text, share.path,
             other.path);
      }
    }
    plans.push_back(std::move(share));
  }
  return plans;
}

}  // namespace cob::cli
