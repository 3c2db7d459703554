#include "hv/ticks.h"

#include <stdio.h>
#include <string.h>

#include "hv/futex.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* 0.1 % of a time is more than the buckets tell. */
#define PLK_TICKS_MEASURED_NS 1000000u

uint32_t plk_tick_clock = PLK_CLOCK_MONOTONIC;
uint64_t plk_tick_ns = 1ull << 32;

#if defined(__x86_64__)
/* It runs at one rate, and the kernel has found it to agree between CPUs. */
static int plk_tsc_keeps_time(void)
{
    static const char *const by_it[] = {"tsc\n", "kvm-clock\n", "hyperv_clocksource_tsc_page\n"};
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    unsigned a, b, c, d, i;
    char text[64] = "";
    int found = 0;

    if (file == NULL)
        return 0;
    if (fgets(text, sizeof(text), file) != NULL) {
        for (i = 0; i < sizeof(by_it) / sizeof(by_it[0]); i++)
            found |= strcmp(text, by_it[i]) == 0;
    }
    fclose(file);
    return found && __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & (1u << 8)) != 0;
}
#else
static int plk_tsc_keeps_time(void) { return 0; }
#endif

void plk_ticks_init(void)
{
    uint64_t ns, ticks, took;

    if (!plk_tsc_keeps_time())
        return;
    ns = plk_now();
    ticks = PLK_TSC();
    do
        took = plk_now() - ns;
    while (took < PLK_TICKS_MEASURED_NS);
    ticks = PLK_TSC() - ticks;
    if (ticks == 0)
        return;
    plk_tick_ns = (uint64_t)(((unsigned __int128)took << 32) / ticks);
    plk_tick_clock = PLK_CLOCK_TSC;
}
