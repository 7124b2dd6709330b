/* Group C: namespaces, capabilities, ids. */
#include "probe.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static long try_unshare(long flags)
{
	return unshare((int)flags);
}

static long try_clone(long flags)
{
	long pid = syscall(SYS_clone, flags | SIGCHLD, 0L, 0L, 0L, 0L);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long try_clone3(long flags)
{
	struct clone_args args = {.flags = (__u64)flags, .exit_signal = SIGCHLD};
	long pid = syscall(SYS_clone3, &args, sizeof args);

	if (pid == 0)
		_exit(0);
	return pid;
}

static const struct {
	const char *name;
	long flag;
} namespaces[] = {
    {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS},	{"pid", CLONE_NEWPID},	     {"ipc", CLONE_NEWIPC},
    {"uts", CLONE_NEWUTS},   {"network", CLONE_NEWNET}, {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME},
};

static void make_namespaces(size_t from, size_t to)
{
	char name[64];

	for (size_t i = from; i < to; i++) {
		snprintf(name, sizeof name, "unshare %s", namespaces[i].name);
		in_child(name, try_unshare, namespaces[i].flag);
		snprintf(name, sizeof name, "clone %s", namespaces[i].name);
		if (namespaces[i].flag != CLONE_NEWTIME)
			in_child(name, try_clone, namespaces[i].flag);
		snprintf(name, sizeof name, "clone3 %s", namespaces[i].name);
		in_child(name, try_clone3, namespaces[i].flag);
	}
	if (to > 1)
		in_child("unshare user and all", try_unshare,
			 CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID);
}

static void c1(void)
{
	make_namespaces(0, 1);
}

static void c2(void)
{
	make_namespaces(1, 8);
}

static long mount_type(long type)
{
	static const char *const types[] = {"tmpfs", "proc", "mqueue", "overlay"};
	const char *options = type == 3 ? "lowerdir=/usr:/etc" : NULL;

	return mount("none", "/tmp", types[type], 0, options);
}

static void c4(void)
{
	in_child("mount tmpfs", mount_type, 0);
	in_child("mount proc", mount_type, 1);
	in_child("mount mqueue", mount_type, 2);
	in_child("mount overlay", mount_type, 3);
}

static long have_caps(long set)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{0}};

	syscall(SYS_capget, &h, d);
	errno = EPERM;
	if (set == 0)
		return d[0].effective | d[1].effective ? 0 : -1;
	if (set == 1)
		return d[0].permitted | d[1].permitted ? 0 : -1;
	return d[0].inheritable | d[1].inheritable ? 0 : -1;
}

static long bounding(long unused)
{
	for (int i = 0; i < 41; i++)
		if (prctl(PR_CAPBSET_READ, i) == 1)
			return 0;
	errno = EPERM;
	return -1;
}

static long raise_cap(long unused)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{1, 1, 1}, {0, 0, 0}};

	return syscall(SYS_capset, &h, d);
}

static long ambient(long unused)
{
	raise_cap(0);
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0);
}

static long securebits(long unused)
{
	return prctl(PR_SET_SECUREBITS, 0x10);
}

static void c5(void)
{
	in_child("effective capabilities", have_caps, 0);
	in_child("permitted capabilities", have_caps, 1);
	in_child("inheritable capabilities", have_caps, 2);
	in_child("bounding set", bounding, 0);
	in_child("raise a capability", raise_cap, 0);
	in_child("ambient capability", ambient, 0);
	in_child("securebits", securebits, 0);
}

static long become_root(long unused)
{
	return setuid(0);
}

static long become_other(long id)
{
	return setresuid((uid_t)id, (uid_t)id, (uid_t)id);
}

static long take_groups(long unused)
{
	gid_t groups[2] = {0, 27};

	return setgroups(2, groups);
}

static void c7(void)
{
	in_child("setuid(0)", become_root, 0);
	in_child("setresuid to a neighbour", become_other, 1001);
	in_child("setresuid to an unmapped id", become_other, 4000000);
	in_child("setgroups", take_groups, 0);
}

static long enter_own(long which)
{
	static const char *const names[] = {"mnt", "net", "uts", "ipc", "cgroup", "pid_for_children"};
	char path[64];

	snprintf(path, sizeof path, "/proc/self/ns/%s", names[which]);
	int fd = open(path, O_RDONLY);
	return fd < 0 ? -1 : setns(fd, 0);
}

