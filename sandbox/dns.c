/* See dns.h. */
#include "sandbox/dns.h"

#include <ctype.h>
#include <string.h>

#define HEAD 12
#define TYPE_CNAME 5
#define CLASS_IN 1
#define QR 0x8000
#define OPCODE 0x7800
#define RD 0x0100
#define RA 0x0080
#define CHAIN_MAX 16 /* CNAMEs on the way to an address */
#define RECORDS_MAX 128

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint8_t *put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static bool name_byte(uint8_t c)
{
	return isalnum(c) || c == '-' || c == '_';
}

/* Reads the name at *at and moves *at behind it; `out` gets it in lower case, "" when a byte in it is none of a host name.
 * False when it is malformed. Pointers only lead back, so it ends. */
static bool take_name(const uint8_t *p, size_t n, size_t *at, bool pointers, char out[EGRESS_NAME_MAX + 1])
{
	size_t i = *at, len = 0, least = *at;
	bool jumped = false, host = true;

	for (;;) {
		if (i >= n)
			return false;
		uint8_t label = p[i];
		if (label >= 0xc0 && pointers) {
			if (i + 2 > n)
				return false;
			size_t to = get16(p + i) & 0x3fff;
			if (!jumped)
				*at = i + 2;
			jumped = true;
			if (to >= least)
				return false;
			i = least = to;
			continue;
		}
		if (label > 63 || i + 1 + label > n)
			return false;
		if (label == 0)
			break;
		if (len + label + (len ? 1 : 0) > EGRESS_NAME_MAX)
			return false;
		if (len)
			out[len++] = '.';
		for (size_t k = 0; k < label; k++) {
			uint8_t c = p[i + 1 + k];
			host &= name_byte(c);
			out[len++] = (char)tolower(c);
		}
		i += 1U + label;
	}
	if (!jumped)
		*at = i + 1;
	out[host ? len : 0] = '\0';
	return true;
}

int dns_parse_query(const uint8_t *p, size_t n, struct dns_query *out)
{
	size_t at = HEAD;

	*out = (struct dns_query){0};
	if (n < HEAD || get16(p + 2) & (QR | OPCODE) || get16(p + 4) != 1)
		return -1;
	if (!take_name(p, n, &at, false, out->name) || at + 4 > n || get16(p + at + 2) != CLASS_IN)
		return -1;
	out->id = get16(p);
	out->recursion = get16(p + 2) & RD;
	out->type = get16(p + at);
	out->question_len = at + 4 - HEAD;
	memcpy(out->question, p + HEAD, out->question_len);
	return 0;
}

size_t dns_build_query(uint16_t id, const char *name, uint8_t out[DNS_MESSAGE])
{
	uint8_t *p = out;

	p = put16(p, id);
	p = put16(p, RD);
	p = put16(p, 1);
	memset(p, 0, 6);
	p += 6;
	while (*name) {
		size_t label = strcspn(name, ".");
		*p++ = (uint8_t)label;
		memcpy(p, name, label);
		p += label;
		name += label + (name[label] == '.');
	}
	*p++ = 0;
	p = put16(p, DNS_TYPE_A);
	p = put16(p, CLASS_IN);
	return (size_t)(p - out);
}

/* -- answers ---------------------------------------------------------------------------------------------------------- */

struct record {
	char owner[EGRESS_NAME_MAX + 1];
	uint16_t type;
	uint32_t ttl;
	const uint8_t *data;
	size_t at; /* of data, for names in it */
	size_t len;
};

static bool take_record(const uint8_t *p, size_t n, size_t *at, struct record *r)
{
	if (!take_name(p, n, at, true, r->owner) || *at + 10 > n)
		return false;
	r->type = get16(p + *at + 2) == CLASS_IN ? get16(p + *at) : 0;
	r->ttl = get32(p + *at + 4);
	r->len = get16(p + *at + 8);
	r->at = *at + 10;
	r->data = p + r->at;
	*at = r->at + r->len;
	return *at <= n;
}

/* One pass over the answers for owner `name`: addresses, or the next name of the chain. */
static int follow(const uint8_t *p, size_t n, size_t at, unsigned count, char name[EGRESS_NAME_MAX + 1], uint32_t *ttl,
		  struct dns_answer *out)
{
	char next[EGRESS_NAME_MAX + 1] = "";
	uint32_t next_ttl = 0;

	for (unsigned k = 0; k < count; k++) {
		struct record r;
		if (!take_record(p, n, &at, &r))
			break; /* cut off: what was whole counts */
		if (!r.owner[0] || strcmp(r.owner, name) != 0)
			continue;
		if (r.type == DNS_TYPE_A && r.len == 4 && out->n < DNS_ADDRESSES) {
			out->a[out->n++] = (struct dns_address){get32(r.data), r.ttl < *ttl ? r.ttl : *ttl};
		} else if (r.type == TYPE_CNAME && !next[0]) {
			size_t to = r.at;
			if (take_name(p, n, &to, true, next))
				next_ttl = r.ttl;
			else
				next[0] = '\0';
		}
	}
	if (out->n || !next[0])
		return 0;
	memcpy(name, next, sizeof next);
	*ttl = next_ttl < *ttl ? next_ttl : *ttl;
	return 1;
}

int dns_parse_answer(const uint8_t *p, size_t n, const char *name, struct dns_answer *out)
{
	char at_name[EGRESS_NAME_MAX + 1];
	uint32_t ttl = UINT32_MAX;
	size_t at = HEAD;

	*out = (struct dns_answer){0};
	if (n < HEAD || !(get16(p + 2) & QR) || get16(p + 2) & OPCODE || get16(p + 4) != 1)
		return -1;
	if (!take_name(p, n, &at, false, at_name) || at + 4 > n || strcmp(at_name, name) != 0 ||
	    get16(p + at) != DNS_TYPE_A || get16(p + at + 2) != CLASS_IN)
		return -1;
	out->id = get16(p);
	out->rcode = p[3] & 15;
	unsigned count = get16(p + 6);
	for (int k = 0; k < CHAIN_MAX; k++)
		if (follow(p, n, at + 4, count < RECORDS_MAX ? count : RECORDS_MAX, at_name, &ttl, out) == 0)
			break;
	return 0;
}

size_t dns_build_answer(const struct dns_query *q, enum dns_rcode rcode, const struct dns_address *a, size_t n,
			uint8_t out[DNS_MESSAGE])
{
	uint8_t *p = out;

	n = n < DNS_ADDRESSES ? n : DNS_ADDRESSES;
	p = put16(p, q->id);
	p = put16(p, QR | RA | (q->recursion ? RD : 0U) | (unsigned)rcode);
	p = put16(p, 1);
	p = put16(p, (unsigned)n);
	memset(p, 0, 4);
	p += 4;
	memcpy(p, q->question, q->question_len);
	p += q->question_len;
	for (size_t i = 0; i < n; i++) {
		p = put16(p, 0xc000 | HEAD);
		p = put16(p, DNS_TYPE_A);
		p = put16(p, CLASS_IN);
		p = put16(p, a[i].ttl >> 16);
		p = put16(p, a[i].ttl & 0xffff);
		p = put16(p, 4);
		p = put16(p, a[i].addr >> 16);
		p = put16(p, a[i].addr & 0xffff);
	}
	return (size_t)(p - out);
}
