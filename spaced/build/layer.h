/* Content keys: two builds whose inputs are the same bytes share one layer. Pure. */
#ifndef SPACED_BUILD_LAYER_H
#define SPACED_BUILD_LAYER_H

#include <sodium.h>
#include <stddef.h>

#define LAYER_KEY 65 /* hex with NUL */

struct layer_hash {
	crypto_generichash_state st;
};
/* `what` separates kinds of layers: "python", "node", "packages". */
void layer_hash_init(struct layer_hash *h, const char *what);
/* Adds one named input; name and value are length-prefixed, so no two lists of inputs look the same. */
void layer_hash_add(struct layer_hash *h, const char *name, const void *value, size_t n);
void layer_hash_adds(struct layer_hash *h, const char *name, const char *value); /* NULL is "" */
void layer_hash_final(struct layer_hash *h, char key[LAYER_KEY]);

#endif
