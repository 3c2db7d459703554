/* sync.pml - [Y1] who gives a permit and who waits for one (csrc/sync/wait.c, queue.c), and newcomers that are quicker.
 *
 * N threads take a permit and give it back, TAKES times each; there are PERMITS.  Nobody may sleep on while a
 * permit is there and no other is on the way to it: with no watchdog, all must finish.
 *
 * The word is value, waiters and called; it changes in one step each time, as by compare-and-swap, so there is no
 * store buffer to model.  Left out: RESERVED, which only keeps newcomers off; timeouts and signals, which leave the
 * queue and settle as one that has taken does; deaths, which tests/mortal has at every instruction. */

#ifndef N
#define N 3
#endif
#ifndef PERMITS
#define PERMITS 1
#endif
#ifndef TAKES
#define TAKES 1
#endif

mtype = { FREE, QUEUED, CALLED };

byte value = PERMITS, finished;
bit waiters, called, guard;
mtype state[N] = FREE;
chan queue = [N] of { byte };

#define LOCK atomic { guard == 0 -> guard = 1 }
#define UNLOCK guard = 0

/* plk_settle_calling, with the guard.  `next` is N for nobody. */
inline settle()
{
    d_step {
        next = N;
        one = 0;
        do
        :: one < N && state[one] == CALLED -> next = N + 1; break /* somebody is on the way */
        :: one < N && state[one] != CALLED -> one++
        :: one == N -> break
        od;
        if
        :: next == N && len(queue) > 0 -> queue ? <next> /* none is called, so the first is QUEUED */
        :: else -> skip
        fi
    };
#ifdef BREAK_Y1_STEP
    can = value > 0;
    d_step { waiters = len(queue) > 0; called = (next == N + 1 || (can && next < N)) };
#else
    /* [Y1] the flags in one step with the look at what there is; pairs with the giver's step */
    d_step { can = value > 0; waiters = len(queue) > 0; called = (next == N + 1 || (can && next < N)) };
#endif
    if
    :: can && next < N -> state[next] = CALLED
    :: else -> skip
    fi
}

inline take_quickly()
{
    d_step {
        taken = 0;
        if
        :: value > 0 -> value--; taken = 1
        :: else -> skip
        fi
    }
}

inline leave_queue()
{
    d_step { queue ?? eval(me); state[me] = FREE }
}

inline wait_in_queue()
{
    LOCK;
    take_quickly();
    if
    :: taken -> skip
    :: else -> d_step { queue ! me; state[me] = QUEUED }
    fi;
    settle();
    UNLOCK;
    do
    :: taken -> break
    :: else ->
        state[me] == CALLED; /* asleep until then */
        take_quickly();
        LOCK;
        if
        :: taken -> skip
        :: else -> take_quickly()
        fi;
        if
        :: taken -> leave_queue()
        :: else -> state[me] = QUEUED
        fi;
#ifdef BREAK_Y1_BACK
        if
        :: taken -> settle()
        :: else -> called = 0
        fi;
#else
        settle();
#endif
        UNLOCK
    od
}

proctype thread(byte me)
{
    byte next, one, times = TAKES;
    bit taken, can, see;

    do
    :: times == 0 -> break
    :: else ->
        times--;
        take_quickly();
        if
        :: taken -> skip
        :: else -> wait_in_queue()
        fi;
        assert(value < PERMITS);
#ifdef BREAK_Y1_GIVE
        see = waiters && !called;
        value++;
#else
        /* [Y1] in one step with the look at the flags; pairs with settle's */
        d_step { value++; see = waiters && !called };
#endif
        if
        :: see -> LOCK; settle(); UNLOCK
        :: else -> skip
        fi
    od;
    finished++
}

init
{
    byte i;

    atomic {
        do
        :: i < N -> run thread(i); i++
        :: else -> break
        od
    };
    finished == N;
    assert(value == PERMITS && empty(queue) && !waiters && !called)
}
