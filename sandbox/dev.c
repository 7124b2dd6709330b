/* /dev and /proc: only checked devices, a fresh procfs that shows only our own processes, and masks over what speaks
 * of the host. Steps of the plan, called by mnt.c. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"

/* mknod is not possible in a user namespace, so the host's nodes are bound. The inode that is mounted is the one
 * that was checked: both through one descriptor (CVE-2025-31133, battery A5). */
static int device_mount(const char *path, dev_t device, struct err *err)
{
	cleanup_close int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, errno, "the host's %s", path);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != device)
		return err_set(err, ENODEV, "the host's %s is not what it should be", path);
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
		return err_set(err, errno, "mount attributes of %s", path);
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
	return mnt_move(fd, root, s->target + 1, err);
}

int dev_pts(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(root, s->target, true, err);
	cleanup_close int fs = fsopen("devpts", FSOPEN_CLOEXEC);

	if (at < 0)
		return -1;
	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_FLAG, "newinstance", NULL, 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "ptmxmode", "0666", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0620", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "max", "256", 0) < 0 || /* of 3072 for all of the host's instances */
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_set(err, errno, "make a devpts");
	cleanup_close int fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	return fd < 0 ? err_set(err, errno, "mount a devpts") : mnt_move(fd, at, "", err);
}

/* hidepid=invisible: a process that may not be traced is not there. Pid 1, which still has the caller's memory, is
 * not dumpable, so even its name stays hidden (battery B3, B4). */
int proc_mount(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(root, s->target, true, err);
	cleanup_close int fs = fsopen("proc", FSOPEN_CLOEXEC);

	if (at < 0)
		return -1;
	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "hidepid", "invisible", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_set(err, errno, "make a procfs (the host's own /proc must be fully visible)");
	cleanup_close int fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return fd < 0 ? err_set(err, errno, "mount a procfs") : mnt_move(fd, at, "", err);
}

static int empty_folder(struct err *err)
{
	cleanup_close int fd = mnt_tmpfs(4096, 0555, 0, err);
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC};

	if (fd < 0)
		return -1;
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
		return err_set(err, errno, "mount attributes of a mask");
	return steal_fd(&fd);
}

int proc_mask(int root, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = openat(root, s->target + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (at < 0 && errno == ENOENT)
		return 0;
	if (at < 0 || fstat(at, &st) < 0)
		return err_set(err, errno, "mask");
	cleanup_close int fd = S_ISDIR(st.st_mode) ? empty_folder(err) : device_mount("/dev/null", makedev(1, 3), err);
	return fd < 0 ? -1 : mnt_move(fd, at, "", err);
}

int proc_freeze(int root, const struct plan_step *s, struct err *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	cleanup_close int at = openat(root, s->target + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (at < 0)
		return errno == ENOENT ? 0 : err_set(err, errno, "make read-only");
	cleanup_close int fd = open_tree(at, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
		return err_set(err, errno, "make read-only");
	return mnt_move(fd, at, "", err);
}
