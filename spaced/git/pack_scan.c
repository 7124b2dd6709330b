/* See pack_scan.h; the format is gitformat-pack(5). */
#include "spaced/git/pack_scan.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum { TYPE_COMMIT = 1, TYPE_TREE, TYPE_BLOB, TYPE_TAG, TYPE_OFS = 6, TYPE_REF = 7 };

void pack_scan_init(struct pack_scan *s, const struct pack_limits *limits)
{
	*s = (struct pack_scan){.limits = *limits};
}

void pack_scan_release(struct pack_scan *s)
{
	if (s->z_open)
		inflateEnd(&s->z);
	free(s->places);
	*s = (struct pack_scan){0};
}

static int bad(struct err *err, const char *what)
{
	return err_set(err, 0, "malformed pack: %s", what);
}

static int charge(struct pack_scan *s, uint64_t bytes, struct err *err)
{
	if (bytes > s->limits.object_bytes)
		return err_set(err, 0, "an object of %llu bytes is too big, the limit is %llu",
			       (unsigned long long)bytes, (unsigned long long)s->limits.object_bytes);
	s->inflated += bytes;
	if (s->inflated > s->limits.inflated_bytes)
		return err_set(err, 0, "the pack unpacks to more than %llu bytes",
			       (unsigned long long)s->limits.inflated_bytes);
	return 0;
}

static int take_head(struct pack_scan *s, struct err *err)
{
	const uint8_t *h = s->head;
	uint32_t version = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];

	s->objects = (uint32_t)h[8] << 24 | (uint32_t)h[9] << 16 | (uint32_t)h[10] << 8 | h[11];
	if (memcmp(h, "PACK", 4) != 0)
		return bad(err, "no PACK signature");
	if (version != 2 && version != 3)
		return bad(err, "unknown version");
	if (s->objects > s->limits.objects)
		return err_set(err, 0, "%u objects in one push, the limit is %u", s->objects, s->limits.objects);
	s->state = s->objects ? SCAN_OBJECT : SCAN_TRAILER;
	return 0;
}

/* An OFS_DELTA's base must be an object that began earlier in this very pack; so no cycle is possible. */
static int64_t depth_of_base(const struct pack_scan *s)
{
	uint64_t want = s->start - s->back;
	size_t lo = 0, hi = s->seen;

	if (s->back == 0 || s->back > s->start)
		return -1;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (s->places[mid].start < want)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->seen && s->places[lo].start == want ? (int64_t)s->places[lo].depth : -1;
}

static int begin_data(struct pack_scan *s, int64_t depth, struct err *err)
{
	if (depth > PACK_MAX_DEPTH)
		return err_set(err, 0, "delta chain longer than %d", PACK_MAX_DEPTH);
	if ((s->seen & (s->seen + 1)) == 0)
		s->places = xreallocarray(s->places, 2 * (size_t)s->seen + 1, sizeof *s->places);
	s->places[s->seen] = (struct pack_scan_place){s->start, (uint32_t)depth};
	int z = s->z_open ? inflateReset(&s->z) : inflateInit(&s->z);
	if (z != Z_OK)
		return err_set(err, 0, "zlib cannot start");
	s->z_open = true;
	s->got = 0;
	s->nhead = 0;
	s->state = SCAN_DATA;
	return charge(s, s->declared, err);
}

/* One byte of "type and size", then of what names a delta's base. */
static int take_object_byte(struct pack_scan *s, uint8_t c, struct err *err)
{
	if (s->nhead == 0) {
		s->start = s->pos;
		s->type = c >> 4 & 7;
		s->declared = c & 0xf;
		s->shift = 4;
		s->nhead = 1;
	} else {
		if (s->shift > 53)
			return bad(err, "object size");
		s->declared |= (uint64_t)(c & 0x7f) << s->shift;
		s->shift += 7;
	}
	if (c & 0x80)
		return 0;
	s->nhead = 0;
	s->back = 0;
	switch (s->type) {
	case TYPE_COMMIT:
	case TYPE_TREE:
	case TYPE_BLOB:
	case TYPE_TAG:
		return begin_data(s, 0, err);
	case TYPE_OFS:
		s->state = SCAN_OFFSET;
		return 0;
	case TYPE_REF:
		s->state = SCAN_BASE;
		return 0;
	default:
		return bad(err, "unknown object type");
	}
}

