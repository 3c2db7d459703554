/* patch/patch.c - registration and patching.
 *
 * When.  Sites are patched at the process's first attach, before its first lock
 * exists, or, for a module loaded later, while it is being loaded: no thread
 * can be inside a site, or have one in its pipeline as a lock, so no stop of the
 * world is needed.  The other cores are still told to refetch (membarrier
 * SYNC_CORE) before the first lock is handed out.
 *
 * How.  By write to /proc/self/mem, which puts a private copy of the page in
 * place without ever making one writable and executable.  A page of text that
 * can't be written so (hardened kernels, other processors) keeps its compiled
 * sites, which are correct: an indirect call, or the fence.
 *
 * Across fork the patched pages are inherited with everything they refer to. */
#include "patch/patch.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/barrier.h"
#include "hv/events.h"
#include "hv/quick.h"

struct plk_site_state {
    const unsigned char *address;
    uint8_t op, place, lock, seat, status;
    unsigned char before[PLK_SITE_BYTES];
    int error;
};

struct plk_loaded {
    struct plk_loaded *next;
    struct plk_module *module;
    uint32_t count;
    struct plk_site_state sites[];
};

static pthread_mutex_t plk_patch_lock = PTHREAD_MUTEX_INITIALIZER;
static struct plk_loaded *plk_loaded_first, **plk_loaded_end = &plk_loaded_first;
static int32_t plk_choice_of[PLK_OP_COUNT] = {-1, -1, -1, -1, -1, -1};
static int plk_applied, plk_patching;
static char plk_memory[256] = "/proc/self/mem";

void plk_patch_through(const char *path)
{
    snprintf(plk_memory, sizeof(plk_memory), "%s", path);
}

static const unsigned char plk_nop6[PLK_SITE_BYTES] = {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00};

/* Does the site hold what PLK_CALL_SITE, PLK_POINT or PLK_UNLOCK_BARRIER compiles to? */
static int plk_site_as_compiled(const struct plk_module *m, const struct plk_site_state *site)
{
    static const unsigned char fence[PLK_SITE_BYTES] = {0xf0, 0x83, 0x0c, 0x24, 0x00, 0x90};
    int32_t rel;

    if (site->op == PLK_OP_unlock_barrier)
        return memcmp(site->before, fence, PLK_SITE_BYTES) == 0;
    if (site->place != PLK_PLACE_CONTENDED)
        return memcmp(site->before, plk_nop6, PLK_SITE_BYTES) == 0 && plk_quick_known(site->lock) &&
               plk_quick_known(site->seat);
    memcpy(&rel, site->before + 2, sizeof(rel));
    return site->before[0] == 0xff && site->before[1] == 0x15 &&
           site->address + PLK_SITE_BYTES + rel == (const unsigned char *)&m->ops->fn[site->op];
}

/* The 6 bytes that make the choice at this address; 0: a call out of reach. */
static int plk_encode(const struct plk_choice *c, const struct plk_site_state *site,
                      unsigned char out[PLK_SITE_BYTES])
{
    intptr_t distance;
    plk_op_fn fn;
    int32_t rel;

    if (plk_choice_at_place(c, site->place, &fn) != PLK_KIND_CALL) {
        memcpy(out, c->kind == PLK_KIND_CALL ? plk_nop6 : c->bytes, PLK_SITE_BYTES);
        return 1;
    }
    if (site->place != PLK_PLACE_CONTENDED)
        fn = plk_quick_entry(fn, site->lock, site->seat);
    distance = (intptr_t)fn - (intptr_t)(site->address + 5);
    rel = (int32_t)distance;
    if (rel != distance)
        return 0;
    out[0] = 0xe8;
    memcpy(out + 1, &rel, sizeof(rel));
    out[5] = 0x90;
    return 1;
}

static void plk_patch_site(const struct plk_module *m, struct plk_site_state *site, int memory)
{
    unsigned char code[PLK_SITE_BYTES];

    if (!plk_patching)
        site->status = PLK_SITE_SWITCHED_OFF;
    else if (!plk_site_as_compiled(m, site))
        site->status = PLK_SITE_UNEXPECTED;
    else if (!plk_encode(plk_choice_at((uint32_t)plk_choice_of[site->op]), site, code))
        site->status = PLK_SITE_TOO_FAR;
    else if (memory < 0 || pwrite(memory, code, PLK_SITE_BYTES, (off_t)(uintptr_t)site->address) !=
                               PLK_SITE_BYTES) {
        site->status = PLK_SITE_UNWRITABLE;
        site->error = errno;
    } else if (memcmp(site->address, code, PLK_SITE_BYTES) != 0)
        site->status = PLK_SITE_UNWRITABLE; /* the file took it, the text did not change */
    else
        site->status = PLK_SITE_PATCHED;
}

static void plk_sync_cores(void)
{
#if defined(SYS_membarrier) && defined(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE)
    /* Where the kernel has it not, no other thread has met these bytes anyway. */
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
#endif
}

