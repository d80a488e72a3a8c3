/* The offset of a description and its token, between the home and its holders (docs/descriptors.md, 2, 3, 5 and 6; src/descriptor).
 * Model: links are a channel each way; a session ends at any time, what is under way is lost, each side learns it some time later,
 * and then a new one may begin. Holders stop for any time, or die. Every operation moves the offset by one: done by the home at the
 * host's own position, by the home at the token's position, or by the holder alone (a read from its cache, lseek), which the home
 * does not hear of. The home's operations have a beginning and an end. Time is what it allows: a lease runs out at any moment, and
 * the home's count of it ends after the holder's.
 * Checked: in the order of their effects every operation finds the offset where the one before left it, but for one EIO a loss,
 * which sets it to what was reported last; nothing takes effect after the home has gone on, or while another does; what a holder
 * uses alone the home believes; a grant is believed once, a loss needs a session's end or a lease that ran out; the last close
 * ends the description once, with nothing under way; and when nothing can move, whoever lives has its answer (watcher). It always
 * comes to that (ltl settles).
 * With any one of these defined a check must fail:
 *   NO_GRANT_NUMBER NO_REFUSAL RETURN_BEFORE_LAST_OPERATION RETURN_AFTER_ALL_OPERATIONS TWO_AT_A_TIME DROP_WITHOUT_OFFSET
 *   GRANT_WHILE_WAITING GRANT_WHILE_OWN_WAITS GRANT_WHILE_FENCED GRANT_WITHOUT_LEASE GRANT_TO_THE_GONE NO_FENCE RENEWED_OVERTAKES
 *   LOOK_BEFORE_USE LEASE_FROM_RECEIPT NO_LEASE_WAIT EXPIRE_AT_HOME_FIRST GIVE_UP_UNDER_WAY SILENT_LOSS
 *   DROP_BEFORE_HELD CLOSE_UNDER_WAY NO_HOLDER_BIT END_WHEN_FENCED */
#ifndef HOLDERS
#define HOLDERS 2
#endif
/* How many operations each program does: 0 and 1 on holders 0 and 1, and 2 on holder 2 or, of two holders, on 0 as well. */
#ifndef WORK0
#define WORK0 2
#endif
#ifndef WORK1
#define WORK1 1
#endif
#ifndef WORK2
#define WORK2 0
#endif
/* At most: Renews of a holder, ends of sessions, deaths, unanswered Invalidates, Drops, passes from one holder to the next. */
#ifndef RENEWS
#define RENEWS 0
#endif
#ifndef CUTS
#define CUTS 0
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef INVALIDATES
#define INVALIDATES 0
#endif
#ifndef DROPS
#define DROPS 0
#endif
#ifndef PASSES
#define PASSES 0
#endif
/* PROMPT: holders that live, on a link that does, renew in time. OPENED: holder 0 alone has it at first, with a grant. */
#define PROGRAMS 3
#define owner(p) ((p) % HOLDERS)
#define NOBODY 255

mtype = { at_offset, by_token, returned, enoent, drop, renew, hold,     /* to the home: program or flag, grant, offset */
          done, token_done, refused, eio, recall, renewed, held };      /* to a holder */
mtype = { home, resting, recalling, lost };
chan to_home[HOLDERS] = [5] of { mtype, byte, byte, byte };
chan to_holder[HOLDERS] = [5] of { mtype, byte, byte, byte };

/* The links, by holder. */
bit up[HOLDERS], home_knows[HOLDERS], holder_knows[HOLDERS], dead[HOLDERS];

/* The home. */
mtype state = home;
byte keeper = NOBODY; /* resting, recalling: at whom, */
byte grant;           /* by which number, */
bit orphan;           /* and its session has ended */
byte position;        /* the host's own; while a token rests, the one reported last */
byte numbers;         /* the last grant's */
bit holds_at_home[HOLDERS], fenced[HOLDERS];
chan line = [PROGRAMS] of { byte }; /* operations at the offset that wait */
byte under_way = NOBODY;            /* the program whose operation the home is doing, */
bit under_way_gone;                 /* whose session has ended; */
byte under_way_grant, under_way_at; /* by token if not 0 */
bit ended;

