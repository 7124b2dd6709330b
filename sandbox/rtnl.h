/* The few rtnetlink requests that egress needs, over libmnl. */
#ifndef SANDBOX_RTNL_H
#define SANDBOX_RTNL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mnl_socket;
struct rtnl {
	struct mnl_socket *s;
	uint32_t seq;
};

int rtnl_open(struct rtnl *n, struct err *err);		/* in the caller's network namespace */
int rtnl_take(struct rtnl *n, int fd, struct err *err); /* in the namespace of this fresh socket, which it takes over */
void rtnl_close(struct rtnl *n);
/* A veth pair: `name` here (down), `peer` in namespace `netns` (down). EEXIST. */
int rtnl_veth(struct rtnl *n, const char *name, const char *peer, int netns, uint32_t mtu, struct err *err);
int rtnl_link_up(struct rtnl *n, const char *name, struct err *err);
int rtnl_link_delete(struct rtnl *n, const char *name, struct err *err); /* 0 when it is not there */
int rtnl_address(struct rtnl *n, const char *name, uint32_t addr, unsigned prefix, struct err *err); /* host order */
int rtnl_default_route(struct rtnl *n, uint32_t gateway, struct err *err);

/* At most `rate` bytes per second leave by the link: a token bucket (tc-tbf(8)) as its queue. ENOENT: the kernel lacks it. */
int rtnl_bandwidth(struct rtnl *n, const char *name, uint64_t rate, struct err *err);
struct rtnl_counters {
	uint64_t received, sent; /* bytes, as the link counts them */
};
int rtnl_counters(struct rtnl *n, const char *name, struct rtnl_counters *out, struct err *err);
#define RTNL_ADDRESSES 64
struct rtnl_addresses {
	uint32_t a[RTNL_ADDRESSES]; /* host order */
	size_t n;
};
/* IPv4 addresses of this namespace's links, without loopback; none on failure. */
void rtnl_host_addresses(struct rtnl_addresses *out);

struct rtnl_route {
	uint32_t addr; /* host order */
	unsigned prefix;
	uint32_t ifindex;
};
struct rtnl_link {
	uint32_t index;
	uint32_t mtu;
	char name[16];
};
/* Calls `each` for every IPv4 route of every table, or every link. */
int rtnl_routes(struct rtnl *n, void (*each)(void *ctx, const struct rtnl_route *r), void *ctx, struct err *err);
int rtnl_links(struct rtnl *n, void (*each)(void *ctx, const struct rtnl_link *l), void *ctx, struct err *err);

#endif
