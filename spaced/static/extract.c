/* See extract.h. The stream may come from a build that ran hostile code: libarchive parses it (in a confined process),
 * and nothing of what it says about owners, modes, times or devices is taken over. */
#include "spaced/static/extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

#define PATH_MAX_BYTES 4000
#define DEPTH_MAX 64
#define TARGET_MAX_BYTES 1024
#define FSYNC_EACH 64 /* files; beyond, one syncfs() is cheaper */

struct link {
	char *path, *target;
};

struct extract {
	struct archive *archive;
	int dir;
	const struct extract_limits *limits;
	uint64_t bytes;
	uint32_t entries;
	uint32_t files;
	struct link *links; /* made at the end: so none can lead a later entry astray */
	size_t nlinks;
};

/* A sentence for the author: without the errno's text behind it. */
__attribute__((format(printf, 3, 4))) static int refuse(struct err *err, int code, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&text, fmt, ap);
	va_end(ap);
	err_set(err, 0, "%s", text.data);
	err->code = code;
	buf_release(&text);
	return -1;
}

static int too_many(const struct extract *x, struct err *err)
{
	return refuse(err, EFBIG, "more than %u files and folders", x->limits->files);
}

static int count_entry(struct extract *x, struct err *err)
{
	if (++x->entries > x->limits->files)
		return too_many(x, err);
	return 0;
}

/* Cleans "./a//b/" to "a/b" ("" for the root itself). */
static int clean_path(const char *name, char **out, struct err *err)
{
	struct buf b = BUF_INIT;
	unsigned depth = 0;

	if (!name || *name == '/')
		goto refuse;
	while (*name) {
		size_t n = strcspn(name, "/");
		if (n == 2 && name[0] == '.' && name[1] == '.')
			goto refuse;
		if (n && !(n == 1 && name[0] == '.')) {
			if (n > 255 || b.len + n > PATH_MAX_BYTES || ++depth > DEPTH_MAX)
				goto refuse;
			if (b.len)
				buf_addc(&b, '/');
			buf_add(&b, name, n);
		}
		name += n;
		name += *name == '/';
	}
	*out = buf_steal(&b, NULL);
	return 0;
refuse:
	buf_release(&b);
	return refuse(err, EINVAL, "a name in the archive is absolute, too long or has `..` in it");
}

/* Opens the folder that `path` lies in, making what is missing; *leaf is the last element. Element by element and never
 * through a symlink: nothing in `path` is trusted but that it is clean. */
static int open_parent(struct extract *x, const char *path, const char **leaf, struct err *err)
{
	cleanup_close int at = fcntl(x->dir, F_DUPFD_CLOEXEC, 0);
	char name[256];

	if (at < 0)
		return err_set(err, errno, "folder of `%s`", path);
	for (*leaf = path; strchr(*leaf, '/'); *leaf += strlen(name) + 1) {
		const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*leaf, "/"), *leaf);
		int fd = openat(at, name, flags);
		if (fd < 0 && errno == ENOENT) {
			if (count_entry(x, err) < 0)
				return -1;
			fd = mkdirat(at, name, 0755) < 0 ? -1 : openat(at, name, flags);
		}
		if (fd < 0)
			return err_set(err, errno, "folder of `%s`", path);
		close(at);
		at = fd;
	}
	return steal_fd(&at);
}

