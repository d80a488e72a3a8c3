// Runs a fuzz target without libFuzzer: CORPUS RUNS. First the inputs of the corpus (one a line, in
// hexadecimal; # begins a comment), then RUNS more, made from them and out of nothing by a
// generator of a fixed seed: the same ones every time. An input that ends the process is written
// out as a line for the corpus.
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Reports end in abort(), as VERIFY does.
extern "C" const char* __asan_default_options();
extern "C" const char* __ubsan_default_options();
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:abort_on_error=1"; }

namespace {

using Input = std::vector<std::uint8_t>;

constexpr std::size_t longest = 400;
Input current;

extern "C" void show_input(int) {
  std::string line = "input: ";
  for (const std::uint8_t byte : current) {
    line += "0123456789abcdef"[byte / 16];
    line += "0123456789abcdef"[byte % 16];
  }
  line += '\n';
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

std::vector<Input> read_corpus(const char* path) {
  std::vector<Input> corpus;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    Input& input = corpus.emplace_back();
    for (std::size_t i = 0; i + 1 < line.size(); i += 2)
      input.push_back(static_cast<std::uint8_t>(std::stoul(line.substr(i, 2), nullptr, 16)));
  }
  return corpus;
}

class Generator {
 public:
  explicit Generator(const std::vector<Input>& corpus) : corpus_(corpus) {}

  Input next() {
    if (corpus_.empty() || below(8) == 0) return noise(below(longest));
    Input input = any();
    for (std::size_t changes = 1 + below(8); changes > 0; --changes) change(input);
    input.resize(std::min(input.size(), longest));
    return input;
  }

 private:
  std::size_t below(std::size_t bound) { return random_() % bound; }
  const Input& any() { return corpus_[below(corpus_.size())]; }
  Input noise(std::size_t bytes) {
    Input input(bytes);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random_());
    return input;
  }
  void change(Input& input) {
    const std::size_t at = below(input.size() + 1);
    const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
    const std::size_t rest = input.size() - at;
    switch (below(5)) {
      case 0:
        if (rest > 0) *place = static_cast<std::uint8_t>(random_());
        break;
      case 1:
        if (rest > 0) *place = static_cast<std::uint8_t>(*place + (below(2) == 0 ? 1 : -1));
        break;
      case 2: {
        const Input more = noise(1 + below(8));
        input.insert(place, more.begin(), more.end());
        break;
      }
      case 3:
        input.erase(place, place + static_cast<std::ptrdiff_t>(std::min(rest, 1 + below(8))));
        break;
      default: {  // the end of another
        const Input& other = any();
        const std::size_t from = below(other.size() + 1);
        input.erase(place, input.end());
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
  }

  const std::vector<Input>& corpus_;
  std::mt19937_64 random_{1};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s CORPUS RUNS\n", argv[0]);
    return 2;
  }
  std::signal(SIGABRT, show_input);
  std::signal(SIGALRM, [](int) { std::abort(); });  // an input that never ends
  const std::vector<Input> corpus = read_corpus(argv[1]);
  Generator generator(corpus);
  const unsigned long runs = std::strtoul(argv[2], nullptr, 10);
  for (unsigned long i = 0; i < corpus.size() + runs; ++i) {
    current = i < corpus.size() ? corpus[i] : generator.next();
    ::alarm(60);
    (void)LLVMFuzzerTestOneInput(current.data(), current.size());
  }
  std::printf("%zu inputs of the corpus, %lu made\n", corpus.size(), runs);
  return 0;
}
