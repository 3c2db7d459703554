/* protocol.pml - the words of one lock cell and what a vCPU does with them.
 *
 * Included by queue.pml (nobody dies) and recovery.pml (anybody may).  Names and
 * the order of steps are those of csrc/: fast.h, hv/park.c, hv/barrier.c,
 * hv/leave.c, recover/abandon.c.  A STEP is one access to shared memory, or
 * several that nobody can tell from one; where OR_DIE stands a vCPU may die
 * before it.
 *
 * What is left out, and why that loses nothing
 *
 * - One cell.  Cells share only the tombstone table (a map from (cell, ticket),
 *   so other cells' entries are other keys) and the channels (ALIAS below).
 * - The place of a tombstone in the table.  tomb[t] is the map that the hash set
 *   implements; that tombs_live, its shortcut, is never too low is counts.pml.
 * - Memory order, but for one store.  Every step is seen at once by all, except
 *   the unlocker's store of head, which may stay in its store buffer: `late`.
 *   On x86 a load may only overtake an earlier store of its own CPU.  The loads
 *   that follow a plain store without a locked instruction between are: the
 *   unlocker's look at slow (modelled); the look at head after `ticket = t`, and
 *   the look at slow before that head store, where the stores still buffered
 *   (ticket, owner, pending) become visible later but in order, as those of a
 *   slower vCPU do; and those behind a fence, which is a STEP of its own or, where
 *   it is the first half of the same step, `settle` and `raise`.  Stores of the dead
 *   are visible: the kernel runs between the last of them and the life word.
 * - The futex.  A sleeper wakes when a kick bumps seq between its reading seq
 *   and the kernel's comparison, or when it sleeps and is woken by its ticket's
 *   bit.  Wakes for another reason (alias of the bit, signal, watchdog) only make
 *   it look again, and are left out: what is shown holds WITHOUT them.
 * - Spinning and yielding are the steps of a sleeper that never sleeps. */

#ifndef N
#define N 3 /* vCPUs */
#endif
#define TICKETS 8 /* more than are ever drawn (take checks it) */
#ifndef MEMBARRIER
#define MEMBARRIER 1 /* 1: waiters fence for everybody (hv/barrier.c); 0: each unlocker fences */
#endif
#ifndef CHANNELS
#define CHANNELS TICKETS /* event channels; 1: all tickets share one */
#endif
#ifndef AHEAD
#define AHEAD 0 /* who falls asleep wakes the first sleeper of so many behind head; 0: nobody */
#endif

#define NONE 255
#define ALIVE 0
#define DEAD 1

/* The cell. */
byte tail, head, slow;
byte owner_ticket = NONE, owner_tag; /* one word, stored at once */
bit owner_died;

/* The domain. */
byte tomb[TICKETS];    /* 0 empty, 1 stands, 2 PASSING */
bit version_moved;     /* tombs_version is not what elimination read first */
byte parked[CHANNELS];
#if AHEAD
byte kicked[CHANNELS]; /* ticket + 1 */
#endif
bit guard;

/* The vCPUs' slots. */
bit pending[N];
byte ticket[N], held[N];
bit life[N];
byte wait[N]; /* 0 awake, 1 has read seq, 2 seq bumped since, 3 asleep */

/* The store buffer: head as its storer sees it already, and who that is; 0 empty. */
byte late, late_by;

/* What only the model knows. */
byte inside;           /* vCPU + 1 in its critical section */
bit corpse;            /* a vCPU died inside, and nobody was told yet */
byte possessor[TICKETS]; /* vCPU + 1 that may still enter with this ticket */
byte served;           /* tickets below have been entered or passed over */
byte ended;            /* vCPUs that have finished or died */
#if AHEAD
bit kicking[N];        /* it kicks early, or has died at that */
#endif

#define CH(t) ((t) % CHANNELS)
#define MINE_BUFFERED (late != 0 && late_by == me)

#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef MORTALS
#define MORTALS 7 /* bit mask of vCPUs that may die */
#endif
#ifndef RECOVERER_DEATHS
#define RECOVERER_DEATHS 0
#endif
#if DEATHS
byte deaths, recoverer_deaths;
#define CAN_DIE (me < N && deaths < DEATHS && ((MORTALS >> me) & 1) || me >= N && recoverer_deaths < RECOVERER_DEATHS)
#define OR_DIE :: atomic { CAN_DIE -> die(); goto dead }
#else
#define OR_DIE
#endif

#define STEP(x) if :: d_step { x } OR_DIE fi

