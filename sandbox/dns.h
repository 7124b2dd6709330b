/* The few DNS messages (RFC 1035) that the name server of an egress list knows: a question, and the IPv4 addresses of one
 * name. Pure; both directions are outside bytes (tests/fuzz/fuzz_dns.c). Nothing of what was read is passed on as bytes,
 * besides the question in an answer to who has asked it. */
#ifndef SANDBOX_DNS_H
#define SANDBOX_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/egress_list.h"

#define DNS_MESSAGE 512	 /* bytes of a message over UDP without EDNS: what we send */
#define DNS_RECEIVE 4096 /* what we take */
#define DNS_QUESTION 259 /* bytes: a name of 255, type, class */
#define DNS_ADDRESSES 14 /* of one name: 12 + 259 + 14 * 16 < 512 */
#define DNS_TYPE_A 1

enum dns_rcode { DNS_OK = 0, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_REFUSED = 5 };

struct dns_query {
	uint16_t id;
	bool recursion; /* was desired */
	uint16_t type;
	char name[EGRESS_NAME_MAX + 1]; /* lower case; "" when it is none that a list could name */
	uint8_t question[DNS_QUESTION]; /* as it came */
	size_t question_len;
};
/* A standard query with one question of class IN; what follows it (EDNS) is not looked at. 0 or -1: nothing to answer. */
int dns_parse_query(const uint8_t *p, size_t n, struct dns_query *out);
/* Asks for the addresses of a name of EGRESS_NAME_MAX at most. Returns the length. */
size_t dns_build_query(uint16_t id, const char *name, uint8_t out[DNS_MESSAGE]);

struct dns_address {
	uint32_t addr; /* host order */
	uint32_t ttl;  /* seconds; the least of the chain of CNAMEs to it */
};
struct dns_answer {
	uint16_t id;
	uint8_t rcode;
	struct dns_address a[DNS_ADDRESSES]; /* the first ones */
	size_t n;
};
/* The answer to dns_build_query(id, name): the id is the caller's to compare, the question is compared here. */
int dns_parse_answer(const uint8_t *p, size_t n, const char *name, struct dns_answer *out);
size_t dns_build_answer(const struct dns_query *q, enum dns_rcode rcode, const struct dns_address *a, size_t n,
			uint8_t out[DNS_MESSAGE]);

#endif
