/* The doorbell over a link of posted writes (PCIe, ivshmem): nothing is read remotely, no fence spans the link.
 * Model: what a kernel writes into the other's memory arrives there in order, at any later time; a ring likewise, after the
 * writes before it. Each kernel sends and receives. The protocol:
 *
 *  1. Each side has a number `own`: even while it is awake, odd while it is about to sleep or sleeps. It starts at 2, so that
 *     zeroed memory is believed by nobody.
 *  2. Each side posts one 8-byte word into the other's memory, {own, starved, heard}: `heard` is the last `own` of the other that
 *     it has read. It posts anew whenever one of the three changes (once a turn; while about to sleep, at once). It never rings
 *     for this word.
 *  3. Before it sleeps: tell credits, flush, make own odd, post. Then look, in this order, at: the other's word; the ring; if
 *     starved, the credits. Something there: go on. Nothing there, and the word says `heard` = own (the other knows
 *     that I sleep) or an odd number (the other sleeps, and knows from its own waking that it must ring): sleep until rung.
 *     Else it may only nap: sleep with a bound, then look again.
 *  4. Rung: look again as in 3; a ring alone is no reason to wake up. Waking up does not change the number by itself: it becomes
 *     even when something has been posted, before it is asked whether to ring, or after a while awake. Who goes to sleep again
 *     with the odd number it had needs no new one unless `starved` has changed, and then takes the next odd one.
 *  5. Flush: after posting messages ring, unless the last word read is even and its `heard` = own: a side knows of the other that
 *     it is awake only once that has heard of its own last waking.
 *  6. After posting credits ring by the same rule; and if `heard` = own and the word is odd, only if it says starved.
 *
 * Two sides that go to sleep together each see an odd number and sleep; a sleeper is never woken for an echo. What is to be had
 * from the link: a ring arrives after the messages before it (posted in order, or behind a fence that waits for them); 8-byte
 * writes arrive whole.
 * Checked: when nothing can move, all that was sent is taken and nobody wants for room (watcher); and it comes to that, without
 * endless naps (ltl settles). With any one of these defined a check must fail:
 *   NO_HANDSHAKE LOOK_BEFORE_WORD TRUST_STALE_AWAKE NO_REST_RULE NO_STARVED_BIT NO_LOOK_AT_CREDITS RING_OVERTAKES FORGETFUL_BELL
 *   SENDS_UNDER_ODD */
#ifndef LIMIT
#define LIMIT 1 /* messages in flight at most */
#endif
#ifndef EVERY
#define EVERY 1 /* credits are told every so many */
#endif
#ifndef WIRE
#define WIRE 3 /* writes under way */
#endif
/* Messages that programs send, and times that something else wakes a sleeper, at most, of each side. */
#ifndef WORK0
#define WORK0 2
#endif
#ifndef WORK1
#define WORK1 0
#endif
#ifndef WAKES0
#define WAKES0 1
#endif
#ifndef WAKES1
#define WAKES1 0
#endif

mtype = { sequence_word, credit_word, state_word, ring };
chan wire[2] = [WIRE] of { mtype, byte, bit, byte };
#ifdef RING_OVERTAKES
chan rings[2] = [1] of { bit };
#endif

/* Memory of the one, by the other, who writes it. Indices are kept as their differences, as in doorbell.pml. */
byte published[2];
byte freed[2];
byte word_own[2], word_heard[2];
bit word_starved[2];
bit bell[2]; /* by who sleeps on it */

/* What each kernel knows by itself. */
byte in_flight[2], untold[2];
bit starved[2];
bit said_starved[2]; /* when it last took an odd number */
byte own[2];
byte theirs[2], acknowledged[2]; /* the other's word as read last: its `own` and its `heard` */
bit they_starve[2];
byte work[2], wakes[2]; /* still to come */
bit wants[2];           /* a program waits for its message to be sent */
bit asleep[2];

#define arrived(me) (published[1 - me] > 0)
#define room_came(me) (starved[me] && freed[1 - me] > 0)
#define odd(n) ((n) % 2 == 1)
#ifdef TRUST_STALE_AWAKE
#define known_awake (!odd(theirs[me]))
#else
#define known_awake (!odd(theirs[me]) && acknowledged[me] == own[me])
#endif
#define known_asleep_with_room (odd(theirs[me]) && acknowledged[me] == own[me] && !they_starve[me])
#ifdef NO_HANDSHAKE
#define may_sleep (true)
#else
#ifdef NO_REST_RULE
#define may_sleep (acknowledged[me] == own[me])
#else
#define may_sleep (acknowledged[me] == own[me] || odd(theirs[me]))
#endif
#endif

inline post_word() {
#ifdef NO_STARVED_BIT
  wire[me]!state_word(own[me], 0, theirs[me])
#else
  wire[me]!state_word(own[me], said_starved[me], theirs[me])
#endif
}

inline read_word() {
  acknowledged[me] = word_heard[you];
  they_starve[me] = word_starved[you];
  if :: word_own[you] != theirs[me] -> theirs[me] = word_own[you]; post_word() :: else fi
}

inline publish_credits() {
  wire[me]!credit_word(untold[me], 0, 0);
  untold[me] = 0;
  touched_credits = 1
}

