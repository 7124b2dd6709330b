/* Group E: processes, signals, IPC, terminals. */
#include "probe.h"

#include <dirent.h>
#include <linux/ioprio.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

/* `argument`: pid of a process of the host. */
static void e1(void)
{
	pid_t pid = (pid_t)atoi(argument);

	say(kill(pid, 0) == 0, "signal to a process of the host");
	say(syscall(SYS_pidfd_open, pid, 0) >= 0, "pidfd of a process of the host");
	say(tgkill(pid, pid, 0) == 0, "signal to a thread of the host");
	siginfo_t si = {.si_code = SI_QUEUE, .si_signo = 0};
	say(syscall(SYS_rt_sigqueueinfo, pid, 0, &si) == 0, "queued signal to a process of the host");
	say(kill(-pid, 0) == 0, "signal to a process group of the host");
}

/* Everybody there is. Only where the numbers say that this is not the host. */
static void kill_all(void)
{
	if (getpid() > 50) {
		fprintf(stderr, "not in a pid namespace of its own\n");
		exit(99);
	}
	fact("kill all", "%d", kill(-1, SIGKILL) == 0 ? 0 : errno);
	fact("kill init", "%d", kill(1, SIGKILL) == 0 ? 0 : errno);
	fact("alive", "%d", getpid());
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
	if (what == 3) {
		char shift_state = 6; /* TIOCL_GETSHIFTSTATE: an answer of the line's own is as good */
		return ioctl(slave, TIOCLINUX, &shift_state) < 0 && errno == EPERM ? -1 : 0;
	}
	if (what == 4) /* the high half of the request is not looked at by the kernel */
		return syscall(SYS_ioctl, slave, 0xffffffff00000000UL | TIOCSTI, &letter);
	return ioctl(slave, TIOCSCTTY, 0);
}

static void e5(void)
{
	in_child("TIOCSTI", terminal, 0);
	in_child("TIOCSETD", terminal, 1);
	in_child("TIOCSCTTY", terminal, 2);
	in_child("TIOCLINUX", terminal, 3);
	in_child("TIOCSTI with a high half", terminal, 4);
	for (int fd = 0; fd < 3; fd++) {
		char letter = 'x';

		if (isatty(fd))
			say(ioctl(fd, TIOCSTI, &letter) == 0, "TIOCSTI on the own terminal");
	}
}

/* `argument`: how often. Whoever starts commands inside for somebody outside is traced and looked at, all the time:
 * pid 1, and what it has just forked, which still is called "init". */
static void e2(void)
{
	static const char *const files[] = {"mem", "environ", "maps", "exe", "fd/0", "root/."};
	bool traced = false, any[sizeof files / sizeof *files] = {0};
	int tries = *argument ? atoi(argument) : 1, why = ESRCH;
	char path[300], name[32];

	for (int i = 0; i < tries; i++) {
		DIR *d = opendir("/proc");
		struct dirent *e;

		traced |= syscall(SYS_ptrace, 0x4206 /* SEIZE */, 1, 0L, 0L) == 0;
		why = errno;
		while (d && (e = readdir(d))) {
			bool init = atoi(e->d_name) == 1;

			snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
			int fd = atoi(e->d_name) > 1 ? open(path, O_RDONLY) : -1;
			ssize_t n = fd < 0 ? 0 : read(fd, name, sizeof name - 1);
			if (fd >= 0)
				close(fd);
			name[n > 0 ? n : 0] = '\0';
			if (!init && strcmp(name, "init\n") != 0)
				continue;
			for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
				snprintf(path, sizeof path, "/proc/%s/%s", e->d_name, files[k]);
				fd = open(path, k == 0 ? O_RDWR : O_RDONLY);
				any[k] |= fd >= 0;
				if (fd >= 0)
					close(fd);
			}
		}
		if (d)
			closedir(d);
		/* hidden in the list is not hidden by name */
		for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
			snprintf(path, sizeof path, "/proc/1/%s", files[k]);
			int fd = open(path, O_RDONLY);
			any[k] |= fd >= 0;
			if (fd >= 0)
				close(fd);
		}
	}
	fact("tries", "%d", tries);
	errno = why;
	say(traced, "ptrace of pid 1");
	for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
		errno = ENOENT;
		say(any[k], files[k]);
	}
}

