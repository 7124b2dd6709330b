/* Pid 1 inside: execs the main process in a child, hands signals from outside on to it, starts the commands beside it that
 * are asked for from outside (exec_inside.c), reaps whatever ends, and ends with the main process, which ends all others.
 * Behind every wall already, and out of the reach of the app: not dumpable, its memory of the caller wiped where it
 * shows. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "sandbox/contain.h"

#define REPORT_AGAIN_MS 50

_Noreturn static void fail(int sock, const struct err *err, bool program)
{
	struct contain_failure f = {.err = *err, .program = program};

	io_write_full(sock, &f, sizeof f);
	_exit(127);
}

_Noreturn void contain_fail(int sock, const struct err *err)
{
	fail(sock, err, false);
}

/* In the caller's process group, pid 1 would get the terminal's signals too, and lose for them those that are handed on. */
int session_own(struct contain *c, struct err *err)
{
	if (setsid() < 0 || getsid(0) != getpid())
		return err_set(err, errno, "a session of its own");
	return 0;
}

_Noreturn static void main_process(struct contain *c)
{
	const struct sandbox_spec *s = c->spec;
	struct err err = ERR_INIT;
	int sock = fcntl(c->sock, F_DUPFD_CLOEXEC, 32);

	/* no way to the terminal of the caller: CVE-2017-5226 */
	if (sock < 0 || setsid() < 0) {
		err_set(&err, errno, "descriptors of the main process");
		contain_fail(c->sock, &err);
	}
	if (program_prepare(s->cwd, c->stdio, &err) < 0)
		contain_fail(sock, &err);
	int code = program_exec(s->argv, s->env);
	err_set(&err, code, "exec `%.300s`", s->argv[0]);
	fail(sock, &err, true);
}

/* Only signals from outside (pid 0: no such process in here) go on; the app can reach itself without us. The main process
 * leads a group of its own. */
static void forward(int signals, pid_t to)
{
	struct signalfd_siginfo si;

	if (read(signals, &si, sizeof si) == (ssize_t)sizeof si && si.ssi_signo != SIGCHLD && si.ssi_code <= 0 &&
	    si.ssi_pid == 0)
		kill(si.ssi_code == SI_QUEUE && si.ssi_int == SANDBOX_TO_GROUP ? -to : to, (int)si.ssi_signo);
}

/* What pid 1 keeps; all other descriptors are closed. */
enum { STATUS, REQUESTS, SIGNALS, KEPT };

static void reap(pid_t main_pid, struct exec_table *commands, int requests)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != main_pid) {
			exec_reaped(commands, requests, pid, status);
			continue;
		}
		io_write_full(STATUS, &status, sizeof status);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	if (pid < 0)
		_exit(127);
}

_Noreturn static void live(const struct contain *c, pid_t main_pid)
{
	struct exec_table commands = {0};
	struct pollfd p[2] = {{.fd = SIGNALS, .events = POLLIN}, {.fd = REQUESTS, .events = POLLIN}};

	for (;;) {
		reap(main_pid, &commands, p[1].fd);
		if (poll(p, 2, exec_report(&commands, p[1].fd) ? REPORT_AGAIN_MS : -1) < 0)
			continue;
		if (p[0].revents)
			forward(SIGNALS, main_pid);
		if (p[1].revents && !exec_serve(c, &commands, REQUESTS)) {
			close(REQUESTS); /* nobody out there can ask any more */
			p[1].fd = -1;
		}
	}
}

static void default_signals(void)
{
	struct sigaction now, def = {.sa_handler = SIG_DFL};

	for (int i = 1; i <= SIGRTMAX; i++)
		if (sigaction(i, NULL, &now) == 0 && now.sa_handler != SIG_DFL)
			sigaction(i, &def, NULL);
}

_Noreturn void init_run(struct contain *c)
{
	struct err err = ERR_INIT;
	sigset_t all;

	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0) {
		err_set(&err, errno, "block all signals");
		contain_fail(c->sock, &err);
	}
	default_signals();
	/* Nobody inside may look at what is left of the caller here: CVE-2016-9962, battery B4, E2. */
	if (c->title)
		memset(c->title, 0, c->title_len);
	if (prctl(PR_SET_NAME, "init", 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
		err_set(&err, errno, "not dumpable");
		contain_fail(c->sock, &err);
	}
	/* What it keeps, by way of numbers that are out of their way. */
	int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	int keep[KEPT] = {[STATUS] = fcntl(c->status, F_DUPFD_CLOEXEC, 16),
			  [REQUESTS] = fcntl(c->exec, F_DUPFD_CLOEXEC, 16),
			  [SIGNALS] = fcntl(signals, F_DUPFD_CLOEXEC, 16)};
	if (keep[STATUS] < 0 || keep[REQUESTS] < 0 || keep[SIGNALS] < 0 || io_set_nonblock(c->exec, true) < 0) {
		err_set(&err, errno, "descriptors of pid 1");
		contain_fail(c->sock, &err);
	}
	/* vfork: until it execs, the main process runs on our memory, which is not copied (0.2 ms), and we wait. Its signal
	 * mask, descriptors and folder are its own. Undumpable like us until the exec. */
	pid_t pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
	if (pid < 0) {
		err_set(&err, errno, "fork the main process");
		contain_fail(c->sock, &err);
	}
	if (pid == 0)
		main_process(c); // NOLINT(clang-analyzer-unix.Vfork)
	for (int i = 0; i < KEPT; i++)
		if (dup3(keep[i], i, O_CLOEXEC) < 0)
			_exit(127);
	if (close_range(KEPT, ~0U, 0) < 0)
		_exit(127);
	live(c, pid);
}
