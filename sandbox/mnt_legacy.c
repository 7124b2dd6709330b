/* Mounts by mount(2): what is not attached yet lies in the staging folder under a number. Sources and targets are
 * descriptors here too, named by /proc/self/fd, so that no path of an image is ever resolved twice. See mnt_ops.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"
#include "sandbox/mnt_ops.h"

#define LINK_MAX_ 64
#define SHELF "/sys" /* there on every host, and nothing of it is ever taken into a sandbox */

static int shelf = -1; /* where places are made: the staging folder, or SHELF */

static void link_of(int fd, char link[LINK_MAX_])
{
	snprintf(link, LINK_MAX_, "/proc/self/fd/%d", fd);
}

static unsigned long flags_of(unsigned attr)
{
	return (attr & MOUNT_ATTR_RDONLY ? MS_RDONLY : 0) | (attr & MOUNT_ATTR_NOSUID ? MS_NOSUID : 0) |
	       (attr & MOUNT_ATTR_NODEV ? MS_NODEV : 0) | (attr & MOUNT_ATTR_NOEXEC ? MS_NOEXEC : 0);
}

/* A place to mount on, file or folder, that nobody else has. */
static int place(bool folder, char path[LINK_MAX_], struct err *err)
{
	static unsigned n;
	char name[16];

	snprintf(name, sizeof name, "legacy-%u", n++);
	snprintf(path, LINK_MAX_, "/proc/self/fd/%d/%s", shelf, name);
	if (folder)
		return mkdirat(shelf, name, 0700) < 0 ? err_set(err, errno, "make a place for a mount") : 0;
	cleanup_close int fd = openat(shelf, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	return fd < 0 ? err_set(err, errno, "make a place for a mount") : 0;
}

/* A remount replaces all flags, and those that came from a more privileged namespace may not go (EPERM). */
static int remount(const char *path, unsigned attr, struct err *err)
{
	cleanup_close int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct statvfs have;

	if (fd < 0 || fstatvfs(fd, &have) < 0)
		return err_set(err, errno, "look at a mount");
	unsigned long keep = (have.f_flag & ST_RDONLY ? MS_RDONLY : 0) | (have.f_flag & ST_NOSUID ? MS_NOSUID : 0) |
			     (have.f_flag & ST_NODEV ? MS_NODEV : 0) | (have.f_flag & ST_NOEXEC ? MS_NOEXEC : 0) |
			     (have.f_flag & ST_NOATIME ? MS_NOATIME : 0) |
			     (have.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0) |
			     (have.f_flag & ST_RELATIME ? MS_RELATIME : 0);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | keep | flags_of(attr), NULL) < 0)
		return err_set(err, errno, "mount attributes");
	return mnt_verify(fd, attr, err);
}

/* mountinfo(5) writes blanks and the like as octal. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* Each mount below `path` by itself: a remount is never recursive. Our shelf lies over "/", so that is how mountinfo
 * names what is in it. */
static int remount_below(const char *path, unsigned attr, struct err *err)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	const char *name = strrchr(path, '/');
	size_t n = strlen(name), size = 0;
	cleanup_free char *line = NULL;

	if (!f)
		return err_set(err, errno, "open mountinfo");
	while (getline(&line, &size, f) > 0) {
		char point[4096], at[4096 + LINK_MAX_];

		if (sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1)
			continue;
		unescape(point);
		if (strncmp(point, name, n) != 0 || point[n] != '/')
			continue;
		snprintf(at, sizeof at, "%s%s", path, point + n);
		if (remount(at, attr, err) < 0)
			return err_prefix(err, "%s", point + n);
	}
	return 0;
}

static int copy(int dir, const char *path, unsigned attr, bool submounts, struct err *err)
{
	cleanup_close int source =
	    *path ? openat(dir, path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : fcntl(dir, F_DUPFD_CLOEXEC, 0);
	char from[LINK_MAX_], to[LINK_MAX_];
	struct stat want, got;

	if (source < 0 || fstat(source, &want) < 0)
		return err_set(err, errno, "open `%s`", path);
	link_of(source, from);
	if (place(S_ISDIR(want.st_mode), to, err) < 0)
		return -1;
	if (mount(from, to, NULL, MS_BIND | (submounts ? MS_REC : 0), NULL) < 0)
		return err_set(err, errno, "copy the mount of `%s`", path);
	if (attr && (remount(to, attr, err) < 0 || (submounts && remount_below(to, attr, err) < 0)))
		return -1;
	cleanup_close int fd = open(to, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &got) < 0)
		return err_set(err, errno, "open the copy of `%s`", path);
	if (want.st_dev != got.st_dev || want.st_ino != got.st_ino)
		return err_set(err, ESTALE, "`%s` was swapped while it was mounted", path);
	return steal_fd(&fd);
}

