/* The way out to the Internet for one sandbox: a veth pair from its network namespace to the host, forwarded and
 * masqueraded by nftables. Wished for by EGRESS_INTERNET and EGRESS_LIST (what a list names is enforced inside the sandbox's
 * namespace: egress_inside.h); called by the spawner's workers (root). Without root: slirp.h.
 *
 * What the rules let through: only to public IPv4 addresses; never to the host itself, to another sandbox, to private,
 * link-local (metadata), CGNAT, multicast or reserved ranges. DNS: EGRESS_DNS, the one name server in the sandbox's
 * resolv.conf, exists nowhere: port 53 of it is translated to the host's real resolvers. Inside there is no IPv6.
 *
 * Nothing is kept in memory: a link's name is EGRESS_PREFIX + tag + number, the rules are one table "spaced_TAG". `tag`
 * comes from the state folder, so that several daemons on one host stay out of each other's way. */
#ifndef SANDBOX_EGRESS_H
#define SANDBOX_EGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define EGRESS_DNS "10.0.2.3" /* what slirp4netns offers too: one resolv.conf serves root and rootless */
#define EGRESS_PREFIX "spd"
#define EGRESS_MAX 16384 /* numbers 0..: one /30 each, within a /16 that no route of the host touches */

struct egress {
	char tag[6];	  /* five hex digits */
	const char *lock; /* a file that serialises egress_ensure */
};

/* `lock` must live as long. */
void egress_init(struct egress *e, const char *state, const char *lock);
/* The rules are there as they should be now (resolvers, ranges), routing is on; else puts them there. Milliseconds when
 * something is to do; run it in a worker (libnftables keeps memory). */
int egress_ensure(const struct egress *e, struct err *err);
/* Connects `netns` as number `n`. `bandwidth`: bytes per second each way, by a token bucket at each end; 0: no limit. ENOENT
 * when the kernel has none. */
int egress_attach(const struct egress *e, uint32_t n, int netns, uint64_t bandwidth, struct err *err);
/* Removes link `n`; 0 also when it is not there. */
int egress_detach(const struct egress *e, uint32_t n, struct err *err);
/* Removes all of our links whose number `keep` does not want. */
int egress_sweep(const struct egress *e, bool (*keep)(void *ctx, uint32_t n), void *ctx, struct err *err);
/* Removes the rules (tests). */
int egress_remove_rules(const struct egress *e, struct err *err);
/* Bytes over the link of a sandbox, seen from inside; zero when it has none. Enters `netns` and comes back. */
struct rtnl_counters;
void egress_counters(int netns, struct rtnl_counters *out);
/* Whether the kernel has token buckets, without which a bandwidth is refused; as any user who may make namespaces. */
bool egress_can_shape(void);
/* Whether this host can: CAP_NET_ADMIN, veth, nftables. `why` gets lines for `spacectl doctor`, also on success. */
bool egress_probe(struct buf *why);

/* For the rest of sandbox/: the resolvers of this host; text for libnftables; a sysctl, 0 when the kernel has none of
 * that name. */
size_t egress_host_resolvers(uint32_t out[4]);
int egress_nft(const char *text, struct err *err);
int egress_sysctl(const char *path, const char *value, struct err *err);

/* Deciders, apart for tests. The real resolvers of a host from the text of its resolv.conf: IPv4 only, loopback stubs left
 * out. Returns their number. */
size_t egress_resolvers(const char *resolv_conf, uint32_t out[4]);
/* By which interfaces this host reaches the world, of the text of /proc/net/route: those of default routes, as a list for nft. */
void egress_uplinks(const char *routes, struct buf *out);
/* The rules as nft text. `uplinks`: routing was off before us, and with it on the host must not become a router between them; NULL:
 * it was on. */
void egress_rules(const char *tag, const uint32_t *resolvers, size_t n, const char *uplinks, struct buf *out);

#endif
