// Where the key of IPv6 interface identifiers lies, what it may be, and that it stays.
#include "cli/identifier_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cli/failure.h"

namespace cob::cli {
namespace {

class IdentifierKeys : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cob-key-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder = name;
    ::setenv("XDG_STATE_HOME", folder.c_str(), 1);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::string refusal(const std::string& path) {
    try {
      identifier_key("web", path);
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.exit_code, exit_state);
      return failure.text;
    }
    return "accepted";
  }
  std::string folder;
};

TEST_F(IdentifierKeys, AreMadeOnceAndStay) {
  const IdentifierKey first = identifier_key("web", ""), again = identifier_key("web", ""),
                      other = identifier_key("db", "");
  EXPECT_EQ(first.words, again.words);
  EXPECT_NE(first.words, other.words);
  EXPECT_EQ(first.warning, "");
  struct stat status{};
  ASSERT_EQ(::stat((folder + "/cob/web.ipv6-key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto files = std::filesystem::directory_iterator(folder + "/cob");
  EXPECT_EQ(std::distance(begin(files), end(files)), 2);  // no drafts
}

TEST_F(IdentifierKeys, AreReadWhereTheUserNamesThem) {
  const std::string path = folder + "/mine";
  std::ofstream(path) << "0123456789abcdef00000000000000ff\n";
  ::chmod(path.c_str(), 0600);
  const std::array<u64, 2> words{0x0123456789abcdef, 0xff};
  EXPECT_EQ(identifier_key("web", path).words, words);
}

TEST_F(IdentifierKeys, WhatIsNoKeyIsRefusedAndStays) {
  const std::string path = folder + "/mine";
  for (const char* text :
       {"", "0123", "0123456789abcdef00000000000000fg", "00000000000000000000000000000000",
        "0123456789abcdef00000000000000ff0"}) {
    std::ofstream(path, std::ios::trunc) << text;
    ::chmod(path.c_str(), 0600);
    EXPECT_THAT(refusal(path), testing::HasSubstr("hexadecimal")) << text;
    EXPECT_EQ(std::filesystem::file_size(path), std::strlen(text));
  }
  ::chmod(path.c_str(), 0644);
  EXPECT_THAT(refusal(path), testing::HasSubstr("chmod 600"));
  EXPECT_THAT(refusal(folder), testing::HasSubstr("chmod 600"));
  EXPECT_THAT(refusal("/proc/nothing/key"), testing::HasSubstr("/proc/nothing/key"));
}

TEST_F(IdentifierKeys, WithoutAPlaceToKeepThemAWarningSaysSo) {
  ::setenv("XDG_STATE_HOME", "/proc/nothing", 1);
  const IdentifierKey first = identifier_key("web", ""), again = identifier_key("web", "");
  EXPECT_NE(first.words, again.words);
  EXPECT_THAT(first.warning, testing::HasSubstr("/proc/nothing"));
}

}  // namespace
}  // namespace cob::cli
