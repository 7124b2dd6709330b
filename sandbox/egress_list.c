/* See egress_list.h. */
#include "sandbox/egress_list.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const struct {
	uint32_t addr;
	unsigned prefix;
} forbidden[] = {
    {0x00000000, 8},  /* this network */
    {0x0a000000, 8},  /* private */
    {0x64400000, 10}, /* shared address space of providers */
    {0x7f000000, 8},  /* loopback */
    {0xa83f8110, 32}, /* 168.63.129.16: Azure's WireServer */
    {0xa9fe0000, 16}, /* link-local, and with it the metadata services */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments; Oracle's metadata */
    {0xc0a80000, 16}, /* private */
    {0xc6120000, 15}, /* benchmarks */
    {0xe0000000, 4},  /* multicast */
    {0xf0000000, 4},  /* reserved, broadcast */
};
#define NFORBIDDEN (sizeof forbidden / sizeof *forbidden)

static uint32_t mask(unsigned prefix)
{
	return prefix ? ~0U << (32 - prefix) : 0;
}

static bool within_forbidden(uint32_t addr, unsigned prefix)
{
	for (size_t i = 0; i < NFORBIDDEN; i++)
		if (prefix >= forbidden[i].prefix && (addr & mask(forbidden[i].prefix)) == forbidden[i].addr)
			return true;
	return false;
}

bool egress_forbidden(uint32_t addr)
{
	return within_forbidden(addr, 32);
}

void egress_forbidden_text(struct buf *out)
{
	for (size_t i = 0; i < NFORBIDDEN; i++) {
		uint32_t a = forbidden[i].addr;
		buf_addf(out, "%s%u.%u.%u.%u/%u", i ? ", " : "", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
			 forbidden[i].prefix);
	}
}

/* -- one entry ------------------------------------------------------------------------------------------------------ */

static int refuse(struct err *err, struct str text, const char *why)
{
	return err_text(err, EINVAL, "egress entry `%.*s`: %s", (int)(text.n > 100 ? 100 : text.n), text.p, why);
}

/* Letters, digits, hyphens, and underscores, which some hosts have: labels of 1 to 63 bytes. Lower-cases into `out`. */
static bool take_name(struct str s, char out[EGRESS_NAME_MAX + 1])
{
	size_t label = 0;

	if (s.n && s.p[s.n - 1] == '.')
		s.n--;
	if (s.n == 0 || s.n > EGRESS_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '.' ? label == 0 : !(isalnum(c) || c == '_' || (c == '-' && label)))
			return false;
		label = c == '.' ? 0 : label + 1;
		if (label > 63 || c > 126)
			return false;
		out[i] = (char)tolower(c);
	}
	out[s.n] = '\0';
	return label > 0;
}

static bool take_number(struct str s, unsigned long min, unsigned long max, unsigned long *out)
{
	unsigned long v = 0;

	if (s.n == 0 || s.n > 5)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (!isdigit((unsigned char)s.p[i]))
			return false;
		v = v * 10 + (unsigned long)(s.p[i] - '0');
	}
	*out = v;
	return v >= min && v <= max;
}

/* Cuts what is behind the last `c` off `s`. */
static bool cut(struct str *s, char c, struct str *behind)
{
	const char *at = s->n ? memrchr(s->p, c, s->n) : NULL;

	if (!at)
		return false;
	*behind = (struct str){at + 1, s->n - (size_t)(at - s->p) - 1};
	s->n = (size_t)(at - s->p);
	return true;
}

/* Digits and dots alone are meant as an address, never as a name. */
static bool like_address(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isdigit((unsigned char)s.p[i]) && s.p[i] != '.')
			return false;
	return s.n > 0;
}

static int take_address(struct str s, const struct str *prefix, struct str text, struct egress_entry *e,
			struct err *err)
{
	char room[16];
	struct in_addr in;
	unsigned long bits = 32;

	if (s.n >= sizeof room)
		return refuse(err, text, "not an IPv4 address");
	memcpy(room, s.p, s.n);
	room[s.n] = '\0';
	if (inet_pton(AF_INET, room, &in) != 1)
		return refuse(err, text, "not an IPv4 address");
	if (prefix && !take_number(*prefix, 0, 32, &bits))
		return refuse(err, text, "the prefix is a number from 0 to 32");
	e->prefix = (unsigned)bits;
	e->addr = ntohl(in.s_addr);
	if ((e->addr & mask(e->prefix)) != e->addr)
		return refuse(err, text, "there are bits behind the prefix");
	if (within_forbidden(e->addr, e->prefix))
		return refuse(err, text, "private and special addresses are never reachable");
	return 0;
}

