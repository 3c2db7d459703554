/* bounded.pml - [B1] the bounded policy: nobody sleeps for ever in the queue of a free gate.
 *
 * Names and the order of steps are those of pylocks/bounded.h and hv/bounded.c.
 * Gate and queue are ticket locks, and what is true of one such lock alone is
 * shown in queue.pml and recovery.pml; what takes several steps there and meets
 * only parties of the same lock is one step here: taking a free gate, passing a
 * tombstone, bumping seq and waking.  Recovery is another's, who does not die.
 * Who comes back to an abandoned ticket is left out.
 *
 * Words that are advice may be out of date: whoever decides by them or by the clock
 * decides either way here, as far as the argument lets it.
 *
 * The time.  The sleeper who is armed wakes when its time has come, which may be
 * when nobody else can do anything (`timeout`), and TICKS such moments must be
 * enough for somebody to enter.  The watchdog is the same for all sleepers, but
 * only after a death.  So a run in which everybody sleeps on is an error, though
 * in the program time never stands still.
 *
 * The store buffer: of the unlocker's head, as in protocol.pml, and of `promoted`. */

#ifndef N
#define N 3
#endif
#ifndef MEMBARRIER
#define MEMBARRIER 1
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef MORTALS
#define MORTALS 7
#endif
#ifndef ROUNDS_0
#define ROUNDS_0 1
#endif
#ifndef ROUNDS_1
#define ROUNDS_1 1
#endif
#ifndef GIVES_UP_0
#define GIVES_UP_0 0
#endif
#ifndef GIVES_UP_1
#define GIVES_UP_1 0
#endif
#ifndef GIVES_UP_2
#define GIVES_UP_2 0
#endif
#ifndef SPINS
#define SPINS 1 /* waiters may spin at the gate */
#endif
#ifndef ARMS
#define ARMS 1 /* one sleeper wakes by the clock */
#endif
#ifndef EARLY
#define EARLY 1 /* so often an armed sleeper wakes while others still run */
#endif
#define TICKS N

#define G 0
#define Q 1
#define TICKETS 8
#define NONE 255
#define ALIVE 0
#define DEAD 1

/* The two cells. */
byte tail[2], head[2], slow;
bit tomb[2 * TICKETS];

/* Advice: vCPU + 1, queue's ticket + 1, vCPU + 1. */
byte spinner, promoted, armed;

/* The vCPUs. */
byte gate_ticket[N] = NONE, queue_ticket[N] = NONE;
byte wait[N]; /* 0 awake, 1 has read seq and is counted as parked, 2 seq bumped since, 3 asleep */
byte on[N];   /* the event channel of that: AT(cell, ticket) + 1 */
bit life[N];

/* Store buffers; 0 empty. */
byte late, late_by, late_promoted, late_promoted_by;

/* What only the model knows. */
byte inside, ended, deaths, early, ticks;
byte promoters; /* between `promoted` and the kick, or died there */

#define AT(cell, t) ((cell) * TICKETS + (t))
#define MINE_BUFFERED (late != 0 && late_by == me)
#define GATE_HEAD (MINE_BUFFERED -> late : head[G])
#define OPEN (tail[G] == head[G])

#if DEATHS
#define OR_DIE :: atomic { me < N && deaths < DEATHS && ((MORTALS >> me) & 1) -> die(); goto dead }
#else
#define OR_DIE
#endif
#define STEP(x) if :: d_step { x } OR_DIE fi

inline fence()
{
    if :: MINE_BUFFERED -> head[G] = late; late = 0; late_by = 0 :: else fi;
    if
    :: late_promoted != 0 && late_promoted_by == me ->
        promoted = late_promoted; late_promoted = 0; late_promoted_by = 0
    :: else
    fi
}

inline heavy()
{
#if MEMBARRIER
    if :: late != 0 -> head[G] = late; late = 0; late_by = 0 :: else fi;
    if
    :: late_promoted != 0 -> promoted = late_promoted; late_promoted = 0; late_promoted_by = 0
    :: else
    fi
#else
    fence()
#endif
}

