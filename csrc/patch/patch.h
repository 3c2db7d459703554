/* patch/patch.h - modules, their sites, and the one mechanism that patches them. */
#ifndef PLK_PATCH_PATCH_H
#define PLK_PATCH_PATCH_H

#include "patch/choices.h"

/* Why a site holds what it holds. */
enum plk_site_status {
    PLK_SITE_WAITING = 0,    /* no domain attached yet */
    PLK_SITE_PATCHED = 1,    /* rewritten and read back */
    PLK_SITE_SWITCHED_OFF = 2,
    PLK_SITE_UNWRITABLE = 3, /* the text could not be written */
    PLK_SITE_TOO_FAR = 4,    /* the target is beyond a direct call's 2 GiB */
    PLK_SITE_UNEXPECTED = 5, /* the bytes were not those that were compiled */
};

struct plk_site_row {
    const char *module;
    uint64_t address;
    uint32_t op;
    uint32_t place; /* enum plk_place */
    uint32_t kind;  /* enum plk_choice_kind: what it is, or would be, patched to */
    uint32_t status;
    unsigned char before[PLK_SITE_BYTES], after[PLK_SITE_BYTES];
    int error; /* errno of UNWRITABLE */
};

/* What modules hold a pointer to. */
const struct plk_api *plk_core_api(void);

/* 0 or -ENOMEM; again for a module that is registered already: nothing. */
int plk_module_add(struct plk_module *module);

/* Choose row choices[op] of the table for each op, fill every module's table
 * and, if `patch`, rewrite every site; modules that register later follow at
 * once.  Once a process, all or nothing.  -EBUSY: done before; -EINVAL: a row is
 * not one of its op; -ENOTSUP: this processor does not have it. */
int plk_apply(const uint32_t *choices, int patch);

/* The row chosen for the op, or -1. */
int32_t plk_chosen(uint32_t op);

uint32_t plk_module_count(void);
const char *plk_module_name(uint32_t index);
uint32_t plk_site_count(void);
int plk_site_at(uint32_t index, struct plk_site_row *row);

/* Write through this file instead of /proc/self/mem: what a test needs to see
 * how a process fares whose text can't be written. */
void plk_patch_through(const char *path);

#endif
