/* See lookup.h. */
#include "spaced/static/lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"
#include "spaced/http/mime.h"
#include "spaced/http/server.h"
#include "spaced/http/url.h"

#define SMALL_FILE (64U * 1024) /* read whole here, which saves a second trip to a worker */

static const char not_found_page[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
    "<meta name=color-scheme content=\"light dark\"><title>404 Not Found</title>"
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}</style>"
    "<h1>404</h1><p>This Space has no file of that name.</p></html>\n";

void lookup_init(struct lookup *l)
{
	*l = (struct lookup){.fd = -1};
}

void lookup_release(struct lookup *l)
{
	const struct str copies[] = {l->method, l->query,    l->if_match,	l->if_none_match, l->if_modified_since,
				     l->range,	l->if_range, l->accept_encoding};

	for (size_t i = 0; i < sizeof copies / sizeof *copies; i++)
		free((char *)(uintptr_t)copies[i].p);
	buf_release(&l->path);
	free(l->id);
	free(l->location);
	free(l->content_range);
	site_put(l->site);
	blob_put(l->blob);
	if (l->fd >= 0)
		close(l->fd);
	lookup_init(l);
}

static char *join(const char *a, const char *b)
{
	if (!*a || !*b)
		return xstrdup(*a ? a : *b ? b : ".");
	return xasprintf("%s/%s", a, b);
}

/* Beneath the site's folder always; a symlink (kept by the extract role when it stays inside) is followed, and the
 * kernel refuses one that leaves. */
static int open_inside(int dir, const char *path)
{
	const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
	int fd = resolve_beneath(dir, path, flags);

	return fd == -ELOOP ? resolve_inside(dir, path, flags) : fd;
}

static bool is_html(const struct lookup *l)
{
	return strncmp(l->type, "text/html", 9) == 0;
}

static void make_etag(struct lookup *l, int fd, const struct stat *st)
{
	char sum[65] = "";
	ssize_t n = fgetxattr(fd, "user.spaced.sha256", sum, 64);

	if (n == 64 && strspn(sum, "0123456789abcdef") == 64)
		snprintf(l->etag, sizeof l->etag, "\"%.32s\"", sum);
	else /* a file system without attributes: the release and the inode name the content, for neither ever changes */
		snprintf(l->etag, sizeof l->etag, "\"%.40s-%llx-%llx\"", l->id, (unsigned long long)st->st_ino,
			 (unsigned long long)st->st_size);
}

/* "abc" -> "abc-br": each form of the bytes needs its own strong validator. */
static void mark_etag(struct lookup *l, const char *encoding)
{
	size_t n = strlen(l->etag);

	snprintf(l->etag + n - 1, sizeof l->etag - n + 1, "-%s\"", encoding);
}

static void whole_file(struct lookup *l, int *fd, uint64_t size)
{
	l->offset = 0;
	l->length = size;
	if (size > SMALL_FILE) {
		l->fd = steal_fd(fd);
		return;
	}
	l->blob = blob_new((size_t)size);
	if (io_read_full(*fd, l->blob->data, (size_t)size) < 0)
		l->status = 500;
}

/* RFC 9110 §13.2.2, in its order. True when the answer has no file in it. */
static bool preconditions(struct lookup *l)
{
	if (l->if_match.n && !static_etag_in(l->if_match, l->etag, false)) {
		l->status = 412;
		return true;
	}
	/* Compared for equality, like nginx: after a roll-back the older file is the newer answer. */
	if (l->if_none_match.n ? static_etag_in(l->if_none_match, l->etag, true)
			       : str_eq(l->if_modified_since, l->last_modified)) {
		l->status = 304;
		return true;
	}
	return false;
}

/* The one range that is asked for, if it still is of this file. True when the answer is decided. */
static bool ranged(struct lookup *l, int *fd, uint64_t size)
{
	uint64_t first, length;

	if (!l->range.n || !str_eq(l->method, "GET") ||
	    (l->if_range.n && !str_eq(l->if_range, l->etag) && !str_eq(l->if_range, l->last_modified)))
		return false;
	switch (static_range(l->range, size, &first, &length)) {
	case RANGE_NONE:
		return false;
	case RANGE_BAD:
		l->status = 416;
		l->content_range = xasprintf("bytes */%llu", (unsigned long long)size);
		return true;
	case RANGE_ONE:
		break;
	}
	l->status = 206;
	l->content_range = xasprintf("bytes %llu-%llu/%llu", (unsigned long long)first,
				     (unsigned long long)(first + length - 1), (unsigned long long)size);
	l->offset = first;
	l->length = length;
	l->fd = steal_fd(fd);
	return true;
}

