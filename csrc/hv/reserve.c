#include "hv/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLK_POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, which older headers lack */

int plk_fd_is_ours(const struct plk_segment *s)
{
    struct stat st;

    return fstat(s->fd, &st) == 0 && (uint64_t)st.st_dev == s->device &&
           (uint64_t)st.st_ino == s->inode;
}

int plk_reserve(struct plk_segment *s, const void *at, size_t size)
{
    uint64_t from = (uint64_t)((const unsigned char *)at - s->base) & ~(uint64_t)(PLK_PAGE - 1);
    uint64_t end = (uint64_t)((const unsigned char *)at - s->base) + size;
    int rc;

    if (!plk_fd_is_ours(s)) /* from Linux 5.14 on: an error where a touch would be SIGBUS */
        return madvise(s->base + from, end - from, PLK_POPULATE_WRITE) == 0 ? 0
               : errno == EINVAL                                           ? -EBADF
                                                                           : -ENOSPC;
    do
        rc = posix_fallocate(s->fd, (off_t)from, (off_t)(end - from));
    while (rc == EINTR);
    return -rc;
}

/* Once a page: what does not reach into another one. */
static int plk_reserve_once(struct plk_segment *s, const void *at)
{
    uint64_t page = ((uint64_t)((const unsigned char *)at - s->base) - s->geometry.off_cells) / PLK_PAGE;
    int rc;

    if (PLK_LOAD(&s->reserved[page]))
        return 0;
    rc = plk_reserve(s, at, 1);
    if (rc == 0)
        PLK_STORE(&s->reserved[page], 1);
    return rc;
}

int plk_reserve_cell(struct plk_segment *s, uint32_t index, struct plk_cell **cell)
{
    *cell = plk_cell_at(s, index);
    return *cell != NULL ? plk_reserve_once(s, *cell) : -EINVAL;
}

int plk_reserve_sync(struct plk_segment *s, uint32_t index, struct plk_sync **sync)
{
    *sync = plk_sync_at(s, index);
    return *sync != NULL ? plk_reserve_once(s, *sync) : -EINVAL;
}

int plk_reserve_node(struct plk_segment *s, uint64_t number, struct plk_node **node)
{
    *node = plk_node_at(s, number);
    return *node != NULL ? plk_reserve_once(s, *node) : -EINVAL;
}

int plk_reserve_tally(struct plk_segment *s, uint64_t index, struct plk_tally **tally)
{
    *tally = plk_tally_at(s, index);
    return *tally != NULL ? plk_reserve_once(s, *tally) : -EINVAL;
}

/* `said` elements of `each` bytes at `offset`, but not more than `most`. */
static int64_t plk_ready(struct plk_segment *s, uint32_t said, uint32_t most, uint32_t *ready,
                         uint64_t offset, size_t each)
{
    uint32_t before = PLK_LOAD(ready);
    int rc;

    if (said > most)
        said = most;
    if (said > before) {
        rc = plk_reserve(s, s->base + offset, said * each);
        if (rc != 0)
            return rc;
        while (said > before && !__atomic_compare_exchange_n(ready, &before, said, 0, __ATOMIC_RELAXED,
                                                             __ATOMIC_RELAXED))
            ; /* other threads are at it, too: it only rises */
    }
    return said;
}

int64_t plk_slots_ready(struct plk_segment *s)
{
    return plk_ready(s, PLK_LOAD_ACQUIRE(&s->header->vcpus_next), s->geometry.vcpus,
                     &s->slots_ready, s->geometry.off_vcpus, sizeof(struct plk_vcpu));
}

int64_t plk_entries_ready(struct plk_segment *s)
{
    return plk_ready(s, PLK_LOAD_ACQUIRE(&s->header->entries_next), s->geometry.entries,
                     &s->entries_ready, s->geometry.off_entries, sizeof(struct plk_entry));
}

int plk_cells_next(const struct plk_segment *s, uint64_t *index, uint64_t *end)
{
    const struct plk_geometry *g = &s->geometry;

    return plk_extent_next(s, g->off_cells, g->stride, g->cells, index, end);
}

int plk_extent_next(const struct plk_segment *s, uint64_t offset, uint64_t each, uint64_t count, uint64_t *index,
                    uint64_t *end)
{
    off_t data, hole;

    if (*index >= count)
        return 0;
    if (!plk_fd_is_ours(s))
        return -EBADF;
    data = lseek(s->fd, (off_t)(offset + *index * each), SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? 0 : -errno;
    hole = lseek(s->fd, data, SEEK_HOLE);
    if (hole < 0)
        return -errno;
    /* Extents of data begin and end with pages: where an element does, unless the array begins within one. */
    *index = ((uint64_t)data - offset) / each;
    *end = ((uint64_t)hole - offset) / each;
    if (*end > count)
        *end = count;
    return *index < *end;
}
