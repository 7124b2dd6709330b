/* See instance.h: starting a sandbox, following its monitor, asking it to end. */
#include "sandbox/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/cgroup.h"
#include "sandbox/ids.h"
#include "sandbox/pidnote.h"
#include "sandbox/shells.h"
#include "sandbox/slirp.h"
#include "sandbox/start.h"

#define TIMEOUT_GRACE_MS 5000
#define LINGER_MS 5000 /* the main process has ended: so long for init to follow */
#define RESPAWNS 20

void waiting_add(struct waiting **list, struct frame *f)
{
	struct waiting *w = xcalloc(1, sizeof *w);

	w->frame = *f;
	*f = (struct frame){0};
	while (*list)
		list = &(*list)->next;
	*list = w;
}

struct instance *instance_find(struct spawn *s, const char *name)
{
	struct instance *i;

	HASH_FIND_STR(s->instances, name, i);
	return i;
}

/* -- start -------------------------------------------------------------------------------------------------------------- */

static int add_use(struct spawn *s, struct instance_info *info, const char *name, bool write, bool alone,
		   struct err *err)
{
	if (!volume_exists(&s->volumes, name))
		return err_set(err, ENOENT, "volume %s", name);
	if (spawn_volume_under_work(s, name) || (alone && spawn_volume_used(s, name, false)))
		return err_set(err, EBUSY, "volume %s", name);
	snprintf(info->uses[info->nuses].name, sizeof info->uses[0].name, "%s", name);
	info->uses[info->nuses++].write = write;
	return 0;
}

static int add_asked(struct spawn *s, struct instance_info *info, const char *name, bool write, bool alone,
		     struct err *err)
{
	if (upkeep_reserved(name))
		return err_set(err, EPERM, "volume %s", name);
	return add_use(s, info, name, write, alone, err);
}

static int add_base(struct spawn *s, const struct sandbox_spec *spec, struct instance_info *info, struct err *err)
{
	if (start_on_host(spec))
		return add_use(s, info, s->skeleton, false, false, err);
	if (!ids_host_root())
		return err_text(err, EPERM, "base images take a daemon that runs as root");
	if (!base_exists(s->state, spec->base))
		return err_text(err, ENOENT, "the base `%.80s` is not here (spacectl base list)", spec->base);
	cleanup_free char *image = base_volume(spec->base);
	return add_use(s, info, image, false, false, err);
}

static int plan_uses(struct spawn *s, const struct sandbox_spec *spec, struct instance_info *info, struct err *err)
{
	if (add_base(s, spec, info, err) < 0)
		return -1;
	for (size_t k = 0; k < spec->nlayers; k++)
		if (add_asked(s, info, spec->layers[k], false, false, err) < 0)
			return -1;
	if (spec->top && add_asked(s, info, spec->top, true, true, err) < 0)
		return -1;
	for (size_t k = 0; k < spec->nbinds; k++) {
		if (spec->binds[k].source || !spec->binds[k].volume)
			return err_set(err, EPERM, "a bind of a host path: only volumes are given to Spaces");
		if (add_asked(s, info, spec->binds[k].volume, spec->binds[k].write, false, err) < 0)
			return -1;
	}
	return 0;
}

bool instance_start_waits(struct spawn *s, const struct sandbox_spec *spec)
{
	cleanup_free char *base = start_on_host(spec) ? xstrdup(s->skeleton) : base_volume(spec->base);

	if (spawn_volume_upkept(s, base) || (spec->top && spawn_volume_upkept(s, spec->top)))
		return true;
	for (size_t k = 0; k < spec->nlayers; k++)
		if (spawn_volume_upkept(s, spec->layers[k]))
			return true;
	for (size_t k = 0; k < spec->nbinds; k++)
		if (spec->binds[k].volume && spawn_volume_upkept(s, spec->binds[k].volume))
			return true;
	return false;
}

static uint32_t free_egress(struct spawn *s)
{
	for (uint32_t n = 0; n < EGRESS_MAX; n++) {
		bool taken = false;
		struct instance *i, *tmp;
		HASH_ITER(hh, s->instances, i, tmp)
		taken |= i->state != EXITED && i->info.egress == n;
		if (!taken)
			return n;
	}
	return NO_EGRESS;
}