/* The holders. */
bit holds[HOLDERS];
byte has[HOLDERS]; /* the grant, 0: none */
byte offset[HOLDERS];
bit busy[HOLDERS], recalled[HOLDERS], renewing[HOLDERS];
/* The lease: good at the holder; and answers under way that will make it so, unless they take too long. */
bit good[HOLDERS], good_by_grant[HOLDERS], good_by_renew[HOLDERS];
#define over(h) (!good[h] && !good_by_grant[h] && !good_by_renew[h])

/* Programs. */
mtype = { idle, wants, asked, asked_by_token, alone };
mtype doing[PROGRAMS] = idle;
byte work[PROGRAMS];

/* What the world has left, and what is passed to whom. */
byte renews[HOLDERS], cuts = CUTS, deaths = DEATHS, invalidates = INVALIDATES, drops = DROPS, passes = PASSES;
bit passed_to[HOLDERS];
#define passer(h) (((h) + HOLDERS - 1) % HOLDERS)
#define passed_by(h) passed_to[((h) + 1) % HOLDERS]

/* For the checks alone: where the next operation must find the offset; and whether there was cause for a loss. */
byte next;
bit ran_out[HOLDERS], trouble;

#if HOLDERS > 2
#define unheld (!holds_at_home[0] && !holds_at_home[1] && !holds_at_home[2])
#else
#define unheld (!holds_at_home[0] && !holds_at_home[1])
#endif
#define rests_at(h, n) ((state == resting || state == recalling) && keeper == (h) && grant == (n) && !orphan)
/* What a holder may use alone: also after its session's end while the home waits, or when nobody is left to see it. */
#define believed_alone(h) (ended || (state != home && state != lost && keeper == (h) && grant == has[h] && under_way == NOBODY))
#ifdef NO_GRANT_NUMBER
#define believes(h, n) ((state == resting || state == recalling) && keeper == (h) && !orphan)
#else
#define believes(h, n) rests_at(h, n)
#endif

inline tell_home(h, what, a, n, at) {
  if :: up[h] -> assert(nfull(to_home[h])); to_home[h]!what(a, n, at) :: else fi
}
inline tell_holder(h, what, a, n, at) {
  if :: up[h] && !dead[h] -> assert(nfull(to_holder[h])); to_holder[h]!what(a, n, at) :: else fi
}
inline takes_effect(at) {
  assert(at == next);
  next = at + 1
}

/* ---- A program, and its kernel's part in its operations ---- */
inline ask_by_token() {
  doing[p] = asked_by_token;
  tell_home(h, by_token, p, has[h], offset[h])
}

#define begins (doing[p] == wants || (doing[p] == idle && work[p] > 0 && holds[h]))
inline begin(how) {
  if :: doing[p] == idle -> work[p]-- :: else fi;
  doing[p] = how
}

proctype program(byte p; byte h) {
end_program:
  do
  :: atomic { begins && !has[h] && !dead[h] -> begin(asked); tell_home(h, at_offset, p, 0, 0) }
#ifdef TWO_AT_A_TIME
  :: atomic { begins && has[h] && !recalled[h] && !dead[h] -> busy[h] = 1; begin(asked_by_token); ask_by_token() }
#else
  :: atomic { begins && has[h] && !recalled[h] && !busy[h] && !dead[h] -> busy[h] = 1; begin(asked_by_token); ask_by_token() }
#endif
    /* Alone, by the program, even after its kernel's death: copies, then looks at the lease, then it counts. */
#ifdef LOOK_BEFORE_USE
  :: atomic { begins && has[h] && !recalled[h] && !busy[h] && good[h] -> busy[h] = 1; begin(alone) }
#else
  :: atomic { begins && has[h] && !recalled[h] && !busy[h] -> busy[h] = 1; begin(alone) }
#endif
  :: atomic {
      doing[p] == alone ->
      if
#ifdef LOOK_BEFORE_USE
      :: true ->
#else
      :: good[h] ->
#endif
        takes_effect(offset[h]);
        assert(believed_alone(h));
        offset[h]++;
        doing[p] = idle;
        busy[h] = 0
#ifndef LOOK_BEFORE_USE
      :: !good[h] && !dead[h] -> ask_by_token()
      :: !good[h] && dead[h] -> doing[p] = idle
#endif
      fi
    }
  od
}

