/* Pid 1 inside: execs the main process in a child, hands signals from outside on to it, reaps whatever ends, and ends
 * with it, which ends all others. Behind every wall already, and out of the reach of the app: not dumpable, its
 * memory of the caller wiped where it shows. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "sandbox/contain.h"

_Noreturn void contain_fail(int sock, const struct err *err)
{
	io_write_full(sock, err, sizeof *err);
	_exit(127);
}

static const char *env_get(char **env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* execvp's rule, with the PATH of the app and not of the caller. Returns the errno that tells most. */
static int exec_in_path(char **argv, char **env)
{
	static char *const none[] = {NULL};
	const char *path = env_get(env, "PATH");
	char file[4096];
	int worst = ENOENT;

	env = env ? env : (char **)none;
	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, env);
		return errno;
	}
	path = path && *path ? path : "/usr/local/bin:/usr/bin:/bin";
	for (size_t n; *path; path += n + (path[n] == ':')) {
		n = strcspn(path, ":");
		if (n == 0 || (size_t)snprintf(file, sizeof file, "%.*s/%s", (int)n, path, argv[0]) >= sizeof file)
			continue;
		execve(file, argv, env);
		if (errno != ENOENT && errno != ENOTDIR)
			worst = errno;
	}
	return worst;
}

/* The descriptors go to 0, 1, 2 by way of numbers that are out of their way. */
static int take_stdio(const int stdio[3])
{
	int high[3];

	for (int i = 0; i < 3; i++)
		if ((high[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return -1;
	for (int i = 0; i < 3; i++)
		if (dup2(high[i], i) < 0)
			return -1;
	return 0;
}

_Noreturn static void main_process(struct contain *c)
{
	const struct sandbox_spec *s = c->spec;
	struct err err = ERR_INIT;
	char cwd[4096];
	sigset_t none;
	int sock = fcntl(c->sock, F_DUPFD_CLOEXEC, 32);

	setsid(); /* no way to the terminal of the caller: CVE-2017-5226 */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(s->cwd ? s->cwd : "/") < 0) {
		err_set(&err, errno, "working folder `%.300s`", s->cwd);
		contain_fail(c->sock, &err);
	}
	/* A folder outside of the root reads as "(unreachable)/...": CVE-2024-21626, battery A10. */
	if (!getcwd(cwd, sizeof cwd) || cwd[0] != '/') {
		err_set(&err, EXDEV, "working folder `%.300s` is outside", s->cwd);
		contain_fail(c->sock, &err);
	}
	if (sock < 0 || take_stdio(c->stdio) < 0 || close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0) {
		err_set(&err, errno, "descriptors of the main process");
		contain_fail(c->sock, &err);
	}
	int code = exec_in_path(s->argv, s->env);
	err_set(&err, code, "exec `%.300s`", s->argv[0]);
	contain_fail(sock, &err);
}

/* Only signals from outside (si_pid 0: no such process in here) go on; the app can reach itself without us. */
static void forward(const siginfo_t *si, pid_t to)
{
	if (si->si_code <= 0 && si->si_pid == 0)
		kill(to, si->si_signo);
}

_Noreturn static void reap(pid_t main_pid, int status_pipe)
{
	sigset_t all;
	siginfo_t si;
	int status;

	sigfillset(&all);
	for (;;) {
		pid_t pid;

		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (pid != main_pid)
				continue;
			io_write_full(status_pipe, &status, sizeof status);
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		}
		if (pid < 0)
			_exit(127);
		if (sigwaitinfo(&all, &si) > 0 && si.si_signo != SIGCHLD)
			forward(&si, main_pid);
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
	sigprocmask(SIG_SETMASK, &all, NULL);
	default_signals();
	/* Nobody inside may look at what is left of the caller here: CVE-2016-9962, battery B4, E2. */
	prctl(PR_SET_NAME, "init", 0, 0, 0);
	if (c->title)
		memset(c->title, 0, c->title_len);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
		err_set(&err, errno, "not dumpable");
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
		main_process(c);
	if (dup2(c->status, 0) < 0 || close_range(1, ~0U, 0) < 0)
		_exit(127);
	reap(pid, 0);
}