/* The death of a vCPU, or of whoever recovers (me == N), who drops the guard. */
inline die()
{
    d_step {
        if
        :: me < N ->
            if :: MINE_BUFFERED -> head = late; late = 0; late_by = 0 :: else fi;
            if :: inside == me + 1 -> inside = 0; corpse = 1 :: else fi;
            life[me] = DEAD;
            wait[me] = 0;
            ended++;
#if DEATHS
            deaths++
        :: else ->
            guard = 0;
            recoverer_deaths++
#endif
        fi;
        t = 0;
        h = 0
    }
}

/* --------------------------------------------------------------- barriers */

/* A locked instruction or fence of one's own. */
inline fence()
{
    if :: MINE_BUFFERED -> head = late; late = 0; late_by = 0 :: else fi
}

/* plk_barrier_heavy: everybody fences. */
inline heavy()
{
#if MEMBARRIER
    if :: late != 0 -> head = late; late = 0; late_by = 0 :: else fi
#else
    fence()
#endif
}

/* Store buffers drain when they like. */
active proctype memory()
{
end:
    do
    :: d_step { late != 0 -> head = late; late = 0; late_by = 0 }
    od
}

/* ------------------------------------------------------------------ serve */

/* Move head past h, whose tombstone is marked: nobody possesses a live vCPU's ticket. */
inline cas_head(h)
{
    fence();
    if
    :: head == h ->
        assert(possessor[h] == 0 || life[possessor[h] - 1] == DEAD); /* no live ticket is passed over */
        head = h + 1;
        served = h + 1
    :: else
    fi
}

/* When plk_kick does nothing although somebody is parked. */
#define AGAIN false
#if AHEAD
#define ONCE (kicked[CH(h)] == h + 1)
#ifdef BREAK_K1_AGAIN
#undef AGAIN
#define AGAIN ONCE
#endif
#else
#define ONCE false /* nobody kicks early, and the word is left out */
#endif

/* The second half of plk_kick. */
inline wake(h)
{
#if AHEAD
    STEP(kicked[CH(h)] = h + 1);
#endif
#ifndef BREAK_K1_BUMP
    STEP(i = 0;
         do
         :: i < N -> if :: wait[i] == 1 && CH(ticket[i]) == CH(h) -> wait[i] = 2 :: else fi; i++
         :: else -> break
         od;
         i = 0);
#endif
    STEP(i = 0;
         do
         :: i < N -> if :: wait[i] == 3 && ticket[i] == h -> wait[i] = 0 :: else fi; i++
         :: else -> break
         od;
         i = 0)
}

/* plk_kick */
inline kick(h, how)
{
    if
    :: atomic { parked[CH(h)] != 0 && !(how) ->
#ifdef BREAK_PARKED_CLEARED
        parked[CH(h)] = 0 /* clearing loses the wake of another ticket on the channel */
#endif
       }
        wake(h)
    :: atomic { parked[CH(h)] == 0 || (how) -> skip }
    OR_DIE
    fi
}

/* plk_pass_on and plk_kick: ticket h is served; pass over it if it is abandoned. */
inline serve(h, how)
{
    do
    :: atomic { tomb[h] == 0 -> break }
    :: d_step { tomb[h] != 0 -> fence();
#ifndef BREAK_PASSING
        tomb[h] = 2 /* 1: the leaver can't take it back now */
#endif
       };
        STEP(cas_head(h)); /* 2 [K1] [K2] */
        STEP(if :: tomb[h] != 0 -> tomb[h] = 0; version_moved = 1 :: else fi; h++) /* 3 */
    OR_DIE
    od;
    kick(h, how)
}

/* ------------------------------------------------------------------ waiting */

/* plk_slow_raise */
inline raise()
{
#if MEMBARRIER
    if
    :: atomic { slow == 2 -> skip } /* armed: a membarrier has followed */
    :: atomic { slow != 2 -> slow = 1 };
#ifndef BREAK_K1_FENCE
        STEP(heavy()); /* [K1] [K2] pairs with the unlocker's store of head, before its look at slow */
#endif
        STEP(if :: slow == 1 -> slow = 2 :: else fi)
    OR_DIE
    fi
#else
    STEP(slow = 1)
#endif
}

inline unkick()
{
    STEP(if :: kicked[CH(t)] == t + 1 -> kicked[CH(t)] = 0 :: else fi)
}

