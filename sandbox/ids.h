/* Which user and group ids this process can give to others. As root of the host that is all of them. As an ordinary user
 * the daemon enters a user namespace of its own (spaced/role/rootless.h), in which it is root over what the host lends it:
 *
 *   IDS_RANGE   0 is the caller; from IDS_FIRST on, subordinate ids (subuid(5)): the roles have ids of their own, and all
 *               sandboxes together the range at IDS_BASE. One range for all, because a file system of the host cannot be
 *               shown with other ids there (mount_setattr(2) wants CAP_SYS_ADMIN over the file system): with a range each,
 *               they could not share layers.
 *   IDS_ONE     0 is the caller, and there is nothing else: the roles and the sandboxes are all the caller.
 *
 * Read from /proc/self/{uid,gid}_map, so that every role finds it out by itself. */
#ifndef SANDBOX_IDS_H
#define SANDBOX_IDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/spec.h"

enum ids_kind { IDS_ALL, IDS_RANGE, IDS_ONE };

#define IDS_FIRST 65534U /* nobody: monitors */
#define IDS_BASE 65600U	 /* as of sandbox_spec.id_base; roles without an account are just below */
#define IDS_COUNT (IDS_BASE - IDS_FIRST + SANDBOX_IDS)

/* Asked once and kept; ids_forget() after entering another user namespace. */
enum ids_kind ids_kind(void);
void ids_forget(void);
/* Root of the host, or of a container that gives as much. Root of a user namespace with few ids is not. */
bool ids_host_root(void);
/* The range for a sandbox for which `wanted` would be taken on a host with all ids. 0: only the caller's own id. */
uint32_t ids_base(uint32_t wanted);

/* What /etc/subuid and /etc/subgid lend to a user. */
struct ids_lent {
	uint32_t first, count;
};
/* The largest range of `file` for `uid`, whose account is `name` (may be NULL). False when it has fewer than IDS_COUNT. */
bool ids_lent(const char *file, uid_t uid, const char *name, struct ids_lent *out);
/* The same out of the file's text. */
bool ids_lent_parse(const char *text, uid_t uid, const char *name, struct ids_lent *out);
/* Whether the caller could have IDS_RANGE: both files, and the programs newuidmap and newgidmap, which map them. */
bool ids_range_possible(struct ids_lent *uids, struct ids_lent *gids);

/* Decider: what the text of a map (user_namespaces(7)) gives. */
enum ids_kind ids_kind_of(const char *map);

#endif
