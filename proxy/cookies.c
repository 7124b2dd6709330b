/* See cookies.h. */
#include "proxy/cookies.h"

#include <string.h>
#include <strings.h>

#include "proxy/http1_impl.h"

bool cookie_next(struct str *rest, struct cookie *c)
{
	if (!rest->n)
		return false;
	const char *end = memchr(rest->p, ';', rest->n);
	struct str pair = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
	rest->n -= pair.n + (end != NULL);
	rest->p += pair.n + (end != NULL);
	c->pair = http1_trim(pair);
	const char *eq = memchr(c->pair.p, '=', c->pair.n);
	size_t n = eq ? (size_t)(eq - c->pair.p) : c->pair.n;
	c->name = http1_trim((struct str){c->pair.p, n});
	c->value = eq ? http1_trim((struct str){eq + 1, c->pair.n - n - 1}) : (struct str){c->pair.p + c->pair.n, 0};
	return true;
}

bool cookie_is(const struct cookie *c, const char *ours, bool *prefixed)
{
	size_t n = sizeof COOKIE_PREFIX - 1;
	struct str name = c->name;

	*prefixed = name.n > n && strncasecmp(name.p, COOKIE_PREFIX, n) == 0;
	if (*prefixed)
		name = (struct str){name.p + n, name.n - n};
	return str_ieq(name, ours);
}
