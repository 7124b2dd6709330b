/* See volume.h. */
#include "sandbox/volume.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/ids.h"
#include "sandbox/loop_device.h"
#include "sandbox/worker.h"

#define NEW ".new-"	     /* prefix while being made */
#define TEMPLATE ".template" /* what mkfs puts into a new volume */
#define TEMPLATE_DATA ".template-data"
#define MNT ".mnt"
#define BLOCK 4096U
#define GROUP_BLOCKS 32768U /* of ext4 with such blocks */
#define GROUP_LEAST 2816U   /* tables: inodes 1024, groups up to 513 and 1024 in reserve; two bitmaps; 50; rounded up */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t) /* in no header of the system */
#define APP_UID 1000

bool volume_loop_devices(void)
{
	const char *force = getenv("SPACED_FORCE");

	if (force && strstr(force, "volume_folders"))
		return false;
	return loop_devices();
}

static int mkdir_err(int dirfd, const char *path, mode_t mode, struct err *err)
{
	int r = io_mkdir(dirfd, path, mode);
	return r < 0 ? err_set(err, -r, "make folder %s", path) : 0;
}

static void remove_unfinished(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL)
		if (strncmp(e->d_name, NEW, strlen(NEW)) == 0)
			io_remove_tree(dirfd, e->d_name);
}