active proctype memory()
{
end:
    do
    :: d_step { late != 0 -> head[G] = late; late = 0; late_by = 0 }
    :: d_step { late_promoted != 0 -> promoted = late_promoted; late_promoted = 0; late_promoted_by = 0 }
    od
}

inline die()
{
    d_step {
        fence();
        if :: inside == me + 1 -> inside = 0 :: else fi;
        life[me] = DEAD;
        wait[me] = 0;
        on[me] = 0;
        ended++;
        deaths++;
        ticks = 0
    }
}

/* ------------------------------------------------------------- one ticket lock */

#define PARKED(c) (on[0] == c || on[1] == c || on[2] == c)

inline kick(cell, t)
{
    if
    :: atomic { PARKED(AT(cell, t) + 1) -> skip };
        STEP(i = 0;
             do
             :: i < N ->
                 if
                 :: on[i] == AT(cell, t) + 1 && wait[i] == 1 -> wait[i] = 2
                 :: on[i] == AT(cell, t) + 1 && wait[i] == 3 -> wait[i] = 0
                 :: else
                 fi;
                 i++
             :: else -> break
             od;
             i = 0)
    :: atomic { !PARKED(AT(cell, t) + 1) -> skip }
    OR_DIE
    fi
}

/* plk_pass: from ticket h on. */
inline pass_on(cell)
{
    do
    :: atomic { !tomb[AT(cell, h)] -> break }
    :: d_step { tomb[AT(cell, h)] ->
            fence();
            tomb[AT(cell, h)] = 0;
            if :: head[cell] == h -> head[cell] = h + 1 :: else fi;
            h++ }
    OR_DIE
    od
}

/* plk_serve */
inline serve(cell)
{
    pass_on(cell);
    kick(cell, h)
}

/* plk_slow_raise, of the gate */
inline raise()
{
#if MEMBARRIER
    if
    :: atomic { slow == 2 -> skip }
    :: atomic { slow != 2 -> slow = 1 };
        STEP(heavy()); /* [K1] [B1] pairs with the unlocker's store of head */
        STEP(if :: slow == 1 -> slow = 2 :: else fi)
    OR_DIE
    fi
#else
    STEP(slow = 1; fence())
#endif
}

/* plk_leave */
inline leave(cell, t)
{
    STEP(tomb[AT(cell, t)] = 1);
    STEP(if :: cell == G -> slow = 1 :: else fi);
    STEP(heavy()); /* [K2] */
    if
    :: atomic { head[cell] >= t -> h = t }; serve(cell)
    :: atomic { head[cell] < t -> skip }
    OR_DIE
    fi
}

/* ------------------------------------------------------------------- promotion */

/* plk_promote: the holder of the queue, ticket h */
inline promote()
{
#ifdef BREAK_B1_FENCE
    STEP(late_promoted = h + 1; late_promoted_by = me; promoters++);
#else
    STEP(promoted = h + 1; promoters++); /* [B1] and a fence: pairs with that of plk_slow_raise */
#endif
    kick(Q, h);
    STEP(promoters--)
}

/* plk_queue_call */
inline queue_call()
{
    STEP(h = head[Q]);
    if
    :: atomic { tail[Q] == h -> skip }
    :: atomic { tail[Q] != h && promoted == h + 1 -> skip } /* on the way */
    /* [B1] who looks at the gate yet */
    :: atomic { tail[Q] != h && promoted != h + 1 && spinner != 0 -> skip }
    :: atomic { tail[Q] != h && promoted != h + 1 && armed != 0 -> skip }
#ifdef BREAK_B1_UNARMED
    :: atomic { tail[Q] != h && promoted != h + 1 -> skip }
#endif
    :: atomic { tail[Q] != h && promoted != h + 1 -> skip }; promote()
    OR_DIE
    fi
}

