/* A deployed tree as a tar stream: the archive role writes it (confined, read-only), git_archive() starts that role for
 * control. `git archive` is not used: it would obey .gitattributes of the pusher (export-subst, filters). */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <git2.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/git/git.h"
#include "spaced/git/receive.h"
#include "spaced/git/roles.h"
#include "spaced/git/tree_rules.h"

#define LINK_MAX_BYTES 4095U

/* --- the role ----------------------------------------------------------------------------------------------------- */

struct writer {
	struct role_args args;
	git_odb *odb;
	struct archive *tar;
	struct buf path; /* of the entry being written, with the prefix */
	size_t prefix_len;
	time_t when;
	uint64_t files, bytes;
	struct err *err;
};

static int write_head(struct writer *w, mode_t type, mode_t mode, uint64_t size, const char *target)
{
	struct archive_entry *e = archive_entry_new();

	archive_entry_set_pathname(e, w->path.data);
	archive_entry_set_filetype(e, type);
	archive_entry_set_perm(e, mode);
	archive_entry_set_size(e, (la_int64_t)size);
	archive_entry_set_mtime(e, w->when, 0);
	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	if (target)
		archive_entry_set_symlink(e, target);
	int r = archive_write_header(w->tar, e);
	archive_entry_free(e);
	return r < ARCHIVE_WARN ? err_set(w->err, 0, "write the archive: %s", archive_error_string(w->tar)) : 0;
}

/* Every entry counts, so a tree of trees that stands for 10^10 files ends here soon. */
static int count(struct writer *w, uint64_t bytes)
{
	w->files++;
	w->bytes += bytes;
	if (w->files > w->args.checkout_files)
		return err_set(w->err, 0, "the repository has more than %llu files and folders",
			       (unsigned long long)w->args.checkout_files);
	if (w->bytes > w->args.checkout_bytes)
		return err_set(w->err, 0, "the files of the repository take more than %llu bytes",
			       (unsigned long long)w->args.checkout_bytes);
	return 0;
}

static int write_blob(struct writer *w, const git_oid *id, uint32_t mode)
{
	git_odb_object *o;
	git_object_t type;
	size_t size;
	int r = 0;

	if (git_odb_read_header(&size, &type, w->odb, id) < 0)
		return git_err(w->err, "read a file");
	if (type != GIT_OBJECT_BLOB || size > w->args.object_bytes)
		return err_set(w->err, 0, "`%s` is too big", w->path.data + w->prefix_len);
	if (count(w, size) < 0)
		return -1;
	if (git_odb_read(&o, w->odb, id) < 0)
		return git_err(w->err, "read a file");
	const char *data = git_odb_object_data(o);
	if (mode == TREE_MODE_LINK) {
		if (size == 0 || size > LINK_MAX_BYTES || memchr(data, '\0', size)) {
			r = err_set(w->err, 0, "`%s` is a malformed symbolic link", w->path.data + w->prefix_len);
		} else {
			cleanup_free char *target = xstrndup(data, size);
			r = write_head(w, AE_IFLNK, 0777, 0, target);
		}
	} else {
		r = write_head(w, AE_IFREG, mode & 0111 ? 0755 : 0644, size, NULL);
		if (r == 0 && size && archive_write_data(w->tar, data, size) != (la_ssize_t)size)
			r = err_set(w->err, 0, "write the archive: %s", archive_error_string(w->tar));
	}
	git_odb_object_free(o);
	return r;
}

static int write_folder(struct writer *w)
{
	return count(w, 0) < 0 ? -1 : write_head(w, AE_IFDIR, 0755, 0, NULL);
}

static int write_tree(struct writer *w, const git_oid *id, unsigned level);

