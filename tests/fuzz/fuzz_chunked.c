/* Chunked bodies: cut into pieces anywhere (first byte of the input), the outcome is the same, and what comes out, written
 * as chunks again, decodes to itself. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/http1.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* Bytes used; -1: malformed; -2: more is needed. */
static ssize_t decode(const char *in, size_t n, size_t step, struct buf *body)
{
	struct http1_chunked c;
	size_t at = 0;

	http1_chunked_init(&c);
	while (at < n && !c.done) {
		struct str spans[HTTP1_SPANS];
		size_t nspans, k = n - at < step ? n - at : step;
		char *piece = xmalloc(k);
		memcpy(piece, in + at, k);
		ssize_t used = http1_chunked_decode(&c, piece, k, spans, &nspans);
		check(used <= (ssize_t)k && nspans <= HTTP1_SPANS);
		for (size_t i = 0; used >= 0 && i < nspans; i++) {
			check(spans[i].p >= piece && spans[i].p + spans[i].n <= piece + k);
			buf_add(body, spans[i].p, spans[i].n);
		}
		free(piece);
		if (used < 0)
			return -1;
		check(c.done || used == (ssize_t)k);
		at += (size_t)used;
	}
	return c.done ? (ssize_t)at : -2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_buf struct buf whole = BUF_INIT;
	cleanup_buf struct buf parts = BUF_INIT;
	cleanup_buf struct buf coded = BUF_INIT;
	cleanup_buf struct buf again = BUF_INIT;

	if (size < 1)
		return 0;
	const char *in = (const char *)data + 1;
	ssize_t a = decode(in, size - 1, size, &whole);
	ssize_t b = decode(in, size - 1, data[0] % 16 + 1, &parts);
	check(a == b);
	if (a < 0)
		return 0;
	/* The body ends at the empty line that ends the trailers, and that is one of CR LF. */
	check(a >= 4 && memcmp(in + a - 4, "\r\n\r\n", 4) == 0);
	check(whole.len == parts.len && (whole.len == 0 || memcmp(whole.data, parts.data, whole.len) == 0));
	if (whole.len) {
		buf_addf(&coded, "%zx\r\n", whole.len);
		buf_add(&coded, whole.data, whole.len);
		buf_adds(&coded, "\r\n");
	}
	buf_adds(&coded, "0\r\n\r\n");
	check(decode(coded.data, coded.len, coded.len, &again) == (ssize_t)coded.len && again.len == whole.len);
	return 0;
}
