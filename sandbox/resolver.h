/* The name server of one egress list: parses what the app asks and what resolvers answer, so it has no privilege, no file
 * and no way to make a socket. Run by the gate (egress_inside.c), which is at the other end of `gate`. */
#ifndef SANDBOX_RESOLVER_H
#define SANDBOX_RESOLVER_H

#include "sandbox/egress_list.h"

#define RESOLVER_UPSTREAMS 4

struct resolver {
	const struct egress_policy *policy;
	int clients;			  /* UDP socket in the sandbox's namespace, bound to EGRESS_DNS */
	int upstream[RESOLVER_UPSTREAMS]; /* UDP sockets in the host's, connected to its resolvers */
	size_t nupstream;
	uint32_t try_ms; /* that one of them, or the gate, has for an answer [2000] */
	int gate;	 /* frames, see egress_inside.h; their id comes back when the addresses may be reached */
};
enum resolver_frame {
	RESOLVER_ADMIT = 1, /* {u32 n, n times: u32 entry of the policy, u32 address, u32 ttl} */
	RESOLVER_ADMITTED,  /* {u8 all of them} */
};
/* Confines itself, then serves until the gate is gone. */
_Noreturn void resolver_run(const struct resolver *r);

#endif
