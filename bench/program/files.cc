// cob-bench-files: the program that `cob bench files` runs beside the store, on an island of it, on
// another island, and over mounts; it does not know where it is.
//   run DIRECTORY SECONDS OPERATION...   each operation for SECONDS: "OPERATION MEDIAN P99 RUNS",
//   ns append FILE SECONDS BYTES WRITER     records of WRITER: "append RECORDS SECONDS", one number
//   each check FILE BYTES                     what appenders wrote: "check WRITERS RECORDS", or
//   dies
// One thread.
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/samples.h"

namespace {

using cob::Fd;
using cob::i64;
using cob::u32;
using cob::u64;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "cob-bench-files: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

i64 clock_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

constexpr std::size_t page_bytes = 4'096, bulk_bytes = std::size_t{1} << 20;
constexpr std::size_t file_bytes = 4 * bulk_bytes;

// What the operations work on: a file of 4 MiB, open for writing, so that nobody caches it, and one
// of 1 MiB that nobody writes; made if they are not there.
class Folder {
 public:
  explicit Folder(const std::string& path) : path_(path), file_(path + "/data") {
    data_ = Fd(::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!data_.valid()) die(file_);
    struct stat is{};
    if (::fstat(data_.get(), &is) != 0) die("fstat");
    for (auto at = static_cast<std::size_t>(is.st_size); at < file_bytes; at += bulk_bytes)
      exact(::pwrite(data_.get(), buffer_.data(), bulk_bytes, static_cast<off_t>(at)), bulk_bytes);
  }

  void open_close() {
    const int fd = ::open(file_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::close(fd) != 0) die("open");
  }
  void stat() {
    struct stat is{};
    if (::stat(file_.c_str(), &is) != 0 || is.st_size < static_cast<off_t>(file_bytes)) die("stat");
  }
  void create_unlink() {
    const std::string name = path_ + "/new";
    const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || ::close(fd) != 0 || ::unlink(name.c_str()) != 0) die("create and unlink");
  }
  void pread(std::size_t bytes) {  // up to a megabyte a call: some answer with less
    const off_t at = place(bytes);
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t n =
          ::pread(data_.get(), buffer_.data(), bytes - done, at + static_cast<off_t>(done));
      if (n <= 0) die("pread");
      done += static_cast<std::size_t>(n);
    }
  }
  void pread_quiet() {
    const off_t at = static_cast<off_t>(random_() % (bulk_bytes / page_bytes) * page_bytes);
    if (::pread(quiet(), buffer_.data(), page_bytes, at) != static_cast<ssize_t>(page_bytes))
      die("pread");
  }
  // At the offset, on and on; at the end back to the beginning.
  void read_quiet() {
    const ssize_t n = ::read(quiet(), buffer_.data(), page_bytes);
    if (n < 0 || (n == 0 && ::lseek(quiet(), 0, SEEK_SET) != 0)) die("read");
  }
  void lock_unlock() {
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_len = 1;
    if (::fcntl(data_.get(), F_SETLK, &lock) != 0) die("F_SETLK");
    lock.l_type = F_UNLCK;
    if (::fcntl(data_.get(), F_SETLK, &lock) != 0) die("F_UNLCK");
  }
  void pwrite(std::size_t bytes) {
    const off_t at = place(bytes);
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t n =
          ::pwrite(data_.get(), buffer_.data(), bytes - done, at + static_cast<off_t>(done));
      if (n <= 0) die("pwrite");
      done += static_cast<std::size_t>(n);
    }
  }

 private:
  static void exact(ssize_t did, std::size_t wanted) {
    if (did != static_cast<ssize_t>(wanted)) die("a write");
  }
  int quiet() {
    if (quiet_.valid()) return quiet_.get();
    const std::string name = path_ + "/quiet";
    const Fd made(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (made.valid()) exact(::pwrite(made.get(), buffer_.data(), bulk_bytes, 0), bulk_bytes);
    quiet_ = Fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
    if (!quiet_.valid()) die(name);
    return quiet_.get();
  }
  off_t place(std::size_t bytes) {
    return static_cast<off_t>(random_() % (file_bytes / bytes) * bytes);
  }

  std::string path_, file_;
  std::vector<char> buffer_ = std::vector<char>(bulk_bytes, 'x');
  std::minstd_rand random_{1};
  Fd data_, quiet_;
};

