/* See json_quote.h. */
#include "base/json_quote.h"

/* Length of the UTF-8 sequence at p, 0 when it is none (overlong, surrogate, cut). */
static size_t utf8_length(const unsigned char *p, size_t n)
{
	unsigned cp;
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	if (len == 1)
		return 1;
	cp = p[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		cp = cp << 6 | (p[i] & 0x3f);
	}
	if ((len == 3 && (cp < 0x800 || (cp >= 0xd800 && cp < 0xe000))) ||
	    (len == 4 && (cp < 0x10000 || cp > 0x10ffff)))
		return 0;
	return len;
}

void json_quote(struct buf *out, const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;

	buf_addc(out, '"');
	while (n) {
		size_t len = utf8_length(p, n);
		if (len == 0)
			buf_adds(out, "\xef\xbf\xbd");
		else if (*p == '"' || *p == '\\')
			buf_addf(out, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			buf_addf(out, "\\u%04x", *p);
		else
			buf_add(out, p, len);
		p += len ? len : 1;
		n -= len ? len : 1;
	}
	buf_addc(out, '"');
}
