/* hv/policy.h - what the hypervisor service decides for all participants of a domain.
 *
 * Advice: whatever the words say, a waiter spins for PLK_SPIN_MOST_NS at most and then
 * waits as it would have.  They hold while the service that wrote them lives, and not
 * beyond `until`, which it moves on while it runs: so neither one that was killed nor one
 * that is stopped has a say.  Participants ask in the slow case only. */
#ifndef PLK_HV_POLICY_H
#define PLK_HV_POLICY_H

#include "recover/segment.h"

#define PLK_SPIN_MOST_NS 10000000u

/* spin_ns: PLK_SPIN_OWN, or how long a waiter spins; trust: enum plk_trust; until:
 * CLOCK_MONOTONIC, ns, 0: no say in anything.  By the domain's service alone. */
void plk_policy_publish(struct plk_segment *s, uint32_t spin_ns, uint32_t trust, uint64_t until);

/* What participants go by now: a time not above PLK_SPIN_MOST_NS, or PLK_SPIN_OWN; and enum plk_trust. */
uint32_t plk_policy_spin(struct plk_segment *s);
uint32_t plk_policy_trust(struct plk_segment *s);

/* For plk_api. */
uint32_t plk_policy_spin_in(struct plk_domain *domain);

#endif
