/* See exec.h: the wire form of a request, and the check of what comes out. The other half, inside, is exec_inside.c. */
#include "sandbox/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define TERM_MAX 64
#define CWD_MAX 4095

void exec_request_release(struct exec_request *q)
{
	for (char **a = q->argv; a && *a; a++)
		free(*a);
	free(q->argv);
	free(q->cwd);
	free(q->term);
	*q = (struct exec_request){0};
}

int exec_request_check(const struct exec_request *q, struct err *err)
{
	size_t bytes = 0, n = 0;

	for (; q->argv && q->argv[n]; n++)
		bytes += strlen(q->argv[n]);
	if (n == 0 || !q->argv[0][0])
		return err_text(err, EINVAL, "there is no command");
	if (n > EXEC_MAX_ARGS || bytes > EXEC_MAX_BYTES)
		return err_text(err, E2BIG, "the command line is too long: at most %d words and %u bytes",
				EXEC_MAX_ARGS, EXEC_MAX_BYTES);
	if (q->cwd && (q->cwd[0] != '/' || strlen(q->cwd) > CWD_MAX))
		return err_text(err, EINVAL, "the working folder must be an absolute path");
	if (q->rows > UINT16_MAX || q->cols > UINT16_MAX)
		return err_text(err, EINVAL, "the size of the terminal");
	if (q->term && (strlen(q->term) > TERM_MAX || q->term[strspn(q->term, "abcdefghijklmnopqrstuvwxyz"
									      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
									      "0123456789.+-_")]))
		return err_text(err, EINVAL, "the kind of terminal");
	return 0;
}

void exec_request_encode(const struct exec_request *q, struct buf *b)
{
	uint32_t n = 0;

	while (q->argv[n])
		n++;
	put_u32(b, n);
	for (uint32_t i = 0; i < n; i++)
		put_str(b, q->argv[i]);
	put_str(b, q->cwd);
	put_u8(b, q->tty);
	put_u32(b, q->rows);
	put_u32(b, q->cols);
	put_str(b, q->term);
}

static char *get_optional(struct reader *r, size_t max)
{
	char *s = get_strdup(r, max);

	if (s && !*s) {
		free(s);
		return NULL;
	}
	return s;
}

int exec_request_decode(struct reader *r, struct exec_request *q, struct err *err)
{
	uint32_t n = get_u32(r);

	*q = (struct exec_request){0};
	if (r->bad || n > EXEC_MAX_ARGS)
		return err_set(err, EBADMSG, "request for a command");
	q->argv = xcalloc(n + 1, sizeof *q->argv);
	for (uint32_t i = 0; i < n && !r->bad; i++)
		q->argv[i] = get_strdup(r, EXEC_MAX_BYTES);
	q->cwd = get_optional(r, CWD_MAX);
	q->tty = get_u8(r);
	q->rows = get_u32(r);
	q->cols = get_u32(r);
	q->term = get_optional(r, TERM_MAX);
	if (!get_ok(r))
		err_set(err, EBADMSG, "request for a command");
	else if (exec_request_check(q, err) == 0)
		return 0;
	exec_request_release(q);
	return -1;
}

int exec_ends(bool tty)
{
	return tty ? 1 : 3;
}

static bool is_master(int fd)
{
	struct stat st;
	struct statfs fs;

	return fstat(fd, &st) == 0 && fstatfs(fd, &fs) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2) &&
	       fs.f_type == DEVPTS_SUPER_MAGIC;
}

static bool is_pipe(int fd, int mode)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && flags >= 0 && (flags & O_ACCMODE) == mode;
}

int exec_ends_check(bool tty, const int *fds, int n, struct err *err)
{
	bool ok = n == exec_ends(tty);

	if (ok && tty)
		ok = is_master(fds[0]);
	else if (ok)
		ok = is_pipe(fds[0], O_WRONLY) && is_pipe(fds[1], O_RDONLY) && is_pipe(fds[2], O_RDONLY);
	return ok ? 0 : err_set(err, EBADMSG, "what came out of the sandbox is no %s", tty ? "terminal" : "pipe");
}
