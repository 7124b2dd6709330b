/* Group G: amounts. `argument` is how much is tried: more than a sandbox may have, and what a host has anyway. */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#define MIB (1L << 20)

static long amount(void)
{
	return atol(argument);
}

/* The one to be killed when memory is short: it is the culprit. */
static void blame_me(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd >= 0 && write(fd, "1000", 4) == 4)
		close(fd);
}

/* -- G1: processes -------------------------------------------------------------------------------------------------- */

/* All at once, then all away. */
static long processes(long n)
{
	pid_t *all = calloc((size_t)n, sizeof *all);
	long made = 0;
	int code = 0;

	for (; all && made < n && !code; made++) {
		all[made] = fork();
		if (all[made] == 0) {
			pause();
			_exit(0);
		}
		if (all[made] < 0)
			code = errno;
	}
	for (long i = 0; i < made; i++)
		if (all[i] > 0)
			kill(all[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	free(all);
	errno = code;
	return code ? -1 : 0;
}

static void *nothing(void *unused)
{
	pause();
	return unused;
}

static long threads(long n)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (long i = 0; i < n; i++) {
		int code = pthread_create(&thread, &attr, nothing, NULL);
		if (code) {
			errno = code;
			return -1;
		}
	}
	return 0;
}

/* Each waits for its child, which is the next: a chain of processes in vfork. */
static int vfork_link(void *left)
{
	long n = (long)left;
	char *stack = n ? mmap(NULL, 16 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;

	if (!n)
		return 0;
	if (stack == MAP_FAILED)
		return ENOMEM;
	int status = 0;
	pid_t pid = clone(vfork_link, stack + (16 << 10), CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)(n - 1));
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static long vforks(long n)
{
	errno = vfork_link((void *)n);
	return errno ? -1 : 0;
}

static void g1(void)
{
	if (strcmp(argument, "bomb") == 0) { /* never ends by itself */
		for (int i = 1; i < 65; i++)
			signal(i, SIG_IGN);
		for (;;)
			if (fork() < 0)
				sched_yield();
	}
	in_child("processes", processes, amount());
	in_child("threads", threads, amount());
	in_child("vfork", vforks, amount());
}

/* -- G2: memory ----------------------------------------------------------------------------------------------------- */

static long touch(char *p, long bytes)
{
	if (p == MAP_FAILED)
		return -1;
	for (long at = 0; at < bytes; at += 4096)
		p[at] = 1;
	return 0;
}

static long anonymous(long mib)
{
	blame_me();
	return touch(mmap(NULL, (size_t)(mib * MIB), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		     mib * MIB);
}

static long shared(long mib)
{
	blame_me();
	return touch(mmap(NULL, (size_t)(mib * MIB), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		     mib * MIB);
}

static long in_memfd(long mib)
{
	int fd = memfd_create("g2", 0);

	blame_me();
	if (fd < 0 || ftruncate(fd, mib * MIB) < 0)
		return -1;
	return touch(mmap(NULL, (size_t)(mib * MIB), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), mib * MIB);
}

static long sysv(long mib)
{
	int id = shmget(IPC_PRIVATE, (size_t)(mib * MIB), 0600);
	char *p = id < 0 ? (void *)-1 : shmat(id, NULL, 0);

	if (id >= 0)
		shmctl(id, IPC_RMID, NULL);
	blame_me();
	return touch(p == (void *)-1 ? MAP_FAILED : p, mib * MIB);
}

/* Each with the size that one may ask for: 64 of 1 MiB for who has no privilege, then 4 KiB each. */
static long pipes(long mib)
{
	static char block[1 << 16];
	long bytes = 0;

	blame_me();
	while (bytes < mib * MIB) {
		int p[2];
		if (pipe2(p, O_NONBLOCK) < 0)
			return -1;
		fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
		for (ssize_t n; (n = write(p[1], block, sizeof block)) > 0;)
			bytes += n;
	}
	return 0;
}

static long sockets(long mib)
{
	static char block[1 << 16];
	long bytes = 0;
	int big = 8 << 20;

	blame_me();
	while (bytes < mib * MIB) {
		int sv[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) < 0)
			return -1;
		setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
		for (ssize_t n; (n = write(sv[0], block, sizeof block)) > 0;)
			bytes += n;
	}
	return 0;
}

/* A byte in each GiB costs three pages: its own, and two of tables. */
static long tables(long mib)
{
	const size_t all = 1UL << 46;
	char *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	blame_me();
	if (p == MAP_FAILED)
		return -1;
	madvise(p, all, MADV_NOHUGEPAGE);
	for (long i = 0; i < mib * MIB / (3 * 4096); i++)
		p[((size_t)i << 30) % all + ((size_t)i << 30) / all * (2 << 20)] = 1;
	return 0;
}

static const struct {
	const char *name;
	long (*act)(long mib);
} forms[] = {
    {"anonymous", anonymous}, {"shared", shared},   {"memfd", in_memfd}, {"sysv", sysv},
    {"pipes", pipes},	      {"sockets", sockets}, {"tables", tables},
};

/* "MIB" or "MIB,FORM": in an app each form is tried alone. */
static void g2(void)
{
	const char *form = strchr(argument, ',');

	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (!form || strcmp(form + 1, forms[i].name) == 0)
			in_child(forms[i].name, forms[i].act, amount());
}

/* -- G3, G4: files -------------------------------------------------------------------------------------------------- */

static char folder[256];

static long write_bytes(long mib)
{
	static char block[MIB];
	char path[300];

	snprintf(path, sizeof path, "%s/g3-big", folder);
	int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	memset(block, 'x', sizeof block);
	for (long i = 0; fd >= 0 && i < mib; i++)
		if (write(fd, block, sizeof block) != (ssize_t)sizeof block)
			break;
		else if (i + 1 == mib)
			return unlink(path);
	int code = errno ? errno : ENOSPC;
	unlink(path);
	errno = code;
	return -1;
}

static long allocate(long mib)
{
	char path[300];

	snprintf(path, sizeof path, "%s/g3-allocated", folder);
	int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	long r = fd < 0 ? -1 : fallocate(fd, 0, 0, mib * MIB);
	int code = errno;
	unlink(path);
	errno = code;
	return r;
}

static long files(long n)
{
	char path[300];
	int code = 0;
	long made = 0;

	snprintf(path, sizeof path, "%s/g3-files", folder);
	mkdir(path, 0700);
	for (; made < n && !code; made++) {
		snprintf(path, sizeof path, "%s/g3-files/%ld", folder, made);
		int fd = open(path, O_CREAT | O_WRONLY, 0600);
		if (fd < 0)
			code = errno;
		else
			close(fd);
	}
	while (made-- > 0) {
		snprintf(path, sizeof path, "%s/g3-files/%ld", folder, made);
		unlink(path);
	}
	snprintf(path, sizeof path, "%s/g3-files", folder);
	rmdir(path);
	errno = code;
	return code ? -1 : 0;
}

/* "MIB,FILES,FOLDER"; /tmp where there is no such folder: outside. The number of files. */
static long take_folder(void)
{
	long many = 0;

	if (sscanf(argument, "%*d,%ld,%255s", &many, folder) != 2)
		exit(99);
	if (access(folder, W_OK) < 0)
		snprintf(folder, sizeof folder, "/tmp");
	return many;
}

static void g3(void)
{
	long many = take_folder();

	in_child("bytes", write_bytes, amount());
	in_child("allocated bytes", allocate, amount());
	in_child("files", files, many);
}

static long attributes(long n)
{
	static char value[3000];
	char path[300];
	long r = 0;

	long made = 0;

	snprintf(path, sizeof path, "%s/g4", folder);
	mkdir(path, 0700);
	for (long i = 0; i < n && r == 0; made = ++i) {
		snprintf(path, sizeof path, "%s/g4/%ld", folder, i);
		int fd = open(path, O_CREAT | O_WRONLY, 0600);
		memcpy(value, &i, sizeof i); /* equal ones are kept once */
		r = fd < 0 ? -1 : fsetxattr(fd, "user.g4", value, sizeof value, 0);
		int code = errno;
		if (fd >= 0)
			close(fd);
		errno = code;
	}
	int code = errno;
	while (made-- > 0) {
		snprintf(path, sizeof path, "%s/g4/%ld", folder, made);
		unlink(path);
	}
	snprintf(path, sizeof path, "%s/g4", folder);
	rmdir(path);
	errno = code;
	return r;
}

static void g4(void)
{
	g3();
	in_child("attributes", attributes, take_folder());
}

/* -- G5: names that are not there ------------------------------------------------------------------------------------ */

static void g5(void)
{
	char path[600];
	struct stat st;

	take_folder();
	if (strcmp(folder, "/tmp") == 0) /* a tmpfs does not remember what is not there */
		snprintf(folder, sizeof folder, "/usr/share");
	for (long i = 0; i < amount(); i++) {
		snprintf(path, sizeof path, "%s/%d-%ld-%0200d", folder, getpid(), i, 0);
		stat(path, &st);
	}
	fact("names", "%ld", amount());
}

/* -- G7: CPU ---------------------------------------------------------------------------------------------------------- */

/* Spins, yields and timers for `argument` seconds, eight at a time. */
static void g7(void)
{
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	struct itimerspec often = {{0, 100000}, {0, 100000}};
	time_t end = time(NULL) + amount();
	timer_t t;

	fflush(stdout);
	for (int i = 0; i < 8; i++) {
		if (fork() != 0)
			continue;
		for (int k = 0; k < 10000 / 8 && timer_create(CLOCK_MONOTONIC, &none, &t) == 0; k++)
			timer_settime(t, 0, &often, NULL);
		while (time(NULL) < end)
			for (int k = 0; i % 2 && k < 1000; k++)
				sched_yield();
		_exit(0);
	}
	while (wait(NULL) > 0)
		;
	fact("seconds", "%ld", amount());
}

/* -- G8, G10: amounts that are for the whole host ---------------------------------------------------------------------- */

static long aio_events(long n)
{
	unsigned long context = 0;

	return syscall(SYS_io_setup, n, &context);
}

static long ptys(long n)
{
	while (n--)
		if (open("/dev/ptmx", O_RDWR | O_NOCTTY) < 0)
			return -1;
	return 0;
}

static void g8(void)
{
	in_child("512 events of AIO", aio_events, 512);
	in_child("1000 terminals", ptys, 1000);
}

static long events(long n)
{
	while (n--)
		if (eventfd(0, 0) < 0)
			return -1;
	return 0;
}

static long timers(long n)
{
	struct sigevent signal_me = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	timer_t t;

	while (n--)
		if (timer_create(CLOCK_MONOTONIC, &signal_me, &t) < 0)
			return -1;
	return 0;
}

static void g10(void)
{
	in_child("17000 events", events, 17000);
	in_child("8000 timers", timers, 8000);
}

const struct probe_case abuse_cases[] = {
    {"G1", g1}, {"G2", g2}, {"G3", g3}, {"G4", g4}, {"G5", g5}, {"G7", g7}, {"G8", g8}, {"G10", g10}, {NULL, NULL},
};
