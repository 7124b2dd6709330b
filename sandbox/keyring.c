/* A session keyring of our own: the caller's would be inherited, with the keys of whoever started the daemon. The
 * filter then refuses the calls altogether. keyrings(7), session-keyring(7). */
#include <errno.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/contain.h"

int keyring_fresh(struct contain *c, struct err *err)
{
	long fresh = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0);

	if (fresh < 0 && errno == ENOSYS) /* a kernel without keys */
		return 0;
	if (fresh < 0)
		return err_set(err, errno, "join a fresh session keyring");
	if (syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0, 0) != fresh)
		return err_set(err, EPERM, "the fresh session keyring is not ours");
	return 0;
}
