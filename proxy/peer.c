/* Whose a connection and a request is, and how many connections an address has. Behind a trusted proxy (trusted.h) connections
 * are no visitor's: there each request that is under way counts as one. */
#include <arpa/inet.h>

#include "proxy/worker.h"

struct peer {
	UT_hash_handle hh;
	struct in6_addr address;
	uint32_t connections;
};

static struct in6_addr address_of(const struct sockaddr *sa)
{
	struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	if (sa->sa_family == AF_INET)
		memcpy(&a.s6_addr[12], &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else
		a = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
	return a;
}

/* An IPv4-mapped address is written as the IPv4 one. */
static uint8_t write_address(const struct in6_addr *a, char text[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(a))
		inet_ntop(AF_INET, &a->s6_addr[12], text, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, a, text, INET6_ADDRSTRLEN);
	return (uint8_t)strlen(text);
}

bool peer_key(const struct in6_addr *address, struct in6_addr *key)
{
	bool v4 = IN6_IS_ADDR_V4MAPPED(address);

	memset(key, 0, sizeof *key);
	if (IN6_IS_ADDR_LOOPBACK(address))
		return true;
	memcpy(key, address, v4 ? 16 : 8);
	return v4 && address->s6_addr[12] == 127;
}

/* False: there are too many. */
static bool enter(struct worker *w, const struct in6_addr *address, struct peer **peer)
{
	uint32_t limit = w->limits.per_client;
	struct in6_addr key;
	struct peer *p;

	/* A proxy before ours on this machine would be one client: loopback counts only when the limit was set. */
	if (peer_key(address, &key) && limit == 0)
		return true;
	HASH_FIND(hh, w->peers, &key, sizeof key, p);
	if (p && p->connections >= (limit ? limit : 1024))
		return false;
	if (!p) {
		p = xcalloc(1, sizeof *p);
		p->address = key;
		HASH_ADD(hh, w->peers, address, sizeof p->address, p);
	}
	p->connections++;
	*peer = p;
	return true;
}

void peer_leave(struct worker *w, struct peer **peer)
{
	struct peer *p = *peer;

	if (!p)
		return;
	*peer = NULL;
	if (--p->connections == 0) {
		HASH_DEL(w->peers, p);
		free(p);
	}
}

void peer_name(struct client *c, const struct sockaddr *sa)
{
	struct worker *w = c->conn.w;
	struct in6_addr key;

	c->address = address_of(sa);
	c->addr_len = write_address(&c->address, c->addr);
	c->trusted = trusted_has(&w->trusted, &c->address);
	peer_key(&c->address, &key);
	c->who = rates_who(w->rates, &key, sizeof key);
}

bool peer_enter(struct client *c)
{
	return c->trusted || enter(c->conn.w, &c->address, &c->peer);
}

static void visitor(struct exchange *x, const struct http1_request *r)
{
	const struct http1_claims *fors = &r->forwarded_for, *protos = &r->forwarded_proto;
	const struct client *c = x->c;
	struct worker *w = c->conn.w;
	struct in6_addr key;

	const struct visitor v =
	    trusted_visitor(&w->trusted, &c->address, fors->values, fors->n, protos->values, protos->n);
	if (v.proto) {
		x->from.proto = v.proto;
		x->from.port = v.proto[4] ? 443 : 80;
	}
	if (memcmp(&v.address, &c->address, sizeof v.address) == 0)
		return; /* it asks for itself: its health checks, say */
	peer_key(&v.address, &key);
	x->from.who = rates_who(w->rates, &key, sizeof key);
	x->from.crowded = !enter(w, &v.address, &x->from.peer);
	x->from.addr = (struct str){x->from.said, write_address(&v.address, x->from.said)};
}

void peer_visitor(struct exchange *x, const struct http1_request *r)
{
	const struct client *c = x->c;

	x->from.addr = (struct str){c->addr, c->addr_len};
	x->from.who = c->who;
	x->from.proto = "http";
	x->from.port = c->port;
	if (c->trusted)
		visitor(x, r);
}