/* ---- A holder: src/descriptor Holder ---- */
inline forget() {
  if :: recalled[h] -> tell_home(h, enoent, 0, has[h], 0) :: else fi;
  has[h] = 0;
  recalled[h] = 0;
  for (i : 0 .. PROGRAMS - 1) {
    if :: owner(i) == h && doing[i] == alone -> doing[i] = wants; busy[h] = 0 :: else fi
  }
}

inline holder_takes() {
  if
  :: what == done ->
    doing[a] = idle;
    if
    :: n != 0 ->
      assert(has[h] == 0 && !recalled[h]);
      has[h] = n;
      offset[h] = at;
#ifdef LEASE_FROM_RECEIPT
      good[h] = 1;
#else
      good[h] = good[h] || good_by_grant[h];
#endif
      good_by_grant[h] = 0
    :: else
    fi
  :: what == token_done -> assert(has[h] == n); offset[h] = at; doing[a] = idle; busy[h] = 0
  :: what == refused ->
    busy[h] = 0;
    doing[a] = wants;
    if :: has[h] == n -> forget() :: else fi
  :: what == eio -> doing[a] = idle
  :: what == recall ->
    if
    :: has[h] == n -> recalled[h] = 1
    :: else -> tell_home(h, enoent, 0, n, 0)
    fi
  :: what == renewed ->
    renewing[h] = 0;
    if
    :: a -> forget()
    :: else ->
#ifdef LEASE_FROM_RECEIPT
      good[h] = 1;
#else
      good[h] = good[h] || good_by_renew[h];
#endif
      good_by_renew[h] = 0
    fi
  :: what == held ->
    assert(a || trouble); /* passed by one who lives, it is there */
    holds[h] = a;
    passed_to[h] = 0
  fi
}

inline holder_learns() {
  do
  :: nempty(to_holder[h]) -> to_holder[h]?what(a, n, at)
  :: empty(to_holder[h]) -> break
  od;
  for (i : 0 .. PROGRAMS - 1) {
    if :: owner(i) == h -> doing[i] = idle :: else fi /* ESTALE, if it was asked */
  }
  holder_knows[h] = 1;
  holds[h] = 0; has[h] = 0; offset[h] = 0; recalled[h] = 0; busy[h] = 0;
  renewing[h] = 0; good[h] = 0; good_by_grant[h] = 0; good_by_renew[h] = 0; ran_out[h] = 1;
  passed_to[h] = 0
}

#define no_operation(h) ((owner(0) != (h) || doing[0] == idle) && (owner(1) != (h) || doing[1] == idle) \
                         && (owner(2) != (h) || doing[2] == idle))
#define none_at_offset(h) ((owner(0) != (h) || doing[0] != asked) && (owner(1) != (h) || doing[1] != asked) \
                           && (owner(2) != (h) || doing[2] != asked))
#ifdef RETURN_BEFORE_LAST_OPERATION
#define may_return(h) true
#else
#ifdef RETURN_AFTER_ALL_OPERATIONS
#define may_return(h) (!busy[h] && none_at_offset(h))
#else
#define may_return(h) (!busy[h])
#endif
#endif
#ifdef DROP_BEFORE_HELD
#define may_drop(h) true
#else
#define may_drop(h) (!passed_by(h))
#endif