static int write_entry(struct writer *w, const struct tree_entry *e, unsigned level)
{
	const char *why = tree_entry_error(e); /* again: objects may have come another way than by a push */
	size_t keep = w->path.len;
	git_oid id;
	int r;

	if (why)
		return err_set(w->err, 0, "%s", why);
	if (w->path.len)
		buf_addc(&w->path, '/');
	buf_add(&w->path, e->name.p, e->name.n);
	if (w->path.len - w->prefix_len > w->args.path_bytes)
		return err_set(w->err, 0, "a path is longer than %llu bytes", (unsigned long long)w->args.path_bytes);
	git_oid_fromraw(&id, e->oid);
	if (e->mode == TREE_MODE_GITLINK)
		r = write_folder(w);
	else if (e->mode == TREE_MODE_DIR)
		r = write_folder(w) < 0 ? -1 : write_tree(w, &id, level + 1);
	else
		r = write_blob(w, &id, e->mode);
	w->path.len = keep;
	w->path.data[keep] = '\0';
	return r;
}

static int write_tree(struct writer *w, const git_oid *id, unsigned level)
{
	git_odb_object *o;
	struct tree_entry e;
	int more = 1, r = 0;

	if (level > w->args.tree_depth)
		return err_set(w->err, 0, "folders are nested deeper than %llu",
			       (unsigned long long)w->args.tree_depth);
	if (git_odb_read(&o, w->odb, id) < 0)
		return git_err(w->err, "read a tree");
	struct str rest = {git_odb_object_data(o), git_odb_object_size(o)};
	while (r == 0 && (more = tree_next(&rest, &e)) == 1)
		r = write_entry(w, &e, level);
	git_odb_object_free(o);
	if (r == 0 && more < 0)
		return err_set(w->err, 0, "malformed tree");
	return r;
}

static int find_tree(struct writer *w, git_oid *tree)
{
	git_repository *repo = NULL;
	git_commit *c = NULL;
	git_oid id;
	int r = git_repository_wrap_odb(&repo, w->odb);

	if (r == 0)
		r = git_oid_fromstr(&id, w->args.commit);
	if (r == 0)
		r = git_commit_lookup(&c, repo, &id);
	if (r == 0) {
		*tree = *git_commit_tree_id(c);
		w->when = (time_t)git_commit_time(c);
	}
	git_commit_free(c);
	git_repository_free(repo);
	return r < 0 ? git_err(w->err, "read the commit") : 0;
}

static int write_archive(struct writer *w)
{
	git_oid tree;

	w->tar = archive_write_new();
	if (find_tree(w, &tree) < 0)
		return -1;
	/* A name that is not UTF-8 is then written as it is (hdrcharset=BINARY for that entry), with a warning only. */
	setlocale(LC_CTYPE, "C.UTF-8");
	if (archive_write_set_format_pax_restricted(w->tar) != ARCHIVE_OK ||
	    archive_write_open_fd(w->tar, 1) != ARCHIVE_OK)
		return err_set(w->err, 0, "open the archive: %s", archive_error_string(w->tar));
	buf_adds(&w->path, w->args.prefix);
	w->prefix_len = w->path.len;
	if (write_tree(w, &tree, 1) < 0)
		return -1;
	return archive_write_close(w->tar) != ARCHIVE_OK
		   ? err_set(w->err, 0, "write the archive: %s", archive_error_string(w->tar))
		   : 0;
}

static int start_writer(struct writer *w)
{
	cleanup_free char *repo = xasprintf("%s/%s", w->args.repos, w->args.repo);
	cleanup_free char *objects = xasprintf("%s/objects", repo);
	struct confine_path paths[] = {{.path = repo}, {.path = NULL}};

	if (!receive_is_oid(STRZ(w->args.commit)))
		return err_set(w->err, 0, "no commit named");
	if (role_limit((1ULL << 30) + 3 * w->args.object_bytes, w->args.timeout_s, UINT64_MAX, w->err) < 0 ||
	    confine_files(paths, w->err) < 0 || confine_syscalls(PROMISE_FILES, w->err) < 0)
		return -1;
	return git_odb_open(&w->odb, objects) < 0 ? git_err(w->err, "open the object store") : 0;
}

