/* Slows down who sends wrong tokens: a count per client address, and a short memory of what was wrong. Fixed size. */
#ifndef SPACED_API_LIMITER_H
#define SPACED_API_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define LIMITER_CLIENTS 1024
#define LIMITER_TOKENS 1024
#define LIMITER_WINDOW_MS 60000
#define LIMITER_BAD_MAX 30 /* wrong tokens of one address in a window */

struct limiter {
	unsigned char key[16];
	struct {
		uint64_t who, since;
		uint32_t bad;
	} clients[LIMITER_CLIENTS];
	struct {
		uint64_t what, until;
	} tokens[LIMITER_TOKENS];
};
void limiter_init(struct limiter *l);
/* This credential was wrong a short time ago: no need to ask the store. */
bool limiter_known_bad(const struct limiter *l, struct str credential, uint64_t now_ms);
/* Counts a wrong credential of `client` (an address; IPv6 by its /64). Returns 0, or the seconds to wait when there were
 * too many. Right tokens are never refused: a guesser must not lock out a neighbour behind the same address. */
unsigned limiter_bad(struct limiter *l, struct str client, struct str credential, uint64_t now_ms);

#endif