/* Kick at park: plk_kick_near. */
inline kick_near()
{
    STEP(h = head; near = (h + AHEAD < t - 1 -> h + AHEAD : t - 1));
    do
    :: atomic { h <= near && parked[CH(h)] != 0 && !ONCE -> near = 0; kicking[me] = 1 };
        wake(h);
        STEP(kicking[me] = 0);
        break
    :: atomic { h <= near && (parked[CH(h)] == 0 || ONCE) -> h++ }
    :: atomic { h > near -> break }
    OR_DIE
    od;
    h = 0;
    near = 0
}

/* plk_park: one look, or one sleep. */
inline park()
{
#ifdef BREAK_K1_UNKICKED_EARLY
    unkick();
#endif
#ifndef BREAK_K1_SEQ
    STEP(wait[me] = 1); /* 1 */
#endif
#if AHEAD && !defined(BREAK_K1_UNKICKED) && !defined(BREAK_K1_UNKICKED_EARLY) && !defined(BREAK_K1_UNKICKED_LATE)
    unkick(); /* 0, after 1: a K that comes between has bumped what 1 reads */
#endif
    STEP(parked[CH(t)]++); /* 2, a locked instruction */
#ifndef BREAK_K1_PUBLISH
    raise(); /* 3 [K1] */
#endif
    if
#ifndef BREAK_K1_RECHECK
    :: atomic { head == t -> wait[me] = 0 } /* 4 [K1] served already */
#endif
#ifdef BREAK_K1_RECHECK
    :: atomic { true -> skip };
#else
    :: atomic { head != t -> skip };
#endif
#ifdef BREAK_K1_SEQ
        STEP(wait[me] = 1);
#endif
#ifdef BREAK_K1_PUBLISH
        raise();
#endif
#ifdef BREAK_K1_UNKICKED_LATE
        unkick();
#endif
#if AHEAD
        kick_near();
#endif
        STEP(if :: wait[me] == 1 -> wait[me] = 3 :: else -> wait[me] = 0 fi); /* 5 the kernel compares seq */
        if
        :: wait[me] == 0
        OR_DIE
        fi
    OR_DIE
    fi;
    STEP(if :: parked[CH(t)] != 0 -> parked[CH(t)]-- :: else fi) /* 6 */
}

/* --------------------------------------------------------------- the holder */

inline enter()
{
#ifndef BREAK_OWNER_LATE
    STEP(owner_ticket = t; owner_tag = me + 1);
#endif
    STEP(pending[me] = 0;
         assert(inside == 0);        /* mutual exclusion */
         assert(t >= served);        /* tickets in order */
         assert(owner_died == corpse); /* told, if and only if the one before died inside */
         served = t + 1;
         inside = me + 1;
         owner_died = 0; /* plk_mark_consistent */
         corpse = 0)
#ifdef BREAK_OWNER_LATE
    ;
    STEP(owner_ticket = t; owner_tag = me + 1)
#endif
}

/* plk_settle */
inline settle()
{
    if
    :: atomic { tail != t + 1 -> skip }
    :: atomic { tail == t + 1 -> skip };
        STEP(slow = 0);
        /* [S1] fence: pairs with the arrival's xadd */
#ifndef BREAK_S1_RELOOK
        STEP(if :: tail != t + 1 -> slow = 1 :: else fi)
#endif
    OR_DIE
    fi
}

/* plk_unlock */
inline release()
{
    if
    :: atomic { slow != 0 -> skip }; settle()
    :: atomic { slow == 0 -> skip }
    OR_DIE
    fi;
    STEP(assert(inside == me + 1 && head == t && late == 0);
         inside = 0;
         possessor[t] = 0;
         late = t + 1;
         late_by = me;
         h = t + 1);
#if !MEMBARRIER && !defined(BREAK_UNLOCK_BARRIER)
    STEP(fence()); /* unlock_barrier [K1] [K2] */
#endif
    if
    :: atomic { slow != 0 -> skip };
#ifndef BREAK_K1_SERVE_FENCE
        STEP(fence()); /* of plk_serve_next [K1] [K2] */
#endif
        serve(h, ONCE)
    :: atomic { slow == 0 -> skip }
    OR_DIE
    fi;
    STEP(held[me]--; h = 0)
}

/* ------------------------------------------------------- leaving and coming back */

