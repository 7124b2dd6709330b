/* See inflate.h. */
#include "spaced/git/inflate.h"

int inflate_init(struct inflate *i, uint64_t max, struct err *err)
{
	*i = (struct inflate){.left = max};
	if (inflateInit2(&i->z, 15 + 16) != Z_OK) /* 16: gzip, not zlib */
		return err_set(err, 0, "zlib cannot start");
	i->open = true;
	return 0;
}

void inflate_release(struct inflate *i)
{
	if (i->open)
		inflateEnd(&i->z);
	i->open = false;
}

int inflate_feed(struct inflate *i, const void *p, size_t n,
		 int (*sink)(void *ctx, const void *p, size_t n, struct err *err), void *ctx, struct err *err)
{
	uint8_t out[65536];

	i->z.next_in = (Bytef *)(uintptr_t)p;
	i->z.avail_in = (uInt)n;
	while (i->z.avail_in || i->z.avail_out == 0) {
		if (i->ended)
			return i->z.avail_in ? err_set(err, 0, "bytes behind the end of the gzip body") : 0;
		i->z.next_out = out;
		i->z.avail_out = sizeof out;
		int z = inflate(&i->z, Z_NO_FLUSH);
		size_t k = sizeof out - i->z.avail_out;
		if (z == Z_BUF_ERROR && k == 0)
			return 0;
		if (z != Z_OK && z != Z_STREAM_END && z != Z_BUF_ERROR)
			return err_set(err, 0, "the gzip body is malformed");
		if (k > i->left)
			return err_set(err, 0, "the gzip body unpacks to more than allowed");
		i->left -= k;
		i->ended = z == Z_STREAM_END;
		if (k && sink(ctx, out, k, err) < 0)
			return -1;
	}
	return 0;
}
