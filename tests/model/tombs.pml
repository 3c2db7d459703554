/* tombs.pml - [D4] mending tombs_live (counts.c, abandon.c).
 *
 * 0 proves to everybody that no tombstone stands, so the count may be too high but
 * never lower than the table; and when all is quiet, mending makes it exact.
 * Each burier has a place of its own in the table and may empty anybody's; which
 * place a tombstone gets makes no difference to a count. */

#define N 3
#ifndef DEATHS
#define DEATHS 1
#endif

#ifndef MORTAL
#define MORTAL 2 /* who may die */
#endif

byte live, version;
bit table[N], burying[N], dead[N];
byte deaths, ended;

#define OR_DIE :: atomic { CAN_DIE -> deaths++; dead[me] = 1; goto over }
#define CAN_DIE (deaths < DEATHS && me == MORTAL)
#define STEP(x) if :: d_step { x } OR_DIE fi
#define STANDING (table[0] + table[1] + table[2])

/* plk_tomb_put */
inline put()
{
#ifndef BREAK_D4_UNFLAGGED
    STEP(burying[me] = 1);
#endif
    STEP(live++);
    STEP(table[me] = 1; assert(live >= STANDING));
    STEP(version++);
    STEP(burying[me] = 0)
}

/* plk_tomb_drop */
inline drop(x)
{
#ifndef BREAK_D4_UNFLAGGED
    STEP(burying[me] = 1);
#endif
    if
    :: d_step { table[x] -> table[x] = 0 };
        STEP(version++);
        STEP(assert(live > 0); live--; assert(live >= STANDING))
    :: atomic { !table[x] -> skip }
    OR_DIE
    fi;
    STEP(burying[me] = 0)
}

proctype burier(byte me; byte turns)
{
    do
    :: turns != 0 ->
        turns--;
        if
        :: !table[me] -> put()
        :: drop(me)
        :: drop((me + 1) % N)
        fi
    :: turns == 0 -> break
    od;
over:
    ended++
}

inline look_at_flags()
{
    i = 0;
    do
    :: d_step { i < N && !flagged -> flagged = burying[i] && !dead[i]; i++ }
    :: atomic { i == N || flagged -> i = 0; break }
    od
}

/* plk_tombs_mend */
inline mend()
{
    d_step { was_version = version; flagged = 0; standing = 0; i = 0 }; /* 1 */
#ifndef BREAK_D4_FIRST_LOOK
    look_at_flags(); /* 2 */
#endif
    was = live; /* 3 */
    do
    :: d_step { i < N -> standing = standing + table[i]; i++ } /* 4 */
    :: atomic { i == N -> i = 0; break }
    od;
#ifdef BREAK_D4_VERSION_FIRST
    moved = (version != was_version);
#endif
#ifndef BREAK_D4_SECOND_LOOK
    look_at_flags(); /* 5 */
#endif
#if !defined(BREAK_D4_VERSION) && !defined(BREAK_D4_VERSION_FIRST)
    moved = (version != was_version); /* 6 */
#endif
    if
    :: flagged || moved
    :: else ->
        if
        :: d_step { live == was -> live = standing; assert(live >= STANDING) } /* 7 */
        :: atomic { live != was -> skip }
        fi
    fi
}

init
{
    byte i, was, was_version, standing;
    bit flagged, moved;

    atomic { run burier(0, 2); run burier(1, 2); run burier(2, 1) };
    deaths == 1 || ended == N; /* others go on meanwhile */
    mend();
    ended == N;
    moved = 0;
    mend();
    assert(live == STANDING)
}
