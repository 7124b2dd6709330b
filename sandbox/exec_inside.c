/* Pid 1's part of exec.h: it takes requests from outside, forks the commands and reports their ends. Called by init.c.
 * The app cannot speak here: the socket is a descriptor of pid 1's alone, which is not dumpable, and a fork of it is not
 * either until it is the command (CVE-2016-9962, battery E2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "sandbox/contain.h"
#include "sandbox/exec.h"

/* -- in the child ------------------------------------------------------------------------------------------------------ */

/* A terminal of the sandbox's own devpts, not of the operator's: nothing that is written into it from here gets typed
 * anywhere else (CVE-2017-5226, battery E5). Opened without O_NOCTTY by a session leader, the slave is its controlling
 * terminal: the filter has no TIOCSCTTY. */
static int make_terminal(const struct exec_request *q, int stdio[3], int *master, struct err *err)
{
	struct winsize size = {.ws_row = (unsigned short)q->rows, .ws_col = (unsigned short)q->cols};
	struct stat pts;
	struct stat st;
	int unlock = 0;

	*master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0)
		return err_set(err, errno, "open a terminal");
	/* CVE-2025-52565, battery A6: really one of the devpts at /dev/pts */
	if (stat("/dev/pts", &pts) < 0 || fstat(*master, &st) < 0 || st.st_dev != pts.st_dev ||
	    exec_ends_check(true, master, 1, err) < 0)
		return err_set(err, ENODEV, "/dev/ptmx is no terminal of this sandbox");
	if (ioctl(*master, TIOCSPTLCK, &unlock) < 0 || (q->rows && ioctl(*master, TIOCSWINSZ, &size) < 0))
		return err_set(err, errno, "set up a terminal");
	int slave = ioctl(*master, TIOCGPTPEER, O_RDWR);
	if (slave < 0)
		return err_set(err, errno, "open the other end of a terminal");
	if (tcgetsid(slave) != getpid())
		return err_set(err, EPERM, "the terminal does not control the command");
	stdio[0] = stdio[1] = stdio[2] = slave;
	return 0;
}

static int make_pipes(int stdio[3], int ends[3], struct err *err)
{
	for (int i = 0; i < 3; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC) < 0)
			return err_set(err, errno, "pipes");
		stdio[i] = i == 0 ? p[0] : p[1];
		ends[i] = i == 0 ? p[1] : p[0];
	}
	return 0;
}

/* The environment of the main process, with another TERM. Never freed: exec follows. */
static char **with_term(char **env, const char *term)
{
	size_t n = 0, kept = 0;

	if (!term)
		return env;
	while (env && env[n])
		n++;
	char **out = xcalloc(n + 2, sizeof *out);
	for (size_t i = 0; i < n; i++)
		if (strncmp(env[i], "TERM=", 5) != 0)
			out[kept++] = env[i];
	out[kept] = xasprintf("TERM=%s", term);
	return out;
}

static void failed(int sock, uint32_t id, const struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)(err->code ? err->code : EIO));
	put_str(&b, err->msg);
	frame_send(sock, EXEC_FAILED, id, b.data, b.len, NULL, 0);
}

_Noreturn static void command(const struct contain *c, int sock, uint32_t id, const struct exec_request *q)
{
	const struct sandbox_spec *s = c->spec;
	int stdio[3], ends[3];
	struct err err = ERR_INIT;

	setsid();
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
		err_set(&err, EPERM, "the memory of pid 1 would show");
		failed(sock, id, &err);
		_exit(EXEC_CANNOT);
	}
	if ((q->tty ? make_terminal(q, stdio, ends, &err) : make_pipes(stdio, ends, &err)) < 0) {
		failed(sock, id, &err);
		_exit(EXEC_CANNOT);
	}
	if (frame_send(sock, EXEC_STARTED, id, NULL, 0, ends, exec_ends(q->tty)) < 0)
		_exit(EXEC_CANNOT);
	/* From here on a failure is something that the command says, on its own stderr. */
	int say = fcntl(stdio[2], F_DUPFD_CLOEXEC, 32), code = 0;
	if (program_prepare(q->cwd ? q->cwd : s->cwd, stdio, &err) == 0) {
		code = program_exec(q->argv, with_term(s->env, q->term));
		err_set(&err, code, "exec `%.300s`", q->argv[0]);
	}
	dprintf(say, "spaced: %s\n", err.msg);
	_exit(!code ? EXEC_CANNOT : code == ENOENT ? EXEC_NOT_FOUND : EXEC_NOT_EXECUTABLE);
}

/* -- in pid 1 ---------------------------------------------------------------------------------------------------------- */

static int start(const struct contain *c, struct exec_table *t, int sock, struct frame *f, struct err *err)
{
	struct reader r = reader_of(f->payload, f->len);
	struct exec_request q;
	size_t slot = 0;

	while (slot < EXEC_MAX && (t->run[slot].pid || t->run[slot].ended))
		slot++;
	if (slot == EXEC_MAX)
		return err_set(err, EAGAIN, "%d commands run in it already", EXEC_MAX);
	if (exec_request_decode(&r, &q, err) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0)
		command(c, sock, f->id, &q);
	int code = errno;
	exec_request_release(&q);
	if (pid < 0)
		return err_set(err, code, code == EAGAIN ? "no room for another process" : "fork");
	t->run[slot].id = f->id;
	t->run[slot].pid = pid;
	return 0;
}

static void send_signal(const struct exec_table *t, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	int signo = (int)get_u32(&r);

	if (!get_ok(&r) || signo < 1 || signo > SIGRTMAX)
		return;
	for (size_t i = 0; i < EXEC_MAX; i++) {
		pid_t pid = t->run[i].pid;

		/* The group may not be there yet, or the command may have left it. */
		if (pid && (f->id == 0 || f->id == t->run[i].id) && kill(-pid, signo) < 0)
			kill(pid, signo);
	}
}

bool exec_serve(const struct contain *c, struct exec_table *t, int sock)
{
	struct err err = ERR_INIT;
	struct frame f;
	int r = frame_recv(sock, &f);

	if (r <= 0)
		return r == -EAGAIN;
	if (f.type == EXEC_SIGNAL)
		send_signal(t, &f);
	else if (f.type == EXEC_RUN && start(c, t, sock, &f, &err) < 0)
		failed(sock, f.id, &err);
	frame_release(&f);
	return true;
}

/* The ends that nobody was told of yet. Whoever asked may be slow and the socket full, or memory short for a moment: the
 * place is kept, or the asker would wait for ever. Any other failure: nobody is there any more. */
bool exec_report(struct exec_table *t, int sock)
{
	bool left = false;

	for (size_t i = 0; i < EXEC_MAX; i++) {
		cleanup_buf struct buf b = BUF_INIT;

		if (!t->run[i].ended)
			continue;
		put_u32(&b, t->run[i].status);
		int r = sock < 0 ? -EPIPE : frame_send(sock, EXEC_ENDED, t->run[i].id, b.data, b.len, NULL, 0);
		t->run[i].ended = frame_again(r);
		left |= t->run[i].ended;
	}
	return left;
}

void exec_reaped(struct exec_table *t, int sock, pid_t pid, int status)
{
	for (size_t i = 0; i < EXEC_MAX; i++) {
		if (t->run[i].pid != pid)
			continue;
		t->run[i].pid = 0;
		t->run[i].ended = true;
		t->run[i].status = (uint32_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		exec_report(t, sock);
		return;
	}
}
