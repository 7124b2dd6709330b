/* See path.h. */
#include "spaced/static/path.h"

#include <ctype.h>
#include <string.h>

#include "spaced/http/url.h"

#define PATH_BYTES_MAX 4000

bool site_id_ok(struct str id)
{
	if (id.n == 0 || id.n > 64)
		return false;
	for (size_t i = 0; i < id.n; i++)
		if (!isalnum((unsigned char)id.p[i]) && id.p[i] != '-' && id.p[i] != '_')
			return false;
	return true;
}

static bool is_dots(const char *p, size_t n)
{
	return (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.');
}

bool site_path_ok(const char *path)
{
	if (*path == '\0')
		return true;
	if (strlen(path) > PATH_BYTES_MAX)
		return false;
	for (const char *p = path;; p++) {
		size_t n = strcspn(p, "/");
		if (n == 0 || is_dots(p, n))
			return false;
		p += n;
		if (*p == '\0')
			return true;
	}
}

/* Dot files are how secrets leak (.env, .git, .htpasswd); ".well-known" is made to be seen (RFC 8615), and Hugging Face
 * shows ".gitattributes". */
static bool hidden(const char *p, size_t n, bool first, bool last)
{
	if (p[0] != '.')
		return false;
	if (first && n == strlen(".well-known") && memcmp(p, ".well-known", n) == 0)
		return false;
	return !(last && n == strlen(".gitattributes") && memcmp(p, ".gitattributes", n) == 0);
}

int static_path(struct str raw, struct buf *out, bool *slash)
{
	bool first = true;

	buf_clear(out);
	buf_reserve(out, 0);
	out->data[0] = '\0';
	*slash = false;
	if (raw.n == 0 || raw.p[0] != '/' || raw.n > PATH_BYTES_MAX)
		return 400;
	for (size_t at = 1; at < raw.n; first = false) {
		const char *end = memchr(raw.p + at, '/', raw.n - at);
		size_t n = end ? (size_t)(end - raw.p) - at : raw.n - at;
		size_t start = out->len;
		if (n == 0)
			return 404;
		if (!url_decode((struct str){raw.p + at, n}, false, out))
			return 400;
		const char *name = out->data + start;
		size_t len = out->len - start;
		if (memchr(name, '/', len) || is_dots(name, len))
			return 400;
		at += n + 1;
		*slash = end != NULL;
		bool last = at >= raw.n;
		if (len > 255 || hidden(name, len, first, last && !*slash))
			return 404;
		if (!last)
			buf_addc(out, '/');
	}
	return 0;
}

/* At least 16 hex digits, with both letters and digits, as an own part of the name: "main.3f2a9c...e1.js". */
static bool has_long_hash(const char *name)
{
	while (*name) {
		size_t n = strspn(name, "0123456789abcdef");
		bool digit = false, letter = false;
		for (size_t i = 0; i < n; i++) {
			digit |= isdigit((unsigned char)name[i]) != 0;
			letter |= isalpha((unsigned char)name[i]) != 0;
		}
		bool closed = name[n] == '.' || name[n] == '-' || name[n] == '_';
		if (n >= 16 && digit && letter && closed)
			return true;
		name += n;
		name += strcspn(name, ".-_");
		name += strspn(name, ".-_");
	}
	return false;
}

/* Vite: assets/index-DkJ3f9aB.js, eight characters of base64url before the extension. Words do not mix all three. */
static bool has_vite_hash(const char *name)
{
	const char *dot = strchr(name, '.');
	bool digit = false, upper = false, lower = false;

	/* Only code: a picture's name may look like one by chance. */
	if (!dot || dot - name < 10 || dot[-9] != '-' || (strcmp(dot, ".js") != 0 && strcmp(dot, ".css") != 0))
		return false;
	for (const char *p = dot - 8; p < dot; p++) {
		digit |= isdigit((unsigned char)*p) != 0;
		upper |= isupper((unsigned char)*p) != 0;
		lower |= islower((unsigned char)*p) != 0;
		if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-')
			return false;
	}
	return digit && upper && lower;
}

bool static_immutable(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	if (has_long_hash(name))
		return true;
	if (strncmp(path, "_app/immutable/", 15) == 0 || strstr(path, "/_app/immutable/"))
		return true; /* SvelteKit */
	return (strncmp(path, "assets/", 7) == 0 || strstr(path, "/assets/")) && has_vite_hash(name);
}

static struct str trim(struct str s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* Cuts off the first element up to `sep`. */
static struct str cut(struct str *s, char sep)
{
	const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
	struct str head = {s->p, at ? (size_t)(at - s->p) : s->n};
	size_t skip = head.n + (at ? 1 : 0);

	s->p += skip;
	s->n -= skip;
	return trim(head);
}

/* "q=0.25" in thousandths; 1000 when there is none, 0 when it is broken. */
static unsigned weight(struct str params)
{
	while (params.n) {
		struct str p = cut(&params, ';');
		if (p.n < 3 || (p.p[0] | 0x20) != 'q' || p.p[1] != '=')
			continue;
		unsigned q = p.p[2] == '1' ? 1000 : 0, scale = 100;
		if (p.p[2] != '0' && p.p[2] != '1')
			return 0;
		for (size_t i = 4; i < p.n && i < 7 && p.p[3] == '.' && isdigit((unsigned char)p.p[i]);
		     i++, scale /= 10)
			q += (unsigned)(p.p[i] - '0') * scale;
		return q > 1000 ? 1000 : q;
	}
	return 1000;
}

enum coding static_coding(struct str list)
{
	int br = -1, gzip = -1, any = 0;

	while (list.n) {
		struct str item = cut(&list, ',');
		struct str name = cut(&item, ';');
		int q = (int)weight(item);
		if (str_ieq(name, "br"))
			br = q;
		else if (str_ieq(name, "gzip") || str_ieq(name, "x-gzip"))
			gzip = q;
		else if (str_eq(name, "*"))
			any = q;
	}
	br = br < 0 ? any : br;
	gzip = gzip < 0 ? any : gzip;
	if (br > 0 && br >= gzip)
		return CODING_BR;
	return gzip > 0 ? CODING_GZIP : CODING_NONE;
}

bool static_etag_in(struct str list, const char *etag, bool weak)
{
	while (list.n) {
		struct str item = cut(&list, ',');
		if (str_eq(item, "*"))
			return true;
		if (weak && item.n > 2 && item.p[0] == 'W' && item.p[1] == '/') {
			item.p += 2;
			item.n -= 2;
		}
		if (str_eq(item, etag))
			return true;
	}
	return false;
}

/* A decimal number that fits; false when empty or not one. */
static bool number(struct str s, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (!isdigit((unsigned char)s.p[i]) || __builtin_mul_overflow(*out, 10, out) ||
		    __builtin_add_overflow(*out, (uint64_t)(s.p[i] - '0'), out))
			return false;
	}
	return s.n > 0;
}

enum range static_range(struct str value, uint64_t size, uint64_t *first, uint64_t *length)
{
	uint64_t a, b;

	value = trim(value);
	if (value.n < 6 || strncasecmp(value.p, "bytes=", 6) != 0)
		return RANGE_NONE;
	value.p += 6;
	value.n -= 6;
	if (memchr(value.p, ',', value.n) || !memchr(value.p, '-', value.n))
		return RANGE_NONE;
	struct str from = cut(&value, '-');
	struct str to = trim(value);
	if (from.n == 0) { /* the last b bytes */
		if (!number(to, &b))
			return RANGE_NONE;
		if (b == 0 || size == 0)
			return RANGE_BAD;
		*length = b < size ? b : size;
		*first = size - *length;
		return RANGE_ONE;
	}
	if (!number(from, &a) || (to.n && (!number(to, &b) || b < a)))
		return RANGE_NONE;
	if (a >= size)
		return RANGE_BAD;
	*first = a;
	*length = (to.n && b < size - 1 ? b : size - 1) - a + 1;
	return RANGE_ONE;
}
