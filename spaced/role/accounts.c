/* Which user each role becomes; see role.h. */
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/ids.h"
#include "spaced/role/role.h"

static bool lookup(const char *user, const char *suffix, uid_t *uid, gid_t *gid)
{
	cleanup_free char *name = xasprintf("%s%s", user, suffix);
	struct passwd *pw = getpwnam(name);

	if (!pw)
		return false;
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return true;
}

struct accounts role_accounts(const struct config *config)
{
	struct accounts a;

	memset(&a, 0, sizeof a);
	if (geteuid() != 0 || ids_kind() == IDS_ONE)
		return a;
	uid_t below = ids_base(config->id_base);
	struct {
		const char *suffix;
		uid_t *uid;
		gid_t *gid;
	} const rows[] = {
	    {"", &a.control, &a.control_gid}, {"-proxy", &a.proxy, &a.proxy_gid}, {"-static", &a.files, &a.files_gid}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (ids_kind() == IDS_ALL && lookup(config->user, rows[i].suffix, rows[i].uid, rows[i].gid))
			continue;
		*rows[i].uid = *rows[i].gid = below - 1 - (uid_t)i;
		a.stand_in = ids_kind() == IDS_ALL;
	}
	return a;
}