int egress_entry_parse(struct str text, struct egress_entry *out, struct err *err)
{
	struct str s = text, part;
	unsigned long port = 0;

	*out = (struct egress_entry){0};
	if (s.n && memchr(s.p, '\0', s.n))
		return refuse(err, STR("?"), "a zero byte");
	if (s.n && (memchr(s.p, '[', s.n) || (memchr(s.p, ':', s.n) != memrchr(s.p, ':', s.n))))
		return refuse(err, text, "sandboxes have no IPv6");
	if (cut(&s, ':', &part) && !take_number(part, 1, 65535, &port))
		return refuse(err, text, "the port is a number from 1 to 65535");
	out->port = (uint16_t)port;
	bool network = cut(&s, '/', &part);
	if (network || like_address(s))
		return take_address(s, network ? &part : NULL, text, out, err);
	if (s.n > 2 && s.p[0] == '*' && s.p[1] == '.') {
		out->below = true;
		s = (struct str){s.p + 2, s.n - 2};
		if (like_address(s))
			return refuse(err, text, "neither a host name nor an IPv4 address");
	}
	return take_name(s, out->name) ? 0 : refuse(err, text, "neither a host name nor an IPv4 address");
}

bool egress_name_matches(const struct egress_entry *e, const char *name)
{
	size_t n = strlen(name), k = strlen(e->name);

	if (k == 0)
		return false;
	if (!e->below)
		return strcmp(e->name, name) == 0;
	return n > k + 1 && name[n - k - 1] == '.' && strcmp(name + n - k, e->name) == 0;
}

bool egress_name_listed(const struct egress_policy *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (egress_name_matches(&p->entries[i], name))
			return true;
	return false;
}

/* -- lists ---------------------------------------------------------------------------------------------------------- */

void egress_list_free(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

static struct str trimmed(struct str s)
{
	const char *comment = s.n ? memchr(s.p, '#', s.n) : NULL;

	if (comment)
		s.n = (size_t)(comment - s.p);
	while (s.n && isspace((unsigned char)s.p[0]))
		s = (struct str){s.p + 1, s.n - 1};
	while (s.n && isspace((unsigned char)s.p[s.n - 1]))
		s.n--;
	return s;
}

char **egress_list_parse(struct str text, struct err *err)
{
	char **list = xcalloc(EGRESS_LIST_MAX + 1, sizeof *list);
	struct egress_entry e;
	size_t n = 0;

	for (unsigned no = 1; text.n; no++) {
		const char *end = memchr(text.p, '\n', text.n);
		size_t len = end ? (size_t)(end - text.p) : text.n;
		struct str line = trimmed((struct str){text.p, len});

		text = (struct str){text.p + len + (end ? 1 : 0), text.n - len - (end ? 1 : 0)};
		if (line.n == 0)
			continue;
		int r = n == EGRESS_LIST_MAX ? err_text(err, E2BIG, "more than %d entries", EGRESS_LIST_MAX)
					     : egress_entry_parse(line, &e, err);
		if (r < 0) {
			err_prefix(err, "line %u", no);
			egress_list_free(list);
			return NULL;
		}
		list[n++] = xstrndup(line.p, line.n);
	}
	return list;
}

void egress_policy_release(struct egress_policy *p)
{
	free(p->entries);
	*p = (struct egress_policy){0};
}

int egress_policy_of(const struct sandbox_spec *spec, struct egress_policy *out, struct err *err)
{
	size_t n = 0;

	*out = (struct egress_policy){.kind = spec->egress, .bandwidth = spec->limits.bandwidth};
	if (spec->egress != EGRESS_LIST)
		return 0;
	while (spec->egress_list && spec->egress_list[n])
		n++;
	if (n > EGRESS_LIST_MAX)
		return err_text(err, E2BIG, "%zu egress entries: at most %d", n, EGRESS_LIST_MAX);
	out->entries = xcalloc(n + 1, sizeof *out->entries);
	for (; out->n < n; out->n++) {
		if (egress_entry_parse(STRZ(spec->egress_list[out->n]), &out->entries[out->n], err) < 0) {
			egress_policy_release(out);
			return -1;
		}
	}
	return 0;
}
