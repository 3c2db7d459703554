/* hv/attach.c - format, inspect, attach.
 *
 * A header is trusted only as far as it agrees with itself: the geometry must
 * be the one that plk_layout computes from the counts, and the file exactly
 * that long.  It is read with pread first, so that a short file is a message
 * and not a SIGBUS; the copy that was checked is the copy that is used. */
#include "hv/attach.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/copy.h"
#include "hv/directory.h"
#include "hv/guard.h"
#include "hv/reserve.h"
#include "hv/robust.h"
#include "hv/vcpu.h"
#include "recover/life.h"

static uint64_t plk_pages(uint64_t size) { return (size + PLK_PAGE - 1) & ~(uint64_t)(PLK_PAGE - 1); }

static int plk_power_of_two(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

static int plk_layout(struct plk_geometry *g)
{
    if (g->vcpus == 0 || g->vcpus > PLK_MAX_VCPUS || g->cells == 0 || g->cells > PLK_MAX_CELLS ||
        !plk_power_of_two(g->channels) || g->channels > (1u << 20) || !plk_power_of_two(g->tombs) ||
        g->tombs < PLK_TOMB_WINDOW || g->tombs > (1u << 24) || g->entries > (1u << 24) ||
        (g->stride != sizeof(struct plk_cell) && g->stride != PLK_LINE))
        return -PLK_E_CORRUPT;
    g->tallied = g->cells < PLK_TALLIED ? g->cells : PLK_TALLIED;
    g->rings = g->vcpus < PLK_RINGS ? g->vcpus : PLK_RINGS;
    g->off_channels = PLK_PAGE;
    g->off_tombs = g->off_channels + plk_pages((uint64_t)g->channels * sizeof(struct plk_channel));
    g->off_entries = g->off_tombs + plk_pages((uint64_t)g->tombs * sizeof(uint64_t));
    g->off_vcpus = g->off_entries + plk_pages((uint64_t)g->entries * sizeof(struct plk_entry));
    g->off_cells = g->off_vcpus + plk_pages((uint64_t)g->vcpus * sizeof(struct plk_vcpu));
    g->syncs = g->entries != 0 ? g->cells : 0; /* not in arrays, which have no directory */
    g->noded = g->entries != 0 ? g->vcpus : 0;
    g->off_syncs = g->off_cells + plk_pages((uint64_t)g->cells * g->stride);
    g->off_nodes = g->off_syncs + plk_pages((uint64_t)g->syncs * sizeof(struct plk_sync));
    g->off_tallies = g->off_nodes + plk_pages((uint64_t)g->noded * PLK_NODES * sizeof(struct plk_node));
    g->off_rings = g->off_tallies + plk_pages(((uint64_t)g->vcpus + g->tallied) * sizeof(struct plk_tally));
    g->size = g->off_rings + plk_pages((uint64_t)g->rings * PLK_RING_RECORDS * sizeof(struct plk_record));
    return 0;
}

/* All zeros where it can't be read (a sandbox, no descriptors left): unknown. */
static const unsigned char plk_no_boot[16];

static void plk_boot_id(unsigned char out[16])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    char text[64] = "";
    unsigned n = 0;
    const char *at;

    memset(out, 0, 16);
    if (file == NULL)
        return;
    if (fgets(text, sizeof(text), file) == NULL)
        text[0] = '\0';
    fclose(file);
    for (at = text; *at != '\0' && n < 32; at++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = strchr(digits, *at);

        if (digit == NULL)
            continue;
        out[n / 2] = (unsigned char)((out[n / 2] << 4) | (unsigned char)(digit - digits));
        n++;
    }
}

static void plk_header_fill(struct plk_header *h, const struct plk_geometry *g,
                            const struct plk_format *format)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    h->abi = PLK_ABI;
    h->header_size = sizeof(struct plk_header);
    h->cell_size = sizeof(struct plk_cell);
    h->vcpu_size = sizeof(struct plk_vcpu);
    h->entry_size = sizeof(struct plk_entry);
    h->mutex_size = sizeof(pthread_mutex_t);
    h->life_offset = PLK_LIFE_WORD;
    h->protocol = format->protocol;
    h->barrier = format->barrier;
    h->array = format->array;
    h->detects = format->detects;
    h->geometry = *g;
    h->cells_next = format->array ? g->cells : 0;
    h->creator_pid = getpid();
    h->created_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    memcpy(h->slow_path, format->slow_path, sizeof(h->slow_path) - 1);
    plk_boot_id(h->boot);
}

