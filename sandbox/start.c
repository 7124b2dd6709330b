/* See start.h. */
#include "sandbox/start.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/base.h"
#include "sandbox/ids.h"
#include "sandbox/pidnote.h"

bool start_on_host(const struct sandbox_spec *spec)
{
	return !spec->base || strcmp(spec->base, BASE_HOST) == 0;
}

static int open_volume(struct spawn *s, const char *name, int *fd, struct err *err)
{
	*fd = volume_mount(&s->volumes, name, err);
	return *fd < 0 ? -1 : 0;
}

static int open_sources(struct start *st, struct err *err)
{
	struct spawn *s = st->i->s;
	const struct sandbox_spec *spec = &st->spec;
	struct sandbox_sources *src = &st->src;
	bool host = start_on_host(spec);
	cleanup_free char *image = host ? xstrdup(s->skeleton) : base_volume(spec->base);
	int base = volume_mount(&s->volumes, image, err);

	if (base < 0)
		return -1;
	src->idmap = ids_host_root();
	src->outlives = true;
	src->skeleton = openat(base, "root", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	src->base_usr = host ? open("/usr", O_PATH | O_DIRECTORY | O_CLOEXEC)
			     : openat(base, "usr", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (src->skeleton < 0 || src->base_usr < 0)
		return err_set(err, errno, "open the base");
	for (size_t k = 0; k < spec->nlayers; k++)
		if (open_volume(s, spec->layers[k], &src->layers[k], err) < 0)
			return -1;
	src->top = -1;
	if (spec->top && open_volume(s, spec->top, &src->top, err) < 0)
		return -1;
	for (size_t k = 0; k < spec->nbinds; k++) {
		int volume;
		if (open_volume(s, spec->binds[k].volume, &volume, err) < 0)
			return -1;
		src->binds[k] = volume;
		/* what the app sees of its data is its own folder, not the file system's lost+found */
		if (volume_is_data(spec->binds[k].volume) &&
		    (src->binds[k] = openat(volume, "root", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
			return err_set(err, errno, "open volume %s", spec->binds[k].volume);
	}
	return 0;
}

static int ensure_in_worker(void *arg, struct buf *result, struct err *err)
{
	return egress_ensure(arg, err);
}

static int open_network(struct start *st, struct err *err)
{
	struct instance *i = st->i;
	bool root = ids_host_root();

	if (egress_policy_of(&st->spec, &st->policy, err) < 0)
		return -1;
	if (egress_inside_needed(&st->policy, !root)) {
		st->inside = (struct egress_inside){.policy = &st->policy,
						    .spec = &st->spec,
						    .slirp = !root,
						    .uid = EGRESS_INSIDE_UID(st->spec.id_base),
						    .gone = -1};
		st->src.network = egress_inside_network;
		st->src.network_ctx = &st->inside;
	}
	st->src.netns = -1;
	if (!root) /* there is no way back from one that is entered (sockets.h): clone3 makes it */
		return 0;
	if (st->netns < 0)
		st->netns = netns_make(err);
	if (st->netns < 0)
		return -1;
	st->src.netns = st->netns;
	if (i->info.egress == NO_EGRESS)
		return 0;
	/* in a child of its own, for libnftables' memory */
	if (worker_run(ensure_in_worker, &i->s->egress, NULL, err) < 0)
		return -1;
	return egress_attach(&i->s->egress, i->info.egress, st->netns, st->policy.bandwidth, err);
}

/* Should this process be killed before it is the monitor, the note is all that the spawner knows of. */
static int note_init(void *ctx, pid_t init, struct err *err)
{
	const struct instance *i = ctx;

	return pidnote_write(i->dir, "init", init, err);
}

static int start_sandbox(struct start *st, struct monitor *m, struct err *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int stdio[3] = {st->stdio[0] >= 0 ? st->stdio[0] : null, st->stdio[1] >= 0 ? st->stdio[1] : st->log_pipe[1],
			st->log_pipe[1]};
	struct sandbox box;

	if (cgroup_host()->kind == CGROUP_NONE) {
		st->src.born = note_init;
		st->src.born_ctx = st->i;
	}
	if (sandbox_start(&st->spec, &st->src, stdio, &box, err) < 0)
		return -1;
	m->init = box.init;
	m->fds[MONITOR_PIDFD] = box.pidfd;
	m->fds[MONITOR_NETNS] = box.netns;
	m->fds[MONITOR_STATUS] = box.status_pipe;
	m->fds[MONITOR_EXEC] = box.exec;
	return 0;
}

_Noreturn void start_run(struct start *st)
{
	struct instance *i = st->i;
	struct err err = ERR_INIT;
	struct monitor m = {.log_budget = i->info.log_budget, .channel = st->channel, .host_mnt = i->s->host_mnt};

	memcpy(m.fds, i->fds, sizeof m.fds);
	signal(SIGCHLD, SIG_DFL);
	if (open_sources(st, &err) == 0 && open_network(st, &err) == 0 && start_sandbox(st, &m, &err) == 0) {
		sandbox_spec_wipe(&st->spec);
		monitor_main(&m);
	}
	cleanup_buf struct buf b = BUF_INIT;
	put_u32(&b, (uint32_t)(err.code ? err.code : EIO));
	put_str(&b, err.msg);
	frame_send(st->channel, MONITOR_FAILED, 0, b.data, b.len, NULL, 0);
	_exit(1);
}
