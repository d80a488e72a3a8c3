// nginx under ab: configuration, client run and checks.
// One worker, Debian's defaults otherwise; /memory answers from the configuration without a log,
// /static is a file of 612 bytes (as Debian's index page) with Debian's access log. ab's -e file
// has microseconds; its report only milliseconds.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "bench/server_case.h"

namespace cob::bench {

namespace {

std::string memory_body() {
  std::string body = "This body comes from the memory of an nginx worker: ";
  while (body.size() < 96) body += "0123456789abcdef";
  return body.substr(0, 96);
}

std::string static_body() {
  std::string body = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>\n";
  while (body.size() < 612 - 16) body += "A line of the page, as long as others.\n";
  return body.substr(0, 612 - 16) + "</body></html>\n\n";
}

std::string configuration(const Place& place, const std::string& folder, int port) {
  std::string listen;
  for (const std::string& address : place.addresses) {
    listen += fmt::format("    listen {}:{};\n", address, port);
  }
  // www-data exists wherever Debian's nginx does; only root may switch to it.
  return fmt::format(R"({user}worker_processes 1;
daemon off;
master_process on;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  sendfile on;
  tcp_nopush on;
  types {{ text/html html; }}
  default_type text/plain;
  gzip on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  access_log {folder}/access.log;
  server {{
{listen}    location /memory {{ access_log off; return 200 "{body}"; }}
    location /static {{ alias {folder}/static; }}
  }}
}}
)",
                     fmt::arg("user", geteuid() == 0 ? "user www-data;\n" : ""),
                     fmt::arg("folder", folder), fmt::arg("listen", listen),
                     fmt::arg("body", memory_body()));
}

class Nginx final : public Server {
 public:
  Nginx(const Place& place, std::string folder, int client_core, int port, Child child)
      : place_(place),
        folder_(std::move(folder)),
        client_core_(client_core),
        port_(port),
        child_(std::move(child)) {}

  pid_t pid() const override { return child_.pid(); }

  Outcome<ClientRun> measure(const ServerCase& wanted, int round, double seconds, CoreWatch* watch,
                             Interrupts& interrupts) override {
    using Result = Outcome<ClientRun>;
    const std::string percentiles = folder_ + "/percentiles.csv";
    const std::string url = url_of(wanted.page, round);
    std::error_code ignored;
    std::filesystem::remove(percentiles, ignored);
    // ab's own time limit knows whole seconds only: the count comes from the rate of the run
    // before.
    const double rate = rate_.contains(wanted.name) ? rate_.at(wanted.name) : 2'000 / seconds;
    const double requests = std::max(std::floor(rate * seconds), 4.0 * wanted.concurrency);
    std::vector<std::string> argv{find_program("ab"),
                                  "-q",
                                  "-n",
                                  fmt::format("{:.0f}", requests),
                                  "-c",
                                  std::to_string(wanted.concurrency),
                                  "-e",
                                  percentiles,
                                  url};
    if (wanted.keep_alive) argv.insert(argv.begin() + 1, "-k");
    SpawnOptions options = place_.client(std::move(argv));
    options.output = folder_ + "/ab.txt";
    if (watch != nullptr) watch->start();
    auto client = Child::spawn(options);
    if (!client) return Result::failed(client.why());
    if (watch != nullptr) watch->add(client->pid(), client_core_);
    const auto status = client->wait(seconds + 30, interrupts, [&] {
      if (watch != nullptr) watch->sample();
    });
    if (watch != nullptr) watch->stop();
    const std::string report = read_text(options.output);
    if (!status) return Result::failed("ab: " + status.why() + " " + last_line(report));
    if (*status != 0)
      return Result::failed(fmt::format("ab: exit status {}: {}", *status, last_line(report)));
    auto result = parse_ab(report, read_text(percentiles), body_of(wanted.page).size());
    if (!result) return result;
    rate_[wanted.name] = result->per_s;
    const std::string wrong = check_body(wanted.page, round, interrupts);
    if (!wrong.empty()) return Result::failed(wrong);
    return result;
  }

