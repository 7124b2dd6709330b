/* gzip request bodies ("Content-Encoding: gzip"), inflated in the child roles with a limit on what comes out, not on
 * what came in (zlib bomb). */
#ifndef SPACED_GIT_INFLATE_H
#define SPACED_GIT_INFLATE_H

#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

#include "base/err.h"

struct inflate {
	z_stream z;
	bool open, ended;
	uint64_t left; /* bytes that may still come out */
};
int inflate_init(struct inflate *i, uint64_t max, struct err *err);
void inflate_release(struct inflate *i);
/* Calls `sink` with what comes out; its -1 ends it. */
int inflate_feed(struct inflate *i, const void *p, size_t n,
		 int (*sink)(void *ctx, const void *p, size_t n, struct err *err), void *ctx, struct err *err);

#endif
