/* Starting one sandbox: the parent's side. The child is cloned, gets ids and mounts, then we wait until its main process has
 * been exec'd. See sandbox.h; the child's side is contain.c. */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/ids.h"
#include "sandbox/io_limit.h"
#include "sandbox/launch.h"
#include "sandbox/limits.h"
#include "sandbox/mnt_ops.h"

#define START_TIMEOUT_S 60 /* a host that is swapping; then something hangs and is killed */
#define KILL_TIMEOUT_MS 5000

static int clone_usr(const struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	static struct plan ahead;

	plan_ahead(true, &ahead);
	return mnt_clone_for(&ahead.mounts[0], src->base_usr, l->userns, err);
}

/* What only the parent may do for the child, which waits for it: ids, and what has to be written before it takes them. */
static int launch_map(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	cleanup_close int usr = -1;
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
	if (l->child.usr && (usr = clone_usr(l, src, err)) < 0)
		return -1;
	int rc = frame_send(l->sock, SYNC_IDS, 0, NULL, 0, &usr, l->child.usr);
	return rc < 0 ? err_set(err, -rc, "say that ids are mapped") : 0;
}

/* Mounts with the child's ids. */
static int launch_provide(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	int mounts[PLAN_MAX_MOUNTS], n = 0, rc = 0;

	for (; !l->child.rootless && mnt_host()->detached && n < (int)l->plan.nmounts && rc == 0; n++) {
		const struct plan_mount *m = &l->plan.mounts[n];

		mounts[n] = mnt_clone_for(m, launch_source(l, src, m), l->userns, err);
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

/* Success is the end of file: exec has closed the last copy. Returns as of sandbox_start(). */
static int launch_wait(struct sandbox_shell *l, struct err *err)
{
	struct timeval limit = {.tv_sec = START_TIMEOUT_S};
	bool reset = false;
	struct contain_failure theirs;

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
		if (n != (ssize_t)sizeof theirs)
			return err_set(err, EBADMSG, "the sandbox answers nonsense");
		theirs.err.msg[sizeof theirs.err.msg - 1] = '\0';
		*err = theirs.err;
		return theirs.program ? SANDBOX_NO_PROGRAM : -1;
	}
}

/* A child that failed meanwhile knows better why. */
static void launch_ask_why(struct sandbox_shell *l, struct err *err)
{
	struct err theirs;

	if (l->box.init <= 0)
		return;
	shutdown(l->sock, SHUT_WR);
	if (launch_wait(l, &theirs) < 0 && theirs.code != ECONNRESET)
		*err = theirs;
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

/* A kill for memory leaves nobody who could say what went wrong. */
static void blame_memory(const struct sandbox_shell *l, struct err *err)
{
	struct cgroup_stats stats;
	struct err ignored;
	char used[80];

	if (!l->cgroup_made || cgroup_host()->stats(&l->box.cgroup, &stats, &ignored) < 0 || !stats.oom_kills)
		return;
	limits_memory(&stats, used, sizeof used);
	err_text(err, ENOMEM, "the limit of memory is too small for it: killed: %s", used);
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
	l->child.cgroups = cgroup_limits("pids");
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
	launch_title(&l->child);
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
	return launch_map(l, src, err);
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
	if (launch_plan(l, spec, src, err) < 0)
		return -1;
	for (size_t i = 0; l->child.rootless && i < l->plan.nmounts; i++)
		l->child.mounts[i] = launch_source(l, src, &l->plan.mounts[i]);
	int rc = l->box.init > 0 ? 0 : launch_make(l, spec->name, &spec->limits, src, err);
	if (rc == 0)
		rc = launch_run(l, spec, src, stdio, err);
	if (rc < 0)
		launch_ask_why(l, err);
	return rc < 0 ? -1 : launch_wait(l, err);
}

static struct sandbox_shell *launch_new(enum sandbox_profile profile, uint32_t id_base,
					const struct sandbox_sources *src)
{
	struct sandbox_shell *l = xcalloc(1, sizeof *l);

	l->child = (struct contain){.sock = -1,
				    .root = -1,
				    .stdio = {-1, -1, -1},
				    .masks = {-1, -1},
				    .id_base = id_base,
				    .profile = profile,
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

struct sandbox_shell *sandbox_shell_make(const char *group, enum sandbox_profile profile, uint32_t id_base,
					 const struct sandbox_sources *src, struct err *err)
{
	/* Every controller: who knows what will be limited. */
	const struct sandbox_limits all = {.io_bytes = SANDBOX_IO_MIN};

	if (!ids_host_root() || !id_base || !mnt_host()->detached) {
		err_set(err, ENOTSUP, "a sandbox made ahead needs root, and mounts that can be handed over");
		return NULL;
	}
	struct sandbox_shell *l = launch_new(profile, id_base, src);
	l->child.usr = src->idmap && src->base_usr >= 0;
	int rc = l->child.usr && fstat(src->base_usr, &l->usr) < 0 ? err_set(err, errno, "look at the base's /usr") : 0;
	if (rc == 0 && launch_make(l, group, &all, src, err) == 0)
		return l;
	launch_ask_why(l, err);
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
	*shell = sandbox_shell_make(spec->name, spec->profile, spec->id_base, src, err);
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
	if (rc == 0 && l && (l->child.id_base != spec->id_base || l->child.profile != spec->profile))
		rc = err_set(err, EINVAL, "the sandbox was made ahead for something else");
	if (!l) {
		l = launch_new(spec->profile, spec->id_base, src);
		l->child.spec = spec;
		l->child.plan = &l->plan;
		memcpy(l->child.stdio, stdio, sizeof l->child.stdio);
		l->child.outlives = src->outlives;
	}
	if (rc == 0)
		rc = launch(l, spec, src, stdio, err);
	if (rc == 0) {
		*out = l->box;
	} else {
		blame_memory(l, err);
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
