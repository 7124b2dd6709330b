/* See trusted.h. */
#include "proxy/trusted.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define TEXT_MAX INET6_ADDRSTRLEN

static const struct in6_addr mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

static bool read_address(struct str s, struct in6_addr *out)
{
	char text[TEXT_MAX];

	if (s.n == 0 || s.n >= sizeof text || memchr(s.p, '\0', s.n))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	if (memchr(s.p, ':', s.n))
		return inet_pton(AF_INET6, text, out) == 1;
	*out = mapped;
	return inet_pton(AF_INET, text, &out->s6_addr[12]) == 1;
}

/* At most three digits. */
static bool read_bits(struct str s, unsigned *bits)
{
	uint64_t v;
	bool ok = str_digits(s, 3, &v);

	*bits = (unsigned)v;
	return ok;
}

static bool same_bits(const struct in6_addr *a, const struct in6_addr *b, unsigned bits)
{
	unsigned rest = bits % 8, whole = bits / 8;

	return memcmp(a, b, whole) == 0 && (!rest || (a->s6_addr[whole] ^ b->s6_addr[whole]) >> (8 - rest) == 0);
}

static bool read_network(struct str s, struct trusted_network *out)
{
	const char *slash = memchr(s.p, '/', s.n);
	struct str address = {s.p, slash ? (size_t)(slash - s.p) : s.n};
	struct in6_addr cut = {0};
	bool v4 = !memchr(address.p, ':', address.n);

	out->bits = v4 ? 32 : 128;
	if (!read_address(address, &out->address))
		return false;
	if (slash) {
		unsigned most = out->bits;
		if (!read_bits((struct str){slash + 1, s.n - address.n - 1}, &out->bits) || out->bits > most)
			return false;
	}
	out->bits += v4 ? 96 : 0;
	memcpy(&cut, &out->address, out->bits / 8);
	if (out->bits % 8)
		cut.s6_addr[out->bits / 8] =
		    out->address.s6_addr[out->bits / 8] & (uint8_t)(0xff << (8 - out->bits % 8));
	return memcmp(&cut, &out->address, sizeof cut) == 0;
}

static bool separates(char c)
{
	return c == ' ' || c == ',' || c == '\t';
}

int trusted_add(struct trusted *t, struct str list)
{
	while (list.n) {
		size_t n = 0;
		while (n < list.n && !separates(list.p[n]))
			n++;
		if (n && t->n == TRUSTED_MAX)
			return -E2BIG;
		if (n && !read_network((struct str){list.p, n}, &t->networks[t->n]))
			return -EINVAL;
		t->n += n > 0;
		n += n < list.n;
		list.p += n;
		list.n -= n;
	}
	return 0;
}

bool trusted_has(const struct trusted *t, const struct in6_addr *address)
{
	for (size_t i = 0; i < t->n; i++)
		if (same_bits(&t->networks[i].address, address, t->networks[i].bits))
			return true;
	return false;
}

/* A list in several fields, from its right end. */
struct backwards {
	const struct str *fields;
	size_t left; /* fields before `rest` */
	struct str rest;
	bool more; /* `rest` has another element */
};

static bool previous(struct backwards *b, struct str *item)
{
	while (!b->more) {
		if (b->left == 0)
			return false;
		b->rest = b->fields[--b->left];
		b->more = true;
	}
	size_t n = b->rest.n;
	while (n && b->rest.p[n - 1] != ',')
		n--;
	*item = (struct str){b->rest.p + n, b->rest.n - n};
	b->more = n > 0;
	b->rest.n = n ? n - 1 : 0;
	while (item->n && (item->p[0] == ' ' || item->p[0] == '\t'))
		item->p++, item->n--;
	while (item->n && (item->p[item->n - 1] == ' ' || item->p[item->n - 1] == '\t'))
		item->n--;
	return true;
}

/* An address as proxies write it: also in brackets, and with a port behind. */
static bool read_hop(struct str s, struct in6_addr *out)
{
	const char *end = s.n && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
	const char *colon = memchr(s.p, ':', s.n);

	if (end)
		return memchr(s.p, ':', (size_t)(end - s.p)) && (end + 1 == s.p + s.n || end[1] == ':') &&
		       read_address((struct str){s.p + 1, (size_t)(end - s.p) - 1}, out);
	if (colon && !memchr(colon + 1, ':', s.n - (size_t)(colon + 1 - s.p)))
		s.n = (size_t)(colon - s.p); /* 192.0.2.1:80 */
	return read_address(s, out);
}

static const char *read_proto(struct str s)
{
	return str_ieq(s, "https") ? "https" : str_ieq(s, "http") ? "http" : NULL;
}

struct visitor trusted_visitor(const struct trusted *t, const struct in6_addr *from, const struct str *fors,
			       size_t nfors, const struct str *protos, size_t nprotos)
{
	struct backwards way = {.fields = fors, .left = nfors}, said = {.fields = protos, .left = nprotos};
	struct visitor v = {.address = *from};
	struct in6_addr hop;
	struct str s, proto = {"", 0};
	size_t hops = 0;

	for (; trusted_has(t, &v.address) && previous(&way, &s) && read_hop(s, &hop); hops++)
		v.address = hop;
	for (size_t i = 0; (i == 0 || i < hops) && previous(&said, &s); i++)
		proto = s;
	v.proto = read_proto(proto);
	return v;
}