#define forget_message what = 0; a = 0; n = 0; at = 0; i = 0

proctype holder(byte h) {
  mtype what;
  byte a, n, at, i;
end_holder:
  do
  :: atomic { !dead[h] && !holder_knows[h] && nempty(to_holder[h]) -> to_holder[h]?what(a, n, at); holder_takes(); forget_message }
#ifdef RENEWED_OVERTAKES
  :: atomic {
      !dead[h] && !holder_knows[h] && to_holder[h]??[renewed, _, _, _] -> to_holder[h]??renewed(a, n, at);
      what = renewed;
      holder_takes();
      forget_message
    }
#endif
  :: atomic {
      !dead[h] && recalled[h] && may_return(h) ->
      tell_home(h, returned, 0, has[h], offset[h]);
      has[h] = 0; offset[h] = 0; recalled[h] = 0
    }
  :: atomic { !dead[h] && has[h] && !renewing[h] && renews[h] > 0 -> renews[h]--; renewing[h] = 1; tell_home(h, renew, 0, 0, 0) }
  :: atomic {
      !dead[h] && holds[h] && drops > 0 && no_operation(h) && may_drop(h) ->
      drops--;
#ifdef DROP_WITHOUT_OFFSET
      tell_home(h, drop, 0, 0, 0);
#else
      tell_home(h, drop, 0, has[h], offset[h]);
#endif
      if :: recalled[h] -> tell_home(h, enoent, 0, has[h], 0) :: else fi;
      holds[h] = 0; has[h] = 0; offset[h] = 0; recalled[h] = 0
    }
    /* Pass: from the one before, who does not drop until it is held here. */
  :: atomic {
      !dead[h] && passes > 0 && !holds[h] && !passed_to[h] && up[h] && holds[passer(h)] && !dead[passer(h)] ->
      passes--;
      passed_to[h] = 1;
      tell_home(h, hold, 0, 0, 0)
    }
  :: atomic { !dead[h] && !up[h] && !holder_knows[h] -> holder_learns(); forget_message }
  od
}

/* ---- The home: src/descriptor Home ---- */
inline end_if_unheld() {
  if
#ifdef CLOSE_UNDER_WAY
  :: !ended && unheld ->
#else
  :: !ended && unheld && under_way == NOBODY ->
#endif
    assert(under_way == NOBODY && empty(line));
    ended = 1;
    state = home; keeper = NOBODY; grant = 0; orphan = 0
  :: else
  fi
}

inline offset_comes_home(to) {
  assert(under_way == NOBODY);
  state = home; keeper = NOBODY; grant = 0;
  position = to
}

inline home_takes() {
  if
  :: what == at_offset ->
    assert(holds_at_home[h]);
    line!a;
    if :: state == resting -> state = recalling; tell_holder(keeper, recall, 0, grant, 0) :: else fi
  :: what == by_token ->
    if
#ifdef NO_REFUSAL
    :: true ->
#else
    :: believes(h, n) ->
#endif
      assert(under_way == NOBODY);
      under_way = a; under_way_grant = n; under_way_at = at
    :: else -> tell_holder(h, refused, a, n, 0)
    fi
  :: what == returned -> if :: believes(h, n) -> offset_comes_home(at) :: else fi
  :: what == enoent -> assert(!rests_at(h, n)) /* a Drop said it, or it was given up */
  :: what == drop ->
    holds_at_home[h] = 0;
    if
    :: believes(h, n) -> offset_comes_home(at)
#ifdef DROP_WITHOUT_OFFSET
    :: rests_at(h, grant) -> offset_comes_home(position)
#endif
    :: else -> assert(!rests_at(h, grant))
    fi;
    end_if_unheld()
  :: what == renew ->
    tell_holder(h, renewed, fenced[h], 0, 0);
    good_by_renew[h] = !fenced[h];
    fenced[h] = 0
  :: what == hold ->
    if :: !ended -> holds_at_home[h] = 1 :: else fi;
    tell_holder(h, held, !ended, 0, 0)
  fi
}

