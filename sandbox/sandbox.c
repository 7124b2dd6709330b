/* Starting one sandbox: the parent's side. clone3 with all namespaces at once, ids and mounts for the child, then wait
 * until its main process has been exec'd. See sandbox.h; the child's side is contain.c. */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/contain.h"
#include "sandbox/ids.h"
#include "sandbox/io_limit.h"
#include "sandbox/mnt_ops.h"

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
#define START_TIMEOUT_S 60 /* a host that is swapping; then something hangs and is killed */
#define KILL_TIMEOUT_MS 5000

/* What is being started; all of it is undone by launch_abort(). */
struct sandbox_shell {
	struct contain child;
	struct plan_facts facts;
	struct plan plan;
	struct sandbox box;
	int sock; /* our end */
	int userns;
	int dpkg;
	bool cgroup_made;
};

static bool is_folder(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Whether something is mounted below a folder: without root that is locked to it (mount_namespaces(7)). */
static bool covered(int source)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	char link[64], path[1024], line[4096], point[1024];

	snprintf(link, sizeof link, "/proc/self/fd/%d", source);
	ssize_t n = readlink(link, path, sizeof path - 2);
	if (n <= 0)
		return false;
	path[n] = '/';
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%*s %*s %*s %*s %1023s", point) == 1 && strncmp(point, path, (size_t)n + 1) == 0)
			return true;
	return false;
}

static int make_plan(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		     struct err *err)
{
	struct plan_facts *facts = &l->facts;
	bool build_root = spec->profile == SANDBOX_BUILD_ROOT;

	facts->top = src->top >= 0;
	facts->idmap = src->idmap && spec->id_base && mnt_host()->detached;
	for (size_t i = 0; i < spec->nlayers; i++) {
		facts->layer_root[i] = is_folder(src->layers[i], "root");
		facts->layer_usr[i] = is_folder(src->layers[i], "usr");
	}
	/* apt must know what the base's /usr holds already. */
	if (build_root)
		l->dpkg = openat(src->base_usr, "../var/lib/dpkg", O_PATH | O_DIRECTORY | O_CLOEXEC);
	facts->dpkg = l->dpkg >= 0;
	facts->usr_covered = !ids_host_root() && covered(src->base_usr);
	for (size_t i = 0; facts->usr_covered && i < spec->nlayers; i++)
		if (facts->layer_usr[i])
			return err_text(err, EINVAL,
					"a layer with programs cannot be laid over a /usr with mounts below it "
					"by a daemon without root");
	if (src->top >= 0 && mnt_prepare_top(src->top, build_root, src->idmap ? 0 : spec->id_base, err) < 0)
		return -1;
	if (plan_make(spec, facts, &l->plan, err) < 0)
		return -1;
	for (size_t i = 0; src->idmap && spec->id_base && !facts->idmap && i < l->plan.nmounts; i++)
		if (l->plan.mounts[i].write || build_root)
			return err_text(
			    err, ENOSYS,
			    "a folder or volume that is written, or root inside, needs files shown with the "
			    "sandbox's ids, and this kernel or container runtime has no mount_setattr(2)");
	return 0;
}

static int mount_source(const struct sandbox_shell *l, const struct sandbox_sources *src, const struct plan_mount *m)
{
	switch (m->source) {
	case PLAN_BASE_USR:
		return src->base_usr;
	case PLAN_SKELETON:
		return src->skeleton;
	case PLAN_LAYER:
		return src->layers[m->index];
	case PLAN_TOP:
		return src->top;
	case PLAN_DPKG:
		return l->dpkg;
	case PLAN_BIND:
		return src->binds[m->index];
	}
	return -1;
}

/* Where the kernel shows our arguments and environment: pid 1 inside has a copy, to be wiped there. Same addresses. */
static void find_title(struct contain *c)
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
		sources[i] = mount_source(l, src, &l->plan.mounts[i]);
		attr[i] = mnt_attr(&l->plan.mounts[i]);
	}
	if (mnt_shelf_open(sources, attr, n, &way, err) < 0)
		return -1;
	pid_t pid = clone_in_netns(l, src, args, err);
	mnt_shelf_leave(&way);
	return pid;
}

