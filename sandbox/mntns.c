/* The mount namespace in which sandboxes are born, for callers that start many: nothing in it but /proc and the devices that
 * are bound. To copy a mount namespace, and to leave what was copied, takes 2 us each mount, and a spawner has one for
 * each volume; and so not even the first instruction of a sandbox sees the host's files. See sandbox.h. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"
#include "sandbox/mnt_ops.h"

#define SELF "/proc/self/ns/mnt"

static int birthplace = -1;

static int take_over(int staging, const char *name, bool folder, struct err *err)
{
	cleanup_free char *path = xasprintf("/%s", name);
	cleanup_close int mnt = mnt_host()->copy(AT_FDCWD, path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false, err);
	cleanup_close int node = folder ? -1 : openat(staging, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);

	if (mnt < 0)
		return -1;
	if ((folder ? mkdirat(staging, name, 0555) : node) < 0)
		return err_set(err, errno, "make `%s`", name);
	return mnt_host()->move(mnt, staging, name, err);
}

static int build(struct err *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "make all mounts private");
	cleanup_close int staging = mnt_host()->staging(err);
	if (staging < 0)
		return -1;
	if (fchdir(staging) < 0 || chmod(".", 0555) < 0 || mkdir("dev", 0755) < 0)
		return err_set(err, errno, "make /dev");
	if (take_over(staging, "proc", true, err) < 0)
		return -1;
	for (const struct plan_device *d = plan_devices; d->path; d++)
		if (take_over(staging, d->path + 1, false, err) < 0)
			return -1;
	return mnt_make_root(err);
}

int sandbox_birthplace(struct err *err)
{
	struct mntns_way way;

	if (birthplace >= 0 || !mnt_host()->detached)
		return 0;
	if (mntns_out(&way, err) < 0)
		return -1;
	int made = -1, rc = build(err);
	if (rc == 0 && (made = open(SELF, O_RDONLY | O_CLOEXEC)) < 0)
		rc = err_set(err, errno, "open " SELF);
	mntns_home(&way);
	birthplace = made;
	return rc;
}

/* The way home is open before anything is left: no namespace is left in which there would be none. */
static int leave(struct mntns_way *way, int to, struct err *err)
{
	way->home = open(SELF, O_RDONLY | O_CLOEXEC);
	way->folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (way->home < 0 || way->folder < 0)
		err_set(err, errno, "the way back to our mounts");
	else if (to >= 0 ? setns(to, CLONE_NEWNS) < 0 : unshare(CLONE_NEWNS) < 0)
		err_set(err, errno, to >= 0 ? "enter the mount namespace of births" : "a mount namespace");
	else
		return 0;
	if (way->home >= 0)
		close(way->home);
	if (way->folder >= 0)
		close(way->folder);
	return -1;
}

int mntns_out(struct mntns_way *way, struct err *err)
{
	return leave(way, -1, err);
}

/* Not optional: all that the caller has mounted is there. setns(2) leaves us in "/". */
void mntns_home(struct mntns_way *way)
{
	if (setns(way->home, CLONE_NEWNS) < 0 || fchdir(way->folder) < 0)
		abort();
	close(way->home);
	close(way->folder);
}

int mntns_enter_birthplace(struct mntns_way *way, struct err *err)
{
	return leave(way, birthplace, err);
}

bool mntns_has_birthplace(void)
{
	return birthplace >= 0;
}
