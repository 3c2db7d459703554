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