/* A child of our own, entered by its pidfd. */
static long enter_child(long flags)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	long rc = fd < 0 ? -1 : setns(fd, (int)flags);
	int code = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	errno = code;
	return rc;
}

static void c3(void)
{
	static const char *const names[] = {"setns mount", "setns network", "setns uts",
					    "setns ipc",   "setns cgroup",  "setns pid"};

	for (long i = 0; i < 6; i++)
		in_child(names[i], enter_own, i);
	in_child("setns a pidfd", enter_child, CLONE_NEWNET | CLONE_NEWUTS);
}

/* What the main process and one that enters later must have in common: printed, compared by the harness. */
static void c6(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{0}};
	gid_t groups[64];
	char line[256], cwd[4096];

	syscall(SYS_capget, &h, d);
	fact("capabilities", "%x %x %x %x %x %x", d[0].effective, d[0].permitted, d[0].inheritable, d[1].effective,
	     d[1].permitted, d[1].inheritable);
	unsigned bounding = 0, ambient = 0;
	for (int i = 0; i < 41; i++) {
		bounding += prctl(PR_CAPBSET_READ, i) == 1;
		ambient += prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1;
	}
	fact("bounding and ambient", "%u %u", bounding, ambient);
	fact("securebits", "%x", (unsigned)prctl(PR_GET_SECUREBITS));
	fact("no_new_privs", "%d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	fact("dumpable", "%d", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	mode_t mask = umask(0);
	umask(mask);
	fact("umask", "%o", mask);
	int n = getgroups(64, groups);
	fact("groups", "%d", n);
	fact("ids", "%d %d %d %d", getuid(), geteuid(), getgid(), getegid());
	fact("root", "%d", chdir("/") == 0 && getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0);
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, "Seccomp", 7) == 0 || strncmp(line, "NSpid:", 6) == 0) {
			char *colon = strchr(line, ':');

			*colon = '\0';
			if (strcmp(line, "NSpid") != 0)
				fact(line, "%d", atoi(colon + 1));
		}
	f = fopen("/proc/self/limits", "r");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		fact("limit", "%s", line);
	}
}

static bool write_map(pid_t pid, const char *file, const char *text)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int code = errno;
	if (fd >= 0)
		close(fd);
	errno = code;
	return done;
}

/* The maps of a namespace that we have made if we may, and our own. */
static void c8(void)
{
	static const struct {
		const char *file, *text;
	} maps[] = {{"setgroups", "deny"}, {"uid_map", "0 0 1\n"}, {"gid_map", "0 0 1\n"}};
	int ready[2], go[2];
	char byte;

	if (pipe(ready) < 0 || pipe(go) < 0)
		exit(99);
	pid_t pid = fork();
	if (pid == 0) {
		byte = unshare(CLONE_NEWUSER) == 0;
		if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) < 0)
			_exit(1);
		_exit(0);
	}
	if (read(ready[0], &byte, 1) != 1)
		exit(99);
	for (size_t i = 0; i < 3; i++)
		say(write_map(pid, maps[i].file, maps[i].text), maps[i].file);
	if (write(go[1], &byte, 1) != 1)
		exit(99);
	waitpid(pid, NULL, 0);
}

static long clear_no_new_privs(long unused)
{
	prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
	errno = EPERM;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 ? 0 : -1;
}

static long trace_child(long unused)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
		pause();
		_exit(0);
	}
	long rc = syscall(SYS_ptrace, 16 /* ATTACH */, pid, 0L, 0L);
	int code = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	errno = code;
	return rc;
}

static long memory_of_init(long unused)
{
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	return open("/proc/1/mem", O_RDWR);
}

static void c10(void)
{
	in_child("clear no_new_privs", clear_no_new_privs, 0);
	in_child("trace a child", trace_child, 0);
	in_child("memory of pid 1", memory_of_init, 0);
}

const struct probe_case ns_cases[] = {
    {"C1", c1}, {"C2", c2}, {"C3", c3}, {"C4", c4},   {"C5", c5},
    {"C6", c6}, {"C7", c7}, {"C8", c8}, {"C10", c10}, {NULL, NULL},
};
