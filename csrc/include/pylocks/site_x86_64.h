/* pylocks/site_x86_64.h - patch sites as 6 recorded bytes; see site.h. */
#ifndef PYLOCKS_SITE_X86_64_H
#define PYLOCKS_SITE_X86_64_H

#define PLK_SITE_LENGTH 6

extern const struct plk_site plk_sites_begin[] __asm__("__start_plk_sites")
    __attribute__((weak)) PLK_HIDDEN;
extern const struct plk_site plk_sites_end[] __asm__("__stop_plk_sites")
    __attribute__((weak)) PLK_HIDDEN;
#define PLK_SITES_BEGIN plk_sites_begin
#define PLK_SITES_END plk_sites_end

#define PLK_SITE_RECORD(place, registers)          \
    ".pushsection plk_sites,\"a\",@progbits\n"     \
    ".balign 4\n"                                  \
    ".long 661b - .\n"                             \
    ".byte %c[op], 662b - 661b + " place "\n"      \
    registers                                      \
    ".popsection\n"
#define PLK_SITE_RECORD_CALL PLK_SITE_RECORD("0", ".byte 0, 0\n")

/* All that the System V ABI lets a callee destroy. */
#ifdef __AVX512F__
#define PLK_CLOBBER_AVX512                                                            \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", \
        "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", \
        "k3", "k4", "k5", "k6", "k7"
#else
#define PLK_CLOBBER_AVX512
#endif
#define PLK_CALL_CLOBBERS                                                              \
    "memory", "cc", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",  \
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",     \
        "xmm13", "xmm14", "xmm15" PLK_CLOBBER_AVX512

/* Naming it as an operand keeps a site behind its function's prologue.  At file
 * scope, because a compiler may take a local one for an uninitialised variable. */
__extension__ register unsigned long plk_stack_pointer __asm__("rsp");

/* rax is 0 going in, so that a site patched to a nop "returns" 0. */
#define PLK_CALL_SITE(which, a, b, c) PLK_CALL_SITE4(which, a, b, c, 0)
#define PLK_CALL_SITE4(which, a, b, c, d)                                             \
    __extension__({                                                                   \
        long plk_r = 0;                                                               \
        long plk_a = (long)(a), plk_b = (long)(b), plk_c = (long)(c), plk_d = (long)(d); \
        __asm__ volatile("661:\tcall *plk_module_ops+%c[slot](%%rip)\n662:\n"         \
                         PLK_SITE_RECORD_CALL                                         \
                         : "+a"(plk_r), "+D"(plk_a), "+S"(plk_b), "+d"(plk_c), "+c"(plk_d), \
                           "+r"(plk_stack_pointer)                                    \
                         : [op] "i"(which), [slot] "i"(8 * (which))                   \
                         : PLK_CALL_CLOBBERS);                                        \
        plk_r;                                                                        \
    })

/* A locked read-modify-write of the top of the stack: a full fence, cheaper
 * than mfence; changes nothing. */
#define PLK_UNLOCK_BARRIER()                                                \
    __asm__ volatile("661:\tlock orl $0,(%%rsp)\n\tnop\n662:\n"             \
                     PLK_SITE_RECORD_CALL                                   \
                     : : [op] "i"(PLK_OP_unlock_barrier) : "memory", "cc")

/* A site of the uncontended path: compiled as the nop that it is unless events are
 * asked for.  It costs nothing but that: the compiler is not made to put the lock and the
 * seat in particular registers, but tells in the record, by two instructions that nobody
 * executes, in which they are; what the site is patched to call takes them from there
 * and changes no register at all. */
#define PLK_POINT(name, lock, seat)                                                          \
    __asm__ volatile("661:\t.byte 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00\n662:\n"               \
                     PLK_SITE_RECORD("16 * %c[place]", "push %[in_lock]\n\tpush %[in_seat]\n") \
                     : : [op] "i"(PLK_OP_lock_event), [place] "i"(PLK_PLACE_##name),         \
                     [in_lock] "R"(lock), [in_seat] "R"(seat) : "memory", "cc")

#endif
