/* The part of a sandbox's egress that lives in its own network namespace, so that it needs no memory of a daemon's and goes
 * with the sandbox: nftables rules on all that leaves (rootless: the forbidden ranges; a list: only what it names), the
 * bandwidth of slirp4netns' link, and, for a list, its name server. The sandbox has no capability over them.
 *
 * The name server is why a list of names is honest. It answers at EGRESS_DNS only for listed names, only A records, rebuilt
 * from nothing: no byte of the app's reaches a resolver but a listed name. An address is answered after it was put into the
 * set of what may be reached, for the time the answer lives; one in a forbidden range is not answered at all (rebinding).
 * Resolving ahead instead would miss what names of a CDN give next, and could not do `*.HOST`.
 *
 * Two processes: the resolver parses DNS, has no privilege, no file, no socket but its two; the gate holds CAP_NET_ADMIN over
 * this one namespace, parses only frames {u32 id, u32 n, n times: u32 entry, u32 address, u32 ttl}, checks each, and
 * ends with the sandbox. Should both be killed, the names no longer resolve: closed, not open. */
#ifndef SANDBOX_EGRESS_INSIDE_H
#define SANDBOX_EGRESS_INSIDE_H

#include "sandbox/egress_list.h"

/* An id of a range of SANDBOX_IDS that the sandbox's programs do not use. */
#define EGRESS_INSIDE_UID(id_base) ((id_base) ? (id_base) + SANDBOX_IDS - 2 : 0)

struct egress_inside {
	const struct egress_policy *policy;
	const struct sandbox_spec *spec; /* its environment is wiped in the processes that stay; NULL: there is none */
	bool slirp;			 /* connect it here, by slirp4netns (slirp.h); else a veth does (egress.h) */
	uid_t uid; /* what the two processes become, when the caller is root: an id of the sandbox's range; 0: stay */
	int gone;  /* out: a descriptor (the caller's) that reads as end of file once all of it has ended; -1: none */
};
/* Is there anything to do for such a policy? */
bool egress_inside_needed(const struct egress_policy *policy, bool slirp);
/* A sandbox_sources.network (sandbox.h); `inside` is a struct egress_inside. Nothing is left to be done by the caller: what
 * is started here ends with pid 1 of the sandbox, of which `init` is a pidfd, whoever else dies meanwhile. */
int egress_inside_network(void *inside, int netns, int init, struct err *err);
/* The rules as nft text (table inet spaced); apart for tests. `slirp`: no veth, so no rules on the host; then the `n`
 * addresses of the host itself are forbidden, too. */
void egress_inside_rules(const struct egress_policy *p, bool slirp, const uint32_t *host, size_t n, struct buf *out);

#endif
