/* What a sandbox may reach, as data, and the deciders about it: pure, no system calls. An egress list comes from a file of
 * the operator's, so its parser sees outside bytes (tests/fuzz/fuzz_egress_list.c).
 *
 * One entry, case of letters does not count:
 *
 *	HOST[:PORT]		that name; what it resolves to may be reached (port 1..65535; without: all, and ping)
 *	*.HOST[:PORT]		every name below HOST, not HOST itself
 *	ADDR[/PREFIX][:PORT]	an IPv4 address or network
 *
 * A file holds one entry a line; '#' begins a comment. What is not the Internet (egress_forbidden) stays out of reach
 * whatever a list says: an entry wholly inside of it is refused, an answer of DNS that points there is dropped. Names are
 * enforced by address: who shares an address with a listed name can be reached too. */
#ifndef SANDBOX_EGRESS_LIST_H
#define SANDBOX_EGRESS_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/spec.h"

#define EGRESS_LIST_MAX 256	/* entries */
#define EGRESS_LIST_BYTES 65536 /* of a file */
#define EGRESS_NAME_MAX 253	/* bytes of a host name without its last dot: RFC 1035 2.3.4 */

struct egress_entry {
	char name[EGRESS_NAME_MAX + 1]; /* lower case; "" for an address */
	bool below;			/* "*." was before it */
	uint32_t addr;			/* host order, the bits behind the prefix are zero */
	unsigned prefix;
	uint16_t port; /* 0: all */
};

/* What one sandbox may do. Plain values besides the entries. */
struct egress_policy {
	enum sandbox_egress kind;
	struct egress_entry *entries;
	size_t n;
	uint64_t bandwidth; /* bytes per second each way; 0: no limit */
};
void egress_policy_release(struct egress_policy *p);
/* From a spec, whose list has to be well-formed. */
int egress_policy_of(const struct sandbox_spec *spec, struct egress_policy *out, struct err *err);

int egress_entry_parse(struct str text, struct egress_entry *out, struct err *err);
/* A file's content as a NULL-ended list of entries (freed by egress_list_free), every one checked; the error names the line.
 * An empty list is one: it allows nothing. */
char **egress_list_parse(struct str text, struct err *err);
void egress_list_free(char **list);

/* Not the Internet: special-purpose ranges (IANA's registry, RFC 6890) and multicast, without the documentation ranges,
 * and the metadata services of clouds whose addresses look public. `addr` in host order. */
bool egress_forbidden(uint32_t addr);
/* The same as text of an nft set: "0.0.0.0/8, 10.0.0.0/8, ...". */
void egress_forbidden_text(struct buf *out);
/* A lower-case name without last dot against an entry. */
bool egress_name_matches(const struct egress_entry *e, const char *name);
/* Does any entry of the list name it? */
bool egress_name_listed(const struct egress_policy *p, const char *name);

#endif