static void serve(struct lookup *l, const char *path, int *fd, const struct stat *st)
{
	const struct mime *mime = mime_of(path);
	uint64_t size = (uint64_t)st->st_size;

	l->status = 200;
	l->type = mime->type;
	make_etag(l, *fd, st);
	http_date(st->st_mtime, l->last_modified);
	l->ranges = true;
	l->cache_control = is_html(l)		    ? "no-cache"
			   : static_immutable(path) ? "public, max-age=31536000, immutable"
						    : "max-age=60";
	l->vary = mime->compress && size >= PACK_MIN;
	struct blob *packed = NULL;
	if (l->vary && !l->range.n) {
		enum coding coding = static_coding(l->accept_encoding);
		packed = pack_get(l->etag, coding, *fd, size);
		if (packed) {
			l->encoding = coding == CODING_BR ? "br" : "gzip";
			mark_etag(l, l->encoding);
		}
	}
	if (preconditions(l) || ranged(l, fd, size)) {
		blob_put(packed);
		return;
	}
	if (packed) {
		l->blob = packed;
		l->length = packed->n;
	} else {
		whole_file(l, fd, size);
	}
}

static void not_found(struct lookup *l, int files)
{
	cleanup_free char *path = join(l->site ? l->site->root : "", "404.html");
	cleanup_close int fd = files >= 0 ? open_inside(files, path) : -1;
	struct stat st;

	l->status = 404;
	l->type = "text/html; charset=utf-8";
	l->cache_control = "no-cache";
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		whole_file(l, &fd, (uint64_t)st.st_size);
		return;
	}
	l->length = sizeof not_found_page - 1;
	l->blob = blob_new(l->length);
	memcpy(l->blob->data, not_found_page, l->length);
}

static void redirect(struct lookup *l, int status, const char *path, bool slash)
{
	struct buf to = BUF_INIT;

	/* Encoded anew, so that no odd byte ("/\host") makes another host of it. */
	buf_addc(&to, '/');
	url_encode(path, strlen(path), true, &to);
	if (slash)
		buf_addc(&to, '/');
	if (l->query.n) {
		buf_addc(&to, '?');
		buf_add(&to, l->query.p, l->query.n);
	}
	l->status = status;
	l->location = buf_steal(&to, NULL);
	l->cache_control = "no-cache";
}

/* Opens the file that a folder stands for. */
static int open_index(struct lookup *l, int files, char **path)
{
	const char *wanted = l->path.len ? "index.html" : l->site->index;
	char *index = join(*path, wanted);
	int fd = open_inside(files, index);

	if (fd == -ENOENT && strcmp(wanted, "index.html") != 0) {
		free(index);
		index = join(*path, "index.html");
		fd = open_inside(files, index);
	}
	free(*path);
	*path = index;
	return fd;
}

void lookup_run(struct lookup *l)
{
	cleanup_free char *folder = xasprintf("%s/files", l->id);
	cleanup_close int files = -1;
	cleanup_close int fd = -1;
	struct stat st = {0};

	l->site = site_get(l->sites_fd, l->id);
	files = l->site ? resolve_beneath(l->sites_fd, folder, O_PATH | O_DIRECTORY) : -ENOENT;
	if (files < 0) {
		not_found(l, -1);
		return;
	}
	if (l->hidden) {
		not_found(l, files);
		return;
	}
	if (!l->path.len && l->site->redirect) {
		redirect(l, 302, l->site->redirect, false);
		return;
	}
	cleanup_free char *path = join(l->site->root, l->path.len ? l->path.data : "");
	fd = open_inside(files, path);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		if (l->path.len && !l->slash) {
			redirect(l, 301, l->path.data, true);
			return;
		}
		close(fd);
		fd = open_index(l, files, &path);
		if (fd >= 0 && fstat(fd, &st) < 0)
			st.st_mode = 0;
	} else if (l->slash) {
		not_found(l, files);
		return;
	}
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
		l->status = 503;
	else if (fd < 0 || !S_ISREG(st.st_mode))
		not_found(l, files);
	else
		serve(l, path, &fd, &st);
}
