/* The refs of one repository as one sorted table in one file (packed-refs): a push moves all its refs by a single
 * rename, so neither `kill -9` nor a reader in between ever sees half of it. (A libgit2 transaction commits ref by ref
 * and leaves its lock files behind when killed.) Used by the unpack role; control reads refs through it. */
#ifndef SPACED_GIT_REFS_H
#define SPACED_GIT_REFS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "spaced/git/receive.h"

struct ref {
	char *name;
	char oid[41];
	char peeled[41]; /* what an annotated tag names in the end; "" for others */
};
struct ref_table {
	struct ref *refs; /* sorted by name */
	size_t n, cap;
};

void ref_table_release(struct ref_table *t);
#define cleanup_ref_table __attribute__((cleanup(ref_table_release)))
struct ref *ref_table_find(const struct ref_table *t, const char *name);
struct ref *ref_table_put(struct ref_table *t, const char *name, const char *oid);
/* Pure: the text of packed-refs. Malformed lines are an error. */
int ref_table_parse(struct ref_table *t, struct str text, struct err *err);
void ref_table_print(const struct ref_table *t, struct buf *out);
/* Pure: decides a push. Commands that cannot be done get their error; the others are applied to `t`. True when
 * something changed. `peel` gives the peeled id of a new tip ("" for none). */
struct ref_rules {
	const char *default_ref; /* must not be deleted */
	size_t max_refs;	 /* in the whole repository */
	bool atomic;
	void (*peel)(void *ctx, const char *oid, char peeled[41]);
	void *ctx;
};
bool ref_table_apply(struct ref_table *t, struct receive *r, const struct ref_rules *rules);

/* All refs of the repository open at `repo_fd`: packed-refs, and loose ones over it, if an operator's git made some. */
int refs_read(int repo_fd, struct ref_table *t, struct err *err);
/* What HEAD names: "refs/heads/main". */
int refs_head(int repo_fd, char *out, size_t size, struct err *err);

/* The repository's lock, held by whoever changes it. Clears what a killed predecessor left behind. */
int refs_lock(int repo_fd, struct err *err); /* a descriptor; closing it unlocks */
/* Around changes of packs: a mark in the lock's file tells the next holder that this one was killed in between. */
int refs_mark(int lock_fd, bool set, struct err *err);
/* Replaces all refs by `t`, durably. The lock is held. `r`: the commands, whose loose files go. */
int refs_write(int repo_fd, int lock_fd, const struct ref_table *t, const struct receive *r, struct err *err);

#endif
