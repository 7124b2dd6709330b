/* See limiter.h. Called by auth.c. */
#include "spaced/api/limiter.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <string.h>

void limiter_init(struct limiter *l)
{
	memset(l, 0, sizeof(*l));
	randombytes_buf(l->key, sizeof(l->key));
}

static uint64_t hash(const struct limiter *l, const void *p, size_t n)
{
	uint64_t h;

	crypto_shorthash((unsigned char *)&h, p, n, l->key);
	return h;
}

static uint64_t client_hash(const struct limiter *l, struct str client)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr a;

	/* Whoever has one IPv6 address has 2^64 of them. */
	if (client.n < sizeof(text)) {
		memcpy(text, client.p, client.n);
		text[client.n] = '\0';
		if (inet_pton(AF_INET6, text, &a) == 1)
			return hash(l, &a, 8);
	}
	return hash(l, client.p, client.n);
}

bool limiter_known_bad(const struct limiter *l, struct str credential, uint64_t now_ms)
{
	uint64_t h = hash(l, credential.p, credential.n);

	return l->tokens[h % LIMITER_TOKENS].what == h && now_ms < l->tokens[h % LIMITER_TOKENS].until;
}

unsigned limiter_bad(struct limiter *l, struct str client, struct str credential, uint64_t now_ms)
{
	uint64_t what = hash(l, credential.p, credential.n), who = client_hash(l, client);
	size_t t = what % LIMITER_TOKENS, c = who % LIMITER_CLIENTS;

	l->tokens[t].what = what;
	l->tokens[t].until = now_ms + LIMITER_WINDOW_MS;
	if (l->clients[c].who != who || now_ms - l->clients[c].since >= LIMITER_WINDOW_MS) {
		l->clients[c].who = who;
		l->clients[c].since = now_ms;
		l->clients[c].bad = 0;
	}
	if (++l->clients[c].bad <= LIMITER_BAD_MAX)
		return 0;
	return (unsigned)((l->clients[c].since + LIMITER_WINDOW_MS - now_ms + 999) / 1000);
}
