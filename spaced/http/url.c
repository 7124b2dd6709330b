/* See url.h. */
#include "spaced/http/url.h"

#include <string.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool url_decode(struct str s, bool plus, struct buf *out)
{
	buf_reserve(out, s.n);
	out->data[out->len] = '\0'; /* also when nothing is added */
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c == '%') {
			int hi = i + 1 < s.n ? hex(s.p[i + 1]) : -1;
			int lo = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
			if (hi < 0 || lo < 0)
				return false;
			c = (char)(hi << 4 | lo);
			i += 2;
		} else if (c == '+' && plus) {
			c = ' ';
		}
		if (c == '\0')
			return false;
		buf_addc(out, c);
	}
	return true;
}

void url_encode(const char *s, size_t n, bool slash, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
			     c == '.' || c == '_' || c == '~' || (c == '/' && slash);
		if (plain)
			buf_addc(out, (char)c);
		else
			buf_addf(out, "%%%02X", c);
	}
}

bool url_query_next(struct str *rest, struct str *key, struct str *value)
{
	while (rest->n) {
		const char *amp = memchr(rest->p, '&', rest->n);
		struct str pair = {rest->p, amp ? (size_t)(amp - rest->p) : rest->n};
		size_t skip = pair.n + (amp ? 1 : 0);
		rest->p += skip;
		rest->n -= skip;
		if (pair.n == 0)
			continue;
		const char *eq = memchr(pair.p, '=', pair.n);
		*key = (struct str){pair.p, eq ? (size_t)(eq - pair.p) : pair.n};
		*value = eq ? (struct str){eq + 1, pair.n - key->n - 1} : STR("");
		return true;
	}
	return false;
}

bool url_query_get(struct str query, const char *key, struct buf *out)
{
	struct str k, v;

	while (url_query_next(&query, &k, &v)) {
		struct buf name = BUF_INIT;
		bool same = url_decode(k, true, &name) && strcmp(name.data ? name.data : "", key) == 0;
		buf_release(&name);
		if (same)
			return url_decode(v, true, out);
	}
	return false;
}
