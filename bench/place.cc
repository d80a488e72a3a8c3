// Places of place.h.
// The private cob has its own name and address; `cob down` ends it, and whatever is left is ended
// as our descendant. Used by the measuring command's only thread.
#include "bench/place.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace cob::bench {

namespace {

constexpr const char* private_address = "10.99.0.1";

std::vector<std::string> joined(std::vector<std::string> prefix, std::vector<std::string> argv) {
  prefix.insert(prefix.end(), std::make_move_iterator(argv.begin()),
                std::make_move_iterator(argv.end()));
  return prefix;
}

// Kernel pids and the address out of `cob status --json`, wherever in it the kernels are listed.
void read_status(const std::string& text, std::vector<pid_t>& kernels, std::string& address) {
  const auto status = nlohmann::json::parse(text, nullptr, false);
  if (!status.is_object()) return;
  if (status.contains("address") && status["address"].is_string()) {
    address = status["address"].get<std::string>();
    address = address.substr(0, address.find('/'));
  }
  if (!status.contains("kernels") || !status["kernels"].is_array()) return;
  for (const auto& kernel : status["kernels"]) {
    if (kernel.contains("pid")) kernels.push_back(kernel["pid"].get<pid_t>());
  }
}

}  // namespace

SpawnOptions Place::server(std::vector<std::string> argv) const {
  return {.argv = joined(server_prefix, std::move(argv)), .core = server_core};
}

SpawnOptions Place::client(std::vector<std::string> argv) const {
  return {.argv = joined(client_prefix, std::move(argv)), .core = client_core};
}

Place linux_place(const Options& options, int rounds) {
  Place place{.label = "linux", .server_core = options.cores[1], .client_core = options.cores[0]};
  for (int i = 0; i < std::min(rounds, 16); ++i) {
    place.addresses.push_back(fmt::format("127.0.0.{}", i + 1));
  }
  return place;
}

Outcome<PrivateCob> PrivateCob::bring_up(const Options& options, Interrupts& interrupts) {
  using Result = Outcome<PrivateCob>;
  if (access(options.cob.c_str(), X_OK) != 0) {
    return Result::failed(fmt::format("no cob command at {}; name it with --cob", options.cob));
  }
  const TemporaryDirectory scratch;
  const std::string output = scratch.path() + "/output";
  PrivateCob cob;
  cob.command_ = options.cob;
  cob.name_ = options.name.empty() ? fmt::format("bench-{}", getpid()) : options.name;
  if (options.name.empty()) {
    const auto up =
        run({.argv = {options.cob, "up", "--name", cob.name_, "--kernels", "2", "--cores",
                      fmt::format("{},{}", options.cores[0], options.cores[1]), "--ip",
                      fmt::format("{}/24", private_address)},
             .output = output},
            20, interrupts);
    if (!up) return Result::failed("cob up: " + up.why());
    if (up->status != 0) return Result::failed("cob up: " + up->output);
    cob.ours_ = true;
  }
  const auto status =
      run({.argv = {options.cob, "status", "--name", cob.name_, "--json"}, .output = output}, 10,
          interrupts);
  if (!status) return Result::failed("cob status: " + status.why());
  if (status->status != 0) return Result::failed("cob status: " + status->output);
  std::string address = private_address;
  read_status(status->output, cob.place_.kernels, address);
  cob.place_.label = "cob";
  cob.place_.client_prefix = cob.run_on(0);
  cob.place_.server_prefix = cob.run_on(1);
  cob.place_.addresses = {address};
  return cob;
}

PrivateCob::PrivateCob(PrivateCob&& other) noexcept
    : command_(std::move(other.command_)),
      name_(std::move(other.name_)),
      ours_(std::exchange(other.ours_, false)),
      place_(std::move(other.place_)) {}

PrivateCob::~PrivateCob() {
  if (!ours_) return;
  // An interrupt must not cut the taking down short: finish() does not listen for it.
  auto down = Child::spawn({.argv = {command_, "down", "--name", name_}});
  if (down) down->finish(10);
}

std::vector<std::string> PrivateCob::run_on(int kernel) const {
  return {command_, "run", "--name", name_, "-k", std::to_string(kernel), "--"};
}

}  // namespace cob::bench
