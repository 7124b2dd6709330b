/* Group E: processes, signals, IPC, terminals. */
#include "probe.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* `argument`: pid of a process of the host. */
static void e1(void)
{
	pid_t pid = (pid_t)atoi(argument);

	say(kill(pid, 0) == 0, "signal to a process of the host");
	say(syscall(SYS_pidfd_open, pid, 0) >= 0, "pidfd of a process of the host");
}

static long terminal(long what)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), line = 0;
	char letter = 'x';

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		return -1;
	setsid();
	int slave = open(ptsname(master), O_RDWR);
	if (slave < 0)
		return -1;
	if (what == 0)
		return ioctl(slave, TIOCSTI, &letter);
	if (what == 1)
		return ioctl(slave, TIOCSETD, &line);
	return ioctl(slave, TIOCSCTTY, 0);
}

static void e5(void)
{
	in_child("TIOCSTI", terminal, 0);
	in_child("TIOCSETD", terminal, 1);
	in_child("TIOCSCTTY", terminal, 2);
}

const struct probe_case process_cases[] = {
    {"E1", e1},
    {"E5", e5},
    {NULL, NULL},
};