/* Will not be stopped: a session of its own, every signal blocked and ignored. `argument`: how many. */
static void e3(void)
{
	int n = atoi(argument);
	sigset_t every;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_IGN);
	sigfillset(&every);
	sigprocmask(SIG_BLOCK, &every, NULL);
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			setsid();
			if (fork() > 0)
				_exit(0);
			for (;;)
				sleep(1000);
		}
		syscall(SYS_wait4, pid, NULL, 0, NULL); /* SIGCHLD is ignored: waits until it has gone */
	}
	fact("ready", "%d", n);
	for (;;)
		sleep(1000);
}

/* Zombies whose parent is pid 1. */
static int zombies_of_init(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int found = 0;

	while (d && (e = readdir(d))) {
		char path[300], text[256] = "";

		snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
		int fd = atoi(e->d_name) > 0 ? open(path, O_RDONLY) : -1;
		if (fd < 0)
			continue;
		if (read(fd, text, sizeof text - 1) > 0) {
			const char *end = strrchr(text, ')');

			found += end && end[2] == 'Z' && atoi(end + 4) == 1;
		}
		close(fd);
	}
	if (d)
		closedir(d);
	return found;
}

/* `argument`: "zombies:children:patience". A storm of orphans that have ended, which somebody has to reap; then the end, with
 * children that live. */
static void e4(void)
{
	int zombies, children, patience, left = 0;

	if (sscanf(argument, "%d:%d:%d", &zombies, &children, &patience) != 3)
		exit(99);
	for (int i = 0; i < zombies; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			if (fork() == 0)
				_exit(0);
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
	/* as long as they become fewer; so many seconds without one less are the end */
	for (int still = 0, before = zombies; (left = zombies_of_init()) > 0 && still < 100 * patience; before = left) {
		still = left < before ? 0 : still + 1;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	errno = ECHILD;
	say(left > 0, "zombies that stay");
	for (int i = 0; i < children; i++)
		if (fork() == 0)
			for (;;)
				sleep(1000);
	fact("children", "%d", children);
}

static long big_queue(long unused)
{
	struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 8192};
	long kept = 0;

	for (int i = 0; i < 64; i++) {
		char name[32];

		snprintf(name, sizeof name, "/probe-%d-%d", getpid(), i);
		mqd_t q = mq_open(name, O_CREAT | O_RDWR, 0600, &a);
		if (q == (mqd_t)-1)
			break;
		mq_unlink(name);
		kept++;
	}
	return kept == 64 ? 0 : -1;
}

/* `argument`: "key:queue" of the host's segment, semaphore and queues. */
static void e7(void)
{
	key_t key = (key_t)strtol(argument, NULL, 0);
	struct shm_info info;

	say(shmget(key, 0, 0) >= 0, "shared memory of the host");
	say(semget(key, 0, 0) >= 0, "semaphores of the host");
	say(msgget(key, 0) >= 0, "message queue of the host");
	say(mq_open(strchr(argument, ':') + 1, O_RDONLY) != (mqd_t)-1, "POSIX queue of the host");
	errno = ENOENT;
	say(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0 && info.used_ids > 0, "ids of shared memory");
	in_child("5 MiB of POSIX queues", big_queue, 0);
}

/* `argument`: name of an abstract socket of the host. */
static void e8(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char line[512];
	bool listed = false;

	memcpy(a.sun_path + 1, argument, strlen(argument));
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argument));
	say(connect(fd, (struct sockaddr *)&a, size) == 0, "abstract socket of the host");
	FILE *f = fopen("/proc/net/unix", "r");
	while (f && fgets(line, sizeof line, f))
		listed |= strstr(line, argument) != NULL;
	errno = ENOENT;
	say(listed, "its name in /proc/net/unix");
}

/* E10 has two sides. `argument`: "watch:PATH,PATH": says "ready", and what was seen after a line has come in. */
static void watch(char *paths)
{
	int in = inotify_init1(IN_NONBLOCK);
	char *save = NULL, line[16], events[4096];

	for (char *path = strtok_r(paths, ",", &save); path; path = strtok_r(NULL, ",", &save))
		if (inotify_add_watch(in, path, IN_OPEN | IN_ACCESS | IN_CLOSE) < 0)
			fact("unwatched", "%s", path);
	fact("ready", "%d", in);
	if (!fgets(line, sizeof line, stdin))
		exit(99);
	ssize_t n = read(in, events, sizeof events);
	say(n > 0, "inotify sees a neighbour open a file");
	errno = EPERM;
	say(syscall(SYS_fanotify_init, FAN_CLASS_NOTIF, O_RDONLY) >= 0, "fanotify");
}

