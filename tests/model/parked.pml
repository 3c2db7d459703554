/* parked.pml - [D4] mending the count of those who park on one channel (counts.c, hv/park.c).
 *
 * The count may be too high, never lower than the number of the living that are
 * inside, of which each has raised it and not lowered it yet; and when all is
 * quiet, one more mending makes it exact.  The word is modelled as it is: the
 * low half counts, the upper half counts entries. */

#define N 3
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef PARKS
#define PARKS 2
#endif

byte low, entries;
bit channel[N], dead[N], counted[N];
byte deaths, ended;

#define OR_DIE :: atomic { deaths < DEATHS -> deaths++; dead[me] = 1; goto over }
#define STEP(x) if :: d_step { x } OR_DIE fi
#define LIVING_INSIDE ((counted[0] && !dead[0]) + (counted[1] && !dead[1]) + (counted[2] && !dead[2]))

proctype sleeper(byte me)
{
    byte parks;

    do
    :: parks < PARKS ->
        parks++;
#ifndef BREAK_D4_CHANNEL_LATE
        STEP(channel[me] = 1); /* [D4] before the count rises */
#endif
        STEP(low++; entries++; counted[me] = 1);
#ifdef BREAK_D4_CHANNEL_LATE
        STEP(channel[me] = 1);
#endif
#ifdef BREAK_D4_CHANNEL_EARLY
        STEP(channel[me] = 0);
#endif
        STEP(assert(low > 0); low--; counted[me] = 0);
        STEP(channel[me] = 0) /* [D4] after it fell */
    :: parks == PARKS -> break
    od;
over:
    ended++
}

#ifdef BREAK_D4_ENTRIES
#define UNMOVED (low == was)
#else
#define UNMOVED (low == was && entries == was_entries)
#endif

/* plk_parked_mend */
inline mend()
{
    do
    :: true ->
        d_step { was = low; was_entries = entries; living = 0; i = 0 };
        do
        :: d_step { i < N -> living = living + (channel[i] && !dead[i]); i++ }
        :: atomic { i == N -> i = 0; break }
        od;
        if
        :: was <= living -> break
        :: atomic { was > living && UNMOVED -> low = living; assert(low >= LIVING_INSIDE); break }
        :: atomic { was > living && !UNMOVED -> skip }
        fi
    od
}

init
{
    byte i, was, was_entries, living;

    atomic { run sleeper(0); run sleeper(1); run sleeper(2) };
    deaths == 1 || ended == N; /* others come and go meanwhile */
    mend();
    ended == N;
    mend(); /* of plk_parked_mend_all */
    assert(low == 0)
}
