/* The few nf_tables requests that are not made by way of libnftables text: because its memory stays (the gate is resident),
 * or because it would read what other programs have written, which an older libnftables cannot do without crashing.
 * Over libmnl; in the caller's network namespace. */
#ifndef SANDBOX_NF_H
#define SANDBOX_NF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mnl_socket;
struct nf {
	struct mnl_socket *s;
	uint32_t seq;
};
int nf_open(struct nf *n, struct err *err);
void nf_close(struct nf *n);

/* Is there that table in family inet? 1, 0, or negative errno: nf_tables does not work here. */
int nf_table_present(const char *table);
/* Is there that chain in table ip `table`? */
bool nf_chain_present(const char *table, const char *chain);
/* Puts `key` (as the set's type has it on the wire) into a set of table inet `table` for `seconds`; one that is there
 * already starts anew. 0 or negative errno; answers within two seconds. */
int nf_set_add(struct nf *n, const char *table, const char *set, const void *key, uint16_t len, uint32_t seconds);

/* A base chain of hook forward whose policy is to drop, in family ip or inet. */
struct nf_forward {
	uint8_t family;
	char table[128];
	char chain[128];
	bool passed; /* a rule with the comment "spaced" is in it */
};
/* All of them (malloc'd array in *out). */
int nf_forward_drops(struct nf *n, struct nf_forward **out, size_t *count, struct err *err);
/* Two rules at its head, with that comment: what comes from links whose names begin with `prefix` passes, and answers to
 * them. */
int nf_forward_pass(struct nf *n, const struct nf_forward *f, const char *prefix, struct err *err);

#endif
