// `cob ss`: filters in the words of ss(8), and rows as its text.
#include "cli/socket_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/socket_text.h"

namespace cob::cli {
namespace {

using kernel::SocketRow;
using net::TcpState;
using testing::HasSubstr;

SocketRow connection() {
  SocketRow row{.local_address = 0x0a4d0001, .remote_address = 0x0a4d0002};
  row.local_port = 40'000;
  row.remote_port = 80;
  row.state = static_cast<u8>(TcpState::established);
  return row;
}

bool matches(std::vector<std::string> words, const SocketRow& row = connection()) {
  SocketFilter filter;
  EXPECT_EQ(filter.parse(words), "");
  return filter.matches(row);
}

std::string problem(std::vector<std::string> words) { return SocketFilter().parse(words); }

TEST(SocketFilter, States) {
  EXPECT_TRUE(matches({}));
  EXPECT_TRUE(matches({"state", "established"}));
  EXPECT_FALSE(matches({"state", "syn-sent"}));
  EXPECT_TRUE(matches({"state", "syn-sent", "state", "established"}));
  EXPECT_TRUE(matches({"state", "connected"}));
  EXPECT_TRUE(matches({"state", "synchronized"}));
  EXPECT_TRUE(matches({"state", "big"}));
  EXPECT_FALSE(matches({"state", "bucket"}));
  EXPECT_FALSE(matches({"exclude", "established"}));
  EXPECT_FALSE(matches({"state", "connected", "exclude", "established"}));
  SocketRow listener{.state = kernel::state_listening};
  EXPECT_TRUE(matches({"state", "listening"}, listener));
  EXPECT_FALSE(matches({"state", "connected"}, listener));
  SocketRow strange{.state = 200};
  EXPECT_FALSE(matches({}, strange));
  EXPECT_THAT(problem({"state", "fine"}), HasSubstr("'fine' is no state (all, connected"));
  EXPECT_EQ(problem({"state"}), "a state is missing behind 'state'");
}

TEST(SocketFilter, Ends) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"dport", "=", ":80"},
           {"dport", ":80"},
           {"dport", "eq", "80"},
           {"sport", ">", ":1024"},
           {"sport", ">=", ":40000"},
           {"dport", "<", ":81"},
           {"dport", "!=", ":81"},
           {"dst", "10.77.0.2"},
           {"dst", "=", "10.77.0.2:80"},
           {"dst", ":80"},
           {"src", "10.77.0.0/24"},
           {"src", "10.77.0.0/0"},
           {"src", "!=", "10.78.0.0/16"},
           {"sport", "=", ":1", "or", "dport", "=", ":80"},
           {"dport", "=", ":80", "and", "not", "sport", "=", ":1"},
           {"dport", "=", ":80", "dst", "10.77.0.2"},
           {"(sport", "=", ":1", "or", "dport", "=", ":80)", "and", "!(dst", "1.2.3.4)"},
           {"state", "established", "dst", "10.77.0.2"}})
    EXPECT_TRUE(matches(words)) << testing::PrintToString(words);
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"dport", "=", ":81"},
           {"dport", ">", ":80"},
           {"sport", "<=", ":39999"},
           {"dst", "10.77.0.3"},
           {"dst", "10.77.0.2:81"},
           {"src", "!=", "10.77.0.0/16"},
           {"not", "dport", "=", ":80"},
           {"sport", "=", ":1", "or", "dport", "=", ":80", "and", "dst", "1.2.3.4"}})
    EXPECT_FALSE(matches(words)) << testing::PrintToString(words);
}

TEST(SocketFilter, WhatIsNoExpression) {
  EXPECT_EQ(problem({"dport", "=", ":http"}), "'http' is no port");
  EXPECT_EQ(problem({"dport"}), "'' is no port");
  EXPECT_EQ(problem({"dst", "host"}), "'host' is no IPv4 address");
  EXPECT_EQ(problem({"dst", "1.2.3.4/33"}), "'1.2.3.4/33' has no prefix length of 0 to 32");
  EXPECT_EQ(problem({"dst", "<", "1.2.3.4"}), "addresses are compared by = and != only");
  EXPECT_EQ(problem({"dst"}), "an address is missing behind dst");
  EXPECT_EQ(problem({"(", "dport", "=", ":80"}), "a ')' is missing");
  EXPECT_EQ(problem({"dport", "=", ":80", ")"}), "')' is not understood there");
  EXPECT_EQ(problem({"port", "80"}), "'port' is none of src, dst, sport, dport, not, (");
  EXPECT_EQ(problem({"dport", "=", ":80", "or"}), "it ends where src, dst, sport or dport is due");
  EXPECT_NE(problem(std::vector<std::string>(1'000, "(")), "");
}

TEST(SocketText, AsSsHasIt) {
  const SocketText text({{7, "nginx"}}, true);
  SocketRow row = connection();
  row.holders = 8;
  row.pid[0] = 7;
  row.pid[1] = 9;
  for (u32 i = 2; i < 6; ++i) row.pid[i] = 7;
  EXPECT_EQ(text.local(row), "10.77.0.1:40000");
  EXPECT_THAT(text.users(row), HasSubstr("users:((\"nginx\",pid=7),(\"?\",pid=9),"));
  EXPECT_THAT(text.users(row), HasSubstr(",+2)"));
  row.wait = static_cast<u8>(net::WaitKind::retransmit);
  row.wait_ms = 204;
  row.retries = 3;
  EXPECT_EQ(text.timer(row), "timer:(on,204ms,3)");
  row.wait_ms = 65'000;
  EXPECT_EQ(text.timer(row), "timer:(on,1min5sec,3)");
  row.mss = 1'000;
  row.congestion_window = 10'000;
  row.slow_start_threshold = 7'000;
  row.smoothed_rtt_us = 1'500;
  row.rtt_variance_us = 250;
  row.retransmit_timeout_us = 204'000;
  row.retransmits = 4;
  EXPECT_THAT(text.info(row), HasSubstr("rto:204 rtt:1.5/0.25 mss:1000 cwnd:10 ssthresh:7"));
  EXPECT_THAT(text.info(row), HasSubstr("retrans:3/4"));
  row.route = 1;
  EXPECT_THAT(text.details(row), HasSubstr("peer:kernel1"));
  row.receive_queue = 5;
  row.receive_limit = 6;
  EXPECT_EQ(text.memory(row), "skmem:(r5,rb6,t0,tb0)");
  const auto json = text.json(row, 1);
  EXPECT_EQ(json["state"], "ESTAB");
  EXPECT_EQ(json["peer"]["port"], 80);
  EXPECT_EQ(json["processes"][0]["command"], "nginx");
  EXPECT_EQ(json["info"]["rtt_us"], 1'500);
  SocketRow wild;
  std::memset(static_cast<void*>(&wild), 0xff, sizeof wild);
  EXPECT_EQ(state_name(wild.state), std::string("?"));
  EXPECT_THAT(text.timer(wild), HasSubstr("timer:(?,"));
  EXPECT_EQ(SocketText({}, false).remote(row), "10.77.0.2:http");
}

}  // namespace
}  // namespace cob::cli
