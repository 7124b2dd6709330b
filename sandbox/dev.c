/* /dev and /proc: only checked devices, a fresh procfs that shows only our own processes, and masks over what speaks
 * of the host. Steps of the plan, called by mnt.c. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"
#include "sandbox/mnt_ops.h"

/* mknod is not possible in a user namespace, so the host's nodes are bound. The inode that is mounted is the one
 * that was checked: both through one descriptor (CVE-2025-31133, battery A5). */
static int device_mount(const char *path, dev_t device, struct err *err)
{
	cleanup_close int fd = mnt_host()->copy(AT_FDCWD, path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false, err);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "the host's %s", path);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != device)
		return err_set(err, ENODEV, "the host's %s is not what it should be", path);
	return steal_fd(&fd);
}

int dev_bind(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int fd = device_mount(s->target, s->device, err);

	if (fd < 0)
		return -1;
	/* The folder is a tmpfs that we have just made: nothing in it is anybody else's. */
	cleanup_close int node = openat(root, s->target + 1, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
	if (node < 0)
		return err_set(err, errno, "make %s", s->target);
	return mnt_host()->move(fd, root, s->target + 1, err);
}

int dev_pts(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(root, s->target, true, err);
	static const struct mnt_option options[] = {
	    {"newinstance", NULL}, {"ptmxmode", "0666"},
	    {"mode", "0620"},	   {"max", "256"}, /* of 3072 for all of the host's instances */
	    {NULL, NULL},
	};
	cleanup_close int fd =
	    at < 0 ? -1 : mnt_host()->make("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);

	return fd < 0 ? -1 : mnt_host()->move(fd, at, "", err);
}

/* hidepid=2, invisible (by its number, which older kernels know too): a process that may not be traced is not there. Pid 1, which still has the caller's memory, is
 * not dumpable, so even its name stays hidden (battery B3, B4). */
int proc_mount(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(root, s->target, true, err);
	static const struct mnt_option options[] = {{"hidepid", "2"}, {NULL, NULL}};
	const unsigned attr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	cleanup_close int fd = at < 0 ? -1 : mnt_host()->make("proc", options, attr, err);

	if (at < 0 || fd < 0)
		return at < 0 ? -1 : err_prefix(err, "the host's own /proc must be fully visible");
	return mnt_host()->move(fd, at, "", err);
}

/* Read-only through and through: it is one file system for all folders that are masked. */
static int empty_folder(struct err *err)
{
	static const struct mnt_option options[] = {
	    {"size", "4096"}, {"nr_inodes", "2"}, {"mode", "0555"}, {NULL, NULL}};

	return mnt_host()->make("tmpfs", options,
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC, err);
}

/* The first mask of its kind is made, the others are copies of its mount. */
int proc_mask(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = openat(c->root, s->target + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (at < 0 && errno == ENOENT)
		return 0;
	if (at < 0 || fstat(at, &st) < 0)
		return err_set(err, errno, "mask");
	bool folder = S_ISDIR(st.st_mode);
	int *first = &c->masks[folder];
	cleanup_close int fd = *first >= 0 ? mnt_host()->copy(*first, "", 0, false, err)
			       : folder	   ? empty_folder(err)
					   : device_mount("/dev/null", makedev(1, 3), err);
	if (fd < 0 || mnt_host()->move(fd, at, "", err) < 0)
		return -1;
	if (*first < 0)
		*first = steal_fd(&fd);
	return 0;
}

int proc_freeze(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = openat(root, s->target + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (at < 0)
		return errno == ENOENT ? 0 : err_set(err, errno, "make read-only");
	cleanup_close int fd = mnt_host()->copy(at, "", MOUNT_ATTR_RDONLY, false, err);
	return fd < 0 ? -1 : mnt_host()->move(fd, at, "", err);
}
