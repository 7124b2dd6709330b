/* The files of one commit, as deciders see them: from git in the daemon, from a table in tests. */
#ifndef SPACED_BUILD_TREE_H
#define SPACED_BUILD_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct tree {
	/* Is there a regular file (or, with `dir`, a folder) of that path? */
	bool (*has)(void *ctx, const char *path, bool dir);
	/* Its bytes, at most `max`. 0, or -1 with err (ENOENT, EFBIG, ...). */
	int (*read)(void *ctx, const char *path, size_t max, struct buf *out, struct err *err);
	/* Object id of the whole tree. 0 or -1. */
	int (*id)(void *ctx, char oid[41], struct err *err);
	void *ctx;
};

#endif
