/* The doorbell between two kernels of one island: arm, sleep, ring (DESIGN decision 3; src/message/links.cc).
 * Model: each kernel sends and receives. A store goes into its kernel's buffer and reaches memory at any later time, in order
 * (TSO; -DPSO: in order per word only); a fence waits for the buffer to be empty. An atomic step has one load of the other's
 * words at most. The work of programs comes at any time, until the environment goes quiet for ever.
 * Checked: when nothing can move, all that was sent is taken and nobody wants for room (watcher); and it comes to that whatever
 * happens (ltl settles). With any one of these defined a check must fail:
 *   NO_SENDER_FENCE NO_RECEIVER_FENCE NO_SECOND_LOOK NO_LOOK_AT_CREDITS NO_STARVED_BIT NO_CREDITS_BEFORE_SLEEP FORGETFUL_BELL
 *   RING_BEFORE_PUBLISH ARMED_AFTER_LOOK */
#ifndef LIMIT
#define LIMIT 2 /* messages in flight at most: message_slots / 2 */
#endif
#ifndef EVERY
#define EVERY 1 /* credits are told every so many: MessageReader::credit_every */
#endif
#ifndef BUFFER
#define BUFFER 3
#endif
#define ARMED 1
#define STARVED 2

mtype = { sequence_word, credit_word, armed_word };
chan buffer[2] = [BUFFER] of { mtype, byte };

/* Memory, by who writes it. Indices that only grow are kept as their differences, which are what the code looks at. */
byte published[2]; /* what the other finds in the ring: sequence - MessageReader::next_ */
byte freed[2];     /* credits that the other's MessageWriter has not loaded: *consumed_ - credited_ */
byte armed[2];
bit bell[2]; /* by who sleeps on it: an epoll set that watches an eventfd, edge-triggered */

/* What each kernel knows by itself. */
byte in_flight[2]; /* MessageWriter::in_flight() */
byte untold[2];    /* MessageReader::uncredited() */
bit starved[2];    /* Link::starved */
bit wants[2];      /* a program waits for its message to be sent */
bit asleep[2];
bit quiet;

#define arrived(me) (published[1 - me] > 0)
#define room_came(me) (starved[me] && freed[1 - me] > 0)

inline publish_credits() {
  buffer[me]!credit_word(untold[me]);
  untold[me] = 0;
  touched_credits = 1
}

inline ring() {
#ifdef FORGETFUL_BELL
  bell[you] = asleep[you]
#else
  bell[you] = 1
#endif
}

/* Links::flush_touched */
inline flush() {
  if
  :: touched_data || touched_credits ->
#ifndef NO_SENDER_FENCE
    empty(buffer[me]);
#endif
    atomic {
      seen = armed[you];
      must_ring = (seen != 0 && touched_data) || ((seen & STARVED) != 0);
      seen = 0; touched_data = 0; touched_credits = 0
    }
    if :: atomic { must_ring -> must_ring = 0; ring() } :: else fi
  :: else
  fi
}

/* Links::anything_pending */
inline look_again() {
  atomic { pending = arrived(me) }
#ifndef NO_LOOK_AT_CREDITS
  atomic { pending = pending || room_came(me) }
#endif
}

inline store_armed() {
#ifdef NO_STARVED_BIT
  buffer[me]!armed_word(ARMED)
#else
  buffer[me]!armed_word(ARMED + STARVED * starved[me])
#endif
}

proctype kernel(byte me) {
  byte seen;
  bit touched_data, touched_credits, must_ring, worked, pending;
  byte you = 1 - me;
  do
  :: /* Messenger::poll, drain; MessageReader::take */
    atomic { if :: room_came(me) -> starved[me] = 0; worked = 1 :: else fi }
    atomic {
      if
      :: arrived(me) ->
        published[you]--;
        untold[me]++;
        worked = 1;
        if :: untold[me] >= EVERY -> publish_credits() :: else fi
      :: else
      fi
    }
    /* Kernel::poll also takes what the host has to say, now and then. */
    if :: bell[me] = 0 :: true fi;
    /* Messenger::send; MessageWriter::room, write */
    atomic {
      if :: !wants[me] && !quiet -> wants[me] = 1 :: true fi;
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
#ifndef RING_BEFORE_PUBLISH
          buffer[me]!sequence_word(1)
#endif
        :: else -> starved[me] = 1
        fi
      :: else
      fi
    }
#ifdef RING_BEFORE_PUBLISH
    if :: touched_data -> flush(); buffer[me]!sequence_word(1) :: else fi;
#endif
    flush();
    if
    :: atomic { worked -> worked = 0 }
    :: else ->
      /* Links::set_armed(true) */
#ifndef NO_CREDITS_BEFORE_SLEEP
      atomic { if :: untold[me] > 0 -> publish_credits() :: else fi }
      flush();
#endif
#ifdef ARMED_AFTER_LOOK
      look_again();
      store_armed();
      empty(buffer[me]);
#else
      store_armed();
#ifndef NO_RECEIVER_FENCE
      empty(buffer[me]);
#endif
#ifndef NO_SECOND_LOOK
      look_again();
#endif
#endif
      if
      :: atomic { pending -> pending = 0 }
      :: atomic { else -> asleep[me] = 1 }
end_asleep:
        if
        :: atomic { bell[me] -> bell[me] = 0; asleep[me] = 0 }
        :: atomic { !quiet -> asleep[me] = 0 } /* a program's call, a deadline */
        fi
      fi;
      buffer[me]!armed_word(0) /* set_armed(false): no fence */
    fi
  od
}

inline reaches_memory() {
  if
  :: word == sequence_word -> published[me] = published[me] + value; assert(published[me] <= LIMIT)
  :: word == credit_word -> freed[me] = freed[me] + value; assert(freed[me] <= in_flight[1 - me])
  :: word == armed_word -> armed[me] = value
  fi;
  word = 0;
  value = 0
}

proctype memory(byte me) {
  mtype word;
  byte value;
end_nothing:
  do
#ifdef PSO
  :: atomic { buffer[me]??sequence_word(value) -> word = sequence_word; reaches_memory() }
  :: atomic { buffer[me]??credit_word(value) -> word = credit_word; reaches_memory() }
  :: atomic { buffer[me]??armed_word(value) -> word = armed_word; reaches_memory() }
#else
  :: atomic { buffer[me]?word(value) -> reaches_memory() }
#endif
  od
}

#define settled (asleep[0] && asleep[1] && !arrived(0) && !arrived(1) && !wants[0] && !wants[1] \
                 && len(buffer[0]) == 0 && len(buffer[1]) == 0)

proctype watcher() {
end_watching:
  timeout -> assert(settled)
}

init {
  atomic {
    run memory(0);
    run memory(1);
    run kernel(0);
    run kernel(1);
    run watcher()
  };
  quiet = 1
}

ltl settles { <> [] settled }
