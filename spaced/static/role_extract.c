/* The extract role around extract.c, and control's side of it: start the process, hear how it ended, remove a site.
 * `spaced --role extract SITES ID BYTES FILES`: stdin is the tar stream, descriptor 3 site.json; what went wrong is said
 * on stderr. The folder is filled under a name with a dot, which no site id has, and renamed when it is on disk. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "spaced/static/extract.h"
#include "spaced/static/path.h"
#include "spaced/static/static.h"

#define SITE_JSON_FD 3
#define SITE_JSON_MAX (64U * 1024)
#define CPU_SECONDS 600
#define MEMORY_BYTES (256UL * 1024 * 1024)
#define ERROR_MAX 600

static void limit(int what, rlim_t value)
{
	setrlimit(what, &(struct rlimit){value, value});
}

/* Before the first byte of the archive is read. */
static int confine(const char *sites, uint64_t bytes, struct err *err)
{
	const struct confine_path paths[] = {{.path = sites, .write = true}, {0}};

	limit(RLIMIT_CPU, CPU_SECONDS);
	limit(RLIMIT_FSIZE, bytes + SITE_JSON_MAX);
	limit(RLIMIT_CORE, 0);
#ifndef __SANITIZE_ADDRESS__ /* its shadow memory is terabytes */
	limit(RLIMIT_AS, MEMORY_BYTES);
#endif
	signal(SIGXFSZ, SIG_IGN); /* a write beyond is an error with a reason then */
	if (confine_files(paths, err) < 0)
		return -1;
	return confine_syscalls(PROMISE_FILES, err);
}

/* Puts the finished folder in its place; one that is there already (an extraction repeated after a crash) goes. */
static int publish(int sites, const char *tmp, const char *id, struct err *err)
{
	if (renameat2(sites, tmp, sites, id, RENAME_NOREPLACE) < 0) {
		if (errno != EEXIST)
			return err_set(err, errno, "name site `%s`", id);
		if (renameat2(sites, tmp, sites, id, RENAME_EXCHANGE) < 0)
			return err_set(err, errno, "replace site `%s`", id);
		io_remove_tree(sites, tmp);
	}
	if (fsync(sites) < 0)
		return err_set(err, errno, "write the folder of sites to disk");
	return 0;
}

static int fill(int site, const struct extract_limits *limits, struct err *err)
{
	cleanup_buf struct buf json = BUF_INIT;
	struct stat st;

	if (fstat(SITE_JSON_FD, &st) < 0 || st.st_size > SITE_JSON_MAX)
		return err_set(err, EINVAL, "site.json");
	buf_reserve(&json, (size_t)st.st_size);
	if (pread(SITE_JSON_FD, json.data, (size_t)st.st_size, 0) != st.st_size)
		return err_set(err, EIO, "site.json");
	int r = io_write_file(site, "site.json", json.data, (size_t)st.st_size, 0644);
	if (r < 0 || fchmodat(site, "site.json", 0644, 0) < 0)
		return err_set(err, r < 0 ? -r : errno, "write site.json");
	if (mkdirat(site, "files", 0755) < 0)
		return err_set(err, errno, "make files/");
	cleanup_close int files = openat(site, "files", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (files < 0)
		return err_set(err, errno, "open files/");
	if (extract_tar(STDIN_FILENO, files, limits, err) < 0)
		return -1;
	if (fsync(files) < 0 || fsync(site) < 0)
		return err_set(err, errno, "write the site to disk");
	return 0;
}

static char *tmp_name(const char *id)
{
	return xasprintf(".tmp-%s", id);
}

static int extract_site(char **argv, struct err *err)
{
	const char *id = argv[2];
	cleanup_free char *tmp = tmp_name(id);
	struct extract_limits limits = {strtoull(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10)};

	if (!site_id_ok(STRZ(id)))
		return err_set(err, EINVAL, "site id `%s`", id);
	cleanup_close int sites = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sites < 0)
		return err_set(err, errno, "open `%s`", argv[1]);
	if (confine(argv[1], limits.bytes, err) < 0)
		return -1;
	umask(022);
	io_remove_tree(sites, tmp);
	if (mkdirat(sites, tmp, 0755) < 0)
		return err_set(err, errno, "make `%s`", tmp);
	cleanup_close int site = openat(sites, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (site < 0)
		return err_set(err, errno, "open `%s`", tmp);
	int r = fill(site, &limits, err);
	if (r == 0)
		r = publish(sites, tmp, id, err);
	if (r < 0)
		io_remove_tree(sites, tmp);
	return r;
}

int site_extract_main(int argc, char **argv)
{
	struct err err = ERR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 5) {
		fprintf(stderr, "usage: spaced --role extract SITES ID BYTES FILES\n");
		return 2;
	}
	if (extract_site(argv, &err) == 0)
		return 0;
	fprintf(stderr, "%s", err.msg);
	return 1;
}

/* Control's side. Freed when the process has ended and its stderr is read to the end. */
struct extraction {
	uv_process_t process;
	uv_pipe_t errors;
	char text[ERROR_MAX];
	size_t n;
	char step[256];
	int open; /* handles */
	int64_t status;
	int signal;
	char *sites, *tmp;
	void (*done)(void *ctx, const char *error);
	void *ctx;
};

