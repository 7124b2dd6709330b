/* See sticky.h. */
#include "proxy/sticky.h"

#include <sodium.h>
#include <string.h>

#include "proxy/cookies.h"

void sticky_value(const char *key, const char *name, uint32_t generation, char out[STICKY_VALUE])
{
	unsigned char digest[(STICKY_VALUE - 1) / 2];
	char what[160];

	snprintf(what, sizeof what, "%u\n%s", generation, name);
	crypto_generichash(digest, sizeof digest, (const unsigned char *)what, strlen(what), (const unsigned char *)key,
			   strlen(key));
	sodium_bin2hex(out, STICKY_VALUE, digest, sizeof digest);
}

static bool well_formed(struct str v)
{
	for (size_t i = 0; i < v.n; i++)
		if (!((v.p[i] >= '0' && v.p[i] <= '9') || (v.p[i] >= 'a' && v.p[i] <= 'f')))
			return false;
	return v.n == STICKY_VALUE - 1;
}

int sticky_endpoint(const struct target *t, const char *value)
{
	for (unsigned i = 0; value[0] && i < t->nendpoints; i++)
		if (strcmp(t->endpoints[i].cookie, value) == 0)
			return (int)i;
	return -1;
}

void sticky_find(const struct http1_request *r, const struct target *t, bool secure, char out[STICKY_VALUE])
{
	char value[STICKY_VALUE];
	struct cookie c;
	bool prefixed;

	out[0] = '\0';
	for (size_t i = 0; i < r->nfields; i++) {
		struct str rest = r->fields[i].value;
		if (!str_ieq(r->fields[i].name, "cookie"))
			continue;
		while (cookie_next(&rest, &c)) {
			if (!cookie_is(&c, COOKIE_INSTANCE, &prefixed) || prefixed != secure || !well_formed(c.value))
				continue;
			memcpy(value, c.value.p, c.value.n);
			value[c.value.n] = '\0';
			bool known = sticky_endpoint(t, value) >= 0;
			if (known || !out[0])
				memcpy(out, value, sizeof value);
			if (known)
				return;
		}
	}
}

void sticky_set_cookie(const char *value, bool secure, struct buf *out)
{
	buf_addf(out, "Set-Cookie: %s" COOKIE_INSTANCE "=%s; Path=/; HttpOnly; SameSite=Lax%s\r\n",
		 secure ? COOKIE_PREFIX : "", value, secure ? "; Secure" : "");
}
