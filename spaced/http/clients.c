/* Requests under way of one client: all that come in are of few connections of the proxies, and who sends slowly would take a place
 * of everybody's. Called by conn.c. */
#include <arpa/inet.h>
#include <string.h>
#include <uthash.h>

#include "spaced/http/internal.h"

struct http_client {
	UT_hash_handle hh;
	struct in6_addr key;
	uint32_t requests;
};

/* The IPv4 address, or the /64, which one customer owns whole. False: it is none, or of the loopback, which is anybody behind
 * another proxy on this machine. */
static bool key_of(struct str client, struct in6_addr *key)
{
	char text[INET6_ADDRSTRLEN] = "";
	struct in6_addr a;

	memset(key, 0, sizeof *key);
	if (client.n >= sizeof text)
		return false;
	memcpy(text, client.p, client.n);
	if (inet_pton(AF_INET, text, &key->s6_addr[12]) == 1) {
		memset(&key->s6_addr[10], 0xff, 2);
		return key->s6_addr[12] != 127;
	}
	if (inet_pton(AF_INET6, text, &a) != 1)
		return false;
	memcpy(key, &a, 8);
	return !IN6_IS_ADDR_LOOPBACK(&a);
}

bool client_enter(struct http_req *r)
{
	struct http_server *s = r->c->s;
	struct http_client *client;
	struct in6_addr key;

	if (!s->limits.per_client || r->c->admin || !key_of(http_client(r), &key))
		return true;
	HASH_FIND(hh, s->clients, &key, sizeof key, client);
	if (client && client->requests >= s->limits.per_client)
		return false;
	if (!client) {
		client = xcalloc(1, sizeof *client);
		client->key = key;
		HASH_ADD(hh, s->clients, key, sizeof client->key, client);
	}
	client->requests++;
	r->client = client;
	return true;
}

void client_leave(struct http_req *r)
{
	struct http_client *client = r->client;

	if (!client)
		return;
	r->client = NULL;
	if (--client->requests == 0) {
		HASH_DEL(r->c->s->clients, client);
		free(client);
	}
}