static void plk_apply_to(struct plk_loaded *l)
{
    int memory = plk_patching && l->count != 0 ? open(plk_memory, O_WRONLY | O_CLOEXEC) : -1;
    uint32_t i;

    /* The table first: it is what an unpatched site, and a site just before its
     * patch, calls through. */
    for (i = 0; i < PLK_OP_COUNT; i++)
        __atomic_store_n(&l->module->ops->fn[i], plk_choice_at((uint32_t)plk_choice_of[i])->fn,
                         __ATOMIC_RELEASE);
    for (i = 0; i < l->count; i++)
        plk_patch_site(l->module, &l->sites[i], memory);
    if (memory >= 0)
        close(memory);
    plk_sync_cores();
}

/* A child must not inherit the lock from a thread it does not have. */
static void plk_patch_fork_prepare(void) { pthread_mutex_lock(&plk_patch_lock); }
static void plk_patch_fork_done(void) { pthread_mutex_unlock(&plk_patch_lock); }

int plk_module_add(struct plk_module *module)
{
    uint32_t count = (uint32_t)(module->sites_end - module->sites), i;
    struct plk_loaded *l;

    if (module->api != NULL)
        return 0; /* imported again */
    l = calloc(1, sizeof(*l) + count * sizeof(l->sites[0]));
    if (l == NULL)
        return -ENOMEM;
    l->module = module;
    for (i = 0; i < count; i++) {
        const struct plk_site *record = &module->sites[i];
        struct plk_site_state *site = &l->sites[l->count];

        if (record->op >= PLK_OP_COUNT || PLK_SITE_LENGTH_OF(record) != PLK_SITE_BYTES ||
            PLK_SITE_PLACE_OF(record) >= (record->op == PLK_OP_lock_event ? PLK_PLACE_COUNT : 1u))
            continue; /* from a newer header: stays as it was compiled */
        site->address = (const unsigned char *)&record->offset + record->offset;
        site->op = record->op;
        site->place = PLK_SITE_PLACE_OF(record);
        site->lock = record->lock;
        site->seat = record->seat;
        memcpy(site->before, site->address, PLK_SITE_BYTES);
        l->count++;
    }
    pthread_mutex_lock(&plk_patch_lock);
    if (plk_loaded_first == NULL) /* once, with the core itself */
        pthread_atfork(plk_patch_fork_prepare, plk_patch_fork_done, plk_patch_fork_done);
    *plk_loaded_end = l;
    plk_loaded_end = &l->next;
    if (plk_applied)
        plk_apply_to(l);
    module->api = plk_core_api();
    pthread_mutex_unlock(&plk_patch_lock);
    return 0;
}

int plk_apply(const uint32_t *choices, int patch)
{
    struct plk_loaded *l;
    int rc = 0, op;

    for (op = 0; op < PLK_OP_COUNT && rc == 0; op++) {
        const struct plk_choice *c = plk_choice_at(choices[op]);

        if (c == NULL || (int)c->op != op)
            rc = -EINVAL;
        else if (!plk_choice_available(choices[op]))
            rc = -ENOTSUP;
    }
    /* Before any unlock site can become a nop that relies on it. */
    if (rc == 0 && plk_membarrier_works())
        rc = plk_membarrier_register();
    pthread_mutex_lock(&plk_patch_lock);
    if (rc == 0 && plk_applied)
        rc = -EBUSY;
    if (rc == 0) {
        for (op = 0; op < PLK_OP_COUNT; op++)
            plk_choice_of[op] = (int32_t)choices[op];
        plk_patching = patch;
        if (plk_choice_at(choices[PLK_OP_lock_event])->kind == PLK_KIND_CALL)
            plk_events_start();
        for (l = plk_loaded_first; l != NULL; l = l->next)
            plk_apply_to(l);
        plk_applied = 1;
    }
    pthread_mutex_unlock(&plk_patch_lock);
    return rc;
}

int32_t plk_chosen(uint32_t op) { return op < PLK_OP_COUNT ? plk_choice_of[op] : -1; }

uint32_t plk_module_count(void)
{
    struct plk_loaded *l;
    uint32_t n = 0;

    for (l = plk_loaded_first; l != NULL; l = l->next)
        n++;
    return n;
}

const char *plk_module_name(uint32_t index)
{
    struct plk_loaded *l = plk_loaded_first;

    while (l != NULL && index-- != 0)
        l = l->next;
    return l != NULL ? l->module->name : NULL;
}

uint32_t plk_site_count(void)
{
    struct plk_loaded *l;
    uint32_t n = 0;

    for (l = plk_loaded_first; l != NULL; l = l->next)
        n += l->count;
    return n;
}

int plk_site_at(uint32_t index, struct plk_site_row *row)
{
    struct plk_loaded *l = plk_loaded_first;
    const struct plk_site_state *site;
    plk_op_fn fn;

    for (; l != NULL && index >= l->count; l = l->next)
        index -= l->count;
    if (l == NULL)
        return -ERANGE;
    site = &l->sites[index];
    row->module = l->module->name;
    row->address = (uint64_t)(uintptr_t)site->address;
    row->op = site->op;
    row->place = site->place;
    row->kind = PLK_KIND_NOP;
    if (plk_choice_of[site->op] >= 0)
        row->kind = plk_choice_at_place(plk_choice_at((uint32_t)plk_choice_of[site->op]), site->place, &fn);
    row->status = site->status;
    row->error = site->error;
    memcpy(row->before, site->before, PLK_SITE_BYTES);
    memcpy(row->after, site->address, PLK_SITE_BYTES); /* what the text holds now */
    return 0;
}