static int launch_clone(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
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

/* What only the parent may do for the child, which waits for it: ids, and what has to be written before it takes them. */
static int launch_map(struct sandbox_shell *l, struct err *err)
{
	char path[64];

	if (rlimit_lend_core(l->box.init, err) < 0 ||
	    user_write_maps(l->box.init, l->child.id_base, l->child.spec, err) < 0)
		return -1;
	/* now, while its files in /proc are still ours and not root's */
	if (l->child.rootless && user_write_oom(l->box.init, err) < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%d/ns/user", l->box.init);
	l->userns = open(path, O_RDONLY | O_CLOEXEC);
	if (l->userns < 0)
		return err_set(err, errno, "user namespace of the new process");
	int rc = frame_send(l->sock, SYNC_IDS, 0, NULL, 0, NULL, 0);
	return rc < 0 ? err_set(err, -rc, "say that ids are mapped") : 0;
}

/* Mounts with the child's ids. */
static int launch_provide(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	int mounts[PLAN_MAX_MOUNTS], n = 0, rc = 0;

	for (; !l->child.rootless && mnt_host()->detached && n < (int)l->plan.nmounts && rc == 0; n++) {
		const struct plan_mount *m = &l->plan.mounts[n];

		mounts[n] = mnt_clone_for(m, mount_source(l, src, m), l->userns, err);
		rc = mounts[n] < 0 ? -1 : 0;
	}
	/* Each says how many there are in all, rootless none. */
	for (int sent = 0; rc == 0 && (sent == 0 || sent < n); sent += FRAME_MAX_FDS) {
		int now = n - sent < FRAME_MAX_FDS ? n - sent : FRAME_MAX_FDS;

		rc = frame_send(l->sock, SYNC_MOUNTS, (uint32_t)n, NULL, 0, mounts + sent, now);
		if (rc < 0)
			err_set(err, -rc, "hand the mounts over");
	}
	for (int i = 0; i < n; i++)
		if (mounts[i] >= 0)
			close(mounts[i]);
	return rc < 0 ? -1 : 0;
}

/* What the main process must find, while the child builds its root on another processor; then the child may go on. */
static int launch_let_go(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
			 struct err *err)
{
	char path[64];

	if (cgroup_host()->limit(&l->box.cgroup, &spec->limits, err) < 0)
		return -1;
	if (spec->id_base && user_write_oom(l->box.init, err) < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%d/ns/net", l->box.init);
	l->box.netns = open(path, O_RDONLY | O_CLOEXEC);
	if (l->box.netns < 0)
		return err_set(err, errno, "network namespace of the new process");
	if (src->network && src->network(src->network_ctx, l->box.netns, l->box.pidfd, err) < 0)
		return -1;
	if (src->born && src->born(src->born_ctx, l->box.init, err) < 0)
		return -1;
	int rc = frame_send(l->sock, SYNC_GO, 0, NULL, 0, NULL, 0);
	return rc < 0 ? err_set(err, -rc, "let the sandbox go on") : 0;
}

/* Success is the end of file: exec has closed the last copy. */
static int launch_wait(struct sandbox_shell *l, struct err *err)
{
	struct timeval limit = {.tv_sec = START_TIMEOUT_S};
	bool reset = false;
	struct err theirs;

	setsockopt(l->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	for (;;) {
		ssize_t n = recv(l->sock, &theirs, sizeof theirs, 0);

		if (n == 0)
			return reset ? err_set(err, ECHILD, "the sandbox ended before it ran") : 0;
		/* It has ended without reading what we sent; what it sent comes after that. */
		reset |= n < 0 && errno == ECONNRESET;
		if (n < 0 && (errno == EINTR || errno == ECONNRESET))
			continue;
		if (n < 0)
			return err_set(err, errno == EAGAIN ? ETIMEDOUT : errno, "the sandbox does not answer");
		theirs.msg[sizeof theirs.msg - 1] = '\0';
		if (n != (ssize_t)sizeof theirs)
			return err_set(err, EBADMSG, "the sandbox answers nonsense");
		*err = theirs;
		return -1;
	}
}

static void launch_abort(struct sandbox_shell *l)
{
	struct err ignored;

	if (l->box.init > 0) {
		kill(l->box.init, SIGKILL);
		while (waitpid(l->box.init, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (l->cgroup_made) {
		cgroup_host()->kill(&l->box.cgroup, KILL_TIMEOUT_MS, &ignored);
		cgroup_host()->remove(&l->box.cgroup, &ignored);
	}
	sandbox_release(&l->box);
}

/* The child is born; then it waits for the plan. */
static int launch_make(struct sandbox_shell *l, const char *group, const struct sandbox_limits *limits,
		       const struct sandbox_sources *src, struct err *err)
{
	cleanup_close int theirs = -1, status = -1, exec = -1;
	int pair[2], pipes[2], execs[2];

	landlock_abi();
	if (cgroup_host()->create(group, limits, &l->box.cgroup, err) < 0)
		return -1;
	l->child.group = &l->box.cgroup;
	l->cgroup_made = cgroup_host()->kind != CGROUP_NONE;
	l->child.cgroups = cgroup_limits_pids();
	int rc = frame_pair(pair);
	if (rc < 0)
		return err_set(err, -rc, "socket pair");
	l->sock = pair[0];
	l->child.sock = theirs = pair[1];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return err_set(err, errno, "status pipe");
	l->box.status_pipe = pipes[0];
	l->child.status = status = pipes[1];
	if ((rc = frame_pair(execs)) < 0)
		return err_set(err, -rc, "socket pair");
	l->box.exec = execs[0];
	l->child.exec = exec = execs[1];
	find_title(&l->child);
	if ((l->child.ndoors = cgroup_host()->doors(&l->box.cgroup, l->child.doors, err)) < 0)
		return -1;
	rc = launch_clone(l, src, err);
	while (l->child.ndoors > 0)
		close(l->child.doors[--l->child.ndoors]);
	if (rc < 0)
		return -1;
	close(steal_fd(&theirs));
	close(steal_fd(&status));
	close(steal_fd(&exec));
	return launch_map(l, err);
}

static int launch_run(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		      const int stdio[3], struct err *err)
{
	/* Kept where the kernel can: `doctor` and the log of the start name a host that cannot. */
	if (spec->limits.io_bytes && io_limit(&l->box.cgroup, spec, src, err) < 0 && err->code != ENOTSUP)
		return -1;
	if (!l->child.spec && shell_tell(l->sock, spec, &l->facts, stdio, src->outlives, err) < 0)
		return -1;
	return launch_provide(l, src, err) < 0 || launch_let_go(l, spec, src, err) < 0 ? -1 : 0;
}

static int launch(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		  const int stdio[3], struct err *err)
{
	if (make_plan(l, spec, src, err) < 0)
		return -1;
	int rc = l->box.init > 0 ? 0 : launch_make(l, spec->name, &spec->limits, src, err);
	if (rc == 0)
		rc = launch_run(l, spec, src, stdio, err);
	if (rc < 0 && l->box.init > 0) {
		/* A child that failed meanwhile knows better why. */
		struct err theirs_err;
		shutdown(l->sock, SHUT_WR);
		if (launch_wait(l, &theirs_err) < 0 && theirs_err.code != ECONNRESET)
			*err = theirs_err;
	}
	return rc < 0 ? -1 : launch_wait(l, err);
}

static struct sandbox_shell *launch_new(uint32_t id_base, const struct sandbox_sources *src)
{
	struct sandbox_shell *l = xcalloc(1, sizeof *l);

	l->child = (struct contain){.sock = -1,
				    .root = -1,
				    .masks = {-1, -1},
				    .id_base = id_base,
				    .rootless = id_base == 0,
				    .own_netns = src->netns < 0};
	l->box = (struct sandbox){.pidfd = -1, .netns = -1, .status_pipe = -1, .exec = -1, .cgroup.v2_dir = -1};
	l->sock = l->userns = l->dpkg = -1;
	return l;
}

static void launch_free(struct sandbox_shell *l)
{
	const int fds[] = {l->sock, l->userns, l->dpkg};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(l);
}

struct sandbox_shell *sandbox_shell_make(const char *group, uint32_t id_base, int netns, struct err *err)
{
	/* Every controller: who knows what will be limited. */
	const struct sandbox_limits all = {.io_bytes = SANDBOX_IO_MIN};
	const struct sandbox_sources src = {.netns = netns};

	if (!ids_host_root() || !id_base || !mnt_host()->detached) {
		err_set(err, ENOTSUP, "a sandbox made ahead needs root, and mounts that can be handed over");
		return NULL;
	}
	struct sandbox_shell *l = launch_new(id_base, &src);
	if (launch_make(l, group, &all, &src, err) == 0)
		return l;
	launch_abort(l);
	launch_free(l);
	return NULL;
}

void sandbox_shell_free(struct sandbox_shell *shell)
{
	if (!shell)
		return;
	launch_abort(shell);
	launch_free(shell);
}

int sandbox_shell_pidfd(const struct sandbox_shell *shell)
{
	return shell->box.pidfd;
}

/* SPACED_FORCE=shell: each start by way of one, so that all tests of starts are tests of shells, too. */
static int forced_shell(const struct sandbox_spec *spec, const struct sandbox_sources *src,
			struct sandbox_shell **shell, struct err *err)
{
	const char *force = getenv("SPACED_FORCE");

	if (!force || !strstr(force, "shell") || !ids_host_root() || !mnt_host()->detached)
		return 0;
	*shell = sandbox_shell_make(spec->name, spec->id_base, src->netns, err);
	return *shell ? 0 : -1;
}

int sandbox_start(const struct sandbox_spec *spec, const struct sandbox_sources *src, const int stdio[3],
		  struct sandbox *out, struct err *err)
{
	struct sandbox_shell *l = src->shell;
	int rc = sandbox_spec_check(spec, err);

	if (rc == 0 && !spec->id_base && ids_host_root())
		rc = err_set(err, EPERM, "root has to give a range of ids: nothing inside may map to it");
	if (rc == 0 && !l)
		rc = forced_shell(spec, src, &l, err);
	if (rc == 0 && l && l->child.id_base != spec->id_base)
		rc = err_set(err, EINVAL, "the sandbox was made ahead with other ids");
	if (!l) {
		l = launch_new(spec->id_base, src);
		l->child.spec = spec;
		l->child.src = src;
		l->child.plan = &l->plan;
		l->child.stdio = stdio;
		l->child.outlives = src->outlives;
	}
	if (rc == 0)
		rc = launch(l, spec, src, stdio, err);
	if (rc == 0) {
		*out = l->box;
	} else {
		launch_abort(l);
		err_prefix(err, "start `%s`", spec->name);
	}
	launch_free(l);
	return rc;
}

void sandbox_release(struct sandbox *s)
{
	int *fds[] = {&s->pidfd, &s->netns, &s->status_pipe, &s->exec, &s->cgroup.v2_dir};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (*fds[i] >= 0)
			close(steal_fd(fds[i]));
}