int git_archive_main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct writer w = {.err = &err};

	log_init("archive", LOG_LEVEL_INFO);
	git_lib_init();
	int r = role_args_parse(&w.args, argc, argv, &err);
	if (r == 0)
		r = start_writer(&w);
	if (r == 0)
		r = write_archive(&w);
	if (r < 0) /* a cut stream on 1; the reason on 3 */
		return io_write_full(ROLE_RESULT_FD, err.msg, strlen(err.msg)) < 0 ? 3 : 1;
	return 0;
}

/* --- control's side ------------------------------------------------------------------------------------------------- */

struct job {
	struct role_child child;
	uv_pipe_t reason;
	uv_timer_t deadline;
	unsigned open; /* handles */
	bool exited, ended, timed_out;
	int64_t status;
	int sig;
	struct buf text;
	char room[512];
	void (*done)(void *ctx, const char *error);
	void *ctx;
};

static void on_closed(uv_handle_t *h)
{
	struct job *j = h->data;

	if (--j->open)
		return;
	buf_release(&j->text);
	free(j);
}

static void maybe_done(struct job *j)
{
	const char *error = NULL;

	if (!j->exited || !j->ended)
		return;
	uv_close((uv_handle_t *)&j->deadline, on_closed);
	if (j->sig || j->status)
		error = j->text.len    ? j->text.data
			: j->timed_out ? "reading the repository took too long"
				       : "the archive process died: out of memory or time";
	j->done(j->ctx, error);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct job *j = h->data;

	*buf = uv_buf_init(j->room, sizeof j->room);
}

static void on_reason(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct job *j = s->data;

	for (ssize_t i = 0; i < n && j->text.len < 500; i++) /* from a process that reads hostile bytes */
		buf_addc(&j->text, (unsigned char)buf->base[i] < ' ' || buf->base[i] == 0x7f ? '?' : buf->base[i]);
	if (n >= 0)
		return;
	j->ended = true;
	uv_close((uv_handle_t *)s, on_closed);
	maybe_done(j);
}

static void on_child_exit(uv_process_t *process, int64_t status, int sig)
{
	struct job *j = process->data;

	j->child.running = false;
	j->exited = true;
	j->status = status;
	j->sig = sig;
	uv_close((uv_handle_t *)process, on_closed);
	maybe_done(j);
}

static void on_deadline(uv_timer_t *t)
{
	struct job *j = t->data;

	j->timed_out = true;
	role_kill(&j->child);
}

int git_archive(uv_loop_t *loop, const struct config *config, const char *repo, const char *commit, const char *prefix,
		int out_fd, void (*done)(void *ctx, const char *error), void *ctx, struct err *err)
{
	const char *const extra[] = {"--commit", commit, "--prefix", prefix ? prefix : "", NULL};
	struct job *j = xcalloc(1, sizeof *j);

	*j = (struct job){.done = done, .ctx = ctx, .open = 3};
	uv_pipe_init(loop, &j->reason, 0);
	uv_timer_init(loop, &j->deadline);
	j->reason.data = j->deadline.data = j;
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_IGNORE},
	    {.flags = UV_INHERIT_FD, .data.fd = out_fd},
	    {.flags = UV_INHERIT_FD, .data.fd = 2},
	    {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&j->reason},
	};
	int r = role_spawn(loop, &j->child, config, "archive", repo, extra, stdio, 4, on_child_exit, err);
	j->child.process.data = j;
	close(out_fd);
	if (r < 0) {
		uv_close((uv_handle_t *)&j->reason, on_closed);
		uv_close((uv_handle_t *)&j->deadline, on_closed);
		uv_close((uv_handle_t *)&j->child.process, on_closed);
		return -1;
	}
	uv_timer_start(&j->deadline, on_deadline, 1000ULL * config->push_timeout_s, 0);
	uv_read_start((uv_stream_t *)&j->reason, on_alloc, on_reason);
	return 0;
}
