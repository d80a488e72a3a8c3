// `cob capture`: copies of the frames of the kernels, as a pcapng file. Model: each kernel copies
// into a ring of its own (net/snap_bean/capture_ring.h) until this command's socket to it closes;
// here they are merged by time and written. Between two looks at the rings the command sleeps; a
// ring that fills meanwhile loses records, which are counted. One thread.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <memory>

#include "cli/capture_merge.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/view_client.h"
#include "net/snap_bean/pcapng.h"

namespace cob::cli {
namespace {

struct CaptureCommand {
  std::string file;
  std::vector<int> kernels;
  std::string filter;
  u64 count = 0;       // 0: no limit
  double seconds = 0;  // 0: no limit
  u32 snap_bytes = net::capture_max_snap;
  u32 ring_mib = 4;
  bool both_ends = false;
};

struct Source {
  int kernel;
  ViewClient client;
  net::CaptureReader reader;
  u32 interface = 0;
  u64 frames = 0;
  std::string problem = {};  // why it ended before the command did
};

class Output {
 public:
  explicit Output(const std::string& file) : name_(file) {
    if (file == "-") {
      if (::isatty(STDOUT_FILENO) != 0)
        fail(exit_usage, "the frames would go to the terminal: pipe them, as into tshark -r -");
      fd_ = Fd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    } else {
      fd_ = Fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    }
    if (!fd_.valid()) fail(exit_state, "{}: {}", file, std::strerror(errno));
  }
  // False: whoever read them has gone.
  bool write(std::vector<std::byte>& bytes) {
    std::size_t at = 0;
    while (at < bytes.size()) {
      const ssize_t n = ::write(fd_.get(), bytes.data() + at, bytes.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EPIPE) return false;
      if (n < 0) fail(exit_state, "{}: {}", name_, std::strerror(errno));
      at += static_cast<std::size_t>(n);
    }
    written_ += bytes.size();
    bytes.clear();
    return true;
  }
  u64 written() const { return written_; }

 private:
  std::string name_;
  Fd fd_;
  u64 written_ = 0;
};

i64 since_1970_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

std::string comment_of(const net::CaptureRecord& record, int kernel, std::size_t kernels,
                       bool computed) {
  std::string text;
  if (record.peer == net::Route::uplink_id) {
    text = record.outgoing != 0 ? "to the uplink" : "from the uplink";
  } else if (record.peer == kernel) {
    text = "to itself";
  } else if (record.peer < kernels) {
    text = fmt::format("{} kernel {}", record.outgoing != 0 ? "to" : "from", record.peer);
  }
  if (computed) text += text.empty() ? "checksums by the capture" : ", checksums by the capture";
  return text;
}

class Capture {
 public:
  Capture(Context& context, const CaptureCommand& command)
      : context_(context), command_(command), output_(command.file), file_("cob capture") {}

  void run() {
    take_signals();
    open_sources();
    (void)output_.write(file_.buffer());
    std::string where = command_.file == "-" ? "standard output" : command_.file;
    if (!context_.json)
      fmt::print(stderr, "cob: capturing {} to {}; Ctrl-C ends\n", kernels_in_words(), where);
    const Time end = command_.seconds > 0
                         ? HostClock::read() + Duration{static_cast<i64>(command_.seconds * 1e9)}
                         : Time::never();
    bool going = true;
    while (going) {
      going = wait(end) && HostClock::read() < end;
      if (!going)
        for (Source& source : sources_) source.client.close();
      going &= look(!going);
      going &= std::ranges::any_of(sources_, [](const Source& s) { return s.problem.empty(); });
    }
    finish(where);
  }

 private:
  static constexpr int look_ms = 10;
  // What a kernel has stamped and not published yet is younger than this.
  static constexpr Duration hold = Duration::milliseconds(5);

  void take_signals() {
    sigset_t ends;
    sigemptyset(&ends);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ends, signal);
    ::sigprocmask(SIG_BLOCK, &ends, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    signals_ = Fd(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.valid()) fail(exit_state, "signalfd: {}", std::strerror(errno));
  }

