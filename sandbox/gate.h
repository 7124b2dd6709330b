/* The gate of one egress list, and the keeper of what connects a sandbox: see egress_inside.h. It is in the sandbox's network
 * namespace, holds CAP_NET_ADMIN there, and ends with pid 1 of the sandbox. */
#ifndef SANDBOX_GATE_H
#define SANDBOX_GATE_H

#include "sandbox/nf.h"
#include "sandbox/resolver.h"

#define GATE_TABLE "spaced"
#define GATE_HOSTS "hosts"	 /* type ipv4_addr */
#define GATE_SERVICES "services" /* type ipv4_addr . inet_service */

struct gate {
	struct resolver
	    resolver; /* what a resolver is started with; started again when it dies. clients -1: none needed */
	struct nf nf;
	int init; /* pidfd */
};
/* Whether a tuple of the resolver's may be admitted: pure. */
bool gate_may(const struct egress_policy *p, uint32_t entry, uint32_t addr);
/* After gate_confine(). Closing all its descriptors is how its other children learn of its end. */
_Noreturn void gate_run(struct gate *g);

#endif