/* "lock:PATH,...": takes all locks, says "ready", keeps them until a line has come in. */
static void lock(char *paths)
{
	char *save = NULL, line[16];

	for (char *path = strtok_r(paths, ",", &save); path; path = strtok_r(NULL, ",", &save)) {
		int fd = open(path, O_RDONLY);
		struct flock shared = {.l_type = F_RDLCK};

		fact("lock", "%d %d %d", flock(fd, LOCK_EX | LOCK_NB), fcntl(fd, F_OFD_SETLK, &shared),
		     fcntl(fd, F_SETLEASE, F_RDLCK) == 0 ? 0 : errno);
	}
	fact("ready", "1");
	if (!fgets(line, sizeof line, stdin))
		exit(99);
	say(false, "never");
}

/* "use:PATH,...": is somebody else's lock in the way? */
static void use(char *paths)
{
	char *save = NULL, name[4200];

	for (char *path = strtok_r(paths, ",", &save); path; path = strtok_r(NULL, ",", &save)) {
		int fd = open(path, O_RDONLY);

		snprintf(name, sizeof name, "a neighbour's lock on %s", path);
		say(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, name);
	}
}

static void e10(void)
{
	char *copy = strdup(argument), *paths = strchr(copy, ':') + 1;

	if (copy[0] == 'w')
		watch(paths);
	else if (copy[0] == 'l')
		lock(paths);
	else
		use(paths);
	free(copy);
}

static long schedule(long policy)
{
	struct sched_param p = {.sched_priority = policy == SCHED_FIFO || policy == SCHED_RR ? 10 : 0};

	return sched_setscheduler(0, (int)policy, &p);
}

static long deadline(long unused)
{
	struct {
		unsigned size, policy;
		unsigned long long flags;
		int nice;
		unsigned priority;
		unsigned long long runtime, deadline, period;
	} attr = {sizeof attr, 6, 0, 0, 0, 10000000, 30000000, 30000000};

	return syscall(SYS_sched_setattr, 0, &attr, 0);
}

static long nicer(long by)
{
	return setpriority(PRIO_PROCESS, 0, (int)-by);
}

static long io_class(long class)
{
	return syscall(SYS_ioprio_set, 1 /* process */, 0, (class << 13) | 0);
}

static long lock_memory(long mib)
{
	void *p = mmap(NULL, (size_t)mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -1 : mlock(p, (size_t)mib << 20);
}

static long raise_limit(long which)
{
	struct rlimit l;

	if (getrlimit((__rlimit_resource_t)which, &l) < 0)
		return -1;
	l.rlim_cur = l.rlim_max = l.rlim_max == RLIM_INFINITY ? RLIM_INFINITY : l.rlim_max + 1;
	return setrlimit((__rlimit_resource_t)which, &l);
}

static void e11(void)
{
	in_child("SCHED_FIFO", schedule, SCHED_FIFO);
	in_child("SCHED_RR", schedule, SCHED_RR);
	in_child("SCHED_DEADLINE", deadline, 0);
	in_child("a better nice", nicer, 5);
	in_child("I/O class real time", io_class, 1);
	in_child("mlock of 64 MiB", lock_memory, 64);
	in_child("raise RLIMIT_NOFILE", raise_limit, RLIMIT_NOFILE);
	in_child("raise RLIMIT_MEMLOCK", raise_limit, RLIMIT_MEMLOCK);
	in_child("raise RLIMIT_RTPRIO", raise_limit, RLIMIT_RTPRIO);
}

/* Orphans of an orphan: who is their parent? Somebody outside shows as 0. */
static void e12(void)
{
	int pipefd[2];
	pid_t parent = -1, me = getpid();

	if (pipe(pipefd) < 0)
		exit(99);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	pid_t pid = fork();
	if (pid == 0) {
		pid_t between = getpid();

		prctl(PR_SET_CHILD_SUBREAPER, 0);
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, 0);
			setsid();
			while (getppid() == between)
				sched_yield();
			pid_t now = getppid();
			_exit(write(pipefd[1], &now, sizeof now) == sizeof now ? 0 : 1);
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	if (read(pipefd[0], &parent, sizeof parent) != sizeof parent)
		exit(99);
	fact("parent", "%d of %d", parent, me);
	errno = ECHILD;
	say(parent != 1 && parent != me, "an orphan's parent is outside");
}

const struct probe_case process_cases[] = {
    {"E1", e1}, {"kill-all", kill_all}, {"E2", e2},   {"E3", e3},   {"E4", e4},	  {"E5", e5}, {"E7", e7},
    {"E8", e8}, {"E10", e10},		{"E11", e11}, {"E12", e12}, {NULL, NULL},
};