static int take_offset_byte(struct pack_scan *s, uint8_t c, struct err *err)
{
	if (s->back >> 50)
		return bad(err, "delta offset");
	s->back = s->nhead++ ? (s->back + 1) << 7 | (c & 0x7f) : c & 0x7f;
	if (c & 0x80)
		return 0;
	int64_t depth = depth_of_base(s);
	return depth < 0 ? bad(err, "delta offset") : begin_data(s, depth + 1, err);
}

/* A delta begins with two varints: the size of its base, and of its result, which is what must be paid for. */
static int charge_delta(struct pack_scan *s, struct err *err)
{
	uint64_t size[2] = {0};
	unsigned at = 0;

	for (int i = 0; i < 2; i++) {
		unsigned shift = 0;
		do {
			if (at == s->nhead || shift > 56)
				return bad(err, "delta head");
			size[i] |= (uint64_t)(s->head[at] & 0x7f) << shift;
			shift += 7;
		} while (s->head[at++] & 0x80);
	}
	return charge(s, size[1], err);
}

static int end_object(struct pack_scan *s, struct err *err)
{
	if (s->got != s->declared)
		return bad(err, "an object is shorter than it says");
	if ((s->type == TYPE_OFS || s->type == TYPE_REF) && charge_delta(s, err) < 0)
		return -1;
	s->nhead = 0;
	s->state = ++s->seen == s->objects ? SCAN_TRAILER : SCAN_OBJECT;
	return 0;
}

/* Inflates, keeps the first bytes (a delta's head), throws the rest away. Bytes taken, or -1. */
static ssize_t take_data(struct pack_scan *s, const uint8_t *p, size_t n, struct err *err)
{
	uint8_t out[16384];

	s->z.next_in = (Bytef *)(uintptr_t)p;
	s->z.avail_in = (uInt)(n > 1U << 30 ? 1U << 30 : n);
	uInt given = s->z.avail_in;
	for (;;) {
		s->z.next_out = out;
		s->z.avail_out = sizeof out;
		int z = inflate(&s->z, Z_NO_FLUSH);
		size_t k = sizeof out - s->z.avail_out;
		if (z != Z_OK && z != Z_STREAM_END && z != Z_BUF_ERROR)
			return bad(err, "zlib data");
		for (size_t i = 0; i < k && s->nhead < sizeof s->head; i++)
			s->head[s->nhead++] = out[i];
		s->got += k;
		if (s->got > s->declared)
			return bad(err, "an object is longer than it says");
		if (z == Z_STREAM_END)
			break;
		if (s->z.avail_in == 0 && k < sizeof out)
			return (ssize_t)given;
		if (z == Z_BUF_ERROR && k == 0)
			return (ssize_t)(given - s->z.avail_in);
	}
	ssize_t used = (ssize_t)(given - s->z.avail_in);
	return end_object(s, err) < 0 ? -1 : used;
}

/* Collects a part of fixed size in `head`; true when it is whole. */
static bool collect(struct pack_scan *s, unsigned size, uint8_t c)
{
	s->head[s->nhead++] = c;
	if (s->nhead < size)
		return false;
	s->nhead = 0;
	return true;
}

static int take_byte(struct pack_scan *s, uint8_t c, struct err *err)
{
	switch (s->state) {
	case SCAN_HEAD:
		return collect(s, 12, c) ? take_head(s, err) : 0;
	case SCAN_OBJECT:
		return take_object_byte(s, c, err);
	case SCAN_OFFSET:
		return take_offset_byte(s, c, err);
	case SCAN_BASE: /* REF_DELTA: the base may be anywhere, so its depth is not known here */
		return collect(s, 20, c) ? begin_data(s, 1, err) : 0;
	case SCAN_TRAILER:
		if (collect(s, 20, c))
			s->state = SCAN_DONE;
		return 0;
	default:
		return bad(err, "bytes behind its end");
	}
}

int pack_scan_feed(struct pack_scan *s, const uint8_t *p, size_t n, struct err *err)
{
	while (n) {
		ssize_t k = 1;
		if (s->state == SCAN_DATA)
			k = take_data(s, p, n, err);
		else if (take_byte(s, *p, err) < 0)
			k = -1;
		if (k < 0)
			return -1;
		p += k;
		n -= (size_t)k;
		s->pos += (uint64_t)k;
		if (s->pos > s->limits.pack_bytes)
			return err_set(err, 0, "the pack is bigger than %llu bytes, the limit of one push",
				       (unsigned long long)s->limits.pack_bytes);
	}
	return 0;
}
