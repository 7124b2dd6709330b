/* See worker.h. */
#include "sandbox/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"

#define RESULT_MAX (16U << 20)

static void run_child(worker_fn fn, void *arg, int out)
{
	struct err err = ERR_INIT;
	cleanup_buf struct buf result = BUF_INIT;
	cleanup_buf struct buf wire = BUF_INIT;

	signal(SIGCHLD, SIG_DFL); /* it may wait for children of its own */
	int r = fn(arg, &result, &err);
	put_u8(&wire, r == 0);
	put_u32(&wire, (uint32_t)(r == 0 ? 0 : err.code ? err.code : EIO));
	put_str(&wire, err.msg);
	put_bytes(&wire, result.data, result.len);
	io_write_full(out, wire.data, wire.len);
	_exit(0);
}

static pid_t start(worker_fn fn, void *arg, int *from, struct err *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe of a worker");
	pid_t pid = fork();
	if (pid == 0) {
		close(p[0]);
		run_child(fn, arg, p[1]);
	}
	int e = errno;
	close(p[1]);
	if (pid < 0) {
		close(p[0]);
		return err_set(err, e, "fork a worker");
	}
	*from = p[0];
	return pid;
}

int worker_start(worker_fn fn, void *arg, struct err *err)
{
	int fd;

	if (start(fn, arg, &fd, err) < 0)
		return -1;
	io_set_nonblock(fd, true);
	return fd;
}

int worker_read(int fd, struct buf *raw)
{
	for (;;) {
		buf_reserve(raw, 4096);
		ssize_t n = read(fd, raw->data + raw->len, raw->cap - raw->len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0 || raw->len + (size_t)n > RESULT_MAX)
			return 1;
		raw->len += (size_t)n;
	}
}

int worker_result(const struct buf *raw, struct buf *result, struct err *err)
{
	struct reader r = reader_of(raw->data, raw->len);
	bool ok = get_u8(&r);
	uint32_t code = get_u32(&r);
	struct str msg = get_bytes(&r);
	struct str payload = get_bytes(&r);

	if (!get_ok(&r))
		return err_text(
		    err, ECHILD,
		    "a worker process of the spawner crashed (if `nft list ruleset` crashes too, another program "
		    "has set rules that this host's nftables cannot read)");
	if (!ok) {
		err_set(err, 0, "%.*s", (int)msg.n, msg.p);
		err->code = (int)code;
		return -1;
	}
	if (result)
		buf_add(result, payload.p, payload.n);
	return 0;
}

int worker_run(worker_fn fn, void *arg, struct buf *result, struct err *err)
{
	cleanup_buf struct buf raw = BUF_INIT;
	cleanup_close int fd = -1;
	pid_t pid = start(fn, arg, &fd, err);

	if (pid < 0)
		return -1;
	while (worker_read(fd, &raw) == 0)
		;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return worker_result(&raw, result, err);
}

static void exec_child(const char *const argv[], int out)
{
	static const char *const dirs[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	static char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "E2FSPROGS_LIBMAGIC_SUPPRESS=1", NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char path[64];

	signal(SIGCHLD, SIG_DFL);
	if (dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(127);
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		snprintf(path, sizeof path, "%s/%s", dirs[i], argv[0]);
		execve(path, (char *const *)(uintptr_t)argv, env);
	}
	_exit(127);
}

/* The last line that says something. */
static struct str last_line(const struct buf *b)
{
	size_t end = b->len;

	while (end && (b->data[end - 1] == '\n' || b->data[end - 1] == ' '))
		end--;
	size_t begin = end;
	while (begin && b->data[begin - 1] != '\n')
		begin--;
	return (struct str){b->data + begin, end - begin};
}

static int exec_program(const char *const argv[], int max_status, struct buf *out, struct err *err)
{
	int p[2];
	int status = 0;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe for %s", argv[0]);
	pid_t pid = fork();
	if (pid == 0)
		exec_child(argv, p[1]);
	int e = errno;
	close(p[1]);
	if (pid < 0) {
		close(p[0]);
		return err_set(err, e, "fork %s", argv[0]);
	}
	while (worker_read(p[0], out) == 0)
		;
	close(p[0]);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return err_set(err, errno, "wait for %s", argv[0]);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) <= max_status)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && out->len == 0)
		return err_set(err, ENOENT, "%s is not installed", argv[0]);
	struct str line = last_line(out);
	err_set(err, 0, "%s failed: %.*s", argv[0], (int)(line.n > 300 ? 300 : line.n), line.p ? line.p : "");
	err->code = EIO;
	return -1;
}

int worker_exec(const char *const argv[], int max_status, struct err *err)
{
	cleanup_buf struct buf out = BUF_INIT;

	return exec_program(argv, max_status, &out, err);
}

int worker_output(const char *const argv[], struct buf *out, struct err *err)
{
	return exec_program(argv, 0, out, err);
}
