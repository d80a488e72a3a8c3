// Places of place.h.
// The private cob has its own name and address; `cob down` ends it, and whatever is left is ended
// as our descendant. Used by the measuring command's only thread.
#include "bench/place.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
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
  return {.argv = joined(server_prefix, std::move(argv)),
          .core = server_core,
          .network = server_network != nullptr ? server_network : network};
}

SpawnOptions Place::client(std::vector<std::string> argv) const {
  return {.argv = joined(client_prefix, std::move(argv)), .core = client_core, .network = network};
}

Place linux_place(const Options& options, int rounds) {
  Place place{.label = "linux", .server_core = options.cores[1], .client_core = options.cores[0]};
  for (int i = 0; i < std::min(rounds, 16); ++i) {
    place.addresses.push_back(fmt::format("127.0.0.{}", i + 1));
  }
  return place;
}

std::string helper_program(const Options& options, const std::string& name) {
  const std::filesystem::path beside = std::filesystem::path(options.cob).parent_path();
  const char* libexec = std::getenv("COB_LIBEXEC");
  for (const std::filesystem::path& folder :
       {std::filesystem::path(libexec != nullptr ? libexec : "."), beside,
        beside / "../libexec/cob"}) {
    const std::string path = folder / name;
    if (access(path.c_str(), X_OK) == 0) return std::filesystem::absolute(path);
  }
  return "";
}

Outcome<PrivateCob> PrivateCob::bring_up(const Options& options, Interrupts& interrupts) {
  if (options.name.empty()) {
    return bring_up(options,
                    {.name = fmt::format("bench-{}", getpid()),
                     .cores = options.cores,
                     .address = private_address},
                    interrupts);
  }
  PrivateCob cob;
  cob.command_ = options.cob;
  cob.name_ = options.name;
  const std::string wrong = cob.look(interrupts);
  return wrong.empty() ? Outcome<PrivateCob>(std::move(cob)) : Outcome<PrivateCob>::failed(wrong);
}

Outcome<PrivateCob> PrivateCob::bring_up(const Options& options, const Plan& plan,
                                         Interrupts& interrupts) {
  using Result = Outcome<PrivateCob>;
  if (access(options.cob.c_str(), X_OK) != 0) {
    return Result::failed(fmt::format("no cob command at {}; name it with --cob", options.cob));
  }
  const TemporaryDirectory scratch;
  PrivateCob cob;
  cob.command_ = options.cob;
  cob.name_ = plan.name;
  cob.network_ = plan.network;
  std::vector<std::string> words{options.cob, "up",   "--name",
                                 plan.name,   "--ip", plan.address + "/24"};
  words.insert(words.end(), plan.words.begin(), plan.words.end());
  if (!plan.cores.empty()) {
    words.insert(words.end(), {"--kernels", std::to_string(plan.cores.size()), "--cores",
                               fmt::format("{}", fmt::join(plan.cores, ","))});
  }
  if (!plan.uplink.empty()) {
    words.emplace_back("--uplink");
    words.push_back(plan.uplink);
  }
  const auto up =
      run({.argv = std::move(words), .output = scratch.path() + "/output", .network = plan.network},
          20, interrupts);
  if (!up) return Result::failed("cob up: " + up.why());
  if (up->status != 0) return Result::failed("cob up: " + up->output);
  cob.ours_ = true;
  const std::string wrong = cob.look(interrupts);
  return wrong.empty() ? Result(std::move(cob)) : Result::failed(wrong);
}

// Fills in the place. "" or why not.
std::string PrivateCob::look(Interrupts& interrupts) {
  const TemporaryDirectory scratch;
  const auto status = run({.argv = {command_, "status", "--name", name_, "--json"},
                           .output = scratch.path() + "/output",
                           .network = network_},
                          10, interrupts);
  if (!status) return "cob status: " + status.why();
  if (status->status != 0) return "cob status: " + status->output;
  std::string address = private_address;
  read_status(status->output, place_.kernels, address);
  place_.label = "cob";
  place_.client_prefix = run_on(0);
  place_.server_prefix = run_on(1);
  place_.addresses = {address};
  place_.network = network_;
  return "";
}

PrivateCob::PrivateCob(PrivateCob&& other) noexcept
    : command_(std::move(other.command_)),
      name_(std::move(other.name_)),
      ours_(std::exchange(other.ours_, false)),
      network_(other.network_),
      place_(std::move(other.place_)) {}

PrivateCob::~PrivateCob() {
  if (!ours_) return;
  // An interrupt must not cut the taking down short: finish() does not listen for it.
  auto down = Child::spawn({.argv = {command_, "down", "--name", name_}, .network = network_});
  if (down) down->finish(10);
}