static int plan_info(struct spawn *s, const struct sandbox_spec *spec, struct instance_info *info, struct err *err)
{
	*info = (struct instance_info){.build = spec->profile != SANDBOX_APP,
				       .started_wall = io_wall_ms(),
				       .started = io_now_ms(),
				       .memory = spec->limits.memory,
				       .timeout_s = spec->limits.timeout_s,
				       .log_budget = spec->limits.log_bytes ? spec->limits.log_bytes : 64ULL << 20,
				       .egress = NO_EGRESS,
				       .shell = NO_SHELL};
	snprintf(info->name, sizeof info->name, "%s", spec->name);
	if (instance_find(s, spec->name))
		return err_set(err, EEXIST, "sandbox %s", spec->name);
	if (ids_host_root() && (spec->id_base < s->id_base || (spec->id_base - s->id_base) % SANDBOX_IDS ||
				(spec->id_base - s->id_base) / SANDBOX_IDS >= SHELL_IDS_FROM))
		return err_set(err, EPERM, "id range %u: not one of those for Spaces", spec->id_base);
	if (spec->profile == SANDBOX_BUILD_ROOT && !ids_host_root())
		return err_text(
		    err, EPERM,
		    "packages.txt is not possible here: Debian packages are installed over the host's /usr, "
		    "which takes a daemon that runs as root");
	if (spec->egress != EGRESS_NONE && ids_host_root()) {
		info->egress = free_egress(s);
		if (info->egress == NO_EGRESS)
			return err_set(err, EADDRNOTAVAIL, "too many sandboxes with egress");
	}
	return plan_uses(s, spec, info, err);
}

static int fork_start(struct start *st, struct err *err)
{
	int sv[2];
	int r = frame_pair(sv);

	if (r < 0)
		return err_set(err, -r, "socket pair");
	st->channel = sv[1];
	pid_t pid = fork();
	if (pid == 0)
		start_run(st);
	int e = errno;
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return err_set(err, e, "fork");
	}
	instance_follow(st->i, sv[0]);
	return 0;
}

/* What the host lends to a daemon without root, whatever the spec asks for. */
static void adapt(struct sandbox_spec *spec, int log)
{
	cleanup_buf struct buf why = BUF_INIT;

	spec->id_base = ids_base(spec->id_base);
	if (ids_host_root() || spec->egress == EGRESS_NONE || slirp_probe(&why))
		return;
	spec->egress = EGRESS_NONE;
	dprintf(log, "[spaced] no network: %s", why.data);
}

/* By a shell, or by a fork of ours. */
static int begin(struct start *st, struct shell *shell, struct err *err)
{
	struct spawn *s = st->i->s;

	if (shell)
		return shell_give(shell, st, err);
	st->netns = netns_pool_take(&s->pool);
	int r = fork_start(st, err);
	if (st->netns >= 0)
		close(st->netns);
	spawn_pool(s);
	return r;
}

int instance_start(struct spawn *s, struct sandbox_spec *spec, uint32_t id, int log, const int stdio[2],
		   struct err *err)
{
	struct instance_info info;
	struct start st = {.stdio = {stdio[0], stdio[1]}, .netns = -1, .log_pipe = {-1, -1}};

	if (plan_info(s, spec, &info, err) < 0)
		return -1;
	adapt(spec, log);
	struct shell *shell = shells_take(s, spec);
	if (shell) {
		info.shell = shell->number;
		spec->id_base = shell_ids(s, shell->number);
	}
	struct instance *i = instance_new(s, &info);
	st.i = i;
	st.spec = *spec;
	i->fds[MONITOR_LOG] = fcntl(log, F_DUPFD_CLOEXEC, 3);
	if (instance_listen(i, err) < 0 || info_write(i->dir, &info, err) < 0)
		goto fail;
	if (i->fds[MONITOR_LOG] < 0 || pipe2(st.log_pipe, O_CLOEXEC) < 0) {
		err_set(err, errno, "log of %s", info.name);
		goto fail;
	}
	/* the log is the app's own, so that it may open /dev/stdout again, as log configurations do */
	i->fds[MONITOR_LOG_PIPE] = st.log_pipe[0];
	if (spec->id_base && fchown(st.log_pipe[1], spec->id_base + spec->uid, spec->id_base + spec->gid) < 0) {
		err_set(err, errno, "owner of the log pipe of %s", info.name);
		close(st.log_pipe[1]);
		goto fail;
	}
	int r = begin(&st, shell, err);
	close(st.log_pipe[1]);
	if (r < 0)
		goto fail;
	i->start_id = id;
	return 0;
fail:
	if (shell)
		shell_end(shell);
	instance_remove(i);
	return -1;
}

