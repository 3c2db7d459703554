/* pylocks/site.h - patch sites.
 *
 * A call site is compiled as
 *
 *     call *plk_module_ops+8*OP(%rip)         ff 15 disp32, 6 bytes
 *
 * which is correct from the first instruction on, before and without any
 * patching.  Its address, op and length lie in the section plk_sites.  Once
 * the choice for the op is known, the core rewrites the 6 bytes as one of
 *
 *     call target; nop     e8 rel32 90        a call, now direct
 *     xor %eax,%eax; nopl  31 c0 ...          a constant, inlined
 *     nopw 0(%rax,%rax,1)  66 0f 1f 44 00 00  nothing
 *
 * unlock_barrier stands in the uncontended path, which makes no call unless it is
 * told to: its site is compiled as the fence that is right under every protocol
 * and is patched to a nop where the protocol needs none.  The two sites of lock_event
 * there (PLK_POINT) are compiled as nops, and patched to calls where events are asked for.
 *
 * Cost of a site that is off: one 6-byte nop.  Fallback: where the text can't
 * be written the sites stay as compiled.  What a site holds now can be asked:
 * pylocks.ops() reads its bytes back.
 *
 * A call site is inline asm, which the compiler does not know to be a call: left
 * alone it might keep data in the red zone below the stack pointer, where the
 * return address goes.  Compilers use a red zone only in functions that make no
 * ordinary call, so every function with call sites begins with PLK_SITE_FRAME,
 * which makes one (never taken); and each site names the stack pointer as an
 * operand, which places it behind the prologue, hence on an aligned stack.
 * Unlike switching stacks inside the asm this keeps backtraces whole, and a
 * waiter is just what people look at in a debugger.  The tests read the machine
 * code for accesses below the stack pointer. */
#ifndef PYLOCKS_SITE_H
#define PYLOCKS_SITE_H

#include <stdlib.h>
#include <unistd.h>

#include "ops.h"

/* initial-exec keeps the look-up of a thread-local free of calls; musl can't load
 * such a library late. */
#if defined(__GLIBC__)
#define PLK_TLS_MODEL __attribute__((tls_model("initial-exec")))
#else
#define PLK_TLS_MODEL
#endif

/* The thread's table of seats, cached in each module. */
extern __thread struct plk_seat *plk_seats PLK_HIDDEN PLK_TLS_MODEL;

/* Defined once a module by PLK_MODULE; the asm names it, hence the label. */
extern struct plk_ops plk_module_ops __asm__("plk_module_ops") PLK_HIDDEN;
extern struct plk_module plk_module_self PLK_HIDDEN;

#if defined(__x86_64__) && defined(__LP64__)
#include "site_x86_64.h"
#else
#include "site_generic.h"
#endif

__attribute__((noinline, cold, noreturn, unused)) static void plk_not_registered(void)
{
    static const char text[] = "pylocks: a lock was used by a module that never called "
                               "plk_register; see pylocks.h\n";
    if (write(2, text, sizeof(text) - 1) < 0)
        _exit(127);
    abort();
}

#define PLK_SITE_FRAME()                                \
    do {                                                \
        if (PLK_UNLIKELY(plk_module_self.api == NULL))  \
            plk_not_registered();                       \
    } while (0)

/* The ops as functions.  Each is one site. */
#define PLK_CPU_RELAX() PLK_CALL_SITE(PLK_OP_cpu_relax, 0, 0, 0)
#define PLK_LOCK_SPINNING(wait, head) PLK_CALL_SITE(PLK_OP_lock_spinning, (wait), (head), 0)
#define PLK_UNLOCK_KICK(lock, seat, head) PLK_CALL_SITE(PLK_OP_unlock_kick, (lock), (seat), (head))
#define PLK_VCPU_PREEMPTED(wait, head) PLK_CALL_SITE(PLK_OP_vcpu_preempted, (wait), (head), 0)
#define PLK_EVENT(vcpu, name) PLK_CALL_SITE4(PLK_OP_lock_event, (vcpu), PLK_EV_##name, 0, 0)
/* The same of a lock, to be counted and traced as its: an event, or a point of PLK_POINTS. */
#define PLK_EVENT_AT(domain, vcpu, name, id, ticket) \
    PLK_CALL_SITE4(PLK_OP_lock_event, (vcpu), PLK_EV_##name, PLK_AT((id), (ticket)), (domain))

/* Put once into one source file of a module. */
#define PLK_MODULE(module_name)                                                     \
    static long plk_op_unset(void) { return 0; }                                    \
    __thread struct plk_seat *plk_seats PLK_TLS_MODEL;                              \
    struct plk_ops plk_module_ops __attribute__((used)) = {                         \
        {plk_op_unset, plk_op_unset, plk_op_unset, plk_op_unset, plk_op_unset, plk_op_unset}}; \
    struct plk_module plk_module_self = {(module_name), &plk_module_ops,            \
                                         PLK_SITES_BEGIN, PLK_SITES_END, 0, 0}

PLK_STATIC_ASSERT(six_ops, PLK_OP_COUNT == 6);

#endif
