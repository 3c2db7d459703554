/* recovery.pml - vCPUs die at any step, and so does whoever recovers them.
 *
 * The recoverer is a process of its own, without a slot.  In the program it is
 * a waiter (watchdog), or a thread that enrols, or Domain.recover(); a waiter that
 * recovers does nothing else meanwhile, so its own slot stands still, which is
 * one of the cases here (its vCPU makes no step), and its death is two deaths here, one right
 * after the other.  When it dies it begins anew, as the next one that takes the guard.
 *
 * Nobody has a watchdog that looks at head: when the last dead slot is free, all
 * that the dead owed must have been done, kicks included.  But for one debt: who dies
 * at a kick at park, between `kicked` and seq, may leave somebody asleep whom the
 * unlocker takes for awake (AHEAD). */
#include "protocol.pml"

#ifndef ROUNDS_0
#define ROUNDS_0 1
#endif
#ifndef ROUNDS_1
#define ROUNDS_1 1
#endif
#ifndef ROUNDS_2
#define ROUNDS_2 1
#endif
#ifndef RECOVERERS
#define RECOVERERS 1
#endif

#define AMONG(test) (test(0) || test(1) || test(2) || test(3) || test(4) || test(5) || test(6) || test(7))
#define IS_PASSING(t) (tomb[t] == 2)
#define IS_TOMB(t) (tomb[t] != 0)
#define ANY_PASSING AMONG(IS_PASSING)
#define ANY_TOMB AMONG(IS_TOMB)

#define DIRTY(d) (life[d] == DEAD && (held[d] != 0 || pending[d]))
#if N > 2
#define ANY_DIRTY (DIRTY(0) || DIRTY(1) || DIRTY(2))
#else
#define ANY_DIRTY (DIRTY(0) || DIRTY(1))
#endif

/* Complete what a leaver or recoverer may have left half done: it died between its tombstone and its look
 * at head, or between a new head and the kick.  For elimination the tombstone that stands hides the rest. */
inline serve_cell()
{
#ifndef BREAK_D1_HALF_DONE
    STEP(slow = 1);
#ifndef BREAK_K2_RECOVERER
    STEP(heavy()); /* [K2] */
#endif
#endif
    STEP(h = head);
    serve(h, AGAIN)
}

/* plk_release_for: head is t, which is dead's, and no tombstone is needed. */
inline release_for(t)
{
#ifndef BREAK_D2_SLOW
    STEP(slow = 1); /* [S1] before head: the dead may have taken the flag down */
#endif
    STEP(cas_head(t)); /* [K1] [K2] a fence of its own follows */
    STEP(h = (tomb[t] != 0 -> t : head));
    serve(h, AGAIN) /* from t on, if t has a tombstone that has to come down; up to head and further */
}

/* plk_leave_for: ticket t is a dead vCPU's.  Its fence and look at head are made once more by
 * serve_cell; in the program plk_look_after_head buries without it. */
inline bury(t)
{
    if
    :: atomic { head < t -> skip };
        STEP(if
             :: tomb[t] == 0 ->
                 assert(possessor[t] == 0 || life[possessor[t] - 1] == DEAD); /* no live ticket is eliminated */
                 tomb[t] = 1
             :: else
             fi);
        STEP(slow = 1);
#ifndef BREAK_K2_RECOVERER
        STEP(heavy()); /* [K2] */
#endif
        if
        :: atomic { head >= t -> h = t }; serve(h, AGAIN)
        :: atomic { head < t -> skip }
        OR_DIE
        fi
    :: atomic { head == t -> skip }; release_for(t)
    :: atomic { head > t -> h = t };
#ifndef BREAK_K2_LEFTOVER
        serve(h, AGAIN) /* a recoverer may have died when it had put up a tombstone too late */
#endif
    OR_DIE
    fi
}

/* The claims of all slots, one slot at a time (slots.pml: how one is read). */
inline read_slots()
{
    i = 0;
    do
    :: atomic { i < N && inconclusive == 0 -> skip };
        STEP(if
             :: pending[i] && ticket[i] != NONE -> claimed = claimed | (1 << ticket[i])
             :: pending[i] && ticket[i] == NONE && life[i] == ALIVE -> inconclusive = 1
             :: else
             fi;
             i++)
    :: atomic { i == N || inconclusive -> i = 0; break }
    od
}