/* -- the monitor says something ---------------------------------------------------------------------------------------- */

/* One that was made ahead has a group whose name tells nothing of the app. */
static void tell_started(const struct instance *i)
{
	cleanup_free char *path = instance_group_path(i);

	log_info("sandbox %s: process %d, cgroup %s", i->info.name, i->init, *path ? path : "none");
}

static void on_state(struct instance *i, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	uint32_t init = get_u32(&r);
	int pair[2];
	struct err err = ERR_INIT;

	if (f->nfds == MONITOR_EXEC && frame_pair(pair) == 0) { /* of a version without: nobody is at the other end */
		close(pair[1]);
		f->fds[f->nfds++] = pair[0];
	}
	if (!get_ok(&r) || f->nfds != MONITOR_NFDS)
		return;
	instance_exec_detach(i);
	for (int k = 0; k < MONITOR_NFDS; k++) {
		if (i->fds[k] >= 0)
			close(i->fds[k]);
		i->fds[k] = frame_take_fd(f, k);
	}
	i->init = (pid_t)init;
	instance_exec_attach(i, i->state == STARTING && i->start_id == 0);
	if (i->state != STARTING)
		return;
	i->state = RUNNING;
	if (!i->start_id)
		instance_settle(i);
	instance_limits_watch(i, i->start_id != 0);
	if (pidnote_write(i->dir, "init", i->init, &err) < 0 && err.code != ESRCH) /* it has ended already */
		log_warn("%s", err.msg);
	for (uint32_t k = 0; k < i->info.nuses; k++)
		spawn_note_mounted(i->s, i->info.uses[k].name);
	if (i->info.timeout_s)
		i->timeout_at = i->info.started + i->info.timeout_s * 1000ULL;
	if (i->start_id) {
		spawn_ok(i->s, i->start_id, NULL);
		tell_started(i);
		shells_refill(i->s); /* not for one that is adopted: the numbers of the others are not known yet */
	}
	i->start_id = 0;
	if (i->stop_early)
		instance_stop(i, i->stop_grace);
}

static void start_failed(struct instance *i, const struct err *err)
{
	i->start_error = *err;
	i->lost = true; /* no exit to report: it never ran. The request is answered when all is cleaned up */
	instance_end(i);
}

static void on_failed(struct instance *i, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	struct err err = ERR_INIT;

	err.code = (int)get_u32(&r);
	get_str(&r, err.msg, sizeof err.msg);
	if (!get_ok(&r))
		err_set(&err, EPROTO, "the monitor makes no sense");
	if (i->state == STARTING)
		start_failed(i, &err);
	else
		log_warn("monitor of %s: %s", i->info.name, err.msg);
}

static bool has_exited(struct instance *i)
{
	struct monitor_record r;
	return i->fds[MONITOR_RECORD] >= 0 && monitor_read_record(i->fds[MONITOR_RECORD], &r) && r.exited;
}

/* A monitor was killed: another takes its place with the same descriptors; the sandbox does not notice. */
static void respawn(struct instance *i)
{
	int sv[2];

	if (++i->respawns > RESPAWNS || frame_pair(sv) < 0)
		goto lost;
	pid_t pid = fork();
	if (pid == 0) {
		struct monitor m = {
		    .init = i->init, .log_budget = i->info.log_budget, .channel = sv[1], .host_mnt = i->s->host_mnt};
		memcpy(m.fds, i->fds, sizeof m.fds);
		monitor_main(&m);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		goto lost;
	}
	log_warn("monitor of %s died, replaced", i->info.name);
	instance_follow(i, sv[0]);
	return;
lost:
	log_error("monitor of %s cannot be replaced: stopping the sandbox", i->info.name);
	pidfd_send_signal(i->fds[MONITOR_PIDFD], SIGKILL, NULL, 0);
	instance_end(i);
}

static void monitor_gone(struct instance *i)
{
	struct err err = ERR_INIT;

	spawn_unwatch(i->s, &i->monitor);
	close(i->monitor.fd);
	i->monitor.fd = -1;
	if (i->state == STARTING && i->start_id == 0) {
		instance_missed(i); /* of an earlier spawner; it was dying when we connected */
	} else if (i->state == STARTING) {
		err_set(&err, ECHILD, "start of %s: the monitor died", i->info.name);
		start_failed(i, &err);
	} else if (i->state == RUNNING && has_exited(i)) {
		instance_end(i);
	} else if (i->state == RUNNING) {
		respawn(i);
	}
}