/* The folder is the app's own. Where only the caller's id exists, it is that already. */
static int give_to_app(const struct volumes *v, const char *path, struct err *err)
{
	uint32_t owner = ids_base(0) + APP_UID;

	if (!ids_host_root() && ids_base(0) == 0)
		return 0;
	if (fchownat(v->dirfd, path, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, errno, "owner of folder %s", path);
	return 0;
}

int volumes_join(const char *state, struct volumes *v, struct err *err)
{
	*v = (struct volumes){.dir = xasprintf("%s/volumes", state), .dirfd = -1, .images = volume_loop_devices()};
	if (mkdir_err(AT_FDCWD, v->dir, 0700, err) < 0)
		goto fail;
	v->dirfd = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (v->dirfd < 0) {
		err_set(err, errno, "open %s", v->dir);
		goto fail;
	}
	if (mkdir_err(v->dirfd, MNT, 0700, err) < 0 || mkdir_err(v->dirfd, TEMPLATE, 0755, err) < 0 ||
	    mkdir_err(v->dirfd, TEMPLATE "/root", 0755, err) < 0 ||
	    mkdir_err(v->dirfd, TEMPLATE "/work", 0700, err) < 0 || mkdir_err(v->dirfd, TEMPLATE_DATA, 0755, err) < 0 ||
	    mkdir_err(v->dirfd, TEMPLATE_DATA "/root", 0755, err) < 0 ||
	    (v->images && give_to_app(v, TEMPLATE_DATA "/root", err) < 0))
		goto fail;
	return 0;
fail:
	volumes_release(v);
	return -1;
}

int volumes_open(const char *state, struct volumes *v, struct err *err)
{
	if (volumes_join(state, v, err) < 0)
		return -1;
	remove_unfinished(v->dirfd);
	return 0;
}

void volumes_release(struct volumes *v)
{
	if (v->dirfd >= 0)
		close(v->dirfd);
	free(v->dir);
	*v = (struct volumes){.dirfd = -1};
}

static const char *suffix(const struct volumes *v)
{
	return v->images ? ".img" : ".dir";
}

static void file_name(const struct volumes *v, const char *prefix, const char *name, char out[SANDBOX_NAME_MAX + 16])
{
	snprintf(out, SANDBOX_NAME_MAX + 16, "%s%s%s", prefix, name, suffix(v));
}

bool volume_is_data(const char *name)
{
	return strncmp(name, VOLUME_DATA, strlen(VOLUME_DATA)) == 0;
}

bool volume_exists(const struct volumes *v, const char *name)
{
	char file[SANDBOX_NAME_MAX + 16];

	file_name(v, "", name, file);
	return faccessat(v->dirfd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* An inode per 8 KiB: node_modules. A journal for what must survive, and room to grow a thousandfold. */
static int make_image(const struct volumes *v, const char *file, uint64_t bytes, bool data, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/%s", v->dir, file);
	cleanup_free char *template = xasprintf("%s/%s", v->dir, data ? TEMPLATE_DATA : TEMPLATE);
	cleanup_close int fd = openat(v->dirfd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	const char *features = data ? "has_journal,resize_inode" : "^has_journal,^resize_inode";
	const char *const argv[] = {
	    "mkfs.ext4", "-q",	   "-F",     "-b",   "4096",
	    "-I",	 "256",	   "-i",     "8192", "-m",
	    "0",	 "-O",	   features, "-E",   "lazy_itable_init=1,nodiscard,root_owner=0:0",
	    "-d",	 template, path,     NULL};

	if (fd < 0)
		return err_set(err, errno, "create volume %s", file);
	if (ftruncate(fd, (off_t)(bytes / BLOCK * BLOCK)) < 0)
		return err_set(err, errno, "size of volume %s", file);
	return worker_exec(argv, 0, err);
}

/* As root the ids on disk are those inside. Without, nothing can show them so, and they are what they are. */
static int make_one(const struct volumes *v, const char *path, mode_t mode, struct err *err)
{
	uint32_t owner = ids_base(0);

	if (mkdir_err(v->dirfd, path, mode, err) < 0)
		return -1;
	if (owner && fchownat(v->dirfd, path, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, errno, "owner of folder %s", path);
	return 0;
}

static int make_folder(const struct volumes *v, const char *file, bool data, struct err *err)
{
	char sub[SANDBOX_NAME_MAX + 32];

	if (make_one(v, file, 0755, err) < 0)
		return -1;
	snprintf(sub, sizeof sub, "%s/root", file);
	if (make_one(v, sub, 0755, err) < 0)
		return -1;
	if (data && give_to_app(v, sub, err) < 0)
		return -1;
	snprintf(sub, sizeof sub, "%s/work", file);
	return make_one(v, sub, 0700, err);
}

int volume_create(const struct volumes *v, const char *name, uint64_t bytes, struct err *err)
{
	char file[SANDBOX_NAME_MAX + 16];
	char fresh[SANDBOX_NAME_MAX + 16];

	if (bytes < (volume_is_data(name) ? VOLUME_DATA_MIN_BYTES : VOLUME_MIN_BYTES) || bytes > VOLUME_MAX_BYTES)
		return err_set(err, EINVAL, "volume %s: size %llu", name, (unsigned long long)bytes);
	file_name(v, "", name, file);
	file_name(v, NEW, name, fresh);
	if (volume_exists(v, name))
		return err_set(err, EEXIST, "volume %s", name);
	bool data = volume_is_data(name);
	if ((v->images ? make_image(v, fresh, bytes, data, err) : make_folder(v, fresh, data, err)) < 0)
		goto fail;
	if (renameat2(v->dirfd, fresh, v->dirfd, file, RENAME_NOREPLACE) < 0) {
		err_set(err, errno, "volume %s", name);
		goto fail;
	}
	return 0;
fail:
	io_remove_tree(v->dirfd, fresh);
	return -1;
}

/* -- mounting ----------------------------------------------------------------------------------------------------- */

static bool mounted(const struct volumes *v, const char *path)
{
	struct statx st;

	return statx(v->dirfd, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st) == 0 &&
	       (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* Held while a volume is attached, mounted or unmounted. Not the descriptor that the loop device keeps: that one would
 * keep the lock as well. */
static int lock_image(const struct volumes *v, const char *file, struct err *err)
{
	int fd = openat(v->dirfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_set(err, errno, "volume %s", file);
	while (flock(fd, LOCK_EX) < 0) {
		if (errno == EINTR)
			continue;
		err_set(err, errno, "lock volume %s", file);
		close(fd);
		return -1;
	}
	return fd;
}

/* ext4 on-disk layout, "The Super Block". Without a journal s_state says whether it was unmounted; with one the flag
 * "recover" of s_feature_incompat does, and s_state whether an error was found. */
static bool unclean(int img)
{
	uint8_t b[1024];

	if (pread(img, b, sizeof b, 1024) != (ssize_t)sizeof b)
		return false;
	bool journal = b[0x5c] & 0x4, recover = b[0x60] & 0x4, valid = b[0x3a] & 1, error = b[0x3a] & 2;
	return !valid || (journal && (recover || error));
}

/* What is scratch is made whole at any price. Of data only what is safe is repaired; the rest is for a person to decide. */
static int check_image(const struct volumes *v, const char *file, bool data, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/%s", v->dir, file);
	const char *const argv[] = {"e2fsck", data ? "-p" : "-y", "-f", path, NULL};

	if (worker_exec(argv, 1, err) == 0)
		return 0;
	/* without the path: a tenant reads it */
	return data ? err_prefix(err, "check volume %s (in the state folder `e2fsck -f volumes/%s` asks what to do)",
				 file, file)
		    : err_prefix(err, "check volume %s", file);
}

static int mount_ext4(const char *device, const char *at)
{
	return mount(device, at, "ext4", MS_NODEV | MS_NOSUID | MS_NOATIME, "errors=remount-ro") < 0 ? -errno : 0;
}

static int attach_and_mount(const struct volumes *v, const char *file, const char *at, struct err *err)
{
	cleanup_close int img = openat(v->dirfd, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	cleanup_free char *path = xasprintf("%s/%s", v->dir, at);
	char loop[LOOP_NAME];
	char device[64];
	struct stat st;

	if (img < 0 || fstat(img, &st) < 0)
		return err_set(err, errno, "open volume %s", file);
	cleanup_close int dev = loop_find(&st, loop);
	if (dev < 0) {
		if (unclean(img) && check_image(v, file, volume_is_data(file), err) < 0)
			return -1;
		dev = loop_attach(img, loop, err);
		if (dev < 0)
			return -1;
	}
	snprintf(device, sizeof device, "/dev/%s", loop);
	int r = mount_ext4(device, path);
	/* An overlay says that it can do direct io also when what is below it (tmpfs of a live system) cannot. */
	if (r == -EIO && ioctl(dev, LOOP_SET_DIRECT_IO, 0UL) == 0)
		r = mount_ext4(device, path);
	return r < 0 ? err_set(err, -r, "mount volume %s", file) : 0;
}

int volume_mount(const struct volumes *v, const char *name, struct err *err)
{
	char file[SANDBOX_NAME_MAX + 16];
	char at[SANDBOX_NAME_MAX + 16];
	int fd;

	file_name(v, "", name, file);
	if (!volume_exists(v, name))
		return err_set(err, ENOENT, "volume %s", name);
	if (v->images) {
		snprintf(at, sizeof at, MNT "/%s", name);
		cleanup_close int lock = lock_image(v, file, err);
		if (lock < 0 || mkdir_err(v->dirfd, at, 0700, err) < 0)
			return -1;
		if (!mounted(v, at) && attach_and_mount(v, file, at, err) < 0)
			return -1;
		fd = openat(v->dirfd, at, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	} else {
		fd = openat(v->dirfd, file, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	return fd < 0 ? err_set(err, errno, "open volume %s", name) : fd;
}

/* `detach`: also when somebody has it open here; the rest of the kernel lets go of it when they do. */
static int unmount(const struct volumes *v, const char *name, bool detach, struct err *err)
{
	cleanup_free char *at = xasprintf(MNT "/%s", name);
	cleanup_free char *path = xasprintf("%s/%s", v->dir, at);

	if (mounted(v, at)) {
		if (umount2(path, UMOUNT_NOFOLLOW) < 0 &&
		    (errno != EBUSY || !detach || umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0))
			return err_set(err, errno, "unmount volume %s", name);
	}
	unlinkat(v->dirfd, at, AT_REMOVEDIR); /* fails where another spawner's namespace has something on it: no harm */
	return 0;
}

/* Everything written is on disk, and what was freed inside is given back to the host. */
static int flush(const struct volumes *v, const char *name, const char *file, struct err *err)
{
	cleanup_free char *at = v->images ? xasprintf(MNT "/%s", name) : xstrdup(file);
	cleanup_close int root = openat(v->dirfd, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (root >= 0 && (!v->images || mounted(v, at))) {
		struct fstrim_range all = {.len = UINT64_MAX};
		if (syncfs(root) < 0)
			return err_set(err, errno, "flush volume %s", name);
		if (v->images)
			ioctl(root, FITRIM, &all); /* a nicety: not every host file system can punch holes */
	}
	if (v->images) {
		cleanup_close int img = openat(v->dirfd, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
		if (img < 0 || fsync(img) < 0)
			return err_set(err, errno, "flush volume %s", name);
	}
	return 0;
}

int volume_unmount(const struct volumes *v, const char *name, struct err *err)
{
	char file[SANDBOX_NAME_MAX + 16];

	if (!v->images || !volume_exists(v, name))
		return 0;
	file_name(v, "", name, file);
	cleanup_close int lock = lock_image(v, file, err);
	if (lock < 0)
		return -1;
	if (volume_is_data(name))
		flush(v, name, file,
		      err); /* what was deleted inside is the host's again; not flushed, it stays unclean */
	return unmount(v, name, false, err);
}

int volume_rename(const struct volumes *v, const char *from, const char *to, struct err *err)
{
	char old[SANDBOX_NAME_MAX + 16];
	char new[SANDBOX_NAME_MAX + 16];
	cleanup_close int lock = -1;

	file_name(v, "", from, old);
	file_name(v, "", to, new);
	if (!volume_exists(v, from))
		return err_set(err, ENOENT, "volume %s", from);
	if (volume_exists(v, to))
		return err_set(err, EEXIST, "volume %s", to);
	if (v->images) {
		lock = lock_image(v, old, err);
		if (lock < 0)
			return -1;
	}
	if (flush(v, from, old, err) < 0 || (v->images && unmount(v, from, true, err) < 0) ||
	    flush(v, from, old, err) < 0)
		return -1;
	if (renameat2(v->dirfd, old, v->dirfd, new, RENAME_NOREPLACE) < 0)
		return err_set(err, errno, "rename volume %s to %s", from, to);
	if (fsync(v->dirfd) < 0)
		return err_set(err, errno, "flush %s", v->dir);
	return 0;
}

int volume_remove(const struct volumes *v, const char *name, struct err *err)
{
	char file[SANDBOX_NAME_MAX + 16];
	cleanup_close int lock = -1;

	file_name(v, "", name, file);
	if (!volume_exists(v, name))
		return 0;
	if (v->images) {
		lock = lock_image(v, file, err);
		if (lock < 0 || unmount(v, name, true, err) < 0)
			return -1;
	}
	int r = io_remove_tree(v->dirfd, file);
	return r < 0 ? err_set(err, -r, "remove volume %s", name) : 0;
}

/* -- growing ------------------------------------------------------------------------------------------------------ */

/* Of the file system, not of the file: a growth may have been cut short between the two. */
static uint64_t fs_bytes(int img)
{
	uint32_t lo, hi;

	if (pread(img, &lo, sizeof lo, 1024 + 0x4) != (ssize_t)sizeof lo ||
	    pread(img, &hi, sizeof hi, 1024 + 0x150) != (ssize_t)sizeof hi)
		return 0;
	return ((uint64_t)le32toh(hi) << 32 | le32toh(lo)) * BLOCK;
}

static int grow_file(const struct volumes *v, const char *file, uint64_t bytes, struct err *err)
{
	cleanup_close int img = openat(v->dirfd, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (img < 0 || fstat(img, &st) < 0)
		return err_set(err, errno, "open volume %s", file);
	if ((uint64_t)st.st_size < bytes && ftruncate(img, (off_t)bytes) < 0)
		return err_set(err, errno, "size of volume %s", file);
	return 0;
}

/* While it is mounted. */
static int grow_mounted(const struct volumes *v, const char *name, const char *file, uint64_t bytes, struct err *err)
{
	cleanup_free char *at = xasprintf(MNT "/%s", name);
	cleanup_close int mount = volume_mount(v, name, err);
	uint64_t blocks = bytes / BLOCK;
	char loop[32];
	struct stat st;

	if (mount < 0)
		return -1;
	cleanup_close int lock = lock_image(v, file, err);
	if (lock < 0 || grow_file(v, file, bytes, err) < 0)
		return -1;
	cleanup_close int dev = fstat(lock, &st) == 0 ? loop_find(&st, loop) : -1;
	cleanup_close int fs = openat(v->dirfd, at, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dev < 0 || fs < 0 || ioctl(dev, LOOP_SET_CAPACITY, 0UL) < 0)
		return err_set(err, errno, "size of the loop device of volume %s", name);
	if (ioctl(fs, EXT4_IOC_RESIZE_FS, &blocks) < 0)
		return err_set(err, errno == EPERM ? EBUSY : errno, "grow volume %s while it is in use", name);
	return syncfs(fs) < 0 ? err_set(err, errno, "flush volume %s", name) : 0;
}

static int grow_unmounted(const struct volumes *v, const char *name, const char *file, uint64_t bytes, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/%s", v->dir, file);
	const char *const argv[] = {"resize2fs", path, NULL};
	char loop[32];
	struct stat st;

	if (volume_unmount(v, name, err) < 0)
		return -1;
	cleanup_close int lock = lock_image(v, file, err);
	if (lock < 0)
		return -1;
	cleanup_close int dev = fstat(lock, &st) == 0 ? loop_find(&st, loop) : -1;
	if (dev >= 0)
		return err_set(err, EBUSY, "grow volume %s", name);
	if (grow_file(v, file, bytes, err) < 0 || check_image(v, file, true, err) < 0)
		return -1;
	return worker_exec(argv, 0, err) < 0 ? err_prefix(err, "grow volume %s", name) : 0;
}

/* mke2fs and resize2fs leave a last block group away that would hold little more than its own tables. Such a size is
 * made as large as they need it, or the file system never were as large as what was asked for. */
static uint64_t whole_groups(uint64_t bytes)
{
	uint64_t blocks = bytes / BLOCK, rest = blocks % GROUP_BLOCKS;

	if (blocks > GROUP_BLOCKS && rest && rest < GROUP_LEAST)
		blocks += GROUP_LEAST - rest;
	return blocks * BLOCK;
}

int volume_ensure(const struct volumes *v, const char *name, uint64_t bytes, bool used, struct err *err)
{
	char file[SANDBOX_NAME_MAX + 16];

	bytes = whole_groups(bytes);
	if (!volume_is_data(name) || bytes > VOLUME_MAX_BYTES)
		return err_set(err, EINVAL, "volume %s: size %llu", name, (unsigned long long)bytes);
	if (!volume_exists(v, name))
		return volume_create(v, name, bytes, err);
	file_name(v, "", name, file);
	cleanup_close int img = v->images ? openat(v->dirfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (img < 0 || fs_bytes(img) >= bytes)
		return 0;
	return used ? grow_mounted(v, name, file, bytes, err) : grow_unmounted(v, name, file, bytes, err);
}

/* -- usage -------------------------------------------------------------------------------------------------------- */

static uint64_t disk_usage(int dirfd, const char *name, int depth)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	uint64_t sum = (uint64_t)st.st_blocks * 512;
	if (!S_ISDIR(st.st_mode) || depth > 100)
		return sum;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	while (d && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			sum += disk_usage(fd, e->d_name, depth + 1);
	return sum;
}

uint32_t volume_list(const struct volumes *v, struct buf *out)
{
	int fd = openat(v->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint32_t n = 0;

	while (d && (e = readdir(d)) != NULL) {
		size_t len = strlen(e->d_name);
		if (e->d_name[0] == '.' || len <= 4 || len > SANDBOX_NAME_MAX + 4 ||
		    strcmp(e->d_name + len - 4, suffix(v)) != 0)
			continue;
		put_bytes(out, e->d_name, len - 4);
		put_u64(out, disk_usage(v->dirfd, e->d_name, 0));
		n++;
	}
	return n;
}
