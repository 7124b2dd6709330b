/* See bootstrap.h. */
#include "sandbox/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/contain.h"
#include "sandbox/mnt_ops.h"

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
#define FIRST_ID 0x4ffff800U /* one range, just below those of `sandbox run`: one base is made at a time */
#define LINE_MAX_BYTES 4096

/* -- inside ---------------------------------------------------------------------------------------------------------- */

static int put_files(const struct bootstrap_file *files, struct err *err)
{
	for (; files->name; files++) {
		cleanup_free char *path = xasprintf("/tmp/%s", files->name);
		cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

		if (fd < 0 || io_write_full(fd, files->text, strlen(files->text)) < 0)
			return err_set(err, errno, "write `%s`", path);
	}
	return 0;
}

static int build_view(const struct bootstrap *b, int tree, struct err *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "private mounts");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return err_set(err, errno, "mount /proc");
	cleanup_close int tmp = mnt_tmpfs(256U << 20, 01777, err);
	cleanup_close int at = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (tmp < 0 || at < 0)
		return tmp < 0 ? -1 : err_set(err, errno, "open /tmp");
	if (mnt_host()->move(tmp, at, "", err) < 0 || mnt_host()->move(tree, AT_FDCWD, BOOTSTRAP_TREE, err) < 0)
		return -1;
	return put_files(b->files, err);
}

static int take_tree(int sock, struct err *err)
{
	struct frame f;
	int r = frame_recv(sock, &f);

	if (r <= 0)
		return err_set(err, r < 0 ? -r : ECONNRESET, "the parent is gone");
	int fd = frame_take_fd(&f, 0);
	frame_release(&f);
	return fd;
}

static void exec_step(const char *const *argv)
{
	static char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
			      "LC_ALL=C.UTF-8",
			      "HOME=/root",
			      "TMPDIR=/tmp",
			      "DEBIAN_FRONTEND=noninteractive",
			      "container=lxc", /* tells debootstrap that there is no mknod */
			      NULL};
	int null = open("/dev/null", O_RDONLY);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || chdir("/") < 0)
		_exit(127);
	execvpe(argv[0], (char *const *)(uintptr_t)argv, env);
	fprintf(stderr, "E: %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* pid 1: runs the steps, and reaps whatever they leave. Its end is the end of all of them. */
static int run_steps(const char *const *const *steps)
{
	for (; *steps; steps++) {
		int status = 0;
		pid_t pid = fork(), got;

		if (pid < 0)
			return 126;
		if (pid == 0)
			exec_step(*steps);
		while ((got = waitpid(-1, &status, 0)) != pid)
			if (got < 0 && errno != EINTR)
				return 126;
		if (status)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	return 0;
}

_Noreturn static void inside(const struct bootstrap *b, int sock, int out)
{
	struct err err = ERR_INIT;
	int tree = take_tree(sock, &err);

	signal(SIGINT, SIG_IGN); /* a Ctrl-C is for the parent, which kills us */
	signal(SIGTERM, SIG_DFL);
	umask(022);
	if (tree >= 0 && (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ||
			  prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ||
			  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)) {
		err_set(&err, errno, "become root of the namespace");
		tree = -1;
	}
	char byte;
	if (tree >= 0 && recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		_exit(1); /* the parent has just died */
	if (tree < 0 || build_view(b, tree, &err) < 0) {
		dprintf(out, "E: %s\n", err.msg);
		_exit(125);
	}
	close(tree);
	if (dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(125);
	_exit(run_steps(b->steps));
}

/* -- outside --------------------------------------------------------------------------------------------------------- */

static int provide(const struct bootstrap *b, pid_t pid, int sock, struct err *err)
{
	const struct plan_mount tree = {.write = true, .idmap = true};
	char path[64];

	if (user_write_maps(pid, FIRST_ID, NULL, err) < 0 || user_write_oom(pid, err) < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	cleanup_close int userns = open(path, O_RDONLY | O_CLOEXEC);
	if (userns < 0)
		return err_set(err, errno, "user namespace");
	cleanup_close int mount = mnt_clone_for(&tree, b->tree, userns, err);
	if (mount < 0)
		return -1;
	int r = frame_send(sock, 1, 1, NULL, 0, &mount, 1);
	return r < 0 ? err_set(err, -r, "hand the tree over") : 0;
}

/* Whole lines, also those that end with a carriage return. */
static void hand_lines(const struct bootstrap *b, struct buf *in, bool end)
{
	while (in->len) {
		size_t n = strcspn(in->data, "\r\n");
		if (n == in->len && !end && n < LINE_MAX_BYTES)
			return;
		cleanup_free char *line = xstrndup(in->data, n);
		if (*line)
			b->line(b->ctx, line);
		buf_consume(in, n < in->len ? n + 1 : n);
	}
}

/* Until the last process inside has closed its output: then all of them are gone. */
static void follow(const struct bootstrap *b, int out, pid_t pid)
{
	cleanup_buf struct buf in = BUF_INIT;
	bool killed = false;

	for (;;) {
		struct pollfd p = {.fd = out, .events = POLLIN};
		char chunk[4096];

		if (*b->stop && !killed) {
			kill(pid, SIGKILL);
			killed = true;
		}
		if (poll(&p, 1, 500) <= 0) /* a signal between the look and the wait is seen half a second later */
			continue;
		ssize_t n = read(out, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++) /* a NUL would hide the rest of a line */
			chunk[i] = chunk[i] ? chunk[i] : '?';
		buf_add(&in, chunk, (size_t)n);
		hand_lines(b, &in, false);
	}
	hand_lines(b, &in, true);
}

int bootstrap_run(const struct bootstrap *b, struct err *err)
{
	struct clone_args args = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
	int sv[2], out[2], status = 0;
	int r = frame_pair(sv);

	if (r < 0 || pipe2(out, O_CLOEXEC) < 0)
		return err_set(err, r < 0 ? -r : errno, "pipes");
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0) {
		close(sv[0]);
		close(out[0]);
		inside(b, sv[1], out[1]);
	}
	cleanup_close int sock = sv[0], from = out[0];
	int e = errno;
	close(sv[1]);
	close(out[1]);
	if (pid < 0)
		return err_set(err, e, "clone3 with namespaces");
	r = provide(b, pid, sock, err);
	if (r < 0)
		kill(pid, SIGKILL);
	follow(b, from, pid);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return -1;
	if (*b->stop)
		return err_text(err, EINTR, "interrupted");
	return status ? err_text(err, EIO, "the installation failed") : 0;
}