int plk_format(int fd, const struct plk_format *format)
{
    struct plk_geometry g = {.vcpus = format->vcpus, .channels = format->channels,
                             .tombs = format->tombs, .entries = format->entries,
                             .cells = format->cells, .stride = format->stride};
    const uint64_t mark = PLK_FORMATTING;
    struct plk_header *h;
    int rc = plk_layout(&g);

    if (rc != 0 || (format->protocol != PLK_NATIVE && format->protocol != PLK_ENLIGHTENED) ||
        (format->barrier != PLK_BARRIER_FENCE && format->barrier != PLK_BARRIER_MEMBARRIER) ||
        format->detects > 1)
        return -EINVAL;
    /* The mark comes before the size: whatever is found of an unfinished segment
     * is either empty or says so itself. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, &mark, sizeof(mark), 0) != (ssize_t)sizeof(mark) ||
        ftruncate(fd, (off_t)g.size) != 0)
        goto failed;
    do
        errno = posix_fallocate(fd, 0, (off_t)g.off_entries);
    while (errno == EINTR);
    if (errno != 0)
        goto failed;
    h = mmap(NULL, PLK_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (h == MAP_FAILED)
        goto failed;
    plk_header_fill(h, &g, format);
    rc = plk_robust_init(&h->guard.mutex);
    if (rc == 0 && getrandom(h->uid, sizeof(h->uid), 0) != (ssize_t)sizeof(h->uid))
        rc = -errno;
    if (rc == 0)
        PLK_STORE_RELEASE(&h->magic, PLK_MAGIC); /* last: what it vouches for is written */
    munmap(h, PLK_PAGE);
    return rc;

failed:
    rc = -errno;
    if (ftruncate(fd, 0) != 0)
        return rc; /* still marked unfinished, so the next creator starts over */
    return rc;
}

static int plk_header_check(const struct plk_header *h, uint64_t size, struct plk_found *found)
{
    struct plk_geometry g = h->geometry;
    unsigned char boot[16];

    memset(found, 0, sizeof(*found));
    found->magic = h->magic;
    found->size = size;
    found->expected_abi = PLK_ABI;
    if (size == 0 || h->magic == PLK_FORMATTING)
        return -PLK_E_UNFINISHED;
    if (size < sizeof(h->magic) || h->magic != PLK_MAGIC)
        return -PLK_E_FOREIGN;
    found->expected_size = PLK_PAGE;
    if (size < offsetof(struct plk_header, abi) + sizeof(h->abi))
        return -PLK_E_TRUNCATED;
    found->abi = h->abi;
    if (h->abi != PLK_ABI)
        return -PLK_E_ABI;
    if (size < PLK_PAGE)
        return -PLK_E_TRUNCATED;
    if (h->header_size != sizeof(*h) || h->cell_size != sizeof(struct plk_cell) ||
        h->vcpu_size != sizeof(struct plk_vcpu) || h->entry_size != sizeof(struct plk_entry) ||
        h->mutex_size != sizeof(pthread_mutex_t) || h->life_offset != PLK_LIFE_WORD)
        return -PLK_E_ABI;
    found->protocol = h->protocol;
    found->barrier = h->barrier;
    found->array = h->array;
    found->detects = h->detects == 1;
    found->cells = g.cells;
    found->vcpus = g.vcpus;
    found->stride = g.stride;
    found->creator_pid = h->creator_pid;
    found->created_ns = h->created_ns;
    memcpy(found->slow_path, h->slow_path, sizeof(found->slow_path) - 1);
    memcpy(found->uid, h->uid, sizeof(found->uid));
    if (plk_layout(&g) != 0 || memcmp(&g, &h->geometry, sizeof(g)) != 0 || h->array > 1 ||
        h->detects > 1 ||
        (h->protocol != PLK_NATIVE && h->protocol != PLK_ENLIGHTENED) ||
        (h->barrier != PLK_BARRIER_FENCE && h->barrier != PLK_BARRIER_MEMBARRIER))
        return -PLK_E_CORRUPT;
    found->expected_size = g.size;
    if (size != g.size)
        return -PLK_E_TRUNCATED;
    plk_boot_id(boot);
    if (memcmp(boot, plk_no_boot, sizeof(boot)) != 0 &&
        memcmp(h->boot, plk_no_boot, sizeof(boot)) != 0 && memcmp(boot, h->boot, sizeof(boot)) != 0)
        return -PLK_E_BOOT;
    if (!plk_robust_sound(&h->guard.mutex))
        return -PLK_E_CORRUPT;
    return 0;
}