  // "" if curl gets the body byte for byte.
  std::string check_body(const std::string& page, int round, Interrupts& interrupts) {
    const std::string file = folder_ + "/curl.body";
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
    SpawnOptions options = place_.client(
        {find_program("curl"), "-sS", "--max-time", "5", "-o", file, url_of(page, round)});
    options.output = folder_ + "/curl.txt";
    const auto finished = run(options, 10, interrupts);
    if (!finished) return finished.why();
    if (finished->status != 0) return "curl: " + last_line(finished->output);
    return read_text(file) == body_of(page)
               ? ""
               : "curl: the body differs from what the server was given";
  }

 private:
  static std::string body_of(const std::string& page) {
    return page == "static" ? static_body() : memory_body();
  }
  std::string url_of(const std::string& page, int round) const {
    return fmt::format("http://{}:{}/{}", place_.address(round), port_, page);
  }

  const Place& place_;
  std::string folder_;
  int client_core_;
  int port_;
  Child child_;
  std::map<std::string, double> rate_;  // last measured, by case
};

}  // namespace

Outcome<std::unique_ptr<Server>> start_nginx(const Place& place, const std::string& folder,
                                             int client_core, bool apart, Interrupts& interrupts) {
  using Result = Outcome<std::unique_ptr<Server>>;
  const int port = free_port();
  chmod(folder.c_str(), 0755);
  // The worker runs as www-data and must reach the page.
  chmod(std::filesystem::path(folder).parent_path().c_str(), 0755);
  if (!write_text(folder + "/nginx.conf", configuration(place, folder, port)) ||
      !write_text(folder + "/static", static_body())) {
    return Result::failed("cannot write " + folder);
  }
  std::vector<std::string> argv{
      find_program("nginx"), "-p", folder, "-e", folder + "/error.log", "-c",
      folder + "/nginx.conf"};
  if (apart) argv.insert(argv.begin(), find_program("setsid"));
  SpawnOptions options = place.server(std::move(argv));
  options.output = folder + "/nginx.txt";
  auto child = Child::spawn(options);
  if (!child) return Result::failed(child.why());
  auto server = std::make_unique<Nginx>(place, folder, client_core, port, std::move(*child));
  std::string wrong;
  for (int attempt = 0; attempt < 50; ++attempt) {
    wrong = server->check_body("memory", 0, interrupts);
    if (wrong.empty()) return Result(std::move(server));
    if (interrupts.seen()) break;
    sleep_ms(100);
  }
  return Result::failed(fmt::format("nginx on {} does not answer: {} {}", place.label, wrong,
                                    last_line(read_text(options.output))));
}

double number_after(const std::string& text, const std::string& label) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(label)) return std::strtod(line.c_str() + label.size(), nullptr);
  }
  return -1;
}

std::string last_line(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0)
    text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

Outcome<ClientRun> parse_ab(const std::string& report, const std::string& percentiles,
                            std::size_t expected_bytes) {
  using Result = Outcome<ClientRun>;
  ClientRun result;
  result.requests = number_after(report, "Complete requests:");
  const double seconds = number_after(report, "Time taken for tests:");
  if (result.requests <= 0 || seconds <= 0) return Result::failed("ab: no requests completed");
  if (number_after(report, "Failed requests:") != 0) {
    return Result::failed(
        fmt::format("ab: {} requests failed", number_after(report, "Failed requests:")));
  }
  if (number_after(report, "Non-2xx responses:") > 0)
    return Result::failed("ab: responses other than 2xx");
  if (number_after(report, "Document Length:") != static_cast<double>(expected_bytes)) {
    return Result::failed(fmt::format("ab: document of {} bytes, expected {}",
                                      number_after(report, "Document Length:"), expected_bytes));
  }
  result.per_s = result.requests / seconds;
  result.p50_us = number_after(percentiles, "50,") * 1e3;
  result.p99_us = number_after(percentiles, "99,") * 1e3;
  if (result.p50_us < 0) return Result::failed("ab: no percentiles");
  return result;
}

int free_port() {
  for (int port = 18'080 + getpid() % 4'000; port < 32'000; ++port) {
    const Fd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    const int on = 1;
    setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
      return port;
  }
  return 18'080;
}

}  // namespace cob::bench