static int options_text(const struct mnt_option *o, char *text, size_t size, struct err *err)
{
	size_t n = 0;

	for (text[0] = '\0'; o->key; o++) {
		if (o->value && strchr(o->value, ','))
			return err_set(err, EINVAL, "mount option %s has a comma", o->key);
		n += (size_t)snprintf(text + n, size - n, "%s%s%s%s", n ? "," : "", o->key, o->value ? "=" : "",
				      o->value ? o->value : "");
		if (n >= size)
			return err_set(err, E2BIG, "mount options");
	}
	return 0;
}

static int make(const char *type, const struct mnt_option *options, unsigned attr, struct err *err)
{
	char text[1024], at[LINK_MAX_];

	if (options_text(options, text, sizeof text, err) < 0 || place(true, at, err) < 0)
		return -1;
	if (mount(type, at, type, flags_of(attr), text) < 0)
		return err_set(err, errno, "mount a %s (%.300s)", type, text);
	cleanup_close int fd = open(at, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, errno, "open a %s", type);
	return mnt_verify(fd, attr, err) < 0 ? -1 : steal_fd(&fd);
}

static int move(int mnt, int dir, const char *target, struct err *err)
{
	char from[LINK_MAX_], folder[LINK_MAX_] = ".", to[4096];

	link_of(mnt, from);
	if (dir != AT_FDCWD)
		link_of(dir, folder);
	if (*target)
		snprintf(to, sizeof to, *target == '/' ? "%.0s%s" : "%s/%s", folder, target);
	else
		snprintf(to, sizeof to, "%s", folder);
	if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
		return err_set(err, errno, "attach a mount at `%s`", target);
	return 0;
}

/* What lies over "/" cannot be named by "/", which starts below it: ".." of a root is itself, mounts on it crossed. */
static int staging(struct err *err)
{
	struct statfs fs;

	if (mount("tmpfs", "/", "tmpfs", MS_NOSUID | MS_NODEV, "size=1048576,nr_inodes=256,mode=0700") < 0)
		return err_set(err, errno, "mount a tmpfs");
	cleanup_close int fd = open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return err_set(err, errno, "open the staging folder");
	if (fs.f_type != TMPFS_MAGIC)
		return err_set(err, EXDEV, "the staging folder is not what was mounted");
	if (shelf >= 0)
		close(shelf);
	shelf = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return shelf < 0 ? err_set(err, errno, "staging folder") : steal_fd(&fd);
}

const struct mnt_ops mnt_legacy_ops = {
    .label = "legacy",
    .detached = false,
    .staging = staging,
    .copy = copy,
    .make = make,
    .move = move,
};

/* -- handing mounts over -------------------------------------------------------------------------------------------- */

static int put_on_shelf(const int sources[], const unsigned attr[], size_t n, struct err *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", SHELF, "tmpfs", MS_NOSUID | MS_NODEV, "size=1048576,nr_inodes=256,mode=0755") < 0)
		return err_set(err, errno, "mount a tmpfs");
	shelf = open(SHELF, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < n; i++) {
		cleanup_close int fd = mnt_copy_by_path(sources[i], attr[i], false, err);
		char name[LINK_MAX_];
		struct stat st;

		snprintf(name, sizeof name, SHELF "/%zu", i);
		if (fd < 0 || fstat(fd, &st) < 0)
			return -1;
		cleanup_close int file =
		    S_ISDIR(st.st_mode) ? -1 : open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
		if ((S_ISDIR(st.st_mode) ? mkdir(name, 0755) : file) < 0)
			return err_set(err, errno, "make `%s`", name);
		if (move(fd, AT_FDCWD, name, err) < 0)
			return -1;
	}
	return 0;
}

int mnt_shelf_open(const int sources[], const unsigned attr[], size_t n, struct mntns_way *way, struct err *err)
{
	if (mntns_out(way, err) < 0)
		return -1;
	int rc = put_on_shelf(sources, attr, n, err);
	if (rc < 0)
		mnt_shelf_leave(way);
	return rc;
}

void mnt_shelf_leave(struct mntns_way *way)
{
	if (shelf >= 0)
		close(steal_fd(&shelf));
	mntns_home(way);
}

int mnt_from_shelf(size_t i, unsigned attr, struct err *err)
{
	char name[LINK_MAX_];

	snprintf(name, sizeof name, SHELF "/%zu", i);
	return copy(AT_FDCWD, name, attr, false, err);
}
