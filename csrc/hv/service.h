/* hv/service.h - the hypervisor service: one thread that serves the hypercalls of a domain and
 * looks after all its queues.  slow/hosted.c has the argument. */
#ifndef PLK_HV_SERVICE_H
#define PLK_HV_SERVICE_H

#include "recover/segment.h"

/* ------------------------------------------------------------- the guests' side */

/* A living thread is the domain's service. */
int plk_service_lives(struct plk_segment *s);

/* The vCPU in that slot has written into its hypercall page: have the service look there. */
void plk_service_ring(struct plk_segment *s, uint32_t index);

/* The vCPU in that slot has just registered. */
void plk_service_greet(struct plk_segment *s, struct plk_vcpu *v, uint32_t index);

/* ------------------------------------------------------------ the service's side */

/* What there is to do for who called plk_service_step: bits. */
enum plk_service_news {
    PLK_SERVICE_NEWCOMER = 1, /* a thread has registered */
    PLK_SERVICE_DEATH = 2,    /* a vCPU has died and left something: plk_recover */
};

/* What the service has done so far, counted by its thread. */
struct plk_service {
    uint64_t kicks;   /* kicks asked for */
    uint64_t waits;   /* waits announced */
    uint64_t mended;  /* sleepers that had been served for a whole period: lost kicks */
    uint32_t waiting; /* who waited at the last look, asleep or not */
};

/* The calling thread becomes the domain's service.  0; -EBUSY: another lives; or an error
 * of plk_enroll or plk_guard_lock. */
int plk_service_begin(struct plk_segment *s);

/* Serve whoever rings, until there is news, or until that time (CLOCK_MONOTONIC, ns), or
 * plk_service_rouse.  Returns plk_service_news.  By the thread that began, as the next two. */
unsigned plk_service_step(struct plk_segment *s, struct plk_service *did, uint64_t until);

/* Look at all vCPUs: kick who is served and sleeps on, see who is dead.  plk_service_news. */
unsigned plk_service_look(struct plk_segment *s, struct plk_service *did);

/* No longer the service; what was asked of it until now is done. */
void plk_service_end(struct plk_segment *s, struct plk_service *did);

/* Let plk_service_step return.  By any thread. */
void plk_service_rouse(struct plk_segment *s);

/* Index of the service's vCPU; -1: none lives. */
int64_t plk_service_index(struct plk_segment *s);

/* How often a service has looked at all vCPUs of the domain. */
uint32_t plk_service_looks(struct plk_segment *s);

#endif
