// What lies in a window's memory: a card and a heartbeat at a fixed place, and two areas that
// successive sessions use in turn. docs/messaging.md, 7 and 11.
// Model: one side's memory, written by the other side alone in words of at most 8 bytes; whatever
// it held before. Values.
#pragma once

#include "message/link_layout.h"
#include "message/shared_word.h"

namespace cob::message {

// A side's present offer of a session, and what it has heard of the other's. It counts when its
// check is right: then all of it is of one time, whatever the order in which it arrived.
struct WindowCard {
  u64 cob = 0;          // of both sides, or they do not talk
  u64 nonce = 0;        // of this offer, random; 0: none
  u64 accepted = 0;     // the other's nonce that was read last
  u64 ready = 0;        // the other's nonce for which its area has been prepared
  u32 epoch = 0;        // of this kernel
  u32 heard_epoch = 0;  // of the other; an earlier one of it is not heard. 0: any is
  u32 area = 0;         // where the other shall write, in this side's memory
  u32 start = 0;        // and the index of its rings' first line
};

inline constexpr std::size_t window_card_words = 7;
inline constexpr u32 window_areas = 2;

struct WindowControl {
  alignas(4'096) alignas(cache_line_bytes) le<u64> card[window_card_words];
  // The low half of its writer's nonce of this session in the upper half; a count in the lower.
  alignas(cache_line_bytes) le<u64> heartbeat;
};
inline constexpr std::size_t window_card_nonce = 1;  // index of that word

struct WindowArea {
  alignas(4'096) le<u64> doorbell;  // window_doorbell.h
  alignas(4'096) LinkMemory link;   // its bulk area follows
};
static_assert(sizeof(WindowControl) == 4'096 && sizeof(WindowArea) == 4'096 + sizeof(LinkMemory));

// Both sides reckon the bulk areas from the size of a side's memory alone. 0 if it is too small.
constexpr u64 window_bulk_bytes(u64 memory_bytes) {
  constexpr u64 least = sizeof(WindowControl) + window_areas * sizeof(WindowArea);
  if (memory_bytes < least) return 0;
  return (memory_bytes - least) / window_areas / 4'096 * 4'096;
}
constexpr u64 window_memory_bytes(u64 bulk_bytes) {
  return sizeof(WindowControl) + window_areas * (sizeof(WindowArea) + bulk_bytes);
}

inline u64 window_card_check(const u64* words) {
  u64 check = 0x636f62'77696e'3031;  // "cobwin01": this layout
  for (std::size_t i = 0; i + 1 < window_card_words; ++i) {
    check = (check ^ words[i]) * 0x9e37'79b9'7f4a'7c15;
    check ^= check >> 29;
  }
  return check;
}

inline void post_card(WindowControl& theirs, const WindowCard& card) {
  u64 words[window_card_words] = {card.cob,
                                  card.nonce,
                                  card.accepted,
                                  card.ready,
                                  card.epoch | u64{card.heard_epoch} << 32,
                                  card.area | u64{card.start} << 32,
                                  0};
  words[window_card_words - 1] = window_card_check(words);
  for (std::size_t i = 0; i < window_card_words; ++i) store_release(theirs.card[i], words[i]);
}

// False: none, or one that has arrived in part, or what was there before.
inline bool read_card(const WindowControl& mine, WindowCard& card) {
  u64 words[window_card_words];
  for (std::size_t i = window_card_words; i-- > 0;) words[i] = load_acquire(mine.card[i]);
  if (words[window_card_words - 1] != window_card_check(words)) return false;
  card = {.cob = words[0],
          .nonce = words[1],
          .accepted = words[2],
          .ready = words[3],
          .epoch = static_cast<u32>(words[4]),
          .heard_epoch = static_cast<u32>(words[4] >> 32),
          .area = static_cast<u32>(words[5]),
          .start = static_cast<u32>(words[5] >> 32)};
  return card.area < window_areas;
}

}  // namespace cob::message
