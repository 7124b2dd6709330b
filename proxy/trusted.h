/* Proxies in front of this one whose word about a visitor is believed: X-Forwarded-For and X-Forwarded-Proto. From anybody else
 * these are a claim, and are replaced (http1.h). Pure.
 *
 * Each proxy of a chain adds the address that it was spoken to from at the end of X-Forwarded-For; what stands further left came
 * from outside and may be invented. So the visitor is the rightmost address that is no trusted proxy. */
#ifndef PROXY_TRUSTED_H
#define PROXY_TRUSTED_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define TRUSTED_MAX 64

/* IPv4 addresses are IPv4-mapped ones everywhere here. */
struct trusted {
	struct trusted_network {
		struct in6_addr address;
		unsigned bits;
	} networks[TRUSTED_MAX];
	size_t n;
};
/* Adds ADDR and ADDR/PREFIX, between spaces or commas. 0; -EINVAL: one is neither, or has bits behind the prefix; -E2BIG. Those
 * before it are there. */
int trusted_add(struct trusted *t, struct str list);
bool trusted_has(const struct trusted *t, const struct in6_addr *address);

struct visitor {
	struct in6_addr address;
	const char *proto; /* "http", "https"; NULL: nothing was said */
};
/* What a trusted proxy at `from` says. The values of several fields of a name are one list, in their order. What is no address
 * ends the way to the left: the visitor is who said it. Of X-Forwarded-Proto it is the element that was added with the
 * visitor's address, or the leftmost one. */
struct visitor trusted_visitor(const struct trusted *t, const struct in6_addr *from, const struct str *fors,
			       size_t nfors, const struct str *protos, size_t nprotos);

#endif