static void monitor_ready(struct source *src, uint32_t events)
{
	struct instance *i = container_of(src, struct instance, monitor);
	struct frame f;
	int r = frame_recv(src->fd, &f);

	if (r == -EAGAIN)
		return;
	if (r <= 0) {
		monitor_gone(i);
		return;
	}
	if (f.type == MONITOR_STATE)
		on_state(i, &f);
	else if (f.type == MONITOR_FAILED)
		on_failed(i, &f);
	else if (f.type == MONITOR_MAIN_EXITED && i->kill_at == 0)
		i->kill_at = io_now_ms() + LINGER_MS;
	else if (f.type == MONITOR_EXITED && i->state == RUNNING)
		instance_end(i);
	frame_release(&f);
}

void instance_follow(struct instance *i, int channel)
{
	if (i->monitor.fd >= 0) {
		spawn_unwatch(i->s, &i->monitor);
		close(i->monitor.fd);
	}
	i->monitor = (struct source){.fd = channel, .ready = monitor_ready};
	io_set_nonblock(channel, true);
	if (spawn_watch(i->s, &i->monitor, EPOLLIN) < 0)
		log_error("watch the monitor of %s: %m", i->info.name);
}

/* -- verbs ----------------------------------------------------------------------------------------------------------------- */

void instance_group_name(const struct instance_info *info, char out[SANDBOX_NAME_MAX + 1])
{
	if (info->shell == NO_SHELL)
		snprintf(out, SANDBOX_NAME_MAX + 1, "%s", info->name);
	else
		shell_group(info->shell, out);
}

const struct cgroup *instance_group(struct instance *i, struct err *err)
{
	char name[SANDBOX_NAME_MAX + 1];

	instance_group_name(&i->info, name);
	if (!i->has_group && cgroup_host()->open(name, &i->group, err) < 0)
		return NULL;
	i->has_group = true;
	return &i->group;
}

char *instance_group_path(const struct instance *i)
{
	char name[SANDBOX_NAME_MAX + 1];

	instance_group_name(&i->info, name);
	return cgroup_path(name, i->init);
}

static void kill_now(struct instance *i)
{
	struct err err;
	const struct cgroup *group = instance_group(i, &err);

	instance_thaw(i, NULL); /* on v1 a frozen process does not die (battery I1) */
	if (group)
		cgroup_host()->lift_io(group);
	if (i->fds[MONITOR_PIDFD] >= 0)
		pidfd_send_signal(i->fds[MONITOR_PIDFD], SIGKILL, NULL, 0); /* with init all inside end */
	i->kill_at = 0;
}

static void terminate(struct instance *i, uint32_t grace_ms)
{
	if (grace_ms == 0) {
		kill_now(i);
		return;
	}
	uint64_t at = io_now_ms() + grace_ms;
	instance_thaw(i, NULL);
	pidfd_send_signal(i->fds[MONITOR_PIDFD], SIGTERM, NULL, 0);
	if (i->kill_at == 0 || at < i->kill_at)
		i->kill_at = at;
}

void instance_stop(struct instance *i, uint32_t grace_ms)
{
	if (!i->timed_out)
		i->stopped = true;
	if (i->state == STARTING) {
		i->stop_early = true;
		i->stop_grace = grace_ms;
	} else if (i->state == RUNNING) {
		terminate(i, grace_ms);
	}
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
	return a && (!b || a < b) ? a : b;
}

uint64_t instance_timers(struct instance *i, uint64_t now)
{
	if (i->clean_at && now >= i->clean_at)
		instance_clean(i);
	if (i->state != RUNNING)
		return i->clean_at;
	uint64_t next =
	    earliest(instance_exec_timers(i, now), earliest(instance_limits_due(i, now), instance_freeze_due(i, now)));
	if (i->timeout_at && now >= i->timeout_at) {
		i->timeout_at = 0;
		i->timed_out = !i->stopped;
		terminate(i, TIMEOUT_GRACE_MS);
	}
	if (i->kill_at && now >= i->kill_at)
		kill_now(i);
	return earliest(next, earliest(i->kill_at, i->timeout_at));
}
