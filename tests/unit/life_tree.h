/* A commit as a table of files, for the deciders' tests. Include after cmocka. */
#ifndef TESTS_LIFE_TREE_H
#define TESTS_LIFE_TREE_H

#include <errno.h>
#include <string.h>

#include "spaced/build/tree.h"

struct fake_file {
	const char *path;
	const char *text;
};

/* ctx: an array ended by .path == NULL */
static inline const struct fake_file *fake_find(void *ctx, const char *path)
{
	for (const struct fake_file *f = ctx; f->path; f++)
		if (strcmp(f->path, path) == 0)
			return f;
	return NULL;
}

static inline bool fake_has(void *ctx, const char *path, bool dir)
{
	return !dir && fake_find(ctx, path);
}

static inline int fake_read(void *ctx, const char *path, size_t max, struct buf *out, struct err *err)
{
	const struct fake_file *f = fake_find(ctx, path);

	if (!f)
		return err_set(err, ENOENT, "%s", path);
	if (strlen(f->text) > max)
		return err_set(err, EFBIG, "%s", path);
	buf_adds(out, f->text);
	return 0;
}

static inline int fake_id(void *ctx, char oid[41], struct err *err)
{
	(void)ctx;
	(void)err;
	memcpy(oid, "0123456789012345678901234567890123456789", 41);
	return 0;
}

static inline struct tree fake_tree(const struct fake_file *files)
{
	return (struct tree){fake_has, fake_read, fake_id, (void *)files};
}

#endif