inline wake_up() { own[me]++; post_word() }

inline flush() {
#ifndef SENDS_UNDER_ODD
  if :: (touched_data || touched_credits) && odd(own[me]) -> wake_up() :: else fi;
#endif
  if
  :: (touched_data && !known_awake) || (touched_credits && !known_awake && !known_asleep_with_room) ->
#ifdef RING_OVERTAKES
    rings[me]!1
#else
    wire[me]!ring(0, 0, 0)
#endif
  :: else
  fi;
  touched_data = 0;
  touched_credits = 0
}

inline look() {
#ifdef NO_LOOK_AT_CREDITS
  pending = arrived(me)
#else
  pending = arrived(me) || room_came(me)
#endif
}

inline go_to_sleep() {
  if
  :: !odd(own[me]) -> own[me]++; said_starved[me] = starved[me]; post_word()
  :: odd(own[me]) && said_starved[me] != starved[me] ->
    own[me] = own[me] + 2; said_starved[me] = starved[me]; post_word()
  :: else
  fi
}

/* An atomic step reads one kind of word, or what only grows; the writes that it posts are delivered one by one. */
proctype kernel(byte me) {
  bit touched_data, touched_credits, worked, pending;
  byte you = 1 - me;
  do
  :: atomic {
      read_word();
      if :: odd(own[me]) -> wake_up() :: true fi; /* awake for long enough */
      if :: room_came(me) -> starved[me] = 0; worked = 1 :: else fi;
      if :: bell[me] = 0 :: true fi /* heard while awake */
    }
    atomic {
      if
      :: arrived(me) ->
        published[you]--;
        untold[me]++;
        worked = 1;
        if :: untold[me] >= EVERY -> publish_credits() :: else fi
      :: else
      fi;
      if :: !wants[me] && work[me] > 0 -> wants[me] = 1; work[me]-- :: true fi;
      if
      :: wants[me] ->
        if
        :: in_flight[me] == LIMIT -> in_flight[me] = in_flight[me] - freed[you]; freed[you] = 0
        :: else
        fi;
        if
        :: in_flight[me] < LIMIT ->
          in_flight[me]++;
          wants[me] = 0;
          worked = 1;
          touched_data = 1;
          wire[me]!sequence_word(1, 0, 0)
        :: else -> starved[me] = 1
        fi
      :: else
      fi;
      flush()
    }
    if
    :: atomic { worked -> worked = 0 }
    :: else ->
      atomic {
        if :: untold[me] > 0 -> publish_credits() :: else fi;
        flush();
        go_to_sleep()
      }
      do
#ifdef LOOK_BEFORE_WORD
      :: atomic { look() }
        atomic { read_word() }
#else
      :: atomic { read_word() }
        atomic { look() }
#endif
        if
        :: atomic { pending -> pending = 0 } break
        :: atomic { !pending && may_sleep -> asleep[me] = 1 }
end_asleep:
          if
          :: atomic { bell[me] -> bell[me] = 0; asleep[me] = 0 }
          :: atomic { wakes[me] > 0 -> wakes[me]--; asleep[me] = 0 } break
          fi
        :: atomic { !pending && !may_sleep -> bell[me] = 0 } /* a nap: ended by its bound or by the bell */
        :: atomic { !pending && !may_sleep && wakes[me] > 0 -> wakes[me]-- } break
        fi
      od
    fi
  od
}

inline reaches_memory() {
  if
  :: word == sequence_word -> published[me] = published[me] + a; assert(published[me] <= LIMIT)
  :: word == credit_word -> freed[me] = freed[me] + a; assert(freed[me] <= in_flight[1 - me])
  :: word == state_word -> word_own[me] = a; word_starved[me] = b; word_heard[me] = c
  :: word == ring -> ring_bell()
  fi;
  word = 0; a = 0; b = 0; c = 0
}

inline ring_bell() {
#ifdef FORGETFUL_BELL
  bell[1 - me] = asleep[1 - me]
#else
  bell[1 - me] = 1
#endif
}

proctype link(byte me) {
  mtype word;
  byte a, c;
  bit b;
end_nothing:
  do
  :: atomic { wire[me]?word(a, b, c) -> reaches_memory() }
#ifdef RING_OVERTAKES
  :: atomic { rings[me]?b -> b = 0; ring_bell() }
#endif
  od
}

#define settled (asleep[0] && asleep[1] && !arrived(0) && !arrived(1) && !wants[0] && !wants[1] \
                 && len(wire[0]) == 0 && len(wire[1]) == 0)

proctype watcher() {
end_watching:
  timeout -> assert(settled)
}

inline up_to(count, most) { if :: count = 0 :: most > 0 -> count = 1 :: most > 1 -> count = 2 :: most > 2 -> count = 3 fi }

init {
  atomic {
    own[0] = 2;
    own[1] = 2;
    up_to(work[0], WORK0);
    up_to(work[1], WORK1);
    up_to(wakes[0], WAKES0);
    up_to(wakes[1], WAKES1);
    run link(0);
    run link(1);
    run kernel(0);
    run kernel(1);
    run watcher()
  }
}

ltl settles { <> [] settled }