inline read_owner()
{
    STEP(if :: owner_tag != 0 -> claimed = claimed | (1 << owner_ticket) :: else fi)
}

/* plk_orphan: tickets below `limit` that nobody claims belong to the dead. [D1] */
inline eliminate(limit)
{
    do
    :: true ->
        STEP(version_moved = 0; claimed = 0; inconclusive = 0);
        STEP(bound = (limit < tail -> limit : tail));
#ifdef BREAK_D1_OWNER_FIRST
        read_owner();
#endif
        read_slots();
#ifndef BREAK_D1_OWNER_FIRST
        read_owner();
#endif
        i = 0;
        do
        :: i < bound ->
            STEP(if :: tomb[i] != 0 -> claimed = claimed | (1 << i) :: else fi; i++)
        :: else -> i = 0; break
        od;
#ifndef BREAK_D1_SECOND_LOOK
        read_slots();
#endif
#ifndef BREAK_D1_VERSION
        if
        :: atomic { version_moved == 0 || inconclusive -> break }
        :: atomic { version_moved && !inconclusive -> skip }
        OR_DIE
        fi
#else
        break
#endif
    od;
    STEP(i = head);
    do
    :: atomic { inconclusive == 0 && i < bound && !(claimed & (1 << i)) -> t = i; i++ }; bury(t)
    :: atomic { inconclusive == 0 && i < bound && (claimed & (1 << i)) -> i++ }
    :: atomic { inconclusive || i >= bound -> i = 0; t = 0; break }
    od
}

#define OWNED_BY(v) (owner_tag == (v) + 1 && owner_ticket == head)

/* plk_recover_owned: D may hold the lock, or have died on its way out of it. */
inline sweep()
{
    if
    :: atomic { OWNED_BY(d) -> t = owner_ticket };
#if !defined(BREAK_D2_FLAG) && !defined(BREAK_D2_FLAG_LATE)
        STEP(owner_died = 1); /* [D2] before head */
#endif
        release_for(t);
#ifdef BREAK_D2_FLAG_LATE
        STEP(owner_died = 1);
#endif
    :: atomic { owner_tag == d + 1 && owner_ticket != head -> skip }
    :: atomic { owner_tag != d + 1 -> skip }
    OR_DIE
    fi;
    t = 0;
    STEP(h = head);
    serve(h, AGAIN)
}

/* Tombstones that dead passers have marked. */
inline finish_passing()
{
    do
    :: atomic { ANY_PASSING ->
            t = 0;
            do
            :: tomb[t] == 2 -> break
            :: else -> t++
            od };
        STEP(cas_head(t));
        STEP(if :: tomb[t] == 2 -> tomb[t] = 0; version_moved = 1 :: else fi);
        STEP(h = head);
        serve(h, AGAIN)
    :: atomic { !ANY_PASSING -> t = 0; break }
    OR_DIE
    od
}

/* [D3] last of all: until here the next recoverer finds D dirty and does everything again. */
inline free_slot()
{
    STEP(held[d] = 0; pending[d] = 0) /* one word */
}

/* A live vCPU around its xadd: elimination has to wait for it. */
#define IN_WINDOW(v) (life[v] == ALIVE && pending[v] && ticket[v] == NONE)
#if N > 2
#define ANY_IN_WINDOW (IN_WINDOW(0) || IN_WINDOW(1) || IN_WINDOW(2))
#else
#define ANY_IN_WINDOW (IN_WINDOW(0) || IN_WINDOW(1))
#endif

#define ASLEEP(v, t) (wait[v] == 3 && ticket[v] == t)
#if N > 2
#define DIED_KICKING (kicking[0] && life[0] || kicking[1] && life[1] || kicking[2] && life[2])
#define ASLEEP_AT(t) (ASLEEP(0, t) || ASLEEP(1, t) || ASLEEP(2, t))
#else
#define DIED_KICKING (kicking[0] && life[0] || kicking[1] && life[1])
#define ASLEEP_AT(t) (ASLEEP(0, t) || ASLEEP(1, t))
#endif

#ifdef BREAK_D3_GUARD
#define UNGUARDED true
#else
#define UNGUARDED (guard == 0)
#endif

