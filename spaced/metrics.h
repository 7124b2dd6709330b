/* Sums of what the proxies count (proxy/counters.h), by Space. Sums begin with control at 0 and only grow; gauges are kept per
 * proxy, so that one that ends takes its own along. What belongs to no Space has the name "". Shown by api/metrics.c. */
#ifndef SPACED_METRICS_H
#define SPACED_METRICS_H

#include "proxy/counters.h"

struct metrics;
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);
bool metrics_has(const struct metrics *m, const char *space); /* was it counted before? */
/* What proxy `peer` has counted since it last did. Returns the sums of that Space; valid until metrics change. */
const struct counters *metrics_add(struct metrics *m, uint64_t peer, const char *space, const struct counters *growth);
/* What control itself has counted. */
void metrics_count(struct metrics *m, const char *space, enum counter which, uint64_t n);
void metrics_peer_gone(struct metrics *m, uint64_t peer);

struct metrics_row {
	char *space;
	struct counters sum;
};
/* A copy of all rows whose Space is known to `exists`, or is ""; the others are forgotten. By name. The caller frees each
 * `space` and the array. */
struct metrics_row *metrics_rows(struct metrics *m, bool (*exists)(void *ctx, const char *space), void *ctx, size_t *n);

#endif
