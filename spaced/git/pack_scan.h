/* Reads a pack as it streams in and adds up what it would cost, before libgit2 sees a byte of it: declared sizes, the
 * result size of each delta, chain depth. This is what stops a delta bomb or a zlib bomb while it is still small. Pure. */
#ifndef SPACED_GIT_PACK_SCAN_H
#define SPACED_GIT_PACK_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

#include "base/err.h"

#define PACK_MAX_DEPTH 1000 /* git's default is 50; `gc --aggressive` made 250 */

struct pack_limits {
	uint64_t pack_bytes;
	uint64_t inflated_bytes; /* of all objects together, deltas counted as what they become */
	uint64_t object_bytes;
	uint32_t objects;
};

enum pack_scan_state { SCAN_HEAD, SCAN_OBJECT, SCAN_OFFSET, SCAN_BASE, SCAN_DATA, SCAN_TRAILER, SCAN_DONE };

struct pack_scan {
	struct pack_limits limits;
	enum pack_scan_state state;
	uint64_t pos;	   /* bytes of the pack so far */
	uint64_t inflated; /* counts against inflated_bytes */
	uint32_t objects, seen;
	uint8_t head[20]; /* what has been collected of a fixed-size part, or of a delta's head */
	unsigned nhead;
	/* the object being read */
	uint64_t start, declared, got;
	unsigned type, shift;
	uint64_t back; /* OFS_DELTA */
	z_stream z;
	bool z_open;
	/* where each object began and how deep its chain is; grows as objects really arrive */
	struct pack_scan_place {
		uint64_t start;
		uint32_t depth;
	} * places;
};

void pack_scan_init(struct pack_scan *s, const struct pack_limits *limits);
void pack_scan_release(struct pack_scan *s);
/* 0, or -1 with the limit or the malformation. Bytes behind the trailer are an error. */
int pack_scan_feed(struct pack_scan *s, const uint8_t *p, size_t n, struct err *err);

#endif
