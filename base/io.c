/* See io.h. */
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

int io_write_full(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t k = write(fd, at, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

int io_read_full(int fd, void *p, size_t n)
{
	char *at = p;

	while (n) {
		ssize_t k = read(fd, at, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			return -EIO;
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

static int read_all(int dirfd, const char *path, int flags, size_t max, struct buf *out)
{
	cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | flags);

	if (fd < 0)
		return -errno;
	for (;;) {
		buf_reserve(out, 16384);
		ssize_t k = read(fd, out->data + out->len, out->cap - out->len - 1);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		out->len += (size_t)k;
		if (out->len > max)
			return -EFBIG;
	}
	out->data[out->len] = '\0';
	return 0;
}

int io_read_file(int dirfd, const char *path, size_t max, struct buf *out)
{
	return read_all(dirfd, path, O_NOFOLLOW, max, out);
}

int io_read_named(const char *path, size_t max, struct buf *out)
{
	return read_all(AT_FDCWD, path, 0, max, out);
}

int io_write_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode)
{
	char tag[17];
	io_random_hex(tag, 8);
	cleanup_free char *tmp = xasprintf("%s.%s.tmp", path, tag);
	cleanup_close int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return -errno;
	int r = io_write_full(fd, p, n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dirfd, tmp, dirfd, path) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, tmp, 0);
	return r;
}

static int remove_tree(int dirfd, const char *name, dev_t dev)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM && errno != ENOTEMPTY)
		return -errno;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || (dev && st.st_dev != dev)) {
		close(fd);
		return -EXDEV;
	}
	DIR *dir = fdopendir(fd);
	int first = 0;
	if (!dir) {
		first = -errno;
		close(fd);
		return first;
	}
	struct dirent *e;
	while ((e = readdir(dir)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		int r = remove_tree(fd, e->d_name, st.st_dev);
		if (r < 0 && first == 0)
			first = r;
	}
	closedir(dir);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT && first == 0)
		first = -errno;
	return first;
}

int io_remove_tree(int dirfd, const char *name)
{
	return remove_tree(dirfd, name, 0);
}

int io_mkdir(int dirfd, const char *path, mode_t mode)
{
	struct stat st;

	if (mkdirat(dirfd, path, mode) == 0)
		return fchmodat(dirfd, path, mode, 0) < 0 ? -errno : 0;
	if (errno != EEXIST)
		return -errno;
	if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int set_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);
	if (flags < 0)
		return -errno;
	flags = on ? flags | flag : flags & ~flag;
	return fcntl(fd, set, flags) < 0 ? -errno : 0;
}

int io_set_nonblock(int fd, bool on)
{
	return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int io_set_cloexec(int fd, bool on)
{
	return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int io_keep_fds(int *const fds[], int n)
{
	int null = open("/dev/null", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (null < 0 || fstat(null, &st) < 0)
		return -errno;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) /* CVE-2025-31133, battery A5 */
		return -ENODEV;
	for (int i = 0; i < n; i++) /* first out of the way */
		if ((*fds[i] = fcntl(*fds[i], F_DUPFD_CLOEXEC, 3 + n)) < 0)
			return -errno;
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			return -errno;
	for (int i = 0; i < n; i++) {
		if (dup3(*fds[i], 3 + i, O_CLOEXEC) < 0)
			return -errno;
		*fds[i] = 3 + i;
	}
	return close_range(3U + (unsigned)n, ~0U, 0) < 0 ? -errno : 0;
}

void io_keep_stdio(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) /* inherited, as it would be */
			_exit(125);
}

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t io_now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

uint64_t io_wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

void io_random_hex(char *dst, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		unsigned char c;
		if (getrandom(&c, 1, 0) != 1)
			abort();
		dst[2 * i] = hex[c >> 4];
		dst[2 * i + 1] = hex[c & 15];
	}
	dst[2 * n] = '\0';
}
