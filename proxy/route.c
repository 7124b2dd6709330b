/* See route.h: routes on the wire, the folding of host names, and the table that each request asks once. */
#include "proxy/route.h"

#include <arpa/inet.h>
#include <errno.h>

#include "proxy/rate.h"
#include "proxy/sticky.h"
#include "proxy/ticket.h"

#define TITLE_MAX 1024
#define TEXT_MAX (64U * 1024)
#define HEADERS_MAX (8U * 1024)

void route_release(struct route *r)
{
	free(r->page_title);
	free(r->page_text);
	free(r->headers);
	memset(r, 0, sizeof *r);
}

void route_encode(const struct route *r, struct buf *b)
{
	put_str(b, r->host);
	put_u8(b, (uint8_t)r->kind);
	put_u8(b, (uint8_t)r->nendpoints);
	for (unsigned i = 0; i < r->nendpoints; i++) {
		put_str(b, r->endpoints[i].name);
		put_u32(b, r->endpoints[i].generation);
	}
	put_u32(b, r->port);
	put_str(b, r->sticky);
	put_str(b, r->site);
	put_str(b, r->space);
	put_u32(b, r->page_status);
	put_u8(b, r->page_refresh);
	put_str(b, r->page_title);
	put_str(b, r->page_text);
	put_str(b, r->headers);
	put_str(b, r->space_id);
	put_u8(b, r->gated);
	put_u32(b, r->rate);
}

/* "Name: value\r\n" any number of times: these bytes go into responses as they are. */
static bool header_lines_ok(const char *s)
{
	while (s && *s) {
		size_t name = strcspn(s, ":\r\n");
		if (name == 0 || s[name] != ':')
			return false;
		for (size_t i = 0; i < name; i++)
			if (!(s[i] == '-' || (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'Z') ||
			      (s[i] >= 'a' && s[i] <= 'z')))
				return false;
		size_t line = name + strcspn(s + name, "\r\n");
		for (size_t i = name; i < line; i++)
			if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
				return false;
		if (s[line] != '\r' || s[line + 1] != '\n')
			return false;
		s += line + 2;
	}
	return true;
}

/* Host names in the table are canonical already; a wildcard is "*." before one. */
static bool table_host_ok(const char *host)
{
	char folded[ROUTE_HOST_MAX + 1];
	const char *name = strncmp(host, "*.", 2) == 0 ? host + 2 : host;
	size_t n = strlen(name);

	return n && name[n - 1] != '.' && route_canonical_host((struct str){name, n}, folded) &&
	       strcmp(folded, name) == 0;
}

static void get_endpoints(struct reader *rd, struct route *r)
{
	r->nendpoints = get_u8(rd);
	if (r->nendpoints > ROUTE_ENDPOINTS_MAX) {
		rd->bad = true;
		r->nendpoints = 0;
	}
	for (unsigned i = 0; i < r->nendpoints; i++) {
		get_str(rd, r->endpoints[i].name, sizeof r->endpoints[i].name);
		r->endpoints[i].generation = get_u32(rd);
	}
}

/* Pages and holds have none, all else has at least one. */
static bool endpoints_ok(const struct route *r)
{
	size_t max = r->kind == ROUTE_APP ? 80 : sizeof r->endpoints->name - 1;

	for (unsigned i = 0; i < r->nendpoints; i++) {
		size_t n = strlen(r->endpoints[i].name);
		if (n == 0 || n > max)
			return false;
	}
	return (r->nendpoints > 0) == (r->kind == ROUTE_APP || r->kind == ROUTE_UNIX || r->kind == ROUTE_TCP);
}

