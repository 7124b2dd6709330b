/* Group B: procfs, sysfs, cgroupfs. */
#include "probe.h"

#include <dirent.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

static void b1(void)
{
	static const char *const files[] = {
	    "/proc/kcore",    "/proc/kallsyms",	   "/proc/keys",      "/proc/timer_list", "/proc/sched_debug",
	    "/proc/kmsg",     "/proc/interrupts",  "/proc/config.gz", "/proc/iomem",	  "/proc/cmdline",
	    "/proc/slabinfo", "/proc/vmallocinfo", "/proc/modules",   "/dev/mem",	  "/dev/kmem",
	    "/dev/port",      "/dev/kmsg",	   "/proc/key-users", "/proc/zoneinfo",	  "/proc/pagetypeinfo"};
	char byte;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		errno = ENODATA;
		int fd = open(files[i], O_RDONLY | O_NONBLOCK);
		say(fd >= 0 && read(fd, &byte, 1) == 1, files[i]);
		if (fd >= 0)
			close(fd);
	}
}

/* Opened to be written, not written. A mask is /dev/null. */
static void open_to_write(const char *path)
{
	struct stat st;
	int fd = open(path, O_WRONLY);
	bool mask = fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);

	if (mask)
		errno = ENODEV;
	say(fd >= 0 && !mask, path);
	if (fd >= 0)
		close(fd);
}

static void b2(void)
{
	static const char *const files[] = {
	    "/proc/sysrq-trigger",
	    "/proc/sys/kernel/core_pattern",
	    "/proc/sys/kernel/modprobe",
	    "/proc/sys/kernel/hotplug",
	    "/proc/sys/kernel/sysrq",
	    "/proc/sys/kernel/hostname",
	    "/proc/sys/kernel/pid_max",
	    "/proc/sys/kernel/ns_last_pid",
	    "/proc/sys/kernel/shmmax",
	    "/proc/sys/vm/drop_caches",
	    "/proc/sys/vm/overcommit_memory",
	    "/proc/sys/vm/panic_on_oom",
	    "/proc/sys/fs/file-max",
	    "/proc/sys/fs/suid_dumpable",
	    "/proc/sys/fs/binfmt_misc/register",
	    "/proc/sys/net/core/somaxconn",
	    "/proc/sys/net/ipv4/ip_forward",
	    "/proc/sys/user/max_user_namespaces",
	    "/proc/irq/default_smp_affinity",
	    "/proc/mtrr",
	};

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		open_to_write(files[i]);
}

static bool holds(const char *path, const char *word)
{
	static char text[1 << 16];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);

	if (fd >= 0)
		close(fd);
	return n > 0 && memmem(text, (size_t)n, word, strlen(word));
}

/* `argument`: "word:pid", a word in the command line of a process of the host and its pid. */
static void b3(void)
{
	const char *pid = strchr(argument, ':') + 1;
	char word[256], path[300];
	DIR *d = opendir("/proc");
	bool found = false;
	struct dirent *e;

	snprintf(word, sizeof word, "%.*s", (int)(pid - 1 - argument), argument);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
		/* Our own command line holds the word as well. */
		if (atoi(e->d_name) > 0 && atoi(e->d_name) != getpid())
			found |= holds(path, word);
	}
	errno = ESRCH;
	say(found, "a process of the host");
	static const char *const files[] = {"environ", "mem", "maps", "root/etc/passwd", "cwd/.", "fd/1", "status"};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "/proc/%s/%s", pid, files[i]);
		say(open(path, O_RDONLY) >= 0, files[i]);
	}
}

/* `argument`: a word in the environment of the caller and in the path of this program outside. */
static void b4(void)
{
	static const char *const files[] = {"environ", "cmdline", "mem", "root/etc/passwd", "maps", "fdinfo/0"};
	char path[300], to[512];
	bool found = false;
	DIR *d = opendir("/proc");
	struct dirent *e;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "/proc/1/%s", files[i]);
		say(open(path, O_RDONLY) >= 0, path);
	}
	say(readlink("/proc/1/exe", to, sizeof to) >= 0, "/proc/1/exe");
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%s/environ", e->d_name);
		found |= atoi(e->d_name) > 0 && holds(path, argument);
	}
	errno = ENOENT;
	say(found, "environment of the caller");
	ssize_t n = readlink("/proc/self/exe", to, sizeof to);
	say(n > 0 && memmem(to, (size_t)n, argument, strlen(argument)), "path of the host in /proc/self/exe");
}

