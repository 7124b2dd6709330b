/* See slirp.h. slirp4netns(1) as of Debian 12 (1.2.0). */
#include "sandbox/slirp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "sandbox/netns.h"

#define READY_MS 10000
#define OUTPUT_MAX 65536

/* The descriptors of the program, from 3 on. */
enum { FD_NETNS = 3, FD_READY, FD_EXIT, FD_GONE, FD_USERNS, NFDS }; /* FD_USERNS only where there is one */

static const char *find(void)
{
	static const char *const places[] = {"/usr/bin/slirp4netns", "/usr/local/bin/slirp4netns", "/bin/slirp4netns"};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

bool slirp_probe(struct buf *why)
{
	cleanup_close int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (!find())
		buf_adds(why, "egress: slirp4netns is not installed\n");
	else if (tun < 0)
		buf_addf(why, "egress: /dev/net/tun: %s\n", strerror(errno));
	else
		return true;
	return false;
}

/* Its own sandbox (a mount namespace, no capabilities) wants an id 0 to be mapped: a daemon in a user namespace has one. For
 * an ordinary user, who has no capabilities to give up, Landlock does the same for files. */
static const struct confine_path readable[] = {{.path = "/usr", .exec = true},
					       {.path = "/lib", .exec = true},
					       {.path = "/lib64", .exec = true},
					       {.path = "/etc"},
					       {.path = "/run"},
					       {.path = "/proc"},
					       {.path = "/dev/null"},
					       {.path = "/dev/net/tun", .write = true},
					       {.path = NULL}};

/* Large packets save it work; but its windows are of 64 KiB, and one that holds a single packet waits for delayed
 * acknowledgements: of 1500, 9000, 16000 and 65520 bytes this is the fastest both ways. What is policed comes in small ones. */
#define MTU "16000"
#define MTU_PACED "1500"

/* What it says goes to a file in memory that cannot grow. */
_Noreturn static void run(const char *program, const int fds[NFDS], int output, bool paced, bool list)
{
	const char *argv[20] = {program,
				"--configure",
				"--disable-host-loopback",
				"--enable-seccomp",
				"--netns-type=path",
				"--ready-fd=4",
				"--exit-fd=5",
				paced ? "--mtu=" MTU_PACED : "--mtu=" MTU};
	char *env[] = {NULL};
	struct rlimit size = {OUTPUT_MAX, OUTPUT_MAX};
	struct err err = ERR_INIT;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	size_t n = 8;

	_Static_assert(FD_NETNS == 3 && FD_READY == 4 && FD_EXIT == 5 && FD_USERNS == 7, "as in the arguments");
	if (geteuid() == 0)
		argv[n++] = "--enable-sandbox";
	else if (confine_files(readable, &err) < 0)
		_exit(127);
	if (list) /* the gate's resolver answers there */
		argv[n++] = "--disable-dns";
	if (fds[FD_USERNS] >= 0)
		argv[n++] = "--userns-path=/proc/self/fd/7";
	argv[n++] = "/proc/self/fd/3";
	argv[n++] = "eth0";
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &size);
	int high[NFDS];
	int count = fds[FD_USERNS] >= 0 ? NFDS : FD_USERNS;
	for (int i = FD_NETNS; i < count; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 64)) < 0)
			_exit(127);
	if (dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
		_exit(127);
	for (int i = FD_NETNS; i < count; i++)
		if (dup2(high[i], i) < 0)
			_exit(127);
	close_range((unsigned)count, ~0U, 0);
	execve(program, (char *const *)(uintptr_t)argv, env);
	_exit(127);
}

static int not_ready(int output, struct err *err)
{
	char text[400];
	ssize_t n = pread(output, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = p[1] ? ';' : '\0';
	return err_text(err, EIO, "slirp4netns did not come up: %s", text);
}

int slirp_start(const struct egress_policy *policy, int netns, int gone, int *alive, struct err *err)
{
	cleanup_close int output = memfd_create("slirp4netns", MFD_CLOEXEC);
	cleanup_close int ready = -1, theirs = -1, exits = -1, ours = -1, userns = -1;
	const char *program = find();
	int p[2];
	char byte;

	if (!program)
		return err_text(err, ENOENT, "slirp4netns is not installed");
	if (netns_owner(netns, &userns, err) < 0)
		return -1;
	if (output < 0 || pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe for slirp4netns");
	ready = p[0];
	theirs = p[1];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe for slirp4netns");
	exits = p[0];
	ours = p[1];
	pid_t pid = fork();
	if (pid == 0) {
		int fds[NFDS] = {
		    [FD_NETNS] = netns, [FD_READY] = theirs, [FD_EXIT] = exits, [FD_GONE] = gone, [FD_USERNS] = userns};
		run(program, fds, output, policy->bandwidth > 0, policy->kind == EGRESS_LIST);
	}
	if (pid < 0)
		return err_set(err, errno, "fork");
	close(steal_fd(&theirs));
	struct pollfd wait = {ready, POLLIN, 0};
	if (poll(&wait, 1, READY_MS) != 1 || read(ready, &byte, 1) != 1) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return not_ready(output, err);
	}
	*alive = steal_fd(&ours);
	return 0;
}
