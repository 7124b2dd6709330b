/* Mounts by descriptor: carries out the plan in the staging folder, then makes the result the root. Nothing is ever
 * mounted by a path that somebody else could change: sources are descriptors, targets are resolved by openat2(2)
 * inside the new root (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310; battery A2-A4, A8). */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/resolve.h"
#include "sandbox/contain.h"
#include "sandbox/mnt_ops.h"

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

/* Below root of a user namespace, a mount that covers part of `source` cannot be left behind: it comes along. */
static int clone_tree(int source, unsigned *flags, struct err *err)
{
	int fd = open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

	*flags = AT_EMPTY_PATH;
	if (fd < 0 && errno == EINVAL) {
		*flags |= AT_RECURSIVE;
		fd = open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | *flags);
	}
	return fd < 0 ? err_set(err, errno, "clone the mount of a source") : fd;
}

/* Parent: a private copy of the mount below `source`, shown with the ids of `userns`. Setting the attributes on the
 * detached copy means that it never exists without them. */
int mnt_clone_for(const struct plan_mount *m, int source, int userns, struct err *err)
{
	unsigned flags;
	cleanup_close int fd = clone_tree(source, &flags, err);
	struct mount_attr attr = {.attr_set = MNT_SAFE | (m->write ? 0 : MOUNT_ATTR_RDONLY)};

	if (fd < 0)
		return -1;
	if (m->idmap) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (__u64)userns;
	}
	if (mount_setattr(fd, "", flags, &attr, sizeof attr) == 0)
		return steal_fd(&fd);
	if (m->idmap && !m->idmap_optional && errno == EINVAL)
		return not_idmappable(source, err);
	/* EPERM: it is shown with other ids already. */
	if (!m->idmap || !m->idmap_optional || (errno != EINVAL && errno != EPERM))
		return err_set(err, errno, m->idmap ? "idmapped mount" : "mount attributes");
	attr.attr_set &= ~(__u64)MOUNT_ATTR_IDMAP;
	attr.userns_fd = 0;
	if (mount_setattr(fd, "", flags, &attr, sizeof attr) < 0)
		return err_set(err, errno, "mount attributes");
	return steal_fd(&fd);
}

/* Parent: the folders that the overlays of a top volume need. Fresh ones belong to root inside. */
int mnt_prepare_top(int top, bool build_root, uint32_t owner, struct err *err)
{
	static const char *const names[] = {"root", "work", "usr", "usr-work", "dpkg", "dpkg-work"};

	for (size_t i = 0; i < (build_root ? 6 : 2); i++) {
		if (mkdirat(top, names[i], 0755) < 0 && errno != EEXIST)
			return err_set(err, errno, "make `%s` in the writable volume", names[i]);
		if (owner && fchownat(top, names[i], owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
			return err_set(err, errno, "owner of `%s` in the writable volume", names[i]);
	}
	return 0;
}

/* Our own view of what a descriptor of another mount namespace stands for, checked to be the same inode (battery A8). */
int mnt_copy_by_path(int source, unsigned attr, bool submounts, struct err *err)
{
	char link[64], path[4096];
	struct stat a, b;

	snprintf(link, sizeof link, "/proc/self/fd/%d", source);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return err_set(err, errno, "path of a source");
	path[n] = '\0';
	cleanup_close int fd = mnt_host()->copy(AT_FDCWD, path, attr, submounts, err);
	if (fd < 0)
		return -1;
	if (fstat(source, &a) < 0 || fstat(fd, &b) < 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		return err_set(err, ESTALE, "`%s` was swapped while it was mounted", path);
	return steal_fd(&fd);
}

unsigned mnt_attr(const struct plan_mount *m)
{
	return MNT_SAFE | (m->write ? 0 : MOUNT_ATTR_RDONLY);
}

/* A detached tmpfs with limits on bytes and inodes (battery G3); it belongs to whoever makes it. */
int mnt_tmpfs(uint64_t size, mode_t mode, struct err *err)
{
	char text[3][32];

	snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)size);
	snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)(size / 4096 < 64 ? 64 : size / 4096));
	snprintf(text[2], sizeof text[2], "%o", mode);
	const struct mnt_option options[] = {
	    {"size", text[0]}, {"nr_inodes", text[1]}, {"mode", text[2]}, {NULL, NULL}};
	return mnt_host()->make("tmpfs", options, MNT_SAFE, err);
}

