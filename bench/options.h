// The command line of `cob bench`, as values.
// Parsed with CLI11; --help of each measurement explains what it measures.
// Values; no owner.
#pragma once

#include <string>
#include <vector>

namespace cob::bench {

struct Options {
  std::string measurement;  // floor | messages | peers | calls | servers | connections | angel |
                            // files | migrate | offload
  std::string json;         // file for the flat JSON object; "": none, "-": standard output
  double seconds = 0;       // per measurement
  int rounds = 0;
  std::vector<std::string> only;  // servers: cases, peers: peers, messages: topics; empty: all
  bool peers = false;             // messages: the packaged systems too
  std::string histogram;          // messages: file for the latency histograms; "": none
  int workers = 1;                // connections, angel: of the server
  int connections = 10'000;       // connections: held idle
  std::string link = "window";    // files: what joins the islands
  bool linux_only = false;  // servers, connections, angel: the Linux side alone, no cob needed
  bool fast = false;        // servers: few cases, few short rounds
  std::vector<int> cores;   // client's and server's; filled with the first two allowed ones
  std::string cob;          // path of the cob command
  std::string name;         // of a running cob to use; "": a private one is brought up
};

enum class Parsed { run, done, wrong };

// Fills `options`, or prints help (done) or what is wrong with the arguments (wrong).
Parsed parse_options(int argc, char** argv, Options& options);

}  // namespace cob::bench