static int make_folder(struct extract *x, const char *path, struct err *err)
{
	const char *leaf;
	cleanup_close int up = open_parent(x, path, &leaf, err);

	if (up < 0)
		return -1;
	if (mkdirat(up, leaf, 0755) == 0)
		return count_entry(x, err);
	struct stat st;
	if (errno == EEXIST && fstatat(up, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		return 0;
	return err_set(err, EEXIST, "make folder `%s`", path);
}

static void set_sum(int fd, crypto_hash_sha256_state *state)
{
	unsigned char sum[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof sum + 1];

	crypto_hash_sha256_final(state, sum);
	sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
	/* Without user attributes here (old tmpfs) the static role makes its ETag from other things. */
	(void)!fsetxattr(fd, "user.spaced.sha256", hex, sizeof hex - 1, 0);
}

static int copy_data(struct extract *x, int fd, const char *path, struct err *err)
{
	crypto_hash_sha256_state state;
	cleanup_free char *step = xmalloc(64 * 1024);
	la_ssize_t n;

	crypto_hash_sha256_init(&state);
	/* Holes of a sparse entry are read as zeros here, and counted: a claim of exabytes ends at the limit. */
	while ((n = archive_read_data(x->archive, step, 64 * 1024)) > 0) {
		x->bytes += (uint64_t)n;
		if (x->bytes > x->limits->bytes)
			return refuse(err, EFBIG, "more than %llu bytes", (unsigned long long)x->limits->bytes);
		crypto_hash_sha256_update(&state, (unsigned char *)step, (size_t)n);
		int r = io_write_full(fd, step, (size_t)n);
		if (r < 0)
			return err_set(err, -r, "write `%s`", path);
	}
	if (n < 0)
		return refuse(err, EINVAL, "the archive is damaged at `%s`", path);
	set_sum(fd, &state);
	return 0;
}

static int make_file(struct extract *x, const char *path, struct err *err)
{
	const char *leaf;
	cleanup_close int up = open_parent(x, path, &leaf, err);

	if (up < 0 || count_entry(x, err) < 0)
		return -1;
	/* The last of several entries with one name counts, as with tar. */
	if (unlinkat(up, leaf, 0) < 0 && errno != ENOENT)
		return err_set(err, errno, "replace `%s`", path);
	cleanup_close int fd = openat(up, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set(err, errno, "make `%s`", path);
	if (copy_data(x, fd, path, err) < 0)
		return -1;
	if (fchmod(fd, 0644) < 0)
		return err_set(err, errno, "mode of `%s`", path);
	if (++x->files <= FSYNC_EACH && fsync(fd) < 0)
		return err_set(err, errno, "write `%s` to disk", path);
	return 0;
}

/* A second name for a file of this archive. */
static int make_hardlink(struct extract *x, const char *path, const char *to, struct err *err)
{
	cleanup_free char *target = NULL;
	const char *leaf, *name;
	struct stat st;

	if (clean_path(to, &target, err) < 0 || !target || count_entry(x, err) < 0)
		return -1;
	cleanup_close int from = open_parent(x, target, &name, err);
	cleanup_close int up = from < 0 ? -1 : open_parent(x, path, &leaf, err);
	if (up < 0)
		return -1;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return refuse(err, EINVAL, "`%s` is a hard link to nothing in the archive", path);
	if (linkat(from, name, up, leaf, 0) < 0 && errno != EEXIST)
		return err_set(err, errno, "link `%s`", path);
	return 0;
}

/* Does a link at `path` to `target` stay inside, read as text? (A way out through another link is stopped when it is
 * followed: RESOLVE_BENEATH.) */
static bool stays_inside(const char *path, const char *target)
{
	int depth = 0;

	if (*target == '/' || !*target || strlen(target) > TARGET_MAX_BYTES)
		return false;
	for (const char *p = path; *p; p++)
		depth += *p == '/';
	while (*target) {
		size_t n = strcspn(target, "/");
		if (n == 2 && target[0] == '.' && target[1] == '.')
			depth--;
		else if (n && !(n == 1 && target[0] == '.'))
			depth++;
		if (depth < 0)
			return false;
		target += n;
		target += *target == '/';
	}
	return true;
}

static int keep_link(struct extract *x, const char *path, const char *target, struct err *err)
{
	if (count_entry(x, err) < 0)
		return -1;
	if (!target || !stays_inside(path, target))
		return 0; /* it would lead nowhere that can be served */
	x->links = xreallocarray(x->links, x->nlinks + 1, sizeof *x->links);
	x->links[x->nlinks++] = (struct link){xstrdup(path), xstrdup(target)};
	return 0;
}

static int make_links(struct extract *x, struct err *err)
{
	for (size_t i = 0; i < x->nlinks; i++) {
		const char *leaf;
		cleanup_close int up = open_parent(x, x->links[i].path, &leaf, err);
		if (up < 0)
			return -1;
		if (symlinkat(x->links[i].target, up, leaf) < 0 && errno != EEXIST)
			return err_set(err, errno, "link `%s`", x->links[i].path);
	}
	return 0;
}

static int take_entry(struct extract *x, struct archive_entry *e, struct err *err)
{
	cleanup_free char *path = NULL;
	const char *hard = archive_entry_hardlink(e);

	if (clean_path(archive_entry_pathname(e), &path, err) < 0)
		return -1;
	if (!path || !*path) {
		if (archive_entry_filetype(e) == AE_IFDIR)
			return 0;
		return refuse(err, EINVAL, "an entry of the archive has no name");
	}
	if (hard)
		return make_hardlink(x, path, hard, err);
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		return make_file(x, path, err);
	case AE_IFDIR:
		return make_folder(x, path, err);
	case AE_IFLNK:
		return keep_link(x, path, archive_entry_symlink(e), err);
	default:
		return refuse(err, EINVAL, "`%s` is neither file, folder nor link", path);
	}
}

static int take_all(struct extract *x, struct err *err)
{
	struct archive_entry *e;
	int r;

	while ((r = archive_read_next_header(x->archive, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN)
		if (take_entry(x, e, err) < 0)
			return -1;
	if (r != ARCHIVE_EOF)
		return refuse(err, EINVAL, "not a tar archive, or a damaged one: %s",
			      archive_error_string(x->archive) ? archive_error_string(x->archive) : "unknown");
	if (make_links(x, err) < 0)
		return -1;
	if (x->files > FSYNC_EACH && syncfs(x->dir) < 0)
		return err_set(err, errno, "write the files to disk");
	return 0;
}

int extract_tar(int in_fd, int dir_fd, const struct extract_limits *limits, struct err *err)
{
	struct extract x = {.archive = archive_read_new(), .dir = dir_fd, .limits = limits};
	int r = -1;

	if (!x.archive || sodium_init() < 0)
		err_set(err, ENOMEM, "libarchive or libsodium");
	else if (archive_read_support_format_tar(x.archive) != ARCHIVE_OK ||
		 archive_read_open_fd(x.archive, in_fd, 64 * 1024) != ARCHIVE_OK)
		refuse(err, EINVAL, "not a tar archive");
	else
		r = take_all(&x, err);
	archive_read_free(x.archive);
	for (size_t i = 0; i < x.nlinks; i++) {
		free(x.links[i].path);
		free(x.links[i].target);
	}
	free(x.links);
	return r;
}