/* plk_queue_disarm */
inline disarm()
{
#ifndef BREAK_B1_DISARM
    STEP(if :: armed == me + 1 -> armed = 0 :: else fi);
#endif
    STEP(h = head[Q]);
    if
#ifdef BREAK_B1_DISARM_LOOK
    :: atomic { leaving -> skip } /* somebody has been promoted lately */
#endif
    :: atomic { !OPEN || h == queue_ticket[me] -> skip }
    :: atomic { OPEN && h != queue_ticket[me] -> skip }; promote()
    OR_DIE
    fi
}

/* --------------------------------------------------------------------- waiting */

#ifdef BREAK_B1_LOOK
#define CALLED (promoted == queue_ticket[me] + 1)
#else
#define CALLED (promoted == queue_ticket[me] + 1 || OPEN)
#endif
#define OVER(cell, t) (head[cell] == t && (!standing || CALLED))

/* plk_park, for ticket t of a cell; `leaving` if the deadline has come. */
inline park(cell, t)
{
    STEP(wait[me] = 1; on[me] = AT(cell, t) + 1); /* 1, 2 */
#ifdef BREAK_B1_SLOW
    if :: cell == G -> raise() :: else fi;
#else
    raise(); /* 3 */
#endif
    if
    :: atomic { OVER(cell, t) -> wait[me] = 0 } /* 4 [B1] */
    :: atomic { !OVER(cell, t) -> skip };
#if ARMS && !defined(BREAK_B1_ARM)
        if
        :: cell == Q ->
            if
            :: d_step { armed == 0 -> armed = me + 1; is_armed = 1 }
            :: atomic { armed != 0 -> skip }
            :: d_step { armed != 0 && life[armed - 1] == DEAD -> armed = me + 1; is_armed = 1 } /* long ago */
            OR_DIE
            fi
        :: else
        fi;
#endif
        STEP(if :: wait[me] == 1 -> wait[me] = 3 :: else -> wait[me] = 0 fi); /* 5 */
        if
        :: wait[me] == 0
        :: atomic { wait[me] != 0 && gives_up != 0 -> gives_up--; leaving = 1; wait[me] = 0 }
        :: atomic { wait[me] != 0 && leaving -> wait[me] = 0 }
        :: atomic { wait[me] != 0 && is_armed && early < EARLY -> early++; wait[me] = 0 }
        :: atomic { timeout && wait[me] != 0 && is_armed && ticks < TICKS -> ticks++; wait[me] = 0 }
#if DEATHS
        :: atomic { timeout && wait[me] != 0 && deaths != 0 && ticks < TICKS ->
                ticks++; wait[me] = 0; watches = 1 }
#endif
        OR_DIE
        fi
    OR_DIE
    fi;
    STEP(on[me] = 0); /* 6 */
    if
    :: is_armed -> disarm(); is_armed = 0
    :: else
    fi;
#if DEATHS
    if
    :: watches && head[cell] != t -> watches = 0; STEP(h = head[cell]); serve(cell) /* plk_watch */
    :: else -> watches = 0
    fi;
#endif
    h = 0
}

/* ------------------------------------------------------------------- the holder */

inline enter()
{
    assert(inside == 0);
    inside = me + 1;
    ticks = 0
}

/* plk_take_free, at the gate */
inline take_free()
{
    if
    :: d_step { tail[G] == GATE_HEAD ->
            fence();
            gate_ticket[me] = tail[G];
            tail[G]++;
            assert(tail[G] < TICKETS);
            enter() }
    :: atomic { tail[G] != GATE_HEAD -> skip }
    OR_DIE
    fi
}

/* plk_spin_at_gate; an older spinner may have lost its mark to this one */
inline spin()
{
    STEP(spinner = me + 1);
    take_free();
#ifndef BREAK_B1_SPINNER
    if
    :: d_step { spinner == me + 1 -> spinner = 0 }
    :: atomic { spinner != me + 1 -> skip }
    :: d_step { spinner != me + 1 -> spinner = 0 } /* plk_spinner_change takes it for its own */
    OR_DIE
    fi
#else
    skip
#endif
}