static void b5(void)
{
	static const char *const patterns[] = {"/sys/kernel/*",
					       "/sys/class/*",
					       "/sys/class/powercap/*/energy_uj",
					       "/sys/devices/virtual/powercap/*/*",
					       "/sys/devices/system/cpu/cpu*/thermal_throttle/*",
					       "/sys/class/dmi/id/product_serial",
					       "/sys/fs/cgroup/*",
					       "/sys/firmware/*"};

	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		glob_t g = {0};
		bool any = glob(patterns[i], GLOB_NOSORT, NULL, &g) == 0 && g.gl_pathc > 0;

		errno = ENOENT;
		say(any, patterns[i]);
		globfree(&g);
	}
	say(open("/sys/kernel/profiling", O_WRONLY) >= 0 || open("/sys/kernel/rcu_expedited", O_WRONLY) >= 0,
	    "a file of /sys to write");
}

static long mount_cgroup(long v2)
{
	return v2 ? mount("none", "/tmp", "cgroup2", 0, NULL) : mount("none", "/tmp", "cgroup", 0, "memory");
}

/* CVE-2022-0492: new namespaces, in which the mount of a v1 hierarchy and its release_agent were not checked for. */
static long unshare_and_mount(long v2)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) < 0 ? -1 : mount_cgroup(v2);
}

static long unshare_cgroup(long v2)
{
	return unshare(CLONE_NEWNS | CLONE_NEWCGROUP) < 0 ? -1 : mount_cgroup(v2);
}

static void writable(const char *name, const char *pattern)
{
	glob_t g = {0};
	bool any = false;

	errno = ENOENT;
	if (glob(pattern, GLOB_NOSORT, NULL, &g) == 0)
		for (size_t i = 0; i < g.gl_pathc && !any; i++) {
			int fd = open(g.gl_pathv[i], O_WRONLY);

			any = fd >= 0;
			if (any)
				close(fd);
		}
	globfree(&g);
	say(any, name);
}

static void b6(void)
{
	in_child("mount a v1 hierarchy", mount_cgroup, 0);
	in_child("mount cgroup2", mount_cgroup, 1);
	in_child("the same in new namespaces, v1", unshare_and_mount, 0);
	in_child("the same in a new cgroup namespace, v1", unshare_cgroup, 0);
	in_child("the same in a new cgroup namespace, v2", unshare_cgroup, 1);
	writable("release_agent", "/sys/fs/cgroup/*/release_agent");
	writable("notify_on_release", "/sys/fs/cgroup/*/notify_on_release");
	writable("devices.allow", "/sys/fs/cgroup/devices/*/devices.allow");
	writable("memory limit", "/sys/fs/cgroup/memory/*/memory.limit_in_bytes");
	writable("memory.max", "/sys/fs/cgroup/*/memory.max");
}

/* `argument`: names of groups of ours, as "spaced/run-1": moved out of them, and made below them. */
static void b7(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup",	      "/sys/fs/cgroup/memory",	"/sys/fs/cgroup/pids",
					    "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/cpu"};
	bool move = false, make = false;
	char path[512];
	int why = ENOENT;

	for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
		snprintf(path, sizeof path, "%s/cgroup.procs", roots[i]);
		int fd = open(path, O_WRONLY);
		if (fd >= 0 && write(fd, "0", 1) == 1)
			move = true;
		else if (errno != ENOENT)
			why = errno;
		if (fd >= 0)
			close(fd);
		snprintf(path, sizeof path, "%s/probe-%d", roots[i], getpid());
		if (mkdir(path, 0755) == 0)
			make = rmdir(path) == 0;
	}
	errno = why;
	say(move, "move to the root group");
	errno = why;
	say(make, "make a group");
}

static const char *const covers[] = {"/proc/kcore", "/proc/keys", "/proc/sysrq-trigger",
				     "/proc/sys",   "/dev/null",  "/proc"};

static long uncover(long which)
{
	const char *path = covers[which];

	if (umount2(path, MNT_DETACH) == 0)
		return 0;
	/* Outside there is no mask yet. */
	return mount(path, path, NULL, MS_BIND, NULL) < 0 ? -1 : umount2(path, MNT_DETACH);
}

static long cover(long which)
{
	return mount("/tmp", covers[which], NULL, MS_BIND, NULL);
}

