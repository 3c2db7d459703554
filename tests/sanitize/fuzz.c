/* fuzz.c - the program: see fuzz.h.
 *
 *   fuzz --seed N --executions N [--seconds N] [--patience N] [--save DIR]
 *   fuzz --replay FILE                  once more, and say what happens
 *
 * Inputs that reach code, or a number of rounds through it, that no input reached
 * before are kept, and later ones are made from them.  The compiler calls
 * __sanitizer_cov_trace_pc at every branch of the core. */
#include "targets.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "patch/calibrate.h"
#include "patch/patch.h"

#define KEPT_MAX 4096u
#define PATHS (1u << 14)

int verbose;

void __sanitizer_set_death_callback(void (*callback)(void));
size_t __sanitizer_get_current_allocated_bytes(void);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
extern char __executable_start;
int __real_clock_gettime(clockid_t clock, struct timespec *ts);

const char *__asan_default_options(void)
{
    return "abort_on_error=0:handle_abort=1:detect_stack_use_after_return=0:allocator_may_return_null=1";
}

const char *__ubsan_default_options(void) { return "print_stacktrace=1:abort_on_error=1"; }

/* ------------------------------------------------------------------- input */

static unsigned char input[FUZZ_INPUT_MAX];
static size_t input_size, input_at;
static uint64_t random_state, seed, execution;
static const char *save_to;
static unsigned patience = 20; /* seconds of real time, for one execution */

uint64_t take(unsigned bytes)
{
    uint64_t value = 0;

    while (bytes-- != 0)
        value = value << 8 | (input_at < input_size ? input[input_at++] : 0);
    return value;
}

uint32_t below(uint32_t n) { return n <= 1 ? 0 : (uint32_t)(take(n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n); }

int one_in(uint32_t n) { return input_left() && below(n) == n - 1; }

int input_left(void) { return input_at < input_size; }

void input_ends(void) { input_at = input_size; }

static uint64_t next_random(void) /* SplitMix64 */
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* ----------------------------------------------------------------- failing */

static void save_input(void)
{
    char path[4096];
    int fd;

    if (save_to == NULL)
        return;
    snprintf(path, sizeof(path), "%s/failed-%llu-%llu", save_to, (unsigned long long)seed,
             (unsigned long long)execution);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, input, input_size) != (ssize_t)input_size)
        return;
    close(fd);
    fprintf(stderr, "\nfailed: execution %llu of seed %llu; its input is in %s\n",
            (unsigned long long)execution, (unsigned long long)seed, path);
}

void fail(const char *format, ...)
{
    va_list arguments;

    world.running = 0;
    fprintf(stderr, "\nfuzz: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort(); /* the sanitizer shows from where, and calls save_input */
}

static void too_long(int number)
{
    static const char text[] = "\nfuzz: an execution does not end\n";

    (void)number;
    if (write(2, text, sizeof(text) - 1) > 0)
        abort();
    _exit(1);
}

/* ---------------------------------------------------------------- coverage */

static unsigned char hits[PATHS], seen[PATHS];
static uint16_t touched[PATHS];
static unsigned touched_count, seen_count;
static uintptr_t last_place;

__attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t place = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__executable_start;
    unsigned path = (unsigned)((place * 0x9e3779b97f4a7c15ull >> 40) ^ last_place) % PATHS;

    last_place = (place * 0x9e3779b97f4a7c15ull >> 41);
    if (hits[path] == 0)
        touched[touched_count++] = (uint16_t)path;
    if (hits[path] != 255)
        hits[path]++;
}

/* 1: this execution went a way that none before did. */
static int new_ways(void)
{
    unsigned i, news = 0;

    for (i = 0; i < touched_count; i++) {
        unsigned n = hits[touched[i]], often;

        for (often = 1; n > 3 && often < 7; often++)
            n /= 2;
        often = often == 1 ? n - 1 : often + 1; /* once, twice, three times, up to 7, 15, ... */
        if (seen[touched[i]] == 0)
            seen_count++;
        if ((seen[touched[i]] & 1u << (often & 7)) == 0)
            news = 1;
        seen[touched[i]] |= (unsigned char)(1u << (often & 7));
        hits[touched[i]] = 0;
    }
    touched_count = 0;
    return (int)news;
}

/* ------------------------------------------------------------------ inputs */

