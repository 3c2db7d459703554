/* results.c - which results the targets had: any other than those of targets.h is reported, so that
 * whatever is wrong with a segment has an error of its own. */
#include "targets.h"

#include <stdio.h>
#include <string.h>

#include "hv/attach.h" /* its errors */

#define ERRORS_MAX 12
static const struct {
    const char *name;
    int errors[ERRORS_MAX];
} targets[] = {
#define X(name, ...) {#name, {__VA_ARGS__}},
    TARGETS(X)
#undef X
};
static uint64_t calls[T_COUNT], good[T_COUNT], errors[T_COUNT][ERRORS_MAX];

int64_t result(enum target target, int64_t rc)
{
    int i;

    SAY("%s -> %lld\n", targets[target].name, (long long)rc);
    calls[target]++;
    if (rc >= 0) {
        good[target]++;
        return rc;
    }
    for (i = 0; i < ERRORS_MAX && targets[target].errors[i] != 0; i++) {
        if (rc == -targets[target].errors[i]) {
            errors[target][i]++;
            return rc;
        }
    }
    fail("%s has an unexpected result: %lld", targets[target].name, (long long)rc);
}

int targets_report(int demand)
{
    int missed = 0;
    unsigned t, i;

    for (t = 0; t < T_COUNT; t++) {
        printf("  %-15s %10llu calls, %10llu succeeded", targets[t].name, (unsigned long long)calls[t],
               (unsigned long long)good[t]);
        for (i = 0; i < ERRORS_MAX && targets[t].errors[i] != 0; i++)
            printf("%s %s %llu", i == 0 ? ";" : ",",
                   targets[t].errors[i] > 1000 ? "refusal" : strerror(targets[t].errors[i]),
                   (unsigned long long)errors[t][i]);
        printf("\n");
        missed |= good[t] == 0;
    }
    if (missed && demand)
        printf("a target never succeeded: the fuzzer does not reach what it should\n");
    return missed && demand;
}
