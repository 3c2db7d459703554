/* queue.pml - nobody dies: mutual exclusion, order, and no lost kick without any watchdog. */
#include "protocol.pml"

#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef ROUNDS_0
#define ROUNDS_0 ROUNDS
#endif

#if WATCH
/* plk_watch at any time: a third party that passes over abandoned tickets. */
proctype watcher(byte me)
{
    byte t, h, i;

end:
    atomic { head < tail -> h = head };
    serve(h, AGAIN)
}
#endif

init
{
    atomic {
        run vcpu(0, ROUNDS_0, GIVES_UP_0);
        run vcpu(1, ROUNDS, GIVES_UP_1);
#if N > 2
        run vcpu(2, ROUNDS, GIVES_UP_2);
#endif
#if N > 3
        run vcpu(3, ROUNDS, 0);
#endif
#if WATCH
        run watcher(N);
#endif
    }
    atomic {
        ended == N && late == 0 ->
        assert(head == tail && inside == 0); /* an abandoned ticket keeps nobody out */
    }
}