  void open_sources() {
    ControlClient client = ControlClient::connect(checked_name(context_.name));
    const CobView view = view_cob(client);
    kernels_ = view.kernels.size();
    std::vector<int> chosen = command_.kernels;
    for (int k = 0; chosen.size() < kernels_ && command_.kernels.empty(); ++k) chosen.push_back(k);
    std::ranges::sort(chosen);
    chosen.erase(std::ranges::unique(chosen).begin(), chosen.end());
    const auto parsed = net::parse_capture_filter(command_.filter);
    net::CaptureOptions options{.ring_bytes = command_.ring_mib * 1024 * 1024,
                                .snap_bytes = command_.snap_bytes,
                                .filter = parsed.filter};
    for (const int k : chosen) {
      if (k >= static_cast<int>(kernels_))
        fail(exit_state, "there is no kernel {}; '{}' has kernels 0 to {}", k, context_.name,
             kernels_ - 1);
      if (!command_.both_ends) options.seen_elsewhere |= u64{1} << k;
    }
    started_ = HostClock::read();
    to_1970_ns_ = since_1970_ns() - started_.ns;
    for (const int k : chosen) {
      ViewClient kernel(client, k);
      const std::vector<Fd> memory = kernel.capture(options);
      std::string problem = kernel.problem();
      if (problem.empty()) {
        auto reader = net::CaptureReader::open(memory[0].ref(), memory[1].ref());
        if (!reader.is_error()) {
          const u32 interface = file_.add_interface(
              fmt::format("kernel{}", k), fmt::format("kernel {} of cob {}", k, context_.name),
              options.snap_bytes);
          sources_.push_back({k, std::move(kernel), reader.release_value(), interface});
          continue;
        }
        problem = fmt::format("kernel {}: {}", k, reader.error().what);
      }
      fmt::print(stderr, "cob: {}; its frames are missing\n", problem);
      context_.exit_code = exit_state;
    }
    if (sources_.empty()) fail(exit_state, "no kernel could be asked for its frames");
  }

  std::string kernels_in_words() const {
    std::string words = sources_.size() == 1 ? "kernel " : "kernels ";
    for (const Source& source : sources_)
      words += fmt::format("{}{}", &source == &sources_.front() ? "" : ", ", source.kernel);
    return words;
  }

  // Until it is time to look at the rings. False: a signal says end.
  bool wait(Time end) {
    std::vector<pollfd> wanted{{signals_.get(), POLLIN, 0}};
    for (const Source& source : sources_)  // a kernel that ends hangs up
      wanted.push_back({source.problem.empty() ? source.client.socket().get() : -1, POLLIN, 0});
    const i64 left_ms = std::clamp<i64>((end - HostClock::read()).to_ms() + 1, 0, look_ms);
    if (::poll(wanted.data(), wanted.size(), static_cast<int>(left_ms)) <= 0) return true;
    for (std::size_t i = 1; i < wanted.size(); ++i) {
      if (wanted[i].revents != 0)
        sources_[i - 1].problem = fmt::format("kernel {} ended", sources_[i - 1].kernel);
    }
    return wanted[0].revents == 0;
  }

  // Takes what lies in the rings, writes what is old enough; all of it at the end. False: enough.
  bool look(bool at_end) {
    const Time now = HostClock::read();
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      Source& source = sources_[i];
      net::CaptureReader::Frame frame;
      net::CaptureReader::Outcome outcome;
      while ((outcome = source.reader.take(frame)) == net::CaptureReader::Outcome::frame)
        merge_.add(i, std::move(frame), started_, now);
      source.reader.release();
      if (outcome == net::CaptureReader::Outcome::fault && source.problem.empty())
        source.problem = fmt::format("kernel {} wrote garbage into its ring", source.kernel);
    }
    const bool all = at_end || merge_.bytes() > CaptureMerge::most_bytes;
    bool enough = false;
    merge_.take(all ? Time::never() : now - hold, [&](std::size_t from, auto& frame) {
      enough = command_.count != 0 && frames_ == command_.count;
      if (!enough) write_frame(sources_[from], frame);
      return !enough;
    });
    enough |= command_.count != 0 && frames_ == command_.count;
    return output_.write(file_.buffer()) && !enough;
  }

  void write_frame(Source& source, net::CaptureReader::Frame& frame) {
    const bool computed =
        frame.record.checksum_not_computed != 0 && net::fill_checksums(frame.bytes);
    file_.add_frame(source.interface, frame.record, frame.bytes, frame.record.time_ns + to_1970_ns_,
                    comment_of(frame.record, source.kernel, kernels_, computed));
    ++source.frames;
    ++frames_;
  }