static void b8(void)
{
	char name[64];

	for (long i = 0; i < (long)(sizeof covers / sizeof *covers); i++) {
		snprintf(name, sizeof name, "uncover %s", covers[i]);
		in_child(name, uncover, i);
	}
	in_child("cover /proc/sys", cover, 3);
	in_child("cover /proc", cover, 5);
}

/* `argument`: a word in the host's paths. */
static void b9(void)
{
	static const char *const files[] = {"/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/mountstats",
					    "/proc/self/maps"};
	char line[4096];
	bool system = false, group = false;
	FILE *f = fopen("/proc/self/mountinfo", "r");

	while (f && fgets(line, sizeof line, f))
		system |= strstr(line, " - sysfs ") || strstr(line, " - cgroup") ||
			  (strstr(line, " / / ") && strstr(line, "ext4"));
	errno = ENOENT;
	say(system, "a mount of the host");
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		bool found = holds(files[i], argument);

		errno = ENOENT;
		say(found, files[i]);
	}
	f = fopen("/proc/self/cgroup", "r");
	while (f && fgets(line, sizeof line, f)) {
		const char *path = strrchr(line, ':');

		group |= path && strcmp(path, ":/\n") != 0;
	}
	errno = ENOENT;
	say(group, "/proc/self/cgroup");
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static long lower_oom(long by)
{
	char text[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		return -1;
	snprintf(text, sizeof text, "%ld", atol(text) - by);
	return write_text("/proc/self/oom_score_adj", text) ? 0 : -1;
}

/* A new limit of cores for `pid` in one of three ways; done when the kernel says so too. */
enum { SETRLIMIT, PRLIMIT, SWAP };

static long set_core(int way, pid_t pid, rlim_t value)
{
	struct rlimit l = {value, value}, old, now;
	int rc =
	    way == SETRLIMIT ? setrlimit(RLIMIT_CORE, &l) : prlimit(pid, RLIMIT_CORE, &l, way == SWAP ? &old : NULL);

	if (rc < 0 || prlimit(pid, RLIMIT_CORE, NULL, &now) < 0)
		return -1;
	errno = 0;
	return now.rlim_cur == value ? 0 : -1;
}

static long raise_core(long way)
{
	return set_core((int)way, 0, RLIM_INFINITY);
}

static long lower_core(long way)
{
	return set_core((int)way, 0, 0);
}

static long lower_core_of_another(long way)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	long rc = set_core((int)way, pid, 0);
	int e = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	errno = e;
	return rc;
}

static void b10(void)
{
	in_child("lower oom_score_adj", lower_oom, 1);
	in_child("lower oom_score_adj by a lot", lower_oom, 400);
	in_child("raise the limit of cores", raise_core, SETRLIMIT);
	in_child("raise it by prlimit", raise_core, PRLIMIT);
	in_child("lower the limit of cores", lower_core, SETRLIMIT);
	in_child("lower it by prlimit", lower_core, PRLIMIT);
	in_child("lower it and ask for the old one", lower_core, SWAP);
	in_child("lower that of another process", lower_core_of_another, PRLIMIT);
	open_to_write("/proc/sys/kernel/core_pattern");
	open_to_write("/proc/sys/kernel/core_pipe_limit");
}

/* Crashes, under names that the host's handler of cores is told: the argument and a letter each. What can be chosen is chosen
 * so that there is a core. */
static void crashes(void)
{
	static long (*const before[])(long) = {NULL, raise_core, lower_core, NULL};
	int status = 0;

	for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			char name[16];
			snprintf(name, sizeof name, "%.12s%c", argument, (int)('a' + i));
			prctl(PR_SET_NAME, name, 0, 0, 0);
			prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
			write_text("/proc/self/coredump_filter", "0xff");
			if (before[i])
				before[i](PRLIMIT);
			abort();
		}
		waitpid(pid, &status, 0);
		fact("core", "%d %d", WIFSIGNALED(status), WCOREDUMP(status) ? 1 : 0);
		if (WCOREDUMP(status))
			say(true, "a core");
	}
}

const struct probe_case proc_cases[] = {
    {"B1", b1}, {"B2", b2}, {"B3", b3}, {"B4", b4},   {"B5", b5},	    {"B6", b6},
    {"B7", b7}, {"B8", b8}, {"B9", b9}, {"B10", b10}, {"crashes", crashes}, {NULL, NULL},
};