/* Read and check the header; *h is the copy that was checked. */
static int plk_header_read(int fd, struct plk_header *h, struct plk_found *found)
{
    struct stat st;
    ssize_t got;

    memset(h, 0, sizeof(*h));
    memset(found, 0, sizeof(*found));
    if (fstat(fd, &st) != 0)
        return -errno;
    do
        got = pread(fd, h, sizeof(*h), 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    return plk_header_check(h, (uint64_t)st.st_size, found);
}

int plk_inspect(int fd, struct plk_found *found)
{
    struct plk_header header;

    return plk_header_read(fd, &header, found);
}

int plk_extent(int fd, struct plk_extent *extent, struct plk_found *found)
{
    struct plk_header h;
    int rc = plk_header_read(fd, &h, found);

    if (rc != 0)
        return rc;
    if (h.vcpus_next > h.geometry.vcpus || h.entries_next > h.geometry.entries ||
        h.cells_next > h.geometry.cells)
        return -PLK_E_CORRUPT;
    *extent = (struct plk_extent){
        .off_tombs = h.geometry.off_tombs, .off_entries = h.geometry.off_entries,
        .off_vcpus = h.geometry.off_vcpus, .off_cells = h.geometry.off_cells,
        .off_syncs = h.geometry.off_syncs, .off_nodes = h.geometry.off_nodes,
        .syncs = h.geometry.syncs < h.cells_next ? h.geometry.syncs : h.cells_next,
        .noded = h.geometry.noded < h.vcpus_next ? h.geometry.noded : h.vcpus_next,
        .tombs = h.geometry.tombs, .entries = h.entries_next, .vcpus = h.vcpus_next,
        .cells = h.cells_next, .stride = h.geometry.stride, .tombs_live = h.tombs_live,
        .service = (uint32_t)h.service_vcpu <= h.vcpus_next ? (uint32_t)h.service_vcpu : 0, /* PLK_SERVICE */
        .policy_until = h.policy_until, .policy_spin = h.policy_spin, .policy_trust = h.policy_trust,
    };
    return 0;
}

/* The creator reserved what all use, and whoever uses a slot or a name reserves its
 * memory first; but this may be a copy with holes, and a header may lie. */
static int plk_reserve_used(struct plk_segment *s, const struct plk_header *h)
{
    int64_t rc;

    if (h->vcpus_next > s->geometry.vcpus || h->entries_next > s->geometry.entries ||
        h->cells_next > s->geometry.cells)
        return -PLK_E_CORRUPT;
    rc = plk_reserve(s, s->base, s->geometry.off_entries);
    if (rc == 0)
        rc = plk_slots_ready(s);
    if (rc >= 0)
        rc = plk_entries_ready(s);
    return rc < 0 ? (int)rc : 0;
}

int plk_attach(int fd, struct plk_segment **out, struct plk_found *found)
{
    struct plk_header header;
    struct plk_segment *s;
    struct stat st;
    int rc = plk_header_read(fd, &header, found);

    *out = NULL;
    if (rc != 0)
        return rc;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    /* From here on only the checked copy counts: others can write the mapping. */
    s->fd = fd;
    if (fstat(fd, &st) != 0) {
        free(s);
        return -errno;
    }
    s->device = (uint64_t)st.st_dev;
    s->inode = (uint64_t)st.st_ino;
    s->references = 1;
    s->geometry = header.geometry;
    s->face.protocol = header.protocol;
    s->face.detects = (uint32_t)header.detects;
    s->barrier = header.barrier;
    s->is_array = header.array != 0;
    s->reserved = calloc((s->geometry.off_rings - s->geometry.off_cells) / PLK_PAGE, 1);
    s->base = mmap(NULL, s->geometry.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    s->header = (struct plk_header *)s->base;
    if (s->base == MAP_FAILED)
        rc = -errno;
    else if (s->reserved == NULL)
        rc = -ENOMEM;
    else
        rc = plk_reserve_used(s, &header);
    if (rc == 0)
        rc = plk_segment_publish(s);
    if (rc == 0) {
        *out = s;
        return 0;
    }
    if (s->base != MAP_FAILED)
        munmap(s->base, s->geometry.size);
    free(s->reserved);
    free(s);
    return rc;
}

static int plk_reset_cells(struct plk_segment *s)
{
    uint64_t index = 0, end;
    int orphans = 0, rc;

    while ((rc = plk_cells_next(s, &index, &end)) > 0) {
        for (; index < end; index++) {
            struct plk_cell *cell = plk_cell_at(s, index);

            if ((cell->flags & PLK_CELL_SYNC) != 0)
                cell->flags &= ~(uint32_t)PLK_CELL_OWNER_DIED; /* its record is made anew */
            else if (PLK_OWNER_VALID(cell->owner, cell->head) && cell->head != cell->tail) {
                cell->flags |= PLK_CELL_OWNER_DIED;
                orphans++;
            }
            cell->head = cell->tail;
            cell->slow = 0;
            if ((cell->flags & PLK_CELL_QUEUE) != 0 && s->geometry.stride == PLK_LINE)
                memset(cell + 1, 0, sizeof(struct plk_gate));
        }
    }
    return rc < 0 ? rc : orphans;
}

/* As new, and nobody waits. */
static int plk_reset_syncs(struct plk_segment *s)
{
    const struct plk_geometry *g = &s->geometry;
    uint64_t index = 0, end;
    int rc;

    while ((rc = plk_extent_next(s, g->off_syncs, sizeof(struct plk_sync), g->syncs, &index, &end)) > 0) {
        for (; index < end; index++)
            plk_sync_seed(plk_sync_at(s, index), plk_sync_at(s, index)->initial, plk_sync_at(s, index)->limit);
    }
    index = 0;
    while (rc == 0 && (rc = plk_extent_next(s, g->off_nodes, sizeof(struct plk_node),
                                            (uint64_t)g->noded * PLK_NODES, &index, &end)) > 0) {
        for (; index < end; index++)
            PLK_STORE(&plk_node_at(s, index)->state, PLK_NODE_FREE);
    }
    return rc;
}

int plk_reset(struct plk_segment *s, uint32_t protocol, uint32_t barrier, uint32_t detects)
{
    const struct plk_geometry *g = &s->geometry;
    int64_t used = plk_slots_ready(s);
    uint32_t i;
    int orphans, rc;

    if (used < 0)
        return (int)used;

    /* Nobody is left who could hold the guard, whatever its word says. */
    memset(&s->header->guard, 0, sizeof(s->header->guard));
    rc = plk_robust_init(&s->header->guard.mutex);
    if (rc == 0)
        rc = plk_guard_lock(s);
    if (rc != 0)
        return rc;
    plk_guard_clean(s);
    for (i = 0; i < used; i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, i);

        v->pending = v->held = v->depth = v->burying = v->channel = v->nodes = v->nodes_left = 0;
        memset(&v->life, 0, sizeof(v->life)); /* none is alive, whatever it says */
        PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
    }
    memset(plk_channels(s), 0, g->channels * sizeof(struct plk_channel));
    memset(plk_tombs(s), 0, g->tombs * sizeof(uint64_t));
    s->header->tombs_live = 0;
    s->face.protocol = s->header->protocol = protocol;
    s->barrier = s->header->barrier = barrier;
    s->header->detects = s->face.detects = detects;
    orphans = plk_reset_cells(s);
    rc = orphans >= 0 ? plk_reset_syncs(s) : 0;
    plk_guard_unlock(s);
    return rc < 0 ? rc : orphans;
}
