// What the programs of bench/offload/ print, and what is made of anything else.
#include "bench/offload.h"

#include <gtest/gtest.h>

namespace cob::bench {
namespace {

TEST(OffloadOutput, ATimeOrAReason) {
  EXPECT_DOUBLE_EQ(*parse_offload_output("us=1.25\n"), 1.25);
  EXPECT_DOUBLE_EQ(*parse_offload_output("pocl warns\nus=0.06\n"), 0.06);
  EXPECT_EQ(parse_offload_output("error=wrong sum\n").why(), "wrong sum");
  EXPECT_EQ(parse_offload_output("error=wrong sum").why(), "wrong sum");
  for (const char* text : {"", "us=", "us=x", "us=-1", "us=0", "nothing"})
    EXPECT_FALSE(parse_offload_output(text)) << text;
}

}  // namespace
}  // namespace cob::bench