static struct kept {
    unsigned char *data;
    size_t size;
} kept[KEPT_MAX];
static unsigned kept_count;

static void keep(void)
{
    struct kept *k = &kept[kept_count < KEPT_MAX ? kept_count++ : next_random() % KEPT_MAX];
    size_t size = input_at < input_size ? input_at : input_size;
    unsigned char *data = malloc(size + 1);

    if (data == NULL)
        return;
    memcpy(data, input, size);
    free(k->data);
    *k = (struct kept){data, size};
}

static void vary(void)
{
    unsigned n = 1 + (unsigned)(next_random() % 8);

    while (n-- != 0) {
        size_t at = next_random() % input_size, other = next_random() % input_size;
        size_t size = 1 + next_random() % 16;

        if (size > input_size - at)
            size = input_size - at;
        switch (next_random() % 5) {
        case 0: input[at] ^= (unsigned char)(1u << next_random() % 8); break;
        case 1: input[at] = (unsigned char)next_random(); break;
        case 2: input[at] = (unsigned char)(input[at] + next_random() % 7 - 3); break;
        case 3: /* what follows is used for something else */
            memmove(input + at, input + at + size, input_size - at - size);
            break;
        default:
            if (size > input_size - other)
                size = input_size - other;
            memmove(input + at, input + other, size);
            break;
        }
    }
}

static void make_input(void)
{
    size_t i, kept_size = 0;
    const struct kept *k = NULL;

    if (kept_count != 0 && next_random() % 4 != 0)
        k = &kept[next_random() % kept_count];
    input_size = 64 + next_random() % (FUZZ_INPUT_MAX - 63);
    if (k != NULL) {
        kept_size = k->size < input_size ? k->size : input_size;
        memcpy(input, k->data, kept_size);
    }
    for (i = kept_size; i < input_size; i += 8) {
        uint64_t random = next_random();

        memcpy(input + i, &random, input_size - i < 8 ? input_size - i : 8);
    }
    if (k != NULL)
        vary();
}

static void run_input(void)
{
    size_t before = __sanitizer_get_current_allocated_bytes(), after;

    input_at = 0;
    last_place = 0;
    alarm(patience);
    execute();
    after = __sanitizer_get_current_allocated_bytes();
    if (after > before)
        fail("%zu bytes of memory remain allocated", after - before);
}

/* -------------------------------------------------------------------- main */

static double seconds_now(void)
{
    struct timespec ts;

    __real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void begin(void)
{
    uint32_t choices[PLK_OP_COUNT] = {0}, i;

    signal(SIGALRM, too_long);
    __sanitizer_set_death_callback(save_input);
    world_start();
    for (i = plk_choice_count(); i-- != 0;)
        choices[plk_choice_at(i)->op] = i;
    if (plk_core_register() != 0 || plk_apply(choices, 0) != 0)
        fail("the core can't be started");
    shapes_make();
}

static int replay(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, input, sizeof(input));

    if (got < 0) {
        perror(path);
        return 2;
    }
    close(fd);
    verbose = 1;
    input_size = (size_t)got;
    run_input();
    printf("nothing failed\n");
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t executions = 100000;
    double seconds = 1e9, start;
    const char *again = NULL;
    int i;

    seed = 1;
    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--executions") == 0)
            executions = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--save") == 0)
            save_to = argv[i + 1];
        else if (strcmp(argv[i], "--patience") == 0)
            patience = (unsigned)strtoul(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--replay") == 0)
            again = argv[i + 1];
        else
            break;
    }
    if (i != argc) {
        fprintf(stderr, "fuzz: what does %s mean?\n", argv[i]);
        return 2;
    }
    begin();
    if (again != NULL)
        return replay(again);
    random_state = seed;
    start = seconds_now();
    for (execution = 0; execution < executions && (execution % 64 != 0 || seconds_now() - start < seconds);
         execution++) {
        make_input();
        run_input();
        if (new_ways())
            keep();
    }
    alarm(0);
    world.running = 0;
    seconds = seconds_now() - start;
    printf("%llu executions in %.1f s (%.0f/s), seed %llu: %u ways through the core, %u inputs kept\n",
           (unsigned long long)execution, seconds, (double)execution / seconds, (unsigned long long)seed,
           seen_count, kept_count);
    for (i = 0; i < (int)kept_count; i++)
        free(kept[i].data);
    return targets_report(execution >= 20000);
}