  void finish(const std::string& where) {
    u64 lost = 0;
    nlohmann::json kernels = nlohmann::json::array();
    for (Source& source : sources_) {
      const u64 dropped = source.reader.dropped();
      lost += dropped;
      file_.add_statistics(source.interface, since_1970_ns(), source.frames + dropped, dropped);
      kernels.push_back({{"kernel", source.kernel}, {"frames", source.frames}, {"lost", dropped}});
      if (source.problem.empty()) continue;
      context_.exit_code = exit_state;
      kernels.back()["error"] = source.problem;
      if (!context_.json) fmt::print(stderr, "cob: {}; its frames end there\n", source.problem);
    }
    (void)output_.write(file_.buffer());
    if (context_.json) {
      const nlohmann::json summary = {{"file", command_.file},
                                      {"frames", frames_},
                                      {"lost", lost},
                                      {"bytes", output_.written()},
                                      {"kernels", std::move(kernels)}};
      if (command_.file != "-") return print_json(summary);
      return fmt::print(stderr, "{}\n", summary.dump());
    }
    fmt::print(stderr, "cob: {} frames to {}, {} lost{}\n", frames_, where, lost,
               lost != 0 ? " (the ring was full; see --buffer, --filter, --snaplen)" : "");
  }

  Context& context_;
  const CaptureCommand& command_;
  Output output_;
  net::PcapngWriter file_;
  Fd signals_;
  std::vector<Source> sources_;
  std::size_t kernels_ = 0;
  CaptureMerge merge_;
  Time started_;
  i64 to_1970_ns_ = 0;
  u64 frames_ = 0;
};

std::string check_filter(const std::string& text) {
  return net::parse_capture_filter(text).problem;
}

}  // namespace

void add_capture(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("capture", "Write the frames of the kernels to a file for Wireshark");
  auto options = std::make_shared<CaptureCommand>();
  command->add_option("-o,--output", options->file, "The pcapng file; - for standard output")
      ->type_name("FILE")
      ->required();
  command->add_option("-k,--kernel", options->kernels, "Only this kernel's; may be repeated")
      ->type_name("K")
      ->expected(1)
      ->take_all()
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command->add_option("-f,--filter", options->filter, "Which frames; terms are joined by 'and'")
      ->type_name("FILTER")
      ->check(CLI::Validator(check_filter, ""));
  command->add_option("-c,--count", options->count, "End after so many frames")->type_name("N");
  command->add_option("--seconds", options->seconds, "End after so long")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.01, 1e6).description(""));
  command->add_option("-s,--snaplen", options->snap_bytes, "Bytes of each frame at most")
      ->type_name("BYTES")
      ->check(CLI::Range(u32{14}, net::capture_max_snap).description(""));
  command->add_option("--buffer", options->ring_mib, "Each kernel's ring, 1 to 64 MiB")
      ->type_name("MIB")
      ->capture_default_str()
      ->check(CLI::Range(1, 64).description(""));
  command->add_flag("--both-ends", options->both_ends,
                    "Frames between captured kernels at both ends, so twice");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob capture -o web.pcapng -f 'tcp port 80'       until Ctrl-C; then: wireshark "
      "web.pcapng\n"
      "  cob capture -o - --seconds 5 | tshark -r - -Y http.request\n"
      "  cob capture -o k1.pcapng -k 1 -c 1000 -s 128     the first 1000 frames of kernel 1, cut\n"
      "\n"
      "FILTER     [not] ip|arp|tcp|udp|icmp, [PROTOCOL] [src|dst] host A, [PROTOCOL] [src|dst] "
      "port "
      "N\n"
      "An interface of the file is a kernel; each frame says its direction and, in a comment, the "
      "kernel at the\n"
      "other end. Frames are taken where they leave, and where they arrive from what is not "
      "captured, so each once.\n"
      "Between kernels the wire is memory and no checksums are computed; the capture fills them "
      "in, and says so.\n"
      "A kernel never waits for a capture: what finds the ring full is lost to the file and "
      "counted. Up to 4 at a time.");
  command->callback([options, &context] { Capture(context, *options).run(); });
}

}  // namespace cob::cli