int route_decode(struct reader *rd, struct route *r)
{
	memset(r, 0, sizeof *r);
	get_str(rd, r->host, sizeof r->host);
	r->kind = get_u8(rd);
	get_endpoints(rd, r);
	uint32_t port = get_u32(rd);
	get_str(rd, r->sticky, sizeof r->sticky);
	get_str(rd, r->site, sizeof r->site);
	get_str(rd, r->space, sizeof r->space);
	uint32_t status = get_u32(rd);
	r->page_refresh = get_u8(rd) != 0;
	r->page_title = get_strdup(rd, TITLE_MAX);
	r->page_text = get_strdup(rd, TEXT_MAX);
	r->headers = get_strdup(rd, HEADERS_MAX);
	get_str(rd, r->space_id, sizeof r->space_id);
	r->gated = get_u8(rd) != 0;
	r->rate = get_u32(rd);
	r->port = (uint16_t)port;
	r->page_status = (uint16_t)status;

	bool ok = !rd->bad && r->kind >= ROUTE_APP && r->kind <= ROUTE_HOLD && port <= 65535 &&
		  table_host_ok(r->host) && header_lines_ok(r->headers) && endpoints_ok(r) &&
		  (!r->sticky[0] || strlen(r->sticky) == sizeof r->sticky - 1);
	if (ok && r->kind == ROUTE_APP)
		ok = port != 0;
	if (ok && r->kind == ROUTE_PAGE)
		ok = status >= 200 && status <= 599;
	ok = ok && r->rate <= RATE_MAX;
	if (ok && (r->space_id[0] || r->gated))
		ok = ticket_id_ok(r->space_id);
	if (!ok) {
		route_release(r);
		return -EBADMSG;
	}
	return 0;
}

static bool fold_ipv6(struct str host, size_t close, char out[ROUTE_HOST_MAX + 1])
{
	char text[INET6_ADDRSTRLEN + 1];
	struct in6_addr a;

	if (close < 3 || close - 1 >= sizeof text)
		return false;
	memcpy(text, host.p + 1, close - 1);
	text[close - 1] = '\0';
	if (inet_pton(AF_INET6, text, &a) != 1)
		return false;
	out[0] = '[';
	inet_ntop(AF_INET6, &a, out + 1, INET6_ADDRSTRLEN);
	size_t n = strlen(out);
	out[n] = ']';
	out[n + 1] = '\0';
	return true;
}

static bool port_ok(struct str host, size_t at)
{
	unsigned port = 0;

	if (at == host.n)
		return true;
	if (host.p[at] != ':' || host.n - at > 6)
		return false;
	for (size_t i = at + 1; i < host.n; i++) {
		if (host.p[i] < '0' || host.p[i] > '9')
			return false;
		port = port * 10 + (unsigned)(host.p[i] - '0');
	}
	return port <= 65535;
}

bool route_canonical_host(struct str host, char out[ROUTE_HOST_MAX + 1])
{
	size_t n = 0, label = 0;

	out[0] = '\0';
	if (host.n == 0)
		return false;
	if (host.p[0] == '[') {
		const char *close = memchr(host.p, ']', host.n);
		return close && fold_ipv6(host, (size_t)(close - host.p), out) &&
		       port_ok(host, (size_t)(close - host.p) + 1);
	}
	size_t i = 0;
	for (; i < host.n && host.p[i] != ':'; i++) {
		char c = host.p[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c | 0x20);
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_') {
			if (++label > 63)
				return false;
		} else {
			return false;
		}
		/* One more than fits: the trailing dot of a longest name. */
		if (n > ROUTE_HOST_MAX || (n == ROUTE_HOST_MAX && c != '.'))
			return false;
		if (n < ROUTE_HOST_MAX)
			out[n] = c;
		n++;
	}
	if (n && label == 0)
		n--; /* one trailing dot: the root */
	out[n <= ROUTE_HOST_MAX ? n : 0] = '\0';
	if (n == 0 || n > ROUTE_HOST_MAX || !port_ok(host, i)) {
		out[0] = '\0';
		return false;
	}
	return true;
}

/* The table: a counted target per host. */

struct route_table {
	struct target *targets;
	size_t wildcards; /* while 0 an unknown host costs one probe */
};

struct target *target_ref(const struct target *t)
{
	struct target *mine = (struct target *)(uintptr_t)t;
	mine->refs++;
	return mine;
}

void target_unref(struct target *t)
{
	if (t && --t->refs == 0)
		free(t);
}

static char *put_text(char *at, const char *text)
{
	size_t n = strlen(text) + 1;

	memcpy(at, text, n);
	return at + n;
}