void measure(const std::string& name, double seconds, const std::function<void()>& operation) {
  std::vector<double> samples;
  const i64 end = clock_ns() + static_cast<i64>(seconds * 1e9);
  for (i64 now = clock_ns(); now < end && samples.size() < 1'000'000;) {
    operation();
    const i64 after = clock_ns();
    samples.push_back(static_cast<double>(after - now));
    now = after;
  }
  samples.erase(samples.begin(),
                samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 10));
  const cob::bench::Summary summary = cob::bench::summarize(std::move(samples));
  std::printf("%s %.1f %.1f %zu\n", name.c_str(), summary.median, summary.p99, summary.runs);
}

int run(const std::string& directory, double seconds, const std::vector<std::string>& wanted) {
  Folder folder(directory);
  const std::map<std::string, std::function<void()>> operations{
      {"open_close", [&] { folder.open_close(); }},
      {"stat", [&] { folder.stat(); }},
      {"create_unlink", [&] { folder.create_unlink(); }},
      {"pread_4k", [&] { folder.pread(page_bytes); }},
      {"pread_4k_cached", [&] { folder.pread_quiet(); }},
      {"read_4k", [&] { folder.read_quiet(); }},
      {"lock_unlock", [&] { folder.lock_unlock(); }},
      {"pwrite_4k", [&] { folder.pwrite(page_bytes); }},
      {"pread_1m", [&] { folder.pread(bulk_bytes); }},
      {"pwrite_1m", [&] { folder.pwrite(bulk_bytes); }},
  };
  for (const std::string& name : wanted) {
    const auto operation = operations.find(name);
    if (operation == operations.end()) die("no operation " + name);
    measure(name, seconds, operation->second);
  }
  return 0;
}

// A record: its writer, its number, and filling.
struct Record {
  u32 writer = 0;
  u32 number = 0;
};

int append(const std::string& path, double seconds, std::size_t bytes, u32 writer) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
  if (!file.valid()) die(path);
  std::vector<char> buffer(bytes, static_cast<char>('a' + writer % 26));
  Record record{.writer = writer};
  const i64 start = clock_ns();
  const i64 end = start + static_cast<i64>(seconds * 1e9);
  while (clock_ns() < end) {
    std::memcpy(buffer.data(), &record, sizeof record);
    if (::write(file.get(), buffer.data(), bytes) != static_cast<ssize_t>(bytes)) die("append");
    ++record.number;
  }
  std::printf("append %u %.6f\n", record.number, static_cast<double>(clock_ns() - start) / 1e9);
  return 0;
}

// Every record whole, every writer's in order and none missing.
int check(const std::string& path, std::size_t bytes) {
  std::ifstream in(path, std::ios::binary);
  std::map<u32, u32> next;
  u64 records = 0;
  std::vector<char> buffer(bytes);
  while (in.read(buffer.data(), static_cast<std::streamsize>(bytes))) {
    Record record;
    std::memcpy(&record, buffer.data(), sizeof record);
    errno = EBADMSG;
    if (record.number != next[record.writer]++) die("a record out of order");
    for (std::size_t i = sizeof record; i < bytes; ++i) {
      if (buffer[i] != static_cast<char>('a' + record.writer % 26)) die("a torn record");
    }
    ++records;
  }
  if (in.gcount() != 0) die("half a record at the end");
  std::printf("check %zu %llu\n", next.size(), static_cast<unsigned long long>(records));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto number = [&](std::size_t i) { return std::strtod(words[i].c_str(), nullptr); };
  if (words.size() > 3 && words[0] == "run")
    return run(words[1], number(2), {words.begin() + 3, words.end()});
  if (words.size() == 5 && words[0] == "append")
    return append(words[1], number(2), static_cast<std::size_t>(number(3)),
                  static_cast<u32>(number(4)));
  if (words.size() == 3 && words[0] == "check")
    return check(words[1], static_cast<std::size_t>(number(2)));
  std::fprintf(stderr, "usage: cob-bench-files run|append|check ...\n");
  return 2;
}
