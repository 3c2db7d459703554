/* verdict.c - what must be true when all have got on.
 *
 * Of the log: nobody entered a lock while another was inside, unless that one was
 * dead; tickets were served in order; the death of a holder was told to the next
 * who entered, once, and nobody else was told of any.
 *
 * Of the words: every lock is free, nothing is left of any wait or death, and all
 * counts agree with what they count. */
#include "trial.h"

#include "hv/futex.h"
#include "recover/life.h"

static const char *name_of(uint32_t party)
{
    static const char *const names[PARTIES] = {"A", "B", "C", "the corpse", "the victim"};

    return party < PARTIES ? names[party] : "nobody";
}

static void judge_entry(const struct entry *e, const struct witness *seen, struct verdict *verdict)
{
    if (e->rc != (e->died ? PLK_OWNER_DIED : 0))
        blame(verdict, VIOLATED, "%s entered lock %u with %d although the lock says owner-died=%u",
              name_of(e->party), e->lock, e->rc, e->died);
    if (e->before == NOBODY || (e->before == VICTIM + 1 && e->at >= seen->killed_at) ||
        (e->before == CORPSE + 1 && seen->corpse_died_at != 0 && e->at >= seen->corpse_died_at))
        return;
    blame(verdict, VIOLATED, "%s entered lock %u with ticket %llu, and %s was inside",
          name_of(e->party), e->lock, (unsigned long long)e->ticket, name_of(e->before - 1));
}

void judge_log(const struct witness *seen, struct verdict *verdict)
{
    uint32_t entries = stage->entries, i, lock;

    if (stage->faults != 0)
        blame(verdict, VIOLATED, "%s", stage->fault);
    if (entries > LOG_ROOM)
        blame(verdict, VIOLATED, "%u acquisitions, where %u are too many", entries, LOG_ROOM);
    for (lock = 0; lock < LOCKS && entries <= LOG_ROOM; lock++) {
        unsigned told = 0, told_after = 0, expected = (seen->expected >> lock) & 1u;
        uint64_t last = 0;
        int first = 1;

        for (i = 0; i < entries; i++) {
            const struct entry *e = &stage->log[i];

            if (e->lock != lock)
                continue;
            judge_entry(e, seen, verdict);
            if (!first && e->ticket <= last)
                blame(verdict, VIOLATED, "lock %u served ticket %llu after %llu", lock,
                      (unsigned long long)e->ticket, (unsigned long long)last);
            first = 0;
            last = e->ticket;
            told += e->died;
            if (i >= seen->entries) {
                told_after += e->died;
                if (e->died && told_after == 1 && told != 1 && i > seen->entries && seen->settled)
                    blame(verdict, VIOLATED, "%s was told late of a death", name_of(e->party));
            }
        }
        if (seen->settled && told_after != expected)
            blame(verdict, VIOLATED, "%u were told that a holder of lock %u died inside; expected: %u",
                  told_after, lock, expected);
        if (seen->killed_at != PLK_FOREVER && (seen->corpse_inside >> lock & 1u) != 0 && told == 0)
            blame(verdict, VIOLATED, "nobody was told that the corpse died inside lock %u", lock);
    }
}

static int is_crew(uint32_t slot)
{
    return slot == stage->parties[A].slot || slot == stage->parties[B].slot ||
           slot == stage->parties[C].slot;
}

static void judge_slots(struct verdict *verdict)
{
    uint32_t i, used = PLK_LOAD(&segment->header->vcpus_next);

    if (used > segment->geometry.vcpus)
        blame(verdict, VIOLATED, "%u slots in use, of %u", used, segment->geometry.vcpus);
    for (i = 0; i < used && i < segment->geometry.vcpus; i++) {
        const struct plk_vcpu *v = plk_vcpu_at(segment, i);
        uint32_t state = PLK_LOAD(&v->state);

        if (state != (is_crew(i) ? PLK_VCPU_ONLINE : PLK_VCPU_FREE))
            blame(verdict, VIOLATED, "slot %u is in state %u: it did not come back", i, state);
        if (is_crew(i) && plk_life_of(v) != PLK_LIFE_ALIVE)
            blame(verdict, VIOLATED, "slot %u is the crew's, and its life word says dead", i);
        if (plk_vcpu_busy(v))
            blame(verdict, VIOLATED, "slot %u still claims something", i);
    }
}

static void judge_counts(struct verdict *verdict)
{
    uint32_t i, standing = 0, live = PLK_LOAD(&segment->header->tombs_live);

    for (i = 0; i < segment->geometry.tombs; i++)
        standing += PLK_LOAD(&plk_tombs(segment)[i]) != 0;
    if (standing != 0 || live != 0)
        blame(verdict, VIOLATED, "%u tombstones are left, and tombs_live is %u", standing, live);
    for (i = 0; i < segment->geometry.channels; i++) {
        uint32_t parked = PLK_PARKED(PLK_LOAD(&plk_channels(segment)[i].parked));

        if (parked != 0)
            blame(verdict, VIOLATED, "channel %u counts %u parked, and nobody is", i, parked);
    }
}

