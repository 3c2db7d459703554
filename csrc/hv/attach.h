/* hv/attach.h - making a segment into a domain, and mapping one. */
#ifndef PLK_HV_ATTACH_H
#define PLK_HV_ATTACH_H

#include "recover/segment.h"

/* Why a segment was refused; beyond the range of errno. */
enum plk_refusal {
    PLK_E_FOREIGN = 1001,   /* not a pylocks segment */
    PLK_E_UNFINISHED = 1002,/* empty, or its creator died while formatting it */
    PLK_E_TRUNCATED = 1003, /* shorter or longer than its header says */
    PLK_E_ABI = 1004,       /* another layout version, or another C library's mutex */
    PLK_E_BOOT = 1006,      /* from before a restart of the machine */
    PLK_E_CORRUPT = 1007,   /* impossible geometry or header fields */
};

struct plk_format {
    uint32_t vcpus, cells, stride, channels, tombs, entries;
    uint32_t protocol, barrier, array, detects;
    char slow_path[16];
};

/* What a refused or accepted header says, for messages. */
struct plk_found {
    uint64_t magic, size, expected_size;
    uint32_t abi, expected_abi, protocol, barrier, array, detects, cells, vcpus, stride;
    int64_t creator_pid;
    uint64_t created_ns;
    char slow_path[16];
    unsigned char uid[16];
};

/* Format the file behind fd: empty, or left unfinished.  The caller excludes
 * others (flock).  0 or a negative errno; -ENOSPC leaves it empty again. */
int plk_format(int fd, const struct plk_format *format);

/* Look at the header without mapping anything.  0 or a negative refusal. */
int plk_inspect(int fd, struct plk_found *found);

/* Map and validate.  The segment takes fd over on success. */
int plk_attach(int fd, struct plk_segment **out, struct plk_found *found);

/* No process is attached (the caller excludes it): free every vCPU and every
 * lock, and use this protocol and barrier, and look for cycles or not, from now on.  Locks that
 * the dead held keep PLK_CELL_OWNER_DIED; how many there were, or a negative errno. */
int plk_reset(struct plk_segment *s, uint32_t protocol, uint32_t barrier, uint32_t detects);

#endif
