/* The last steps of pid 1's children before they are the app's programs: the main process (init.c) and commands beside it
 * (exec_inside.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <unistd.h>

#include "sandbox/contain.h"

static const char *env_get(char **env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* execvp's rule, with the PATH of the app and not of the caller. Returns the errno that tells most. */
int program_exec(char **argv, char **env)
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

int program_prepare(const char *folder, const int stdio[3], struct err *err)
{
	char cwd[4096];
	sigset_t none;

	if (chdir(folder ? folder : "/") < 0)
		return err_set(err, errno, "working folder `%.300s`", folder);
	/* A folder outside of the root reads as "(unreachable)/...": CVE-2024-21626, battery A10. */
	if (!getcwd(cwd, sizeof cwd) || cwd[0] != '/')
		return err_set(err, EXDEV, "working folder `%.300s` is outside", folder);
	/* CVE-2024-21626, battery A9 */
	if (take_stdio(stdio) < 0 || close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return err_set(err, errno, "descriptors of the program");
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return err_set(err, errno, "signals of the program");
	return 0;
}
