/* See credentials.h. */
#include "proxy/credentials.h"

#include <string.h>

#include "proxy/http1_impl.h"

#define SIGN "__sign"

static bool named(const struct http1_field *f, const char *name, size_t n)
{
	return f->name.n == n && strncasecmp(f->name.p, name, n) == 0;
}
#define NAMED(f, lit) named(f, lit, sizeof(lit) - 1)

/* The name of a "name=value" and, behind it, the value. */
static struct str pair_name(struct str pair, struct str *value)
{
	const char *eq = memchr(pair.p, '=', pair.n);
	size_t n = eq ? (size_t)(eq - pair.p) : pair.n;

	*value = eq ? http1_trim((struct str){eq + 1, pair.n - n - 1}) : (struct str){pair.p + n, 0};
	return http1_trim((struct str){pair.p, n});
}

static bool sets_ours(struct str set_cookie)
{
	struct cookie c;
	bool prefixed;

	if (!cookie_next(&set_cookie, &c))
		return false;
	/* "=a=b" has no name, and comes back as "a=b" from browsers before Chrome 104 (CVE-2022-2860) and their kin. */
	struct str nameless = c.value;
	if (!c.name.n && !cookie_next(&nameless, &c))
		return false;
	return cookie_is(&c, COOKIE_ACCESS, &prefixed) || cookie_is(&c, COOKIE_SESSION, &prefixed) ||
	       cookie_is(&c, COOKIE_INSTANCE, &prefixed);
}

/* The field without our cookies; .n 0 when nothing is left. */
static struct str take_cookies(struct str v, bool secure, struct buf *scratch, struct credentials *c)
{
	size_t from = scratch->len;
	bool found = false, prefixed;
	struct str rest = v;
	struct cookie one;

	while (cookie_next(&rest, &one)) {
		if (cookie_is(&one, COOKIE_ACCESS, &prefixed)) {
			found = true;
			if (prefixed == secure && c->ncookies < CREDENTIALS_COOKIES)
				c->cookies[c->ncookies++] = one.value;
			continue;
		}
		if (cookie_is(&one, COOKIE_INSTANCE, &prefixed)) {
			found = true;
			continue;
		}
		if (!one.pair.n)
			continue;
		if (scratch->len > from)
			buf_adds(scratch, "; ");
		http1_add(scratch, one.pair);
	}
	return found ? (struct str){scratch->data + from, scratch->len - from} : v;
}

/* The target without `__sign`. */
static struct str take_sign(struct str target, struct buf *scratch, struct credentials *c)
{
	const char *query = memchr(target.p, '?', target.n);
	size_t from = scratch->len;
	bool first = true, more = true, found = false;

	if (!query || !memmem(query, target.n - (size_t)(query - target.p), SIGN, sizeof SIGN - 1))
		return target;
	buf_add(scratch, target.p, (size_t)(query - target.p));
	struct str rest = {query + 1, target.n - (size_t)(query - target.p) - 1};
	while (more) { /* an empty pair at the end counts: what is not ours stays as it came */
		const char *end = memchr(rest.p, '&', rest.n);
		struct str pair = {rest.p, end ? (size_t)(end - rest.p) : rest.n}, value;
		rest.n -= pair.n + (end != NULL);
		rest.p += pair.n + (end != NULL);
		more = end != NULL;
		if (str_eq(pair_name(pair, &value), SIGN)) {
			found = true;
			c->ambiguous = c->ambiguous || c->sign.p;
			c->sign = value;
			continue;
		}
		buf_addc(scratch, first ? '?' : '&');
		http1_add(scratch, pair);
		first = false;
	}
	return found ? (struct str){scratch->data + from, scratch->len - from} : target;
}

static void take_bearer(struct str v, struct str *token)
{
	if (v.n <= 7 || strncasecmp(v.p, "Bearer ", 7) != 0)
		return;
	*token = http1_trim((struct str){v.p + 7, v.n - 7});
}

/* Browsers say since 2023 from whose page a request comes (Fetch Metadata); others send Origin with what matters. */
struct origin {
	struct str origin, site, mode;
};

static bool is_own_page(const struct http1_request *r, const struct origin *o)
{
	/* Followed links and framed pages; no script can say so by itself. */
	if (r->method == HTTP1_GET && o->mode.p && str_ieq(o->mode, "navigate"))
		return true;
	if (o->site.p && !str_ieq(o->site, "same-origin") && !str_ieq(o->site, "none"))
		return false;
	if (!o->origin.p)
		return true;
	const char *sep = memmem(o->origin.p, o->origin.n, "://", 3);
	if (!sep)
		return false;
	struct str host = {sep + 3, o->origin.n - (size_t)(sep + 3 - o->origin.p)};
	return http1_same(host, r->authority);
}

void credentials_take(struct http1_request *r, bool secure, struct buf *scratch, struct credentials *c)
{
	unsigned authorizations = 0, hfs = 0;
	struct origin o = {0};
	size_t out = 0, room = r->target.n + 1;

	*c = (struct credentials){0};
	/* All at once: what was written must not move. */
	for (size_t i = 0; i < r->nfields; i++)
		if (NAMED(&r->fields[i], "cookie"))
			room += 2 * r->fields[i].value.n + 1; /* a "; " can stand for one ';' */
	buf_clear(scratch);
	buf_reserve(scratch, room);
	r->target = take_sign(r->target, scratch, c);
	for (size_t i = 0; i < r->nfields; i++) {
		struct http1_field f = r->fields[i];
		if (NAMED(&f, "cookie")) {
			f.value = take_cookies(f.value, secure, scratch, c);
			if (!f.value.n)
				continue;
		} else if (NAMED(&f, "x-hf-authorization")) {
			hfs++;
			take_bearer(f.value, &c->hf);
			continue;
		} else if (NAMED(&f, "authorization")) {
			authorizations++;
			take_bearer(f.value, &c->bearer);
		} else if (NAMED(&f, "origin")) {
			o.origin = f.value;
		} else if (NAMED(&f, "sec-fetch-site")) {
			o.site = f.value;
		} else if (NAMED(&f, "sec-fetch-mode")) {
			o.mode = f.value;
		}
		r->fields[out++] = f;
	}
	r->nfields = out;
	c->ambiguous = c->ambiguous || authorizations > 1 || hfs > 1;
	c->navigation = (r->method == HTTP1_GET || r->method == HTTP1_HEAD) && !r->websocket &&
			(o.mode.p ? str_ieq(o.mode, "navigate")
				  : r->accept.n && memmem(r->accept.p, r->accept.n, "text/html", 9) != NULL);
	c->own_page = is_own_page(r, &o);
}

void credentials_drop_authorization(struct http1_request *r)
{
	size_t out = 0;

	for (size_t i = 0; i < r->nfields; i++)
		if (!NAMED(&r->fields[i], "authorization"))
			r->fields[out++] = r->fields[i];
	r->nfields = out;
}

void credentials_guard(struct http1_response *r)
{
	size_t out = 0;

	for (size_t i = 0; i < r->nfields; i++)
		if (!NAMED(&r->fields[i], "set-cookie") || !sets_ours(r->fields[i].value))
			r->fields[out++] = r->fields[i];
	r->nfields = out;
}
