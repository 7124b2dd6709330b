/* The table of all cases, and how an act is told. */
#include "probe.h"

#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/wait.h>

const char *argument = "";

void say(bool reached, const char *name)
{
	if (reached)
		printf("reached %s\n", name);
	else
		printf("blocked %s (%s)\n", name, strerrorname_np(errno) ? strerrorname_np(errno) : "0");
	fflush(stdout);
}

void in_child(const char *name, long (*act)(long), long arg)
{
	int pipefd[2], code = 0;

	if (pipe(pipefd) < 0)
		exit(99);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		errno = 0;
		code = act(arg) >= 0 ? 0 : errno ? errno : EIO;
		_exit(write(pipefd[1], &code, sizeof code) == sizeof code ? 0 : 1);
	}
	close(pipefd[1]);
	if (read(pipefd[0], &code, sizeof code) != sizeof code)
		code = EINTR;
	close(pipefd[0]);
	waitpid(pid, NULL, 0);
	errno = code;
	say(code == 0, name);
}

void call(const char *name, long nr, long a, long b, long c, long d, long e)
{
	errno = 0;
	long r = syscall(nr, a, b, c, d, e, 0L);

	say(r >= 0 || (errno != EPERM && errno != ENOSYS && errno != EACCES), name);
}

void fact(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("fact %s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static const struct probe_case *const groups[] = {fs_cases,	 proc_cases, ns_cases,	  syscall_cases,
						  process_cases, net_cases,  abuse_cases, NULL};

int main(int argc, char **argv)
{
	if (argc > 2)
		argument = argv[2];
	for (size_t g = 0; argc > 1 && groups[g]; g++)
		for (const struct probe_case *c = groups[g]; c->name; c++)
			if (strcmp(c->name, argv[1]) == 0) {
				c->run();
				return 0;
			}
	fprintf(stderr, "usage: probe CASE [ARGUMENT]\n");
	return 99;
}