#ifdef GRANT_WHILE_WAITING
#define nothing_waits true
#else
#ifdef GRANT_WHILE_OWN_WAITS
#define nothing_waits (empty(line) || (len(line) == 1 && ((owner(0) == h && line?[0]) || (owner(2) == h && line?[2]))))
#else
#define nothing_waits empty(line)
#endif
#endif
#ifdef GRANT_WHILE_FENCED
#define unfenced(h) true
#else
#define unfenced(h) (!fenced[h])
#endif
#ifdef GRANT_TO_THE_GONE
#define there true
#else
#define there (!under_way_gone)
#endif

inline operation_ends() {
  if
  :: under_way_grant != 0 ->
    assert(keeper == h && grant == under_way_grant); /* the home has not gone on */
    takes_effect(under_way_at);
    position = under_way_at + 1;
    if :: !under_way_gone -> tell_holder(h, token_done, under_way, under_way_grant, position) :: else fi
  :: else ->
    takes_effect(position);
    position++;
    if
    :: nothing_waits && unfenced(h) && there ->
      numbers++;
      state = resting; keeper = h; grant = numbers;
      ran_out[h] = 0;
#ifndef GRANT_WITHOUT_LEASE
      good_by_grant[h] = 1;
#endif
      tell_holder(h, done, under_way, grant, position)
    :: true ->
      if :: !under_way_gone -> tell_holder(h, done, under_way, 0, position) :: else fi
    fi
  fi;
  under_way = NOBODY; under_way_gone = 0; under_way_grant = 0; under_way_at = 0;
  end_if_unheld()
}

inline home_learns() {
  do
  :: nempty(to_home[h]) -> to_home[h]?what(a, n, at)
  :: empty(to_home[h]) -> break
  od;
  home_knows[h] = 1;
  fenced[h] = 0;
  for (i : 0 .. PROGRAMS - 1) {
    if :: owner(i) == h && line??[eval(i)] -> line??eval(i) :: else fi
  }
  if :: under_way != NOBODY && owner(under_way) == h -> under_way_gone = 1 :: else fi;
  if :: keeper == h && (state == resting || state == recalling) -> state = recalling; orphan = 1 :: else fi;
#ifdef NO_HOLDER_BIT
  holds_at_home[h] = 0;
  if :: unheld -> assert(!ended); ended = 1 :: else fi
#else
  if :: holds_at_home[h] -> holds_at_home[h] = 0; end_if_unheld() :: else fi
#endif
}

#ifdef NO_LEASE_WAIT
#define orphan_over(h) true
#else
#define orphan_over(h) (up[h] || holder_knows[h] || over(h))
#endif
#ifdef EXPIRE_AT_HOME_FIRST
#define home_count_over(h) true
#else
#define home_count_over(h) over(h)
#endif
#ifdef GIVE_UP_UNDER_WAY
#define none_under_way true
#else
#define none_under_way (under_way == NOBODY)
#endif

/* A pair's tokens and file leases at once; here there is one. */
inline give_up() {
  assert(orphan || ran_out[keeper]);
#ifndef NO_FENCE
  if :: !orphan -> fenced[keeper] = 1 :: else fi;
#endif
#ifdef END_WHEN_FENCED
  holds_at_home[keeper] = 0;
#endif
#ifdef SILENT_LOSS
  state = home;
#else
  state = lost;
#endif
  keeper = NOBODY; grant = 0; orphan = 0
}

