// Fuzzes what comes with requests about names: the checks by themselves, the reader of a
// directory's entries, and a server with a share in memory that is asked by a peer who sends
// anything. What must hold: checked parts have no NUL and add up; each request is answered; nothing
// changes beside the share. libFuzzer; one thread and the server's workers.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include "base/clock.h"
#include "fs/entries.h"
#include "fs/names.h"
#include "fs/requests.h"

namespace {

using namespace cob;
using namespace cob::fs;

// What the fuzzer decides. At its end everything is 0.
class Input {
 public:
  Input(const u8* data, std::size_t size) : data_(data), size_(size) {}
  bool ended() const { return at_ == size_; }
  u8 byte() { return at_ < size_ ? data_[at_++] : u8{0}; }
  template <typename T>
  T flat() {
    std::array<std::byte, sizeof(T)> bytes{};
    for (auto& b : bytes) b = std::byte{byte()};
    return std::bit_cast<T>(bytes);
  }
  // Mostly names that are there.
  std::string text(std::size_t most) {
    static constexpr std::array<const char*, 12> pieces{"a", "b", "/",  "..",  ".",  "link",
                                                        "d", "f", "up", "out", "//", "x"};
    std::string text;
    for (std::size_t n = byte() % 12; n > 0 && text.size() < most; --n) {
      const u8 choice = byte();
      if (choice < 200) {
        text += pieces[choice % pieces.size()];
        if (choice % 3 == 0) text += '/';
      } else {
        text += static_cast<char>(choice == 255 ? 0 : choice);
      }
    }
    return text;
  }

