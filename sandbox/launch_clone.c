/* See launch.h: the child is born, by clone3 with all namespaces at once, where and as whom it has to be. */
#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/mnt_ops.h"

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)

/* Where the kernel shows our arguments and environment: pid 1 inside has a copy, to be wiped there. Same addresses. */
void launch_title(struct contain *c)
{
	static char *start;
	static size_t len;
	cleanup_buf struct buf b = BUF_INIT;
	unsigned long from[4] = {0};
	const char *p;

	if (!start && io_read_file(AT_FDCWD, "/proc/self/stat", 4096, &b) == 0 && b.data &&
	    (p = strrchr(b.data, ')'))) {
		/* proc(5): the state is field 3; arg_start, arg_end, env_start, env_end are 48 to 51. */
		for (int field = 2; *p && field < 51; field++) {
			p += strcspn(p, " ");
			p += *p == ' ';
			if (field + 1 >= 48)
				from[field + 1 - 48] = strtoul(p, NULL, 10);
		}
		if (from[0] && from[1] >= from[0] && from[2] == from[1] && from[3] >= from[2]) {
			start = (char *)from[0]; // NOLINT(performance-no-int-to-ptr): an address from the kernel
			len = from[3] - from[0];
		}
	}
	c->title = start;
	c->title_len = len;
}

/* What a sandbox takes of the kernel's per-user limits (inotify, POSIX queues, pending signals) is counted for its own
 * ids and once more for the owner of its user namespace, who is the effective user of clone3. Were that root, one app
 * could use up what all others and the host's own root have: so it is the range's first id, for the length of the call,
 * with all capabilities kept. */
static int borrow_owner(const struct sandbox_shell *l, int *bits, struct err *err)
{
	*bits = -1;
	if (l->child.rootless || geteuid() != 0)
		return 0;
	*bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
	if (*bits < 0 || prctl(PR_SET_SECUREBITS, *bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ||
	    seteuid(l->child.id_base) < 0) {
		int code = errno;

		if (*bits >= 0)
			prctl(PR_SET_SECUREBITS, *bits, 0, 0, 0);
		return err_set(err, code, "owner of the user namespace");
	}
	return 0;
}

/* Not optional either: the caller goes on as root. */
static void return_owner(int bits)
{
	if (bits >= 0 && (seteuid(0) < 0 || prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0 || geteuid() != 0))
		abort();
}

/* The child is born in the network namespace in which its parent is: we go there and come back. To come back is not
 * optional: a spawner in an app's network would serve everybody from there. */
static pid_t clone_in_netns(struct sandbox_shell *l, const struct sandbox_sources *src, struct clone_args *args,
			    struct err *err)
{
	cleanup_close int home = -1;

	if (src->netns >= 0) {
		home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		if (home < 0 || setns(src->netns, CLONE_NEWNET) < 0)
			return err_set(err, errno, "enter the network namespace");
	}
	int bits;
	pid_t pid = borrow_owner(l, &bits, err);
	if (pid == 0) {
		pid = (pid_t)syscall(SYS_clone3, args, sizeof *args);
		if (pid < 0)
			err_set(err, errno, "clone3 with all namespaces");
		if (pid == 0) {
			close(l->sock);
			contain(&l->child);
		}
		return_owner(bits);
	}
	if (home >= 0 && setns(home, CLONE_NEWNET) < 0)
		abort();
	return pid;
}

/* The same for mounts, where they cannot be handed over later. */
static pid_t clone_in_mntns(struct sandbox_shell *l, const struct sandbox_sources *src, struct clone_args *args,
			    struct err *err)
{
	int sources[PLAN_MAX_MOUNTS];
	unsigned attr[PLAN_MAX_MOUNTS];
	size_t n = l->plan.nmounts;
	struct mntns_way way;

	if (l->child.rootless || (mnt_host()->detached && !mntns_has_birthplace()))
		return clone_in_netns(l, src, args, err);
	if (mnt_host()->detached) {
		if (mntns_enter_birthplace(&way, err) < 0)
			return -1;
		pid_t born = clone_in_netns(l, src, args, err);
		mntns_home(&way);
		return born;
	}
	for (size_t i = 0; i < n; i++) {
		sources[i] = launch_source(l, src, &l->plan.mounts[i]);
		attr[i] = mnt_attr(&l->plan.mounts[i]);
	}
	if (mnt_shelf_open(sources, attr, n, &way, err) < 0)
		return -1;
	pid_t pid = clone_in_netns(l, src, args, err);
	mnt_shelf_leave(&way);
	return pid;
}

int launch_clone(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	struct clone_args args = {.flags = NAMESPACES | CLONE_PIDFD, .exit_signal = SIGCHLD};
	int pidfd = -1;

	args.pidfd = (__u64)(uintptr_t)&pidfd;
	/* Always a network of its own, one way or the other: abstract sockets belong to it (CVE-2020-15257; battery E8, F3). */
	if (src->netns < 0)
		args.flags |= CLONE_NEWNET;
	if (l->box.cgroup.v2_dir >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (__u64)l->box.cgroup.v2_dir;
	}
	pid_t pid = clone_in_mntns(l, src, &args, err);
	if (pid < 0)
		return -1;
	l->box.init = pid;
	l->box.pidfd = pidfd;
	return 0;
}
