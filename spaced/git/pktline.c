/* See pktline.h. */
#include "spaced/git/pktline.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

ssize_t pkt_parse(const char *p, size_t n, struct pkt *out)
{
	unsigned len = 0;

	for (size_t i = 0; i < 4 && i < n; i++) {
		int d = hex_digit(p[i]);
		if (d < 0)
			return -1;
		len = len << 4 | (unsigned)d;
	}
	if (n < 4)
		return 0;
	if (len == 3 || len > PKT_MAX)
		return -1;
	out->data = (struct str){p + 4, 0};
	if (len < 3) {
		out->kind = len == 0 ? PKT_FLUSH : len == 1 ? PKT_DELIM : PKT_END;
		return 4;
	}
	if (n < len)
		return 0;
	out->kind = PKT_DATA;
	out->data.n = len - 4;
	return (ssize_t)len;
}

struct str pkt_chomp(struct str s)
{
	if (s.n && s.p[s.n - 1] == '\n')
		s.n--;
	return s;
}

void pkt_add(struct buf *b, const void *p, size_t n)
{
	buf_addf(b, "%04x", (unsigned)n + 4);
	buf_add(b, p, n);
}

void pkt_addf(struct buf *b, const char *fmt, ...)
{
	cleanup_buf struct buf line = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&line, fmt, ap);
	va_end(ap);
	pkt_add(b, line.data, line.len < PKT_DATA_MAX ? line.len : PKT_DATA_MAX);
}

void pkt_flush(struct buf *b)
{
	buf_add(b, "0000", 4);
}

void pkt_band(struct buf *b, int band, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		size_t k = n < PKT_DATA_MAX - 1 ? n : PKT_DATA_MAX - 1;
		buf_addf(b, "%04x%c", (unsigned)k + 5, band);
		buf_add(b, at, k);
		at += k;
		n -= k;
	}
}
