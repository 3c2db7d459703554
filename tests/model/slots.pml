/* slots.pml - [D1] one living slot is read while its thread nests and comes back.
 *
 * V has drawn a ticket of L and waits; it looks at signals, so its claim moves to
 * outer[] and back (plk_nest, plk_unnest), and in between it waits for and gets
 * other locks, itself interrupted at that.  The reader (plk_look_at_slot) begins
 * after the xadd.  Whenever it ends while V still has the ticket, it must have
 * seen the claim, or a window.
 *
 * recovery.pml reads a slot in one step; this is why it may.  Loads and stores
 * are in program order: those of a slot are release and acquire.  What is torn
 * is a claim that never was, on a ticket V does not have; that is told in
 * claims.c and loses nothing.  Slots are read one by one, so one is enough. */

#define NONE 255
#define T 1  /* V's ticket of L */
#define L 1
#define M 2

byte pending, ticket = NONE, depth, shifts;
byte outer_cell[2], outer_ticket[2];
bit drawn;

/* plk_nest of a wait for `cell` with ticket t */
inline nest(cell, t)
{
    outer_ticket[depth] = t;
    outer_cell[depth] = cell;
#ifdef BREAK_D1_NEST
    pending = 0;
    depth++
#else
    depth++;
    pending = 0 /* after depth: one of them shows the claim */
#endif
}

/* plk_unnest */
inline unnest(cell, t)
{
    ticket = t;
#ifdef BREAK_D1_SHIFTS_EARLY
    shifts++;
#endif
    pending = cell;
#if !defined(BREAK_D1_SHIFTS) && !defined(BREAK_D1_SHIFTS_EARLY) && !defined(BREAK_D1_SHIFTS_LATE)
    shifts++; /* [D1] between the two */
#endif
    depth--
#ifdef BREAK_D1_SHIFTS_LATE
    ;
    shifts++
#endif
}

/* An acquisition of M by a signal handler, which waits there and may be interrupted in turn. */
inline other(t, within)
{
    ticket = NONE;
    pending = M;
    ticket = t;
    if
    :: within -> nest(M, t); ticket = NONE; pending = M; ticket = t + 1; pending = 0; unnest(M, t)
    :: true
    fi;
    pending = 0
}

active proctype v()
{
    byte rounds;

    ticket = NONE;
    pending = L;
    drawn = 1;
    ticket = T;
    do
    :: rounds < 3 ->
        nest(L, T);
        if :: other(T + rounds, 1) :: true fi;
        unnest(L, T);
        rounds++
    :: break
    od
}

active proctype reader()
{
    byte before, d, i, cell;
    bit seen;

    drawn;
    do
    :: true ->
        before = shifts;
        i = 0;
        if
        :: pending == L -> if :: atomic { ticket == T || ticket == NONE -> seen = 1 } :: atomic { else -> skip } fi
        :: pending != L
        fi;
        d = depth;
        do
        :: i < d ->
            cell = outer_cell[i];
            if
            :: cell == L -> if :: atomic { outer_ticket[i] == T -> seen = 1 } :: atomic { else -> skip } fi
            :: else
            fi;
            i++
        :: else -> break
        od;
        if
        :: atomic { shifts == before -> break }
        :: atomic { shifts != before -> skip }
        fi
    od;
    assert(seen) /* the claim was there all the while */
}
