/* sync/kinds.c - the table of kinds: a row of PLK_KINDS each. */
#include "sync/sync.h"

#define X(name, text) extern const struct plk_kind_ops plk_kind_##name;
PLK_KINDS(X)
#undef X

static const struct plk_kind_ops *const plk_kinds[PLK_KIND_COUNT] = {
    NULL,
#define X(name, text) &plk_kind_##name,
    PLK_KINDS(X)
#undef X
};

static const char *const plk_kind_names[PLK_KIND_COUNT] = {
    "lock",
#define X(name, text) text,
    PLK_KINDS(X)
#undef X
};

const struct plk_kind_ops *plk_kind_of(uint32_t kind) { return kind < PLK_KIND_COUNT ? plk_kinds[kind] : NULL; }

const char *plk_kind_name(uint32_t kind) { return kind < PLK_KIND_COUNT ? plk_kind_names[kind] : NULL; }