#define FREE(v) (life[v] == DEAD && held[v] == 0 && !pending[v])

/* plk_look_after_head: nobody needs to have died for it; a sleeper's watch comes by. */
inline look_after_head()
{
    STEP(was_ticket = owner_ticket; d = owner_tag);
#ifdef BREAK_D2_STATE_LAST
    STEP(t = head);
    STEP(was_held = (d != 0 && !FREE(d - 1)));
#else
    STEP(was_held = (d != 0 && !FREE(d - 1)));
    STEP(t = head); /* last: if it is the record's ticket still, it was when its slot was seen free */
#endif
    was_held = (was_held && was_ticket == t);
    if
    :: was_held || t >= tail
    :: !was_held && t < tail && d != 0 && was_ticket == t ->
        STEP(owner_died = 1); /* [D2] no recovery leaves this behind */
        release_for(t)
    :: !was_held && t < tail && !(d != 0 && was_ticket == t) ->
        eliminate(t + 1);
        inconclusive = 0
    fi;
    t = 0;
    STEP(h = head);
    serve(h, AGAIN)
}

proctype recoverer(byte me)
{
    byte t, h, i, d, bound, was_held, was_ticket;
    short claimed;
    bit inconclusive, claims;
#if LOOKS
    byte looks;
#endif

end:
    do
    :: atomic { UNGUARDED && ANY_DIRTY && !(inconclusive && ANY_IN_WINDOW) ->
            guard = 1;
            inconclusive = 0;
            d = 0;
            do
            :: DIRTY(d) -> break
            :: else -> d++
            od;
            claims = pending[d]; /* D is dead: its slot stands still */
            was_held = held[d];
            was_ticket = ticket[d] };
#ifdef BREAK_D3_FREE_FIRST
        free_slot();
#endif
        if
        :: claims && was_ticket != NONE -> t = was_ticket; bury(t)
        :: claims && was_ticket == NONE ->
            eliminate(TICKETS);
#ifndef BREAK_D1_SERVED_AT_ONCE
            /* Served at once, owner recorded, pending not yet cleared: it never got inside. */
            if
            :: atomic { !inconclusive && was_held == claims && OWNED_BY(d) -> t = owner_ticket }; bury(t)
            :: atomic { !(!inconclusive && was_held == claims && OWNED_BY(d)) -> skip }
            OR_DIE
            fi
#endif
        :: else
        fi;
        if
        :: claims -> serve_cell()
        :: else
        fi;
        if
        :: was_held > claims -> sweep()
        :: else
        fi;
        finish_passing();
        if
        :: inconclusive == 0 -> free_slot()
        :: else
        fi;
        t = 0; h = 0; d = 0; bound = 0; claimed = 0; claims = 0; was_held = 0; was_ticket = 0;
        guard = 0
#if AHEAD
    /* The watchdog, after the death of one that had marked `kicked` and not yet bumped seq. */
    :: atomic { guard == 0 && DIED_KICKING && ASLEEP_AT(head) -> guard = 1; h = head };
        serve(h, AGAIN);
        h = 0;
        guard = 0
#endif
#if LOOKS
    :: atomic { UNGUARDED && looks < LOOKS && head < tail -> looks++; guard = 1 };
        look_after_head();
        t = 0; h = 0; d = 0; bound = 0; claimed = 0; was_held = 0; was_ticket = 0;
        guard = 0
#endif
    od;
dead:
    i = 0; d = 0; bound = 0; claimed = 0; claims = 0; was_held = 0; was_ticket = 0;
    inconclusive = 0;
    goto end
}

init
{
    atomic {
        run vcpu(0, ROUNDS_0, GIVES_UP_0);
        run vcpu(1, ROUNDS_1, GIVES_UP_1);
#if N > 2
        run vcpu(2, ROUNDS_2, GIVES_UP_2);
#endif
        run recoverer(N);
#if RECOVERERS > 1
        run recoverer(N);
#endif
    }
    atomic {
        ended == N && late == 0 && guard == 0 && !ANY_DIRTY ->
        assert(head == tail && inside == 0);
        assert(owner_died == corpse);
        assert(!ANY_TOMB)
    }
}
