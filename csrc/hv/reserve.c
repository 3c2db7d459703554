#include "hv/reserve.h"

#include <fcntl.h>

int plk_reserve(struct plk_segment *s, const void *at, size_t size)
{
    uint64_t from = (uint64_t)((const unsigned char *)at - s->base) & ~(uint64_t)(PLK_PAGE - 1);
    uint64_t end = (uint64_t)((const unsigned char *)at - s->base) + size;
    int rc;

    do
        rc = posix_fallocate(s->fd, (off_t)from, (off_t)(end - from));
    while (rc == EINTR);
    return -rc;
}

int plk_reserve_cell(struct plk_segment *s, uint32_t index, struct plk_cell **cell)
{
    uint64_t page = (uint64_t)index * s->geometry.stride / PLK_PAGE;
    int rc;

    *cell = plk_cell_at(s, index);
    if (*cell == NULL)
        return -EINVAL;
    if (PLK_LOAD(&s->reserved[page]))
        return 0;
    rc = plk_reserve(s, *cell, sizeof(**cell));
    if (rc == 0)
        PLK_STORE(&s->reserved[page], 1);
    return rc;
}