void judge_recovered(struct verdict *verdict)
{
    uint32_t i, used = PLK_LOAD(&segment->header->vcpus_next);

    for (i = 0; i < used && i < segment->geometry.vcpus; i++) {
        if (plk_vcpu_dirty(plk_vcpu_at(segment, i)))
            return;
    }
    judge_counts(verdict);
}

void judge_words(struct verdict *verdict)
{
    uint32_t i;

    for (i = 0; i < LOCKS; i++) {
        const struct plk_cell *cell = locks[i].cell;

        if (PLK_LOAD(&cell->head) != PLK_LOAD(&cell->tail))
            blame(verdict, VIOLATED, "lock %u is free, and head is not tail", i);
        if (PLK_LOAD(&cell->slow) != 0)
            blame(verdict, VIOLATED, "lock %u is free, and slow is %u", i, PLK_LOAD(&cell->slow));
        if (PLK_LOAD(&cell->flags) & PLK_CELL_OWNER_DIED)
            blame(verdict, VIOLATED, "lock %u was marked consistent, and says owner-died", i);
        if (stage->inside[i] != NOBODY)
            blame(verdict, VIOLATED, "%s is still inside lock %u", name_of(stage->inside[i] - 1), i);
    }
    if (config.policy == PLK_BOUNDED) {
        const struct plk_cell *queue = plk_queue_cell(locks[L].cell);

        if (PLK_LOAD(&queue->head) != PLK_LOAD(&queue->tail))
            blame(verdict, VIOLATED, "nobody waits, and the queue's head is not its tail");
    }
    judge_counts(verdict);
    judge_slots(verdict);
}

void dump(FILE *out)
{
    const struct plk_header *h = segment->header;
    uint32_t i, j;

    for (i = 0; i < LOCKS; i++) {
        const struct plk_cell *c = locks[i].cell;

        fprintf(out, "|lock %u (id %llu): head %llu tail %llu owner (%llu, slot %d) slow %u flags %#x\n", i,
                (unsigned long long)locks[i].id, (unsigned long long)c->head,
                (unsigned long long)c->tail, (unsigned long long)(c->owner >> 16),
                (int)PLK_OWNER_VCPU(c->owner), c->slow, c->flags);
    }
    if (config.policy == PLK_BOUNDED) {
        const struct plk_cell *c = plk_queue_cell(locks[L].cell);
        const struct plk_gate *g = plk_gate_of(locks[L].cell);

        fprintf(out, "|queue: head %llu tail %llu owner (%llu, slot %d)\n", (unsigned long long)c->head,
                (unsigned long long)c->tail, (unsigned long long)(c->owner >> 16),
                (int)PLK_OWNER_VCPU(c->owner));
        fprintf(out, "|gate: promoted %u at %llu spinner %#x armed %llu\n", g->promoted,
                (unsigned long long)g->promoted_ns, g->spinner, (unsigned long long)g->armed_ns);
    }
    for (i = 0; i < h->vcpus_next && i < segment->geometry.vcpus; i++) {
        const struct plk_vcpu *v = plk_vcpu_at(segment, i);

        fprintf(out, "|slot %u: state %u life %d pid %d pending %llu ticket %lld held %u channel %u "
                     "depth %u burying %u shifts %u\n", i, v->state, (int)plk_life_of(v), v->pid,
                (unsigned long long)v->pending, (long long)v->ticket, v->held, v->channel, v->depth,
                v->burying, v->shifts);
        for (j = 0; j < v->depth && j < PLK_PEND_DEPTH; j++)
            fprintf(out, "|  outer %u: cell %llu ticket %lld\n", j, (unsigned long long)v->outer[j].cell,
                    (long long)v->outer[j].ticket);
    }
    fprintf(out, "|tombs_live %u tombs_version %u\n", h->tombs_live, h->tombs_version);
    for (i = 0; i < segment->geometry.tombs; i++) {
        uint64_t tomb = plk_tombs(segment)[i];

        if (tomb != 0)
            fprintf(out, "|tomb %u: id %llu ticket %llu%s\n", i, (unsigned long long)PLK_TOMB_ID(tomb),
                    (unsigned long long)(tomb & 0xfffffffffull), tomb & PLK_TOMB_PASSING ? " passing" : "");
    }
    for (i = 0; i < segment->geometry.channels; i++)
        fprintf(out, "|channel %u: seq %u parked %#x\n", i, plk_channels(segment)[i].seq,
                plk_channels(segment)[i].parked);
    for (i = 0; i < PARTIES; i++) {
        const struct party *p = &stage->parties[i];

        fprintf(out, "|%s: pid %d slot %d ordered %u answered %u command %u rc %d\n", name_of(i),
                (int)p->pid, (int)p->slot, p->order, p->answered, p->command, p->rc);
    }
    for (i = 0; i < stage->entries && i < LOG_ROOM; i++) {
        const struct entry *e = &stage->log[i];

        fprintf(out, "|entry %u: %s lock %u ticket %llu rc %d died %u, before it %s\n", i,
                name_of(e->party), e->lock, (unsigned long long)e->ticket, e->rc, e->died,
                name_of(e->before - 1));
    }
}