std::vector<std::string> PrivateCob::run_on(int kernel) const {
  return {command_, "run", "--name", name_, "-k", std::to_string(kernel), "--"};
}

Outcome<CabledCobs> CabledCobs::bring_up(const Options& options, Interrupts& interrupts) {
  using Result = Outcome<CabledCobs>;
  const TemporaryDirectory scratch;
  const std::string output = scratch.path() + "/output";
  const std::string name = fmt::format("bench-{}", getpid());
  auto client = PrivateCob::bring_up(
      options, {.name = name + "-client", .cores = {options.cores[0]}, .address = "10.99.1.1"},
      interrupts);
  if (!client) return Result::failed(client.why());
  auto server = PrivateCob::bring_up(
      options, {.name = name + "-server", .cores = {options.cores[1]}, .address = "10.99.1.2"},
      interrupts);
  if (!server) return Result::failed(server.why());
  const auto plugged =
      run({.argv = {options.cob, "cable", client->name(), server->name()}, .output = output}, 10,
          interrupts);
  if (!plugged) return Result::failed("cob cable: " + plugged.why());
  if (plugged->status != 0) return Result::failed("cob cable: " + plugged->output);
  return Result(CabledCobs(std::move(*client), std::move(*server)));
}

CabledCobs::CabledCobs(PrivateCob client, PrivateCob server)
    : client_(std::move(client)), server_(std::move(server)) {
  place_ = {.label = "cob",
            .server_prefix = server_.run_on(0),
            .client_prefix = client_.run_on(0),
            .addresses = server_.place().addresses,
            .kernels = {client_.place().kernels.at(0), server_.place().kernels.at(0)}};
}

Outcome<WiredPlace> WiredPlace::with_cob(const Options& options, Interrupts& interrupts) {
  using Result = Outcome<WiredPlace>;
  auto wire = Wire::make(false, interrupts);
  if (!wire) return Result::failed(wire.why());
  auto cob = PrivateCob::bring_up(options,
                                  {.name = fmt::format("bench-{}-xdp", getpid()),
                                   .cores = {options.cores[1]},
                                   .address = Wire::server_address,
                                   .uplink = fmt::format("xdp:{}", Wire::server_device),
                                   .network = wire->server()},
                                  interrupts);
  if (!cob) return Result::failed(cob.why());
  Place place{.label = "cob",
              .server_prefix = cob->run_on(0),
              .client_core = options.cores[0],
              .addresses = cob->place().addresses,
              .kernels = {0, cob->place().kernels.at(0)},
              .network = wire->client(),
              .server_network = wire->server()};
  return Result(WiredPlace(std::move(*wire), std::move(*cob), std::move(place)));
}

Outcome<WiredPlace> WiredPlace::with_linux(const Options& options, Interrupts& interrupts) {
  using Result = Outcome<WiredPlace>;
  auto wire = Wire::make(true, interrupts);
  if (!wire) return Result::failed(wire.why());
  Place place = linux_place(options, 1);
  place.addresses = {Wire::server_address};
  place.network = wire->client();
  place.server_network = wire->server();
  return Result(WiredPlace(std::move(*wire), std::nullopt, std::move(place)));
}

Outcome<TapCob> TapCob::bring_up(const Options& options, bool offload, Interrupts& interrupts) {
  using Result = Outcome<TapCob>;
  auto network = OwnNetwork::make();
  if (!network) return Result::failed(network.why());
  auto kept = std::make_unique<OwnNetwork>(std::move(*network));
  const std::string kind = offload ? "tap" : "wire";
  auto cob = PrivateCob::bring_up(
      options,
      {.name = fmt::format("bench-{}-{}", getpid(), kind),
       .cores = {options.cores[1]},
       .address = "10.99.2.2",
       .uplink = fmt::format("tap:cob0,host=10.99.2.1{}", offload ? "" : ",offload=off"),
       .network = kept.get()},
      interrupts);
  if (!cob) return Result::failed(cob.why());
  return Result(TapCob(std::move(kept), std::move(*cob), options));
}

TapCob::TapCob(std::unique_ptr<OwnNetwork> network, PrivateCob cob, const Options& options)
    : network_(std::move(network)), cob_(std::move(cob)) {
  place_ = {.label = "cob",
            .server_prefix = cob_.run_on(0),
            .client_core = options.cores[0],
            .addresses = cob_.place().addresses,
            .kernels = {0, cob_.place().kernels.at(0)},
            .network = network_.get()};
}

}  // namespace cob::bench
