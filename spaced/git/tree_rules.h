/* What a tree, and a .gitmodules file in it, may hold before it is checked out by anybody. Pure: bytes in, reason out.
 * Used when objects arrive (check.c) and again when a tree leaves as an archive (archive.c). */
#ifndef SPACED_GIT_TREE_RULES_H
#define SPACED_GIT_TREE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define TREE_MODE_DIR 040000U
#define TREE_MODE_LINK 0120000U
#define TREE_MODE_GITLINK 0160000U

struct tree_entry {
	uint32_t mode;
	struct str name;
	const uint8_t *oid; /* 20 raw bytes */
};

/* Takes the next entry off `rest`: 1, 0 at the end, -1 malformed (git-fsck(1): badTree, zeroPaddedFilemode). */
int tree_next(struct str *rest, struct tree_entry *e);
/* Why this entry is refused, or NULL: mode, "", ".", "..", '/', everything that some file system takes for ".git"
 * (CVE-2014-9390, CVE-2019-1352, -1353), a symlink in place of .gitmodules and its kin (CVE-2018-11235). */
const char *tree_entry_error(const struct tree_entry *e);
/* Why a whole tree is refused: any entry, wrong order, a name twice. */
const char *tree_error(struct str raw);
bool tree_is_dotgit(struct str name);
bool tree_is_gitmodules(struct str name);
/* Why the text of a .gitmodules file is refused, or NULL (CVE-2018-17456, CVE-2018-11235, CVE-2020-5260). */
const char *gitmodules_error(struct str text);

#endif