#ifdef BREAK_S1_QUEUE
#define ALONE (tail[G] == gate_ticket[me] + 1)
#else
#define ALONE (tail[G] == gate_ticket[me] + 1 && tail[Q] == head[Q])
#endif

/* plk_settle */
inline settle()
{
    if
    :: atomic { !ALONE -> skip }
    :: atomic { ALONE -> skip };
        STEP(slow = 0);
        /* [S1] fence: pairs with the arrival's xadd, on the gate or on the queue */
        STEP(h = tail[Q]; alone = (tail[G] == gate_ticket[me] + 1));
#ifdef BREAK_S1_QUEUE
        STEP(if :: !alone -> slow = 1 :: else fi);
#else
        STEP(if :: !alone || h != head[Q] -> slow = 1 :: else fi);
#endif
        alone = 0
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
    STEP(assert(inside == me + 1 && head[G] == gate_ticket[me] && late == 0);
         inside = 0;
         late = head[G] + 1;
         late_by = me;
         h = late);
#if !MEMBARRIER
    STEP(fence()); /* unlock_barrier [K1] [B1] */
#endif
    if
    :: atomic { slow != 0 -> skip };
        STEP(fence()); /* of plk_serve_next */
        pass_on(G);
        if
        :: atomic { tail[G] == h -> skip }; queue_call()
        :: atomic { tail[G] != h -> skip }; kick(G, h)
        OR_DIE
        fi
    :: atomic { slow == 0 -> skip }
    OR_DIE
    fi;
    STEP(gate_ticket[me] = NONE; h = 0)
}

/* plk_queue_pass */
inline queue_pass(wakes)
{
    STEP(h = head[Q] + 1; head[Q] = h; fence()); /* [K2] */
#ifndef BREAK_B1_TOMBS
    pass_on(Q);
#endif
#ifndef BREAK_B1_WAKE
    if
    :: atomic { wakes && tail[Q] != h -> skip }; promote()
    :: atomic { !(wakes && tail[Q] != h) -> skip }
    OR_DIE
    fi;
#endif
    STEP(queue_ticket[me] = NONE; h = 0)
}

/* plk_stand_by: until in, at the gate, or out of time. */
inline stand_by()
{
    standing = 1;
    do
    :: take_free();
        if
        :: atomic { gate_ticket[me] != NONE -> break }
        :: atomic { gate_ticket[me] == NONE -> skip };
            if
            :: atomic { promoted == queue_ticket[me] + 1 -> comes = 1; break }
            :: atomic { promoted != queue_ticket[me] + 1 -> /* it is time */
                    promoted = queue_ticket[me] + 1; comes = 1; break }
            :: atomic { promoted != queue_ticket[me] + 1 -> skip };
                park(Q, queue_ticket[me]);
                if :: atomic { leaving -> break } :: atomic { !leaving -> skip } fi
            OR_DIE
            fi
        fi
    od;
    standing = 0
}

/* plk_come_to_gate, and until in or out of time */
inline come_to_gate()
{
    STEP(fence();
         gate_ticket[me] = tail[G];
         tail[G]++;
         assert(tail[G] < TICKETS));
    do
    :: d_step { head[G] == gate_ticket[me] -> enter() }; break
    :: atomic { head[G] != gate_ticket[me] && leaving -> skip };
        leave(G, gate_ticket[me]);
        STEP(gate_ticket[me] = NONE);
        break
    :: atomic { head[G] != gate_ticket[me] && !leaving -> skip }; park(G, gate_ticket[me])
    OR_DIE
    od
}

/* plk_join_queue, and all that follows */
inline queue_up()
{
    STEP(fence();
         queue_ticket[me] = tail[Q];
         tail[Q]++;
         assert(tail[Q] < TICKETS));
#if !defined(BREAK_B1_SLOW) && !defined(BREAK_B1_LOOK)
    raise(); /* plk_queue_shown [S1]: park's comes before a look at the gate, too */
#endif
    do
    :: atomic { head[Q] == queue_ticket[me] -> break }
    :: atomic { head[Q] != queue_ticket[me] && leaving -> skip };
        leave(Q, queue_ticket[me]);
        STEP(queue_ticket[me] = NONE; h = 0);
        break
    :: atomic { head[Q] != queue_ticket[me] && !leaving -> skip }; park(Q, queue_ticket[me])
    OR_DIE
    od;
    if
    :: queue_ticket[me] != NONE ->
        stand_by();
        if
        :: comes -> comes = 0; come_to_gate()
        :: else
        fi;
        queue_pass(gate_ticket[me] == NONE)
    :: else
    fi
}

