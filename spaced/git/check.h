/* Is what arrived whole and harmless? Every object of the incoming pack is read and checked, not only those below the
 * new tips: whatever is in the object store once is trusted later, so nothing unchecked may ever get in. What a new
 * object names must be in the pack or in the store (gitlinks excepted), which makes the store closed by induction. */
#ifndef SPACED_GIT_CHECK_H
#define SPACED_GIT_CHECK_H

#include <git2.h>

#include "base/err.h"
#include "spaced/git/receive.h"
#include "spaced/git/roles.h"

/* `incoming`: the pack alone; `all`: it and the store. 0, or -1 and what is wrong. */
int check_objects(git_odb *incoming, git_odb *all, const struct role_args *limits, struct err *err);
/* Each command's new tip exists and is of a kind that its ref may have; sets errors, and `forced`. */
void check_tips(git_repository *repo, git_odb *all, struct receive *r);

#endif
