/* hosted.pml - [H1] kicks that are asked of the hypervisor service (slow/hosted.c, hv/service.c).
 *
 * Two locks, each with one waiter that parks as in [K1]; an unlocker of both in turn, which has one page;
 * a service that may die or stop before any step, and another that takes over.  No watchdog: all waiters
 * must come out.  (Dead kicks are left to the watchdog where no service follows: that is not modelled.)
 *
 * Left out: store buffers, since all that matters of the unlocker's stands before a locked instruction, the bell,
 * and of [K1] queue.pml has them; WAIT and HELLO, which carry no duty; who shares a bell, for a bell too many costs
 * a look; the last unlocker's death, which recovery makes up for. */

#ifndef DEATHS
#define DEATHS 0 /* the first service may die */
#endif
#ifndef LEAVES
#define LEAVES 0 /* or stop */
#endif
#ifndef SUCCESSOR
#define SUCCESSOR 0 /* a second one takes over */
#endif

#ifndef REUSED
#define REUSED 0 /* the slot of the first lock's unlocker, who ends or dies at it, is the second one's */
#endif

#define LOCKS 2

bit head[LOCKS], parked[LOCKS], asleep[LOCKS];
byte seq[LOCKS], page, bell, serving, guard, entered; /* page: lock + 1; serving, guard: service + 1 */
bit resting[2], dead[2], ended;

#define LIVES (serving != 0 && !dead[serving - 1])

#define OR_DIE :: atomic { DEATHS && me == 0 && !dead[0] -> dead[0] = 1; goto over }
#define STEP(x) if :: d_step { x } OR_DIE fi

/* hv/park.c; ticket 1 */
proctype waiter(byte lock)
{
    byte before;

    before = seq[lock];
    parked[lock] = 1;
    if
    :: head[lock] == 1 -> skip
    :: atomic { head[lock] != 1 -> skip };
        if
        :: atomic { seq[lock] == before -> asleep[lock] = 1 };
            asleep[lock] == 0
        :: seq[lock] != before -> skip
        fi
    fi;
    parked[lock] = 0;
    atomic { head[lock] == 1 -> entered++ } /* woken in vain: stuck, and spin says so */
}

/* plk_kick, by a thread that does not die at it */
inline kick(lock)
{
    if
    :: parked[lock] -> d_step { seq[lock]++; asleep[lock] = 0 }
    :: !parked[lock] -> skip
    fi
}

/* plk_unlock, plk_kick_hosted */
proctype unlocker()
{
    byte lock;

    do
    :: lock < LOCKS ->
        head[lock] = 1;
        if
#ifdef BREAK_H1_OVERWRITE
        :: atomic { LIVES -> skip };
#else
        :: atomic { page == 0 && LIVES -> skip };
#endif
            page = lock + 1;                  /* 1 */
#if REUSED
            if
            :: skip
            :: lock == 0 -> kick(lock); goto next /* it dies, and recovery does so on its behalf */
            fi;
#endif
            bell = 1;                         /* 2 */
            d_step { resting[0] = 0; resting[1] = 0 }; /* 3 */
#ifndef BREAK_H1_LOOK
            if                                /* 4 */
            :: LIVES -> skip
            :: !LIVES -> kick(lock)
            fi
#endif
        :: atomic { !(page == 0 && LIVES) -> skip };
            kick(lock)
        fi;
#if REUSED
next:
#ifdef BREAK_H1_REUSE
        page = 0;
#endif
#endif
        lock++
    :: lock == LOCKS -> break
    od
}

/* plk_serve_page */
inline look()
{
    STEP(asked = page);
    if
    :: asked != 0 ->
#ifdef BREAK_H1_CLEARED_FIRST
        STEP(page = 0);
#endif
        STEP(served = head[asked - 1]);
        if
        :: served && parked[asked - 1] ->
            STEP(seq[asked - 1]++; asleep[asked - 1] = 0)
        :: else -> skip
        fi;
#ifndef BREAK_H1_CLEARED_FIRST
        STEP(page = 0)
#endif
    :: asked == 0 -> skip
    fi;
    asked = 0; served = 0
}

#ifdef BREAK_H1_GUARD
#define FREE 1
#else
#define FREE (guard == 0)
#endif

proctype service(byte me)
{
    byte rung, asked;
    bit served;

    atomic { FREE && !LIVES && (me == 0 || serving != 0 || ended || dead[0]) -> guard = me + 1 };
    STEP(serving = me + 1);
#ifndef BREAK_H1_TAKEOVER
    STEP(bell = 1);
#endif
    STEP(guard = 0);
end:
    do
#ifdef BREAK_H1_BELL_LATE
    :: atomic { bell != 0 -> rung = 1 };
        look();
        STEP(bell = 0)
#else
    :: atomic { bell != 0 -> rung = 1; bell = 0 };
        look()
#endif
    :: atomic { bell == 0 -> resting[me] = 1 };
end_rest:
        if
        :: resting[me] == 0
        :: atomic { LEAVES && me == 0 -> resting[me] = 0; goto leave }
        OR_DIE
        fi
    OR_DIE
    :: atomic { LEAVES && me == 0 -> goto leave }
    od;

leave: /* plk_service_end */
    if
    :: atomic { FREE -> guard = me + 1 }
    OR_DIE
    fi;
    STEP(ended = 1; serving = 0);
#ifndef BREAK_H1_LAST_LOOK
    look();
#endif
    STEP(guard = 0);
over:
    atomic { guard == me + 1 -> guard = 0 } unless { guard != me + 1 }
}

init
{
    atomic {
        run waiter(0);
        run waiter(1);
        run unlocker();
        run service(0);
#if SUCCESSOR
        run service(1)
#endif
    }
    entered == LOCKS
}
