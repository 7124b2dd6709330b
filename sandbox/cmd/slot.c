/* See slot.h. */
#include "sandbox/cmd/slot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/cgroup.h"

#define KILL_MS 1000 /* pid 1 inside dies with its launcher: the group is empty, or about to be */

/* The lock says that nobody else knows this group. False: something in it does not die (uninterruptible), the number is
 * of no use for now. */
static bool clear_group(const char *name)
{
	const struct cgroup_ops *ops = cgroup_host();
	struct cgroup left;
	struct err err = ERR_INIT;

	if (ops->open(name, &left, &err) < 0)
		return true;
	if (ops->kill(&left, KILL_MS, &err) == 0)
		return ops->remove(&left, &err) == 0;
	if (left.v2_dir >= 0)
		close(left.v2_dir);
	return false;
}

int slot_take(const char *state, const char *tag, char name[SANDBOX_NAME_MAX + 1], struct err *err)
{
	cleanup_free char *folder = xasprintf("%s/slots", state);
	int rc = io_mkdir(AT_FDCWD, folder, 0700);

	if (rc < 0)
		return err_set(err, -rc, "make `%s`", folder);
	for (int n = 0; n < SLOTS; n++) {
		cleanup_free char *path = xasprintf("%s/%d", folder, n);
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0)
			return err_set(err, errno, "open `%s`", path);
		snprintf(name, SANDBOX_NAME_MAX + 1, "run-%s-%d", tag, n);
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && clear_group(name))
			return n; /* fd stays open: it is the lock */
		close(fd);
	}
	return err_text(err, EAGAIN, "more than %d sandboxes at once", SLOTS);
}