/* One allocation: the struct, its endpoints, then the strings. */
static struct target *target_new(const struct route *r)
{
	const char *from[] = {r->host, r->site, r->space, r->page_title, r->page_text, r->headers, r->space_id};
	size_t len[sizeof from / sizeof *from];
	size_t total = 1, endpoints = r->nendpoints * sizeof(struct target_endpoint);

	for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
		len[i] = from[i] ? strlen(from[i]) : 0;
		total += len[i] ? len[i] + 1 : 0;
	}
	for (unsigned i = 0; i < r->nendpoints; i++)
		total += strlen(r->endpoints[i].name) + 1 + (r->sticky[0] ? STICKY_VALUE : 0);
	struct target *t = xmalloc(sizeof *t + endpoints + total);
	struct target_endpoint *e = (struct target_endpoint *)(t + 1);
	char *nothing = (char *)e + endpoints, *at = nothing + 1; /* what all absent strings point at */
	*nothing = '\0';
	*t = (struct target){.kind = r->kind,
			     .refs = 1,
			     .port = r->port,
			     .page_status = r->page_status,
			     .nendpoints = (uint8_t)r->nendpoints,
			     .page_refresh = r->page_refresh,
			     .gated = r->gated,
			     .rate = r->rate,
			     .sticky = r->sticky[0] != '\0',
			     .endpoints = e};
	const char **to[] = {&t->host, &t->site, &t->space, &t->page_title, &t->page_text, &t->headers, &t->space_id};
	for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
		*to[i] = len[i] ? at : nothing;
		if (len[i])
			at = put_text(at, from[i]);
	}
	for (unsigned i = 0; i < r->nendpoints; i++) {
		const struct endpoint *named = &r->endpoints[i];
		e[i] = (struct target_endpoint){.name = at, .cookie = nothing, .generation = named->generation};
		at = put_text(at, named->name);
		if (!t->sticky)
			continue;
		sticky_value(r->sticky, named->name, named->generation, at);
		e[i].cookie = at;
		at += STICKY_VALUE;
	}
	return t;
}

struct route_table *route_table_new(void)
{
	return xcalloc(1, sizeof(struct route_table));
}

void route_table_free(struct route_table *t)
{
	struct target *target, *next;

	if (!t)
		return;
	HASH_ITER(hh, t->targets, target, next)
	{
		HASH_DEL(t->targets, target);
		target_unref(target);
	}
	free(t);
}

size_t route_table_size(const struct route_table *t)
{
	return HASH_COUNT(t->targets);
}

void route_table_remove(struct route_table *t, const char *host)
{
	struct target *target;

	HASH_FIND(hh, t->targets, host, strlen(host), target);
	if (!target)
		return;
	HASH_DEL(t->targets, target);
	t->wildcards -= target->host[0] == '*';
	target_unref(target);
}

void route_table_set(struct route_table *t, const struct route *r)
{
	route_table_remove(t, r->host);
	struct target *target = target_new(r);
	t->wildcards += r->host[0] == '*';
	HASH_ADD_KEYPTR(hh, t->targets, target->host, strlen(target->host), target);
}

const struct target *route_lookup(const struct route_table *t, struct str host)
{
	char key[ROUTE_HOST_MAX + 3];
	char *name = key + 1; /* room for the '*' of a wildcard */
	struct target *target;

	if (!route_canonical_host(host, name))
		return NULL;
	size_t n = strlen(name);
	HASH_FIND(hh, t->targets, name, n, target); /* NOLINT(clang-analyzer-core.*): the name was filled just above */
	for (char *dot = name; !target && t->wildcards && (dot = strchr(dot, '.')) != NULL; dot++) {
		char saved = dot[-1];
		dot[-1] = '*';
		HASH_FIND(hh, t->targets, dot - 1, strlen(dot - 1), target);
		dot[-1] = saved;
	}
	return target;
}

const struct target *route_at(const struct route_table *t, const char *host)
{
	struct target *target;

	HASH_FIND(hh, t->targets, host, strlen(host), target);
	return target;
}
