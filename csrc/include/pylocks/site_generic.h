/* pylocks/site_generic.h - where there is no patcher for the processor: plain
 * indirect calls through the module's table, and the fence that is right under
 * every protocol.  Same behaviour; no sites are recorded. */
#ifndef PYLOCKS_SITE_GENERIC_H
#define PYLOCKS_SITE_GENERIC_H

#define PLK_SITES_BEGIN ((const struct plk_site *)0)
#define PLK_SITES_END ((const struct plk_site *)0)

#define PLK_CALL_SITE(which, a, b, c) PLK_CALL_SITE4(which, a, b, c, 0)
#define PLK_CALL_SITE4(which, a, b, c, d)                                                             \
    (((long (*)(long, long, long, long))(void (*)(void))plk_module_ops.fn[which])((long)(a), (long)(b), \
                                                                                  (long)(c), (long)(d)))

/* The uncontended path makes no call: its events are not seen here. */
#define PLK_POINT(name, lock, seat) ((void)(lock), (void)(seat))

#define PLK_UNLOCK_BARRIER() __atomic_thread_fence(__ATOMIC_SEQ_CST)

#endif
