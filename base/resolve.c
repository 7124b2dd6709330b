/* See resolve.h. */
#include "base/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DEPTH_MAX 128
#define LINKS_MAX 40 /* the kernel's own */

bool resolve_has_openat2(void)
{
	static int has = -1;
	const char *force = getenv("SPACED_FORCE");

	if (has < 0) {
		/* A size of 0 is refused before anything else is looked at. */
		long rc = syscall(SYS_openat2, -1, "", NULL, 0);
		has = rc < 0 && errno == EINVAL && !(force && strstr(force, "no_openat2"));
	}
	return has;
}

/* -- the walk ------------------------------------------------------------------------------------------------------- */

enum {
	BENEATH = 1, /* a way out is an error; else the root stops it */
	PLAIN = 2,   /* so is a symlink */
};

/* The folders from the root to where we are. A ".." takes the last one off: asking the kernel for the parent would lead
 * out of a folder that has been moved out meanwhile. */
struct walk {
	int dirs[DEPTH_MAX];
	int depth;
	int links;
	int rules;
	char rest[2 * PATH_MAX]; /* still to be walked */
};

static void pop_to(struct walk *w, int depth)
{
	while (w->depth > depth)
		close(w->dirs[--w->depth]);
}

static int here(const struct walk *w)
{
	return w->dirs[w->depth - 1];
}

/* Cuts the next component off `rest`; false at its end. */
static bool next(struct walk *w, char part[NAME_MAX + 1], int *error)
{
	char *p = w->rest + strspn(w->rest, "/");
	size_t n = strcspn(p, "/");

	*error = n > NAME_MAX ? -ENAMETOOLONG : 0;
	if (n == 0 || *error)
		return false;
	memcpy(part, p, n);
	part[n] = '\0';
	memmove(w->rest, p + n, strlen(p + n) + 1);
	return true;
}

static int follow(struct walk *w, int link)
{
	char target[PATH_MAX], rest[PATH_MAX];
	struct statfs fs;
	ssize_t n = readlinkat(link, "", target, sizeof target - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	if (++w->links > LINKS_MAX || fstatfs(link, &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC)
		return -ELOOP;
	if ((size_t)snprintf(rest, sizeof rest, "%s", w->rest) >= sizeof rest)
		return -ENAMETOOLONG;
	if (*target == '/' && w->rules & BENEATH)
		return -EXDEV;
	snprintf(w->rest, sizeof w->rest, "%s%s", target, rest);
	if (*target == '/')
		pop_to(w, 1);
	return 0;
}

static bool at_end(const struct walk *w)
{
	return w->rest[strspn(w->rest, "/")] == '\0';
}

/* Opens the last component under its folder: what was looked at may be another by now, but never a symlink. */
static int open_last(const struct walk *w, const char *part, int flags)
{
	bool slash = w->rest[0] == '/';
	int fd = openat(here(w), part, flags | O_NOFOLLOW | O_CLOEXEC | (slash ? O_DIRECTORY : 0));

	return fd < 0 ? -errno : fd;
}

/* 1: go on; otherwise the result. */
static int step(struct walk *w, const char *part, int flags)
{
	bool last = at_end(w);
	struct stat st;

	if (strcmp(part, ".") == 0)
		return 1;
	if (strcmp(part, "..") == 0) {
		if (w->depth == 1 && w->rules & BENEATH)
			return -EXDEV;
		pop_to(w, w->depth > 1 ? w->depth - 1 : 1);
		return 1;
	}
	int fd = openat(here(w), part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	cleanup_close int own = fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode) && !(last && flags & O_NOFOLLOW && w->rest[0] != '/')) {
		int rc = w->rules & PLAIN ? -ELOOP : follow(w, fd);
		return rc < 0 ? rc : 1;
	}
	if (last && !S_ISDIR(st.st_mode))
		return open_last(w, part, flags);
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if (w->depth == DEPTH_MAX)
		return -ENAMETOOLONG;
	w->dirs[w->depth++] = steal_fd(&own);
	return 1;
}

static int walk_all(struct walk *w, int flags)
{
	char part[NAME_MAX + 1];
	int rc = 1, error;

	while (next(w, part, &error))
		if ((rc = step(w, part, flags)) != 1)
			return rc;
	if (error)
		return error;
	/* It ended in a folder that is open already. */
	int fd = openat(here(w), ".", flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int walk(int root, const char *path, int flags, int rules)
{
	struct walk w = {.depth = 1, .rules = rules};

	if (!*path)
		return -ENOENT;
	if (*path == '/' && rules & BENEATH)
		return -EXDEV;
	if ((size_t)snprintf(w.rest, sizeof w.rest, "%s", path) >= PATH_MAX)
		return -ENAMETOOLONG;
	w.dirs[0] = openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (w.dirs[0] < 0)
		return -errno;
	int fd = walk_all(&w, flags);
	pop_to(&w, 0);
	return fd;
}

/* The kernel passes no ".." while anything is renamed or mounted, wherever on the host (EAGAIN). The walk does. */
static int resolve(int dirfd, const char *path, int flags, unsigned kernel, int rules)
{
	struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC), .resolve = kernel | RESOLVE_NO_MAGICLINKS};

	if (resolve_has_openat2()) {
		int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			return fd < 0 ? -errno : fd;
	}
	return walk(dirfd, path, flags, rules);
}

int resolve_in_root(int root, const char *path, int flags)
{
	return resolve(root, path, flags, RESOLVE_IN_ROOT, 0);
}

int resolve_inside(int dirfd, const char *path, int flags)
{
	return resolve(dirfd, path, flags, RESOLVE_BENEATH, BENEATH);
}

int resolve_beneath(int dirfd, const char *path, int flags)
{
	return resolve(dirfd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, BENEATH | PLAIN);
}
