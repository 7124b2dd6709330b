/* Group C: namespaces, capabilities, ids. */
#include "probe.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

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
	return d[0].permitted | d[1].permitted ? 0 : -1;
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

const struct probe_case ns_cases[] = {
    {"C1", c1}, {"C2", c2}, {"C4", c4}, {"C5", c5}, {"C7", c7}, {NULL, NULL},
};
