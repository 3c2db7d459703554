#include "hv/policy.h"

#include "hv/futex.h"
#include "hv/service.h"

/* Without a service, or with one that leaves it to the others, that is a load. */
static int plk_policy_holds(struct plk_segment *s)
{
    uint64_t until = PLK_LOAD(&s->header->policy_until);

    return until != 0 && plk_now() < until && plk_service_lives(s);
}

void plk_policy_publish(struct plk_segment *s, uint32_t spin_ns, uint32_t trust, uint64_t until)
{
    struct plk_header *h = s->header;

    /* Each word for itself: who reads in between goes by one that is as good as the other. */
    PLK_STORE(&h->policy_spin, spin_ns == PLK_SPIN_OWN ? 0 : spin_ns + 1);
    PLK_STORE(&h->policy_trust, trust);
    PLK_STORE_RELEASE(&h->policy_until, until);
}

uint32_t plk_policy_spin(struct plk_segment *s)
{
    uint32_t spin = plk_policy_holds(s) ? PLK_LOAD(&s->header->policy_spin) : 0;

    if (spin == 0)
        return PLK_SPIN_OWN;
    return spin - 1 < PLK_SPIN_MOST_NS ? spin - 1 : PLK_SPIN_MOST_NS;
}

uint32_t plk_policy_trust(struct plk_segment *s)
{
    uint32_t trust = plk_policy_holds(s) ? PLK_LOAD(&s->header->policy_trust) : PLK_TRUST_OWN;

    return trust <= PLK_TRUST_MARKS ? trust : PLK_TRUST_OWN;
}

uint32_t plk_policy_spin_in(struct plk_domain *domain) { return plk_policy_spin(plk_segment_of(domain)); }