static void extraction_free(struct extraction *x)
{
	free(x->sites);
	free(x->tmp);
	free(x);
}

static void remove_in(const char *sites, const char *name)
{
	cleanup_close int fd = open(sites, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		io_remove_tree(fd, name);
}

static void handle_closed(uv_handle_t *h)
{
	struct extraction *x = h->data;

	if (--x->open)
		return;
	if (x->status == 0 && x->signal == 0) {
		x->done(x->ctx, NULL);
	} else {
		if (x->signal) { /* killed: it could not tidy up, nor say why */
			remove_in(x->sites, x->tmp);
			x->n = (size_t)snprintf(x->text, sizeof x->text, "extracting the files took too much %s",
						x->signal == SIGXCPU || x->signal == SIGKILL ? "time or memory"
											     : "of something");
		}
		x->text[x->n] = '\0';
		x->done(x->ctx, x->n ? x->text : "extracting the files failed");
	}
	extraction_free(x);
}

static void exited(uv_process_t *process, int64_t status, int signal)
{
	struct extraction *x = process->data;

	x->status = status;
	x->signal = signal;
	uv_close((uv_handle_t *)process, handle_closed);
}

static void errors_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	struct extraction *x = h->data;

	(void)hint;
	*buf = uv_buf_init(x->step, sizeof x->step);
}

static void errors_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct extraction *x = stream->data;

	if (n < 0) {
		uv_close((uv_handle_t *)stream, handle_closed);
		return;
	}
	size_t room = sizeof x->text - 1 - x->n;
	size_t take = (size_t)n < room ? (size_t)n : room;
	memcpy(x->text + x->n, buf->base, take);
	x->n += take;
}

static int json_fd(const char *json, struct err *err)
{
	cleanup_close int fd = memfd_create("site.json", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : io_write_full(fd, json, strlen(json));

	if (r < 0)
		return err_set(err, -r, "site.json in memory");
	return steal_fd(&fd);
}

static int spawn(uv_loop_t *loop, struct extraction *x, char **args, int in_fd, int json, struct err *err)
{
	char *env[] = {NULL};
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_INHERIT_FD, .data.fd = in_fd},
	    {.flags = UV_IGNORE},
	    {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&x->errors},
	    {.flags = UV_INHERIT_FD, .data.fd = json},
	};
	uv_process_options_t options = {
	    .exit_cb = exited,
	    .file = "/proc/self/exe",
	    .args = args,
	    .env = env,
	    .stdio = stdio,
	    .stdio_count = 4,
	};

	uv_pipe_init(loop, &x->errors, 0);
	x->process.data = x->errors.data = x;
	x->open = 2;
	int r = uv_spawn(loop, &x->process, &options);
	if (r == 0)
		r = uv_read_start((uv_stream_t *)&x->errors, errors_alloc, errors_read);
	return r < 0 ? err_set(err, -r, "start the extract role") : 0;
}

static void ignore_done(void *ctx, const char *error)
{
	(void)ctx;
	(void)error;
}

int site_extract(uv_loop_t *loop, const struct config *config, const char *id, int in_fd, const char *site_json,
		 void (*done)(void *ctx, const char *error), void *ctx, struct err *err)
{
	cleanup_close int in = in_fd;
	cleanup_close int json = json_fd(site_json, err);
	char bytes[24], files[24];

	if (!site_id_ok(STRZ(id)))
		return err_set(err, EINVAL, "site id `%s`", id);
	if (json < 0)
		return -1;
	struct extraction *x = xcalloc(1, sizeof *x);
	x->sites = xasprintf("%s/%s", config->state, STATE_SITES);
	x->tmp = tmp_name(id);
	x->done = done;
	x->ctx = ctx;
	snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)config->checkout_bytes);
	snprintf(files, sizeof files, "%u", config->checkout_files);
	char *name = xstrdup(id);
	char *args[] = {"spaced", "--role", "extract", x->sites, name, bytes, files, NULL};
	int r = spawn(loop, x, args, in, json, err);
	free(name);
	if (r < 0) { /* both handles are initialised; libuv wants them closed on the loop */
		x->done = ignore_done;
		x->status = 1;
		uv_close((uv_handle_t *)&x->process, handle_closed);
		uv_close((uv_handle_t *)&x->errors, handle_closed);
	}
	return r;
}

int site_remove(const struct config *config, const char *id, struct err *err)
{
	cleanup_free char *sites = xasprintf("%s/%s", config->state, STATE_SITES);
	cleanup_free char *tmp = tmp_name(id);
	cleanup_close int fd = open(sites, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!site_id_ok(STRZ(id)))
		return err_set(err, EINVAL, "site id `%s`", id);
	if (fd < 0)
		return err_set(err, errno, "open `%s`", sites);
	/* First out of sight, so that a half-removed site is never served. */
	io_remove_tree(fd, tmp);
	if (renameat(fd, id, fd, tmp) < 0)
		return errno == ENOENT ? 0 : err_set(err, errno, "remove site `%s`", id);
	int r = io_remove_tree(fd, tmp);
	return r < 0 ? err_set(err, -r, "remove site `%s`", id) : 0;
}
