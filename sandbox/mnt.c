/* Mounts by descriptor: carries out the plan in the staging folder, then makes the result the root. Nothing is ever
 * mounted by a path that somebody else could change: sources are descriptors, targets are resolved by openat2(2)
 * inside the new root (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310; battery A2-A4, A8). */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"

#define MNT_SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static int not_idmappable(int source, struct err *err)
{
	char link[64], path[200] = "";

	snprintf(link, sizeof link, "/proc/self/fd/%d", source);
	ssize_t n = readlink(link, path, sizeof path - 1);
	return err_set(
	    err, EINVAL,
	    "`%.*s` is on a file system that this kernel cannot show with a sandbox's ids: ext4, xfs and btrfs "
	    "it can, tmpfs from Linux 6.3 on",
	    n > 0 ? (int)n : 0, path);
}

/* Parent: a private copy of the mount below `source`, shown with the ids of `userns`. Setting the attributes on the
 * detached copy means that it never exists without them. */
int mnt_clone_for(const struct plan_mount *m, int source, int userns, struct err *err)
{
	cleanup_close int fd = open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	struct mount_attr attr = {.attr_set = MNT_SAFE | (m->write ? 0 : MOUNT_ATTR_RDONLY)};

	if (fd < 0)
		return err_set(err, errno, "clone the mount of a source");
	if (m->idmap) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (__u64)userns;
	}
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0)
		return steal_fd(&fd);
	if (m->idmap && !m->idmap_optional && errno == EINVAL)
		return not_idmappable(source, err);
	if (!m->idmap || !m->idmap_optional)
		return err_set(err, errno, m->idmap ? "idmapped mount" : "mount attributes");
	attr.attr_set &= ~(__u64)MOUNT_ATTR_IDMAP;
	attr.userns_fd = 0;
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
		return err_set(err, errno, "mount attributes");
	return steal_fd(&fd);
}

/* Parent: the folders that the overlays of a top volume need. Fresh ones belong to root inside. */
int mnt_prepare_top(int top, bool build_root, struct err *err)
{
	static const char *const names[] = {"root", "work", "usr", "usr-work", "dpkg", "dpkg-work"};

	for (size_t i = 0; i < (build_root ? 6 : 2); i++)
		if (mkdirat(top, names[i], 0755) < 0 && errno != EEXIST)
			return err_set(err, errno, "make `%s` in the writable volume", names[i]);
	return 0;
}

/* Rootless: the copy has to be made by us, from our own view of the caller's mounts, and is checked to be of the
 * same inode (battery A8). */
static int clone_own(const struct plan_mount *m, int source, struct err *err)
{
	char link[64], path[4096];
	struct stat a, b;
	struct mount_attr attr = {.attr_set = MNT_SAFE | (m->write ? 0 : MOUNT_ATTR_RDONLY)};

	snprintf(link, sizeof link, "/proc/self/fd/%d", source);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return err_set(err, errno, "path of a source");
	path[n] = '\0';
	cleanup_close int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (fd < 0)
		return err_set(err, errno, "clone the mount of `%s`", path);
	if (fstat(source, &a) < 0 || fstat(fd, &b) < 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		return err_set(err, ESTALE, "`%s` was swapped while it was mounted", path);
	if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
		return err_set(err, errno, "mount attributes of `%s`", path);
	return steal_fd(&fd);
}

static int source_fd(const struct sandbox_sources *src, const struct plan_mount *m)
{
	switch (m->source) {
	case PLAN_BASE_USR:
		return src->base_usr;
	case PLAN_SKELETON:
		return src->skeleton;
	case PLAN_LAYER:
		return src->layers[m->index];
	case PLAN_TOP:
		return src->top;
	case PLAN_BIND:
		return src->binds[m->index];
	default:
		return -1;
	}
}

static int fs_option(int fs, const char *key, const char *value, struct err *err)
{
	int rc =
	    value ? fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) : fsconfig(fs, FSCONFIG_SET_FLAG, key, NULL, 0);

	return rc < 0 ? err_set(err, errno, "mount option %s=%.200s", key, value ? value : "") : 0;
}

static int fs_mount(int fs, const char *type, unsigned attr, struct err *err)
{
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_set(err, errno, "make a %s", type);
	int fd = fsmount(fs, FSMOUNT_CLOEXEC, attr);
	return fd < 0 ? err_set(err, errno, "mount a %s", type) : fd;
}

/* A detached tmpfs with limits on bytes and inodes (battery G3); `owner` 0 is whoever makes it. */
int mnt_tmpfs(uint64_t size, mode_t mode, uid_t owner, struct err *err)
{
	cleanup_close int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	char text[4][32];

	if (fs < 0)
		return err_set(err, errno, "open a tmpfs");
	snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)size);
	snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)(size / 4096 < 64 ? 64 : size / 4096));
	snprintf(text[2], sizeof text[2], "%o", mode);
	snprintf(text[3], sizeof text[3], "%u", owner);
	if (fs_option(fs, "size", text[0], err) < 0 || fs_option(fs, "nr_inodes", text[1], err) < 0 ||
	    fs_option(fs, "mode", text[2], err) < 0 ||
	    (owner && (fs_option(fs, "uid", text[3], err) < 0 || fs_option(fs, "gid", text[3], err) < 0)))
		return -1;
	return fs_mount(fs, "tmpfs", MNT_SAFE, err);
}