 private:
  const u8* data_;
  std::size_t size_, at_ = 0;
};

// A share with a neighbour, in memory.
struct World {
  std::string path = "/dev/shm/cob-names-fuzz-XXXXXX";
  World() {
    ::signal(SIGPIPE, SIG_IGN);
    VERIFY(::mkdtemp(path.data()) != nullptr);
    ::mkdir((path + "/beside").c_str(), 0755);
    reset();
  }
  ~World() { std::filesystem::remove_all(path); }
  void reset() const {
    const std::string share = path + "/share";
    std::filesystem::remove_all(share);
    ::mkdir(share.c_str(), 0755);
    ::mkdir((share + "/d").c_str(), 0755);
    Fd(::open((share + "/f").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    VERIFY(::symlink("d/../f", (share + "/link").c_str()) == 0);
    VERIFY(::symlink("../beside", (share + "/up").c_str()) == 0);
    VERIFY(::symlink((path + "/beside").c_str(), (share + "/out").c_str()) == 0);
  }
  bool neighbour_is_empty() const {
    struct stat status{};
    return std::filesystem::is_empty(path + "/beside") &&
           ::stat((path + "/beside").c_str(), &status) == 0 && (status.st_mode & 07777) == 0755;
  }
};

struct Server {
  std::unique_ptr<message::Messenger> asker = make(0), storing = make(1);
  std::unique_ptr<Ring> ring = Ring::create().release_value();
  std::map<u32, std::unique_ptr<HostObject>> objects;
  Names names{
      {.messenger = *storing,
       .ring = *ring,
       .self = KernelId(1),
       .adopt = [this](std::unique_ptr<HostObject> object, KernelId) -> Result<Names::Adoption> {
         const u32 slot = static_cast<u32>(objects.size());
         objects.emplace(slot, std::move(object));
         return Names::Adoption{.handle = {.slot = slot, .generation = 1},
                                .grant = descriptor::Grant(0)};
       },
       .find = [this](descriptor::Handle handle, KernelId) -> HostObject* {
         const auto found = objects.find(handle.slot);
         return found == objects.end() ? nullptr : found->second.get();
       }}};

  static std::unique_ptr<message::Messenger> make(u16 id) {
    return message::Messenger::create(KernelId(id), 1, 2).release_value();
  }
  explicit Server(const std::string& share) {
    asker->know<TellCredentials>();
    asker->know<Open>();
    asker->know<Opened>();
    asker->know<Name>();
    asker->know<Named>();
    names.add_share(0, share, false).release_value();
    Fd a = asker->open_link(KernelId(1), 1).release_value();
    Fd b = storing->open_link(KernelId(0), 1).release_value();
    asker->peer_up(KernelId(1), 1, std::move(b)).release_value();
    storing->peer_up(KernelId(0), 1, std::move(a)).release_value();
    asker->send(KernelId(1), TellCredentials{}).release_value();
  }
  void turn() {
    asker->poll(Time{}, 64);
    asker->flush();
    storing->poll(Time{}, 64);
    ring->poll();
    storing->flush();
  }
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

void ask(Server& server, Input& input) {
  u32 asked = 0, answered = 0;
  const auto count = [&answered](auto) { ++answered; };
  for (int i = 0; i < 8 && !input.ended(); ++i) {
    if (input.byte() % 2 == 0) {
      Open open = input.flat<Open>();
      open.place.share = open.place.share % 2;
      open.credentials = open.credentials % 2;
      open.flags = open.flags % 3 == 0 ? open.flags.get() : open.flags & 020207703U;
      const std::string path = input.text(400);
      asked += !server.asker
                    ->request<Open, Opened>(KernelId(1), open, {.tail = bytes_of(path)},
                                            Time::never(), count)
                    .is_error();
    } else {
      Name name = input.flat<Name>();
      name.place.share = name.place.share % 2;
      name.second_place.share = 0U;
      name.credentials = 0U;
      name.number = name.number % 100'000;
      name.call = static_cast<NameCall>(static_cast<u16>(name.call.get()) % 20);
      const std::string path = input.text(400), second = input.text(400), value = input.text(400);
      if (input.byte() % 8 != 0) {
        name.flags = name.flags & (no_follow | follow | 3U);
        name.path_bytes = static_cast<u16>(path.size());
        name.second_bytes = static_cast<u16>(second.size());
        name.value_bytes = static_cast<u32>(value.size());
      }
      asked +=
          !server.asker
               ->request<Name, Named>(KernelId(1), name, {.tail = bytes_of(path + second + value)},
                                      Time::never(), count)
               .is_error();
    }
  }
  const Time deadline = HostClock::read() + Duration::seconds(20);
  while (answered < asked) {
    server.turn();
    VERIFY(HostClock::read() < deadline);
  }
}

void parse(const u8* data, std::size_t size) {
  Input input(data, size);
  const Name name = input.flat<Name>();
  const std::size_t used = std::min(size, sizeof(Name));
  const auto rest = std::as_bytes(std::span(data, size)).subspan(used);
  for (const bool lent : {false, true}) {
    const auto parts = check_name(name, rest, lent);
    if (parts.is_error()) continue;
    const auto& p = parts.value();
    VERIFY(p.path.size() == name.path_bytes && p.value.size() == name.value_bytes);
    VERIFY(std::strlen(p.path.c_str()) == p.path.size());
    VERIFY(std::strlen(p.second.c_str()) == p.second.size());
  }
  (void)check_credentials(Input(data, size).flat<TellCredentials>(), rest);
  EntryReader reader(std::as_bytes(std::span(data, size)));
  std::string packed(size + 1, '\0');
  std::size_t packed_bytes = 0;
  while (const auto entry = reader.next())
    VERIFY(pack_entry(*entry, std::as_writable_bytes(std::span(packed)), packed_bytes));
  VERIFY(std::memcmp(packed.data(), data, packed_bytes) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const World world;
  parse(data, size);
  Input input(data, size);
  if (input.byte() % 4 != 0) return 0;
  world.reset();
  {
    Server server(world.path + "/share");
    ask(server, input);
  }
  VERIFY(world.neighbour_is_empty());
  return 0;
}
