/* See layer.h. BLAKE2b-256 by libsodium. */
#include "spaced/build/layer.h"

#include <stdint.h>
#include <string.h>

/* Changed whenever the recipes change in a way that old layers do not fit. */
#define LAYER_FORMAT "1"

static void add(struct layer_hash *h, const void *p, size_t n)
{
	uint64_t len = n;

	crypto_generichash_update(&h->st, (const unsigned char *)&len, sizeof len);
	crypto_generichash_update(&h->st, p, n);
}

void layer_hash_init(struct layer_hash *h, const char *what)
{
	crypto_generichash_init(&h->st, NULL, 0, 32);
	layer_hash_adds(h, "format", LAYER_FORMAT);
	layer_hash_adds(h, "what", what);
}

void layer_hash_add(struct layer_hash *h, const char *name, const void *value, size_t n)
{
	add(h, name, strlen(name));
	add(h, value ? value : "", value ? n : 0);
}

void layer_hash_adds(struct layer_hash *h, const char *name, const char *value)
{
	layer_hash_add(h, name, value, value ? strlen(value) : 0);
}

void layer_hash_final(struct layer_hash *h, char key[LAYER_KEY])
{
	unsigned char out[32];

	crypto_generichash_final(&h->st, out, sizeof out);
	sodium_bin2hex(key, LAYER_KEY, out, sizeof out);
}
