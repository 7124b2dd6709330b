/* What this host gives: tried, not guessed. Called once at start and by `spacectl doctor`. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"
#include "sandbox/cgroup_impl.h"
#include "sandbox/contain.h"
#include "sandbox/egress.h"
#include "sandbox/ids.h"
#include "sandbox/mnt_ops.h"
#include "sandbox/slirp.h"

static bool can_mount_overlay(void)
{
	static const struct mnt_option options[] = {
	    {"lowerdir", "a"}, {"upperdir", "b"}, {"workdir", "c"}, {"userxattr", NULL}, {NULL, NULL}};
	struct err err;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	cleanup_close int staging = mnt_host()->staging(&err);
	if (staging < 0 || fchdir(staging) < 0 || mkdir("a", 0700) < 0 || mkdir("b", 0700) < 0 || mkdir("c", 0700) < 0)
		return false;
	cleanup_close int fd = mnt_host()->make("overlay", options, 0, &err);
	return fd >= 0;
}

/* In a child, so that nothing is left. It answers with bits, and waits so that its namespace can be used. */
static pid_t probe_child(int answer[2], int wait_for[2])
{
	pid_t pid = fork();
	unsigned char bits = 0;

	if (pid != 0)
		return pid;
	close(wait_for[1]);
	if (unshare(CLONE_NEWUSER) == 0)
		bits |= 1;
	if (write(answer[1], &bits, 1) != 1 || read(wait_for[0], &bits, 1) != 1 || !(bits & 1))
		_exit(1);
	/* As in a sandbox: the caller's id as such does not exist here when it is root. */
	bool mapped = getuid() != 65534 || (setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0);
	bits = mapped && unshare(CLONE_NEWNS) == 0 ? (can_mount_overlay() | (mnt_host()->detached ? 2 : 0)) : 0;
	_exit(write(answer[1], &bits, 1) == 1 ? 0 : 1);
}

static bool can_idmap(pid_t child, int source)
{
	cleanup_close int userns = -1, fd = -1;
	struct plan_mount m = {.idmap = true};
	struct err err;
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/ns/user", child);
	userns = open(path, O_RDONLY | O_CLOEXEC);
	if (source < 0 || userns < 0 || !sandbox_has_idmaps())
		return false;
	fd = mnt_clone_for(&m, source, userns, &err);
	return fd >= 0;
}

bool sandbox_has_idmaps(void)
{
	return mnt_host()->detached;
}

/* The namespace needs its map first: newer kernels refuse one without. */
bool sandbox_can_idmap(int source)
{
	struct sandbox_spec spec = {.id_base = 1U << 30};
	struct err err;
	int ready[2];
	char byte;

	if (!sandbox_has_idmaps() || pipe2(ready, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		byte = unshare(CLONE_NEWUSER) == 0;
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	bool can = pid > 0 && read(ready[0], &byte, 1) == 1 && byte &&
		   user_write_maps(pid, spec.id_base, &spec, &err) == 0 && can_idmap(pid, source);
	close(ready[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return can;
}

static void probe_namespaces(struct sandbox_host *h)
{
	cleanup_close int usr = open("/usr", O_PATH | O_CLOEXEC);
	struct sandbox_spec spec = {.id_base = h->root ? 1U << 30 : 0, .uid = 1000, .gid = 1000};
	int answer[2], wait_for[2];
	unsigned char bits = 0;
	struct err err;

	if (pipe2(answer, O_CLOEXEC) < 0)
		return;
	if (pipe2(wait_for, O_CLOEXEC) < 0) {
		close(answer[0]);
		close(answer[1]);
		return;
	}
	pid_t pid = probe_child(answer, wait_for);
	close(answer[1]);
	close(wait_for[0]);
	if (pid > 0 && read(answer[0], &bits, 1) == 1 && bits & 1 &&
	    user_write_maps(pid, spec.id_base, &spec, &err) == 0) {
		h->user_namespaces = true;
		h->idmapped_mounts = h->root && can_idmap(pid, usr);
		bits = 1;
		if (write(wait_for[1], &bits, 1) == 1 && read(answer[0], &bits, 1) == 1)
			h->overlay_in_userns = bits & 1;
		h->mount_api = bits & 2 ? mnt_new_ops.label : mnt_legacy_ops.label;
	}
	close(wait_for[1]);
	close(answer[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static bool has_loop(void)
{
	cleanup_close int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	return fd >= 0 && ioctl(fd, LOOP_CTL_GET_FREE) >= 0;
}

/* v1 hosts have a hierarchy for each, or there would be no group at all. */
static void probe_controllers(struct sandbox_host *h)
{
	if (h->cgroup != CGROUP_V2)
		return;
	h->no_memory_limit = !cgroup_v2_has("memory");
	h->no_cpu_limit = !cgroup_v2_has("cpu");
	h->no_pids_limit = !cgroup_v2_has("pids");
}

/* Of a process that is in no namespace of the daemon's yet: what rootless_enter() would find. */
static enum ids_kind probe_ids(void)
{
	struct ids_lent uids, gids;

	if (geteuid() == 0)
		return ids_kind();
	return ids_range_possible(&uids, &gids) ? IDS_RANGE : IDS_ONE;
}

/* rlimit.c says why. Where the limit is 0 it is tried, in a child, whether it could be 1. */
static bool keeps_core_handler_away(void)
{
	cleanup_buf struct buf pattern = BUF_INIT;
	const struct rlimit one = {1, 1};
	struct rlimit core;
	int status = 1;

	if (getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max > 0)
		return true;
	pid_t pid = fork();
	if (pid == 0)
		_exit(setrlimit(RLIMIT_CORE, &one) < 0);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0 || io_read_file(AT_FDCWD, "/proc/sys/kernel/core_pattern", 256, &pattern) < 0 ||
	       !pattern.data || pattern.data[0] != '|';
}

void sandbox_probe(struct sandbox_host *h)
{
	cleanup_buf struct buf why = BUF_INIT;
	struct utsname u;

	*h = (struct sandbox_host){.root = ids_host_root(),
				   .ids = probe_ids(),
				   .landlock_abi = landlock_abi(),
				   .mount_api = mnt_legacy_ops.label,
				   .openat2 = resolve_has_openat2()};
	if (uname(&u) == 0)
		snprintf(h->kernel, sizeof h->kernel, "%.63s", u.release);
	probe_namespaces(h);
	h->loop_devices = h->root && has_loop();
	h->cgroup = cgroup_host()->kind;
	h->bandwidth = egress_can_shape();
	h->io = cgroup_has_io();
	h->no_core_handler = keeps_core_handler_away();
	probe_controllers(h);
	h->egress = h->root ? egress_probe(&why) : slirp_probe(&why);
}
