/* Which endpoint of its route a request goes to: the one that its cookie names, or the one with the fewest requests in flight from
 * this worker. One that did not take a connection a moment ago is the last choice.
 *
 * Workers do not know of each other's requests. Where several endpoints have the fewest, which is the rule when there is
 * little to do, the choice is random, so that the workers do not all begin with the same. */
#include "proxy/sticky.h"
#include "proxy/worker.h"

static uint64_t next_random(struct worker *w)
{
	/* xorshift64*: nothing secret hangs on it */
	w->dice ^= w->dice >> 12;
	w->dice ^= w->dice << 25;
	w->dice ^= w->dice >> 27;
	return w->dice * UINT64_C(2685821657736338717) >> 32;
}

/* How unwelcome a further request is there; SIZE_MAX: not at all to be sent. */
static size_t burden(struct worker *w, const struct exchange *x, unsigned i)
{
	const struct pool *p;

	if (x->tried & 1U << i)
		return SIZE_MAX;
	p = pool_find(w, x->target, i);
	if (!p)
		return 0;
	if (p->draining)
		return SIZE_MAX;
	return p->busy + (uv_now(&w->loop) < p->failed_until ? SIZE_MAX / 2 : 0);
}

int balance_pick(const struct exchange *x)
{
	struct worker *w = x->c->conn.w;
	const struct target *t = x->target;
	size_t least = SIZE_MAX;

	if (t->nendpoints == 1)
		return x->tried ? -1 : 0;
	int best = sticky_endpoint(t, x->sticky);

	if (best >= 0 && burden(w, x, (unsigned)best) < SIZE_MAX / 2)
		return best;
	best = -1;
	unsigned from = (unsigned)(next_random(w) % t->nendpoints);
	for (unsigned k = 0; k < t->nendpoints; k++) {
		unsigned i = (from + k) % t->nendpoints;
		size_t b = burden(w, x, i);
		if (b < least) {
			least = b;
			best = (int)i;
		}
	}
	return best;
}
