/* Mounts by descriptor: open_tree(2), fsopen(2), mount_setattr(2), move_mount(2). See mnt_ops.h. */
#include "sandbox/mnt_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/cleanup.h"

int mnt_verify(int fd, unsigned attr, struct err *err)
{
	static const struct {
		unsigned attr, flag;
	} table[] = {
	    {MOUNT_ATTR_RDONLY, ST_RDONLY},
	    {MOUNT_ATTR_NOSUID, ST_NOSUID},
	    {MOUNT_ATTR_NODEV, ST_NODEV},
	    {MOUNT_ATTR_NOEXEC, ST_NOEXEC},
	};
	struct statvfs have;

	if (fstatvfs(fd, &have) < 0)
		return err_set(err, errno, "look at a mount");
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (attr & table[i].attr && !(have.f_flag & table[i].flag))
			return err_set(err, EPERM, "a mount did not keep its attributes");
	return 0;
}

static int attributes(int fd, unsigned attr, bool submounts, struct err *err)
{
	struct mount_attr a = {.attr_set = attr};

	if (attr == 0)
		return 0;
	if (mount_setattr(fd, "", AT_EMPTY_PATH | (submounts ? AT_RECURSIVE : 0), &a, sizeof a) < 0)
		return err_set(err, errno, "mount attributes");
	return mnt_verify(fd, attr, err);
}

/* Attributes are set on the detached copy: it never exists anywhere without them. */
static int copy(int dir, const char *path, unsigned attr, bool submounts, struct err *err)
{
	cleanup_close int fd =
	    open_tree(dir, path,
		      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (*path ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH) |
			  (submounts ? AT_RECURSIVE : 0));

	if (fd < 0)
		return err_set(err, errno, "copy the mount of `%s`", path);
	return attributes(fd, attr, submounts, err) < 0 ? -1 : steal_fd(&fd);
}

static int make(const char *type, const struct mnt_option *o, unsigned attr, struct err *err)
{
	cleanup_close int fs = fsopen(type, FSOPEN_CLOEXEC);

	if (fs < 0)
		return err_set(err, errno, "open a %s", type);
	for (; o->key; o++)
		if (fsconfig(fs, o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->key, o->value, 0) < 0)
			return err_set(err, errno, "%s: mount option %s=%.200s", type, o->key,
				       o->value ? o->value : "");
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_set(err, errno, "make a %s", type);
	cleanup_close int fd = fsmount(fs, FSMOUNT_CLOEXEC, attr);
	if (fd < 0)
		return err_set(err, errno, "mount a %s", type);
	return mnt_verify(fd, attr, err) < 0 ? -1 : steal_fd(&fd);
}

static int move(int mount, int dir, const char *target, struct err *err)
{
	unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (*target ? 0 : MOVE_MOUNT_T_EMPTY_PATH);

	if (move_mount(mount, "", dir, target, flags) < 0)
		return err_set(err, errno, "attach a mount at `%s`", target);
	return 0;
}

static int staging(struct err *err)
{
	static const struct mnt_option options[] = {
	    {"size", "1048576"}, {"nr_inodes", "256"}, {"mode", "0700"}, {NULL, NULL}};
	cleanup_close int fd = make("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, err);

	/* Over "/": the one folder that exists everywhere. */
	return fd < 0 || move(fd, AT_FDCWD, "/", err) < 0 ? -1 : steal_fd(&fd);
}

const struct mnt_ops mnt_new_ops = {
    .label = "new",
    .detached = true,
    .staging = staging,
    .copy = copy,
    .make = make,
    .move = move,
};

/* Asked in ways that fail after the permission check but before anything is done. */
static bool refused(long rc)
{
	return rc < 0 && (errno == ENOSYS || errno == EPERM);
}

static bool has_new(void)
{
	const char *force = getenv("SPACED_FORCE");

	if (force && strstr(force, "mount_legacy"))
		return false;
	return !refused(open_tree(-1, "", 0)) && !refused(fsopen(NULL, 0)) &&
	       !refused(fsconfig(-1, FSCONFIG_SET_FLAG, NULL, NULL, 0)) && !refused(fsmount(-1, 0, 0)) &&
	       !refused(move_mount(-1, "", -1, "", 0)) && !refused(mount_setattr(-1, "", 0, NULL, 0));
}

const struct mnt_ops *mnt_host(void)
{
	static const struct mnt_ops *host;

	if (!host)
		host = has_new() ? &mnt_new_ops : &mnt_legacy_ops;
	return host;
}
