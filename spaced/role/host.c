/* See host.h. `spacectl doctor` tells the same at length. */
#include "spaced/role/host.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/sandbox.h"

/* Tried in a child: the answer is its exit status, an errno. */
static int try_unshare(int flags)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(flags) < 0 ? errno : 0);
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

int host_check(struct err *err)
{
	int userns = try_unshare(CLONE_NEWUSER);

	if (userns)
		return err_set(
		    err, userns,
		    "this host gives no user namespaces, without which no app can be contained (see the sysctls "
		    "user.max_user_namespaces and, in a container, what it may do)");
	int mounts = try_unshare(CLONE_NEWNS | CLONE_NEWNET);
	if (mounts)
		return err_set(
		    err, mounts,
		    "root here may not make mount and network namespaces: a container needs the capabilities "
		    "CAP_SYS_ADMIN and CAP_NET_ADMIN, or be privileged");
	return 0;
}

void host_report(void)
{
	struct sandbox_host h;
	pid_t pid = fork();

	if (pid != 0)
		return; /* the parent's loop reaps it */
	sandbox_probe(&h);
	if (h.cgroup == CGROUP_NONE)
		log_warn("missing on this host: cgroups; there are no limits on memory, CPU and processes of apps");
	if (!h.io)
		log_warn("missing on this host: an io controller; the options io and build-io do nothing");
	if (!h.loop_devices)
		log_warn("missing on this host: loop devices; the disk use of apps is not bounded by the kernel");
	if (!h.egress)
		log_warn("missing on this host: veth and nftables; apps and builds get no network");
	if (!h.bandwidth)
		log_warn("missing on this host: sch_tbf; a limit on bandwidth is refused");
	if (h.landlock_abi == 0)
		log_warn("missing on this host: Landlock; files are kept apart by mounts and ids alone");
	if (!h.idmapped_mounts)
		log_warn("missing on this host: a /usr that can be mounted idmapped; packages.txt does not work");
	_exit(0);
}