/* plk_leave */
inline leave()
{
    STEP(assert(tomb[t] == 0); tomb[t] = 1; possessor[t] = 0);
    STEP(version_moved = 1);
#ifdef BREAK_K2_ARMS
    raise(); /* as if the leaver's ticket stayed outstanding */
#else
#ifndef BREAK_K2_SLOW
    STEP(slow = 1);
#endif
#ifndef BREAK_K2_FENCE
    STEP(heavy()); /* [K2] pairs with unlock_barrier in plk_unlock, the new head in serve */
#endif
#endif
    if
#ifndef BREAK_K2_RELOOK
    :: atomic { head >= t -> h = t }; serve(h, AGAIN)
    :: atomic { head < t -> left = t }
#else
    :: atomic { true -> left = t }
#endif
    OR_DIE
    fi;
    STEP(pending[me] = 0);
    STEP(held[me]--; t = 0; h = 0)
}

/* plk_announce: pending and held are stored as one word; ticket, stored before, means nothing till then. */
inline announce()
{
    STEP(ticket[me] = NONE; pending[me] = 1; held[me]++)
}

/* plk_resume; t is NONE if the place is lost. */
inline resume()
{
    t = left;
    left = NONE;
    if
    :: atomic { t < head -> t = NONE }
    :: atomic { t >= head -> skip };
#ifndef BREAK_D1_CLAIM_LATE
        announce();
        STEP(ticket[me] = t);
#endif
        if
        :: d_step { tomb[t] == 1 -> tomb[t] = 0; possessor[t] = me + 1 };
            STEP(version_moved = 1)
#ifdef BREAK_D1_CLAIM_LATE
            ;
            announce();
            STEP(ticket[me] = t)
#endif
        :: atomic { tomb[t] != 1 -> t = NONE };
#ifndef BREAK_D1_CLAIM_LATE
            STEP(pending[me] = 0);
            STEP(held[me]--)
#endif
        OR_DIE
        fi
    OR_DIE
    fi
}

/* plk_take_ticket, up to the first look at head: a ticket that is served at once is not noted. */
inline take()
{
    announce();
    STEP(fence(); t = tail; tail++; assert(tail < TICKETS); possessor[t] = me + 1);
    if
    :: atomic { head == t -> skip }
    :: atomic { head != t -> skip }; STEP(ticket[me] = t)
    OR_DIE
    fi
}

/* plk_trylock; t is NONE if the lock was busy. */
inline try()
{
    STEP(h = (MINE_BUFFERED -> late : head));
    if
    :: atomic { tail != h -> skip }
    :: atomic { tail == h -> skip };
        announce();
        if
        :: d_step { tail == h ->
            fence();
            t = h;
            tail++;
            assert(tail < TICKETS);
            possessor[t] = me + 1;
            assert(head == t) }
        :: d_step { tail != h -> fence() };
            STEP(pending[me] = 0);
            STEP(held[me]--)
        OR_DIE
        fi
    OR_DIE
    fi;
    h = 0
}

#ifndef GIVES_UP_0
#define GIVES_UP_0 0
#endif
#ifndef GIVES_UP_1
#define GIVES_UP_1 0
#endif
#ifndef GIVES_UP_2
#define GIVES_UP_2 0
#endif

/* Acquire and release `rounds` times; an acquisition that gives up counts as one. */
proctype vcpu(byte me; byte rounds; byte gives_up)
{
    byte t, h, i, left = NONE;
#if AHEAD
    byte near;
#endif

again:
    do
    :: rounds == 0 -> break
    :: rounds != 0 ->
        rounds--;
        t = NONE;
#if TRIES
        if :: try() :: true fi;
#endif
        if :: t == NONE && left != NONE -> resume() :: else fi;
        if :: t == NONE -> take() :: else fi;
        do
        :: atomic { head == t -> skip };
            enter();
            release();
            break
        :: atomic { head != t && gives_up != 0 -> gives_up-- }; leave(); break
        :: atomic { head != t -> skip }; park()
        OR_DIE
        od;
        t = 0
    od;
    ended++;
    goto over;
dead:
#if AHEAD
    near = 0;
#endif
    left = NONE;
    gives_up = 0;
    rounds = 0;
#if REBORN
    /* plk_enroll: another thread takes the slot, and the same tag. */
    atomic {
        guard == 0 && life[me] == DEAD && held[me] == 0 && !pending[me] ->
        life[me] = ALIVE;
        ticket[me] = NONE;
        ended--;
        rounds = 1;
        do
        :: i < TICKETS -> if :: possessor[i] == me + 1 -> possessor[i] = 0 :: else fi; i++
        :: else -> break
        od;
        i = 0
    };
    goto again;
#endif
over:
    skip
}
