/* Requests per second of a client address or for a Space: token buckets in memory that all proxy processes share, so that a
 * limit holds for all of them together. A bucket holds what comes in RATE_BURST_S seconds and is found by a keyed hash; four
 * share a place, and a new one takes that of the fullest. So the tables never grow, and who comes with many addresses can
 * only empty buckets of others into full ones: nobody is limited by a neighbour.
 * What lies in the memory is only ever counted with, so a worker gone bad can disturb the limits and nothing else. */
#ifndef PROXY_RATE_H
#define PROXY_RATE_H

#include <stddef.h>
#include <stdint.h>

#define RATE_BURST_S 5
#define RATE_MAX 1000000 /* per second */

struct rates;
enum rate_kind { RATE_CLIENT, RATE_SPACE, RATE_KINDS };

/* A file in memory with fresh tables, to be mapped by all that share them. A descriptor, or -1 and errno. */
int rates_create(void);
/* The tables of such a file (which stays the caller's), or with -1 fresh ones for this process and those it forks. NULL: errno. */
struct rates *rates_map(int fd);

/* The number of a bucket, never 0. */
uint64_t rates_who(const struct rates *r, const void *p, size_t n);
/* One request more at `now_ms` of a monotonic clock. 0: it may pass; else the milliseconds until one may. `per_second`: 1 to RATE_MAX. */
uint32_t rates_take(struct rates *r, enum rate_kind kind, uint64_t who, uint32_t per_second, uint64_t now_ms);

#endif
