/* See sideband.h. */
#include "spaced/git/sideband.h"

#include <stdint.h>
#include <string.h>

#define MORE (-1) /* the rest of the unit has not arrived */
#define BAD 0

/* Length of a well-formed UTF-8 character at `p` (RFC 3629), without C1 controls; BAD; or MORE. */
static int utf8_len(const uint8_t *p, size_t n)
{
	int len = p[0] >= 0xf0 && p[0] <= 0xf4	 ? 4
		  : p[0] >= 0xe0 && p[0] <= 0xef ? 3
		  : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
						 : 0;
	static const uint8_t low[] = {[0xe0 - 0xe0] = 0xa0, [0xf0 - 0xe0] = 0x90};
	uint8_t first = 0x80, last = 0xbf;

	if (!len)
		return BAD;
	if (p[0] >= 0xe0 && (size_t)(p[0] - 0xe0) < sizeof low && low[p[0] - 0xe0])
		first = low[p[0] - 0xe0];
	if (p[0] == 0xed) /* surrogates */
		last = 0x9f;
	if (p[0] == 0xf4)
		last = 0x8f;
	if (p[0] == 0xc2) /* U+0080..9F: C1 controls, U+009B is CSI */
		first = 0xa0;
	for (int i = 1; i < len; i++) {
		if ((size_t)i >= n)
			return MORE;
		if (p[i] < first || p[i] > last)
			return BAD;
		first = 0x80;
		last = 0xbf;
	}
	return len;
}

/* Length of "ESC [ digits and ; m"; BAD; or MORE. */
static int sgr_len(const uint8_t *p, size_t n, size_t room)
{
	if (n < 2)
		return MORE;
	if (p[1] != '[')
		return BAD;
	for (size_t i = 2; i < room; i++) {
		if (i >= n)
			return MORE;
		if (p[i] == 'm')
			return (int)i + 1;
		if (!((p[i] >= '0' && p[i] <= '9') || p[i] == ';'))
			return BAD;
	}
	return BAD;
}

/* One unit at `p`: appended in its harmless form. How many bytes it took, or MORE. */
static int take_unit(struct text_filter *f, const uint8_t *p, size_t n, struct buf *out)
{
	bool after_cr = f->cr;
	int len = 1;

	if (*p == 0x1b)
		len = sgr_len(p, n, sizeof f->held);
	else if (*p >= 0x80)
		len = utf8_len(p, n);
	else if ((*p < ' ' && *p != '\n' && *p != '\t' && *p != '\r') || *p == 0x7f)
		len = BAD;
	if (len == MORE)
		return MORE;
	f->cr = *p == '\r';
	if (len == BAD) {
		buf_addc(out, '?');
		return 1;
	}
	if (*p == '\r')
		buf_addc(out, '\n');
	else if (!(*p == '\n' && after_cr)) /* "\r\n" is one line end */
		buf_add(out, p, (size_t)len);
	return len;
}

void text_filter(struct text_filter *f, const char *p, size_t n, struct buf *out)
{
	/* `held` is shorter than any unit can be, so this ends after few rounds. */
	while (f->nheld && n) {
		f->held[f->nheld++] = *p++;
		n--;
		int k = take_unit(f, (const uint8_t *)f->held, f->nheld, out);
		if (k == MORE)
			continue;
		/* A unit that turned out bad gives back all but its first byte. */
		char rest[sizeof f->held];
		size_t left = f->nheld - (size_t)k;
		memcpy(rest, f->held + k, left);
		f->nheld = 0;
		if (left)
			text_filter(f, rest, left, out);
	}
	while (n) {
		int k = take_unit(f, (const uint8_t *)p, n, out);
		if (k == MORE) {
			memcpy(f->held, p, n);
			f->nheld = n;
			return;
		}
		p += k;
		n -= (size_t)k;
	}
}

void text_filter_end(struct text_filter *f, struct buf *out)
{
	for (size_t i = 0; i < f->nheld; i++)
		buf_addc(out, '?');
	*f = (struct text_filter){0};
}