proctype home_kernel() {
  mtype what;
  byte a, n, at, i, h;
end_home:
  do
  :: atomic { !home_knows[0] && nempty(to_home[0]) -> to_home[0]?what(a, n, at); home_takes(); forget_message }
  :: atomic { !home_knows[1] && nempty(to_home[1]) -> h = 1; to_home[1]?what(a, n, at); home_takes(); forget_message; h = 0 }
#if HOLDERS > 2
  :: atomic { !home_knows[2] && nempty(to_home[2]) -> h = 2; to_home[2]?what(a, n, at); home_takes(); forget_message; h = 0 }
#endif
  :: atomic { state == home && under_way == NOBODY && nempty(line) -> line?under_way }
  :: atomic {
      state == lost && under_way == NOBODY && nempty(line) ->
      line?a;
      tell_holder(owner(a), eio, a, 0, 0);
      state = home;
      next = position;
      forget_message
    }
  :: atomic { under_way != NOBODY -> h = owner(under_way); operation_ends(); h = 0 }
  :: atomic { state == recalling && none_under_way && (orphan -> orphan_over(keeper) : home_count_over(keeper)) -> give_up() }
    /* An Invalidate that is not answered ends the pair's leases and tokens alike. */
  :: atomic { state == resting && none_under_way && invalidates > 0 && home_count_over(keeper) -> invalidates--; give_up() }
  :: atomic { !up[0] && !home_knows[0] -> home_learns(); forget_message }
  :: atomic { !up[1] && !home_knows[1] -> h = 1; home_learns(); forget_message; h = 0 }
#if HOLDERS > 2
  :: atomic { !up[2] && !home_knows[2] -> h = 2; home_learns(); forget_message; h = 0 }
#endif
  od
}

/* ---- The world ---- */
#ifdef PROMPT
#define may_run_out(h) (dead[h] || !up[h])
#else
#define may_run_out(h) true
#endif
#define some_lease(h) (good[h] || good_by_grant[h] || good_by_renew[h])

proctype world(byte h) {
end_world:
  do
  :: atomic {
      may_run_out(h) && some_lease(h) ->
      if :: good[h] -> good[h] = 0 :: good_by_grant[h] -> good_by_grant[h] = 0 :: good_by_renew[h] -> good_by_renew[h] = 0 fi;
      ran_out[h] = 1
    }
  :: atomic { cuts > 0 && up[h] -> cuts--; up[h] = 0; trouble = 1 }
  :: atomic { !up[h] && home_knows[h] && holder_knows[h] && !dead[h] -> up[h] = 1; home_knows[h] = 0; holder_knows[h] = 0 }
  :: atomic { deaths > 0 && !dead[h] -> deaths--; dead[h] = 1; trouble = 1 }
  od
}

#define answered(p) (dead[owner(p)] || (doing[p] == idle && (work[p] == 0 || !holds[owner(p)])))
#define agree(h) (dead[h] || holds[h] == holds_at_home[h])
#define settled (answered(0) && answered(1) && answered(2) && len(line) == 0 && under_way == NOBODY && ended == unheld \
                 && agree(0) && agree(1) && agree(HOLDERS - 1))

proctype watcher() {
end_watching:
  timeout -> assert(settled)
}

init {
  byte i;
  atomic {
    for (i : 0 .. HOLDERS - 1) {
      up[i] = 1;
      renews[i] = RENEWS;
#ifndef OPENED
      holds[i] = 1; holds_at_home[i] = 1
#endif
    }
#ifdef OPENED
    holds[0] = 1; holds_at_home[0] = 1;
    state = resting; keeper = 0; grant = 1; numbers = 1; has[0] = 1; good[0] = 1;
#endif
    i = 0;
    work[0] = WORK0; work[1] = WORK1; work[2] = WORK2;
    run home_kernel();
    run holder(0); run holder(1); run world(0); run world(1);
#if HOLDERS > 2
    run holder(2); run world(2);
#endif
    run program(0, 0); run program(1, 1);
#if WORK2 > 0
    run program(2, owner(2));
#endif
    run watcher()
  }
}

ltl settles { <> [] settled }