int mnt_move(int mount, int dir, const char *target, struct err *err)
{
	unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (*target ? 0 : MOVE_MOUNT_T_EMPTY_PATH);

	if (move_mount(mount, "", dir, target, flags) < 0)
		return err_set(err, errno, "attach a mount at `%s`", target);
	return 0;
}

/* One component; made when missing. Symlinks are followed only inside `root`. */
static int descend(int root, const char *path, bool folder, struct err *err)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC | (folder ? O_DIRECTORY : 0),
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);

	if (fd < 0 && errno != ENOENT)
		return err_set(err, errno, "`/%s` in the image", path);
	return fd;
}

static int make_target(int dir, const char *name, bool folder)
{
	if (folder)
		return mkdirat(dir, name, 0755);
	cleanup_close int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	return fd < 0 ? -1 : 0;
}

int mnt_target(int root, const char *path, bool folder, struct err *err)
{
	char part[4096];
	size_t n = 0;
	cleanup_close int parent = -1;

	/* What the walls stand on may not be redirected: `/proc -> /app` in an image is refused (battery A2, A4-A6). */
	static const char *const fixed[] = {"proc", "dev", "usr", "tmp", "run"};
	path += *path == '/';
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		size_t len = strlen(fixed[i]);
		struct stat st;

		if (strncmp(path, fixed[i], len) == 0 && (path[len] == '\0' || path[len] == '/') &&
		    fstatat(root, fixed[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
			return err_set(err, ENOTDIR, "`/%s` in the image is not a folder", fixed[i]);
	}
	for (;;) {
		n += strcspn(path + n, "/");
		bool last = path[n] == '\0';
		snprintf(part, sizeof part, "%.*s", (int)n, path);
		int fd = descend(root, part, folder || !last, err);
		if (fd < 0 && errno != ENOENT)
			return -1;
		if (fd < 0) {
			const char *name = strrchr(part, '/');

			if (make_target(parent < 0 ? root : parent, name ? name + 1 : part, folder || !last) < 0)
				return err_set(err, errno, "make `/%s` in the image", part);
			fd = descend(root, part, folder || !last, err);
			if (fd < 0)
				return err_set(err, errno, "`/%s` in the image", part);
		}
		if (last)
			return fd;
		if (parent >= 0)
			close(parent);
		parent = fd;
		n++;
	}
}

static int attach(struct contain *c, const struct plan_step *s, struct err *err)
{
	struct stat st;

	if (fstat(c->mounts[s->mount], &st) < 0)
		return err_set(err, errno, "source of `%s`", s->target);
	cleanup_close int at = mnt_target(c->root, s->target, S_ISDIR(st.st_mode), err);
	return at < 0 ? -1 : mnt_move(c->mounts[s->mount], at, "", err);
}

static int stage_tmpfs(const struct plan_step *s, struct err *err)
{
	cleanup_close int fd = mnt_tmpfs(s->size, 0755, 0, err);

	if (fd < 0)
		return -1;
	if (mkdir(s->target, 0755) < 0)
		return err_set(err, errno, "make `%s`", s->target);
	return mnt_move(fd, AT_FDCWD, s->target, err);
}

/* `userxattr`: the only kind that a user namespace may mount; a layer made so must be read so. Lower folders are
 * relative to the staging folder, our working folder, which keeps the option short. */
static int overlay(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	bool is_root = strcmp(s->target, "new") == 0;

	if (fs < 0)
		return err_set(err, errno, "open an overlay");
	if (fs_option(fs, "lowerdir", s->text, err) < 0 || fs_option(fs, "userxattr", NULL, err) < 0)
		return -1;
	if (*s->upper && (fs_option(fs, "upperdir", s->upper, err) < 0 || fs_option(fs, "workdir", s->work, err) < 0))
		return -1;
	cleanup_close int fd = fs_mount(fs, "overlay", MNT_SAFE | (*s->upper ? 0 : MOUNT_ATTR_RDONLY), err);
	if (fd < 0)
		return err_prefix(err, "overlay of %s on %s", *s->upper ? s->upper : "nothing", s->text);
	if (!is_root) {
		cleanup_close int at = mnt_target(c->root, s->target + strlen("new"), true, err);
		return at < 0 ? -1 : mnt_move(fd, at, "", err);
	}
	if (mnt_move(fd, AT_FDCWD, s->target, err) < 0)
		return -1;
	c->root = steal_fd(&fd);
	return 0;
}

static int attach_tmpfs(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(c->root, s->target, true, err);
	cleanup_close int fd = at < 0 ? -1 : mnt_tmpfs(s->size, s->mode, s->owner, err);

	return fd < 0 ? -1 : mnt_move(fd, at, "", err);
}

static int empty(struct contain *c, const struct plan_step *s, struct err *err)
{
	struct open_how how = {.flags = O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	cleanup_close int fd = (int)syscall(SYS_openat2, c->root, s->target, &how, sizeof how);

	return fd < 0 && errno != ENOENT ? err_set(err, errno, "empty a file") : 0;
}

static int run_step(struct contain *c, const struct plan_step *s, struct err *err)
{
	switch (s->op) {
	case PLAN_STAGE:
		if (mkdir(s->target, 0755) < 0)
			return err_set(err, errno, "make `%s`", s->target);
		return mnt_move(c->mounts[s->mount], AT_FDCWD, s->target, err);
	case PLAN_FOLDER:
		return mkdir(s->target, 0755) < 0 ? err_set(err, errno, "make `%s`", s->target) : 0;
	case PLAN_POOL:
		return stage_tmpfs(s, err);
	case PLAN_OVERLAY:
		return overlay(c, s, err);
	case PLAN_ATTACH:
		return attach(c, s, err);
	case PLAN_TMPFS:
		return attach_tmpfs(c, s, err);
	case PLAN_SYMLINK:
		return symlinkat(s->text, c->root, s->target + 1) < 0 ? err_set(err, errno, "symlink") : 0;
	case PLAN_DEVICE:
		return dev_bind(c->root, s, err);
	case PLAN_DEVPTS:
		return dev_pts(c->root, s, err);
	case PLAN_PROC:
		return proc_mount(c->root, s, err);
	case PLAN_EMPTY:
		return empty(c, s, err);
	case PLAN_MASK:
		return proc_mask(c->root, s, err);
	case PLAN_FREEZE:
		return proc_freeze(c->root, s, err);
	}
	return err_set(err, EINVAL, "unknown step %d", (int)s->op);
}

int mnt_build(struct contain *c, struct err *err)
{
	/* Nothing that the host mounts later may show up here, nothing of ours there. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "make all mounts private");
	for (size_t i = 0; c->rootless && i < c->plan->nmounts; i++) {
		const struct plan_mount *m = &c->plan->mounts[i];

		if ((c->mounts[i] = clone_own(m, source_fd(c->src, m), err)) < 0)
			return -1;
	}
	umask(0);
	cleanup_close int staging = mnt_tmpfs(1 << 20, 0700, 0, err);
	if (staging < 0)
		return -1;
	/* Over "/": the one folder that exists everywhere. Our root stays the host's until mnt_enter(). */
	if (mnt_move(staging, AT_FDCWD, "/", err) < 0)
		return -1;
	if (fchdir(staging) < 0)
		return err_set(err, errno, "enter the staging folder");
	for (size_t i = 0; i < c->plan->nsteps; i++) {
		const struct plan_step *s = &c->plan->steps[i];

		if (run_step(c, s, err) < 0)
			return err_prefix(err, "%s", s->target);
	}
	return 0;
}

/* Nothing above "/", and it is what we have built: whoever gets this wrong leaves the host one ".." away. */
static int verify_root(const struct stat *want, struct err *err)
{
	struct statx root, up;

	if (statx(AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &root) < 0 ||
	    statx(AT_FDCWD, "/..", 0, STATX_INO | STATX_MNT_ID, &up) < 0)
		return err_set(err, errno, "look at the new root");
	if (root.stx_ino != want->st_ino || makedev(root.stx_dev_major, root.stx_dev_minor) != want->st_dev)
		return err_set(err, EXDEV, "the root is not the one that was built");
	if (up.stx_mnt_id != root.stx_mnt_id || up.stx_ino != root.stx_ino)
		return err_set(err, EXDEV, "there is something above the root");
	return 0;
}

/* pivot_root(2), "pivot_root(".", ".")": no folder is needed for the old root, which ends up on top of the new one,
 * with the staging folder on top of it. A umount of "." takes the topmost, so two of them take both; the working
 * folder in the old root makes them hit it and not the new one. */
int mnt_enter(struct contain *c, struct err *err)
{
	cleanup_close int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat want;

	if (old < 0 || fstat(c->root, &want) < 0 || fchdir(c->root) < 0)
		return err_set(err, errno, "enter the new root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return err_set(err, errno, "pivot_root");
	if (fchdir(old) < 0 || umount2(".", MNT_DETACH) < 0)
		return err_set(err, errno, "leave the staging folder");
	if (umount2(".", MNT_DETACH) < 0)
		return err_set(err, errno, "leave the old root");
	if (chdir("/") < 0)
		return err_set(err, errno, "enter the new root");
	close(c->root);
	c->root = -1;
	umask(022);
	return verify_root(&want, err);
}