/* One component; made when missing. Symlinks are followed only inside `root`. */
static int descend(int root, const char *path, bool folder, struct err *err)
{
	int fd = resolve_in_root(root, path, O_PATH | (folder ? O_DIRECTORY : 0));

	errno = fd < 0 ? -fd : 0;
	if (fd < 0 && fd != -ENOENT)
		return err_set(err, -fd, "`/%s` in the image", path);
	return fd < 0 ? -1 : fd;
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

	/* What the walls stand on may not be redirected: `/proc -> /app` in an image is refused (CVE-2019-19921,
	 * CVE-2023-27561, CVE-2026-41579, CVE-2026-47766; battery A2, A4-A6). */
	static const char *const fixed[] = {"proc", "dev", "usr", "tmp", "run"};
	path += *path == '/';
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		size_t len = strlen(fixed[i]);
		struct stat st;

		if (strncmp(path, fixed[i], len) != 0 || (path[len] != '\0' && path[len] != '/'))
			continue;
		if (fstatat(root, fixed[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno != ENOENT)
				return err_set(err, errno, "`/%s` in the image", fixed[i]);
		} else if (!S_ISDIR(st.st_mode)) {
			return err_set(err, ENOTDIR, "`/%s` in the image is not a folder", fixed[i]);
		}
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
	return at < 0 ? -1 : mnt_host()->move(c->mounts[s->mount], at, "", err);
}

static int stage_tmpfs(const struct plan_step *s, struct err *err)
{
	cleanup_close int fd = mnt_tmpfs(s->size, 0755, err);

	if (fd < 0)
		return -1;
	if (mkdir(s->target, 0755) < 0)
		return err_set(err, errno, "make `%s`", s->target);
	return mnt_host()->move(fd, AT_FDCWD, s->target, err);
}

/* `userxattr`: the only kind that a user namespace may mount; a layer made so must be read so. Lower folders are
 * relative to the staging folder, our working folder, which keeps the option short. */
static int overlay(struct contain *c, const struct plan_step *s, struct err *err)
{
	const struct mnt_option options[] = {{"lowerdir", s->text},
					     {"userxattr", NULL},
					     {*s->upper ? "upperdir" : NULL, s->upper},
					     {"workdir", s->work},
					     {NULL, NULL}};
	cleanup_close int fd =
	    mnt_host()->make("overlay", options, MNT_SAFE | (*s->upper ? 0 : MOUNT_ATTR_RDONLY), err);

	if (fd < 0)
		return err_prefix(err, "overlay of %s on %s", *s->upper ? s->upper : "nothing", s->text);
	if (strcmp(s->target, "new") != 0) {
		cleanup_close int at = mnt_target(c->root, s->target + strlen("new"), true, err);
		return at < 0 ? -1 : mnt_host()->move(fd, at, "", err);
	}
	if (mnt_host()->move(fd, AT_FDCWD, s->target, err) < 0)
		return -1;
	c->root = steal_fd(&fd);
	return 0;
}

static int attach_tmpfs(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(c->root, s->target, true, err);
	cleanup_close int fd = at < 0 ? -1 : mnt_tmpfs(s->size, s->mode, err);

	return fd < 0 ? -1 : mnt_host()->move(fd, at, "", err);
}

/* With all that is mounted in it. */
static int move_ahead(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int fd = open(s->target + 1, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return err_set(err, errno, "what was made ahead");
	cleanup_close int at = mnt_target(c->root, s->target, true, err);
	return at < 0 ? -1 : mnt_host()->move(fd, at, "", err);
}

static int own(struct contain *c, const struct plan_step *s, struct err *err)
{
	cleanup_close int at = mnt_target(c->root, s->target, true, err);
	struct stat st;

	if (at < 0)
		return -1;
	if (fchownat(at, "", s->owner, s->group, AT_EMPTY_PATH) < 0 || fstat(at, &st) < 0)
		return err_set(err, errno, "owner");
	return st.st_uid == s->owner && st.st_gid == s->group ? 0 : err_set(err, EPERM, "the owner was not kept");
}

static int empty(struct contain *c, const struct plan_step *s, struct err *err)
{
	int rc = resolve_in_root(c->root, s->target, O_WRONLY | O_TRUNC | O_NOFOLLOW);

	if (rc >= 0)
		close(rc);
	return rc < 0 && rc != -ENOENT ? err_set(err, -rc, "empty a file") : 0;
}

static int run_step(struct contain *c, const struct plan_step *s, struct err *err)
{
	switch (s->op) {
	case PLAN_STAGE:
		if (mkdir(s->target, 0755) < 0)
			return err_set(err, errno, "make `%s`", s->target);
		return mnt_host()->move(c->mounts[s->mount], AT_FDCWD, s->target, err);
	case PLAN_FOLDER:
		return mkdir(s->target, 0755) < 0 ? err_set(err, errno, "make `%s`", s->target) : 0;
	case PLAN_POOL:
		return stage_tmpfs(s, err);
	case PLAN_OVERLAY:
		return overlay(c, s, err);
	case PLAN_MOVE:
		return move_ahead(c, s, err);
	case PLAN_ATTACH:
		return attach(c, s, err);
	case PLAN_TMPFS:
		return attach_tmpfs(c, s, err);
	case PLAN_OWNER:
		return own(c, s, err);
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
		return proc_mask(c, s, err);
	case PLAN_FREEZE:
		return proc_freeze(c->root, s, err);
	}
	return err_set(err, EINVAL, "unknown step %d", (int)s->op);
}

/* What the parent could not hand over as a descriptor. Rootless: everything, with what is mounted below it. */
static int take_mounts(struct contain *c, struct err *err)
{
	for (size_t i = 0; i < c->plan->nmounts; i++) {
		const struct plan_mount *m = &c->plan->mounts[i];

		if (c->rootless)
			c->mounts[i] = mnt_copy_by_path(c->mounts[i], mnt_attr(m), true, err);
		else if (!mnt_host()->detached)
			c->mounts[i] = mnt_from_shelf(i, mnt_attr(m), err);
		if (c->mounts[i] < 0)
			return -1;
	}
	return 0;
}

static int run_steps(struct contain *c, const struct plan *plan, struct err *err)
{
	for (size_t i = 0; i < plan->nsteps; i++)
		if (run_step(c, &plan->steps[i], err) < 0)
			return err_prefix(err, "%s", plan->steps[i].target);
	return 0;
}

/* Whether something is still to be copied by its path on the host: take_mounts(). */
static bool needs_host(const struct contain *c)
{
	return c->rootless || !mnt_host()->detached;
}

/* pivot_root(2), "pivot_root(".", ".")": no folder is needed for the old root, which ends up on top of the new one; the working
 * folder in the old root makes the umount hit that. All that is mounted in it goes at once: each umount waits for all
 * processors (synchronize_rcu). */
int mnt_make_root(struct err *err)
{
	cleanup_close int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (old < 0)
		return err_set(err, errno, "open the old root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return err_set(err, errno, "pivot_root");
	if (fchdir(old) < 0 || umount2(".", MNT_DETACH) < 0)
		return err_set(err, errno, "leave the old root");
	return chdir("/") < 0 ? err_set(err, errno, "enter the new root") : 0;
}

int mnt_ahead(struct contain *c, struct err *err)
{
	static struct plan ahead;

	/* Nothing that the host mounts later may show up here, nothing of ours there. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "make all mounts private");
	umask(0);
	/* Over "/". Our root stays the host's while its devices are copied. */
	cleanup_close int staging = mnt_host()->staging(err);
	if (staging < 0)
		return -1;
	if (fchdir(staging) < 0)
		return err_set(err, errno, "enter the staging folder");
	plan_ahead(c->usr, &ahead);
	c->root = staging;
	int rc = run_steps(c, &ahead, err);
	c->root = -1;
	if (c->usr)
		close(c->mounts[0]);
	for (int i = 0; i < 2; i++)
		if (c->masks[i] >= 0)
			close(steal_fd(&c->masks[i]));
	return rc < 0 || needs_host(c) ? rc : mnt_make_root(err);
}

int mnt_build(struct contain *c, struct err *err)
{
	return take_mounts(c, err) < 0 ? -1 : run_steps(c, c->plan, err);
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

int mnt_enter(struct contain *c, struct err *err)
{
	struct stat want;

	if (needs_host(c) && mnt_make_root(err) < 0)
		return -1;
	if (fstat(c->root, &want) < 0 || fchdir(c->root) < 0)
		return err_set(err, errno, "enter the new root");
	if (mnt_make_root(err) < 0)
		return -1;
	close(c->root);
	c->root = -1;
	umask(022);
	return verify_root(&want, err);
}