/* No lost promotion: nobody sleeps on whom all others believe to be on the way. */
#define SLEEPS_ON(v) (wait[v] == 3 && on[v] == AT(Q, head[Q]) + 1 && promoted == head[Q] + 1)

active proctype witness()
{
end:
    atomic { promoters == 0 && late_promoted == 0 && (SLEEPS_ON(0) || SLEEPS_ON(1) || SLEEPS_ON(2)) ->
        assert(false) }
}

proctype vcpu(byte me; byte rounds; byte gives_up)
{
    byte h, i;
    bit is_armed, standing, comes, leaving, alone, watches;

    me == 0 || tail[G] != 0 || deaths != 0; /* the first is 0: fewer states */
    do
    :: rounds == 0 -> break
    :: rounds != 0 ->
        rounds--;
        if :: take_free() :: true /* retired */ fi;
#if SPINS
        if
        :: gate_ticket[me] == NONE -> spin()
        :: true
        fi;
#endif
        if
        :: gate_ticket[me] == NONE -> queue_up()
        :: else
        fi;
        if
        :: gate_ticket[me] != NONE -> release()
        :: else
        fi;
        leaving = 0
    od;
    ended++;
    goto over;
dead:
    h = 0; i = 0; is_armed = 0; standing = 0; comes = 0; leaving = 0; alone = 0; watches = 0; rounds = 0; gives_up = 0;
over:
    skip
}

/* -------------------------------------------------------------------- recovery */

#define DIRTY(d) (life[d] == DEAD && (gate_ticket[d] != NONE || queue_ticket[d] != NONE))
#define ANY_DIRTY (DIRTY(0) || DIRTY(1) || DIRTY(2))

#if DEATHS

/* A claim, or an owner record: what is done for the dead in one cell (recovery.pml). */
inline recover(cell, x)
{
    if
    :: x != NONE ->
        if :: cell == G -> slow = 1 :: else fi;
        if
        :: d_step { head[cell] == x && !tomb[AT(cell, x)] -> head[cell] = x + 1 }
        :: d_step { head[cell] < x -> tomb[AT(cell, x)] = 1 }
        :: else
        fi;
        d_step { heavy(); h = (head[cell] > x && tomb[AT(cell, x)] -> x : head[cell]) };
        serve(cell);
        d_step { h = head[cell] };
        serve(cell)
    :: else
    fi
}

proctype recoverer(byte me)
{
    byte h, i, d;

end:
    do
    :: atomic { ANY_DIRTY ->
            d = 0;
            do
            :: DIRTY(d) -> break
            :: else -> d++
            od };
        recover(G, gate_ticket[d]);
        recover(Q, queue_ticket[d]);
        d_step { gate_ticket[d] = NONE; queue_ticket[d] = NONE; d = 0; h = 0; ticks = 0 }
    od;
dead: /* it does not: me is N */
    skip
}
#endif

init
{
    byte i;

    atomic {
        run vcpu(0, ROUNDS_0, GIVES_UP_0);
        run vcpu(1, ROUNDS_1, GIVES_UP_1);
        run vcpu(2, 1, GIVES_UP_2);
#if DEATHS
        run recoverer(N);
#endif
    }
    atomic {
        ended == N && late == 0 && !ANY_DIRTY ->
        assert(head[G] == tail[G] && head[Q] == tail[Q] && inside == 0);
        i = 0;
        do
        :: i < 2 * TICKETS -> assert(!tomb[i]); i++
        :: else -> break
        od
    }
}
