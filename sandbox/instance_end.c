/* See instance.h: what becomes of a sandbox that has ended, or is given up: nothing of it is left on the host, and why it ended is
 * told. */
#include "sandbox/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/pidnote.h"
#include "sandbox/rtnl.h"

#define KILL_MS 10000
#define CLEAN_TRIES 5
#define CLEAN_WAIT_MS 300
#define OOM_RECENT_MS 5000 /* a large process takes a while to end */

struct cleaning {
	char group[SANDBOX_NAME_MAX + 1];
	struct egress egress;
	uint32_t number;
	int netns; /* -1: none any more */
};

/* What only the clean-up can tell. */
struct cleaned {
	struct cgroup_stats stats; /* the last ones */
	uint64_t received, sent;
};

static int clean_group(const char *name, struct cgroup_stats *stats, struct err *err)
{
	const struct cgroup_ops *ops = cgroup_host();
	struct cgroup cg;

	if (ops->open(name, &cg, err) < 0)
		return err->code == ENOENT ? 0 : -1;
	ops->stats(&cg, stats, NULL);
	int r = ops->kill(&cg, KILL_MS, err);
	if (r == 0)
		r = ops->remove(&cg, err);
	if (cg.v2_dir >= 0)
		close(cg.v2_dir);
	return r;
}

/* In a worker: nothing of it is left on the host. What the host lacks for a moment, descriptors say, is no reason to leave
 * a group or a link behind for ever: it is tried again (battery H5). Result: struct cleaned. */
static int clean(void *arg, struct buf *result, struct err *err)
{
	struct cleaning *c = arg;
	struct cleaned last = {0};
	struct rtnl_counters net = {0};
	int r = -1;

	if (c->netns >= 0)
		egress_counters(c->netns, &net);
	for (int i = 0; i < CLEAN_TRIES && r < 0; i++) {
		if (i > 0)
			poll(NULL, 0, CLEAN_WAIT_MS);
		r = clean_group(c->group, &last.stats, err);
		if (c->number != NO_EGRESS && egress_detach(&c->egress, c->number, r == 0 ? err : NULL) < 0)
			r = -1;
	}
	last.received = net.received;
	last.sent = net.sent;
	put_bytes(result, &last, sizeof last);
	return r;
}

/* An app may have lost a child to the limit long ago and end today for another reason: what counts is a kill that just
 * happened. A build fails *because* its compiler was killed, whenever that was. */
static bool memory_was_it(const struct instance *i, const struct cgroup_stats *s)
{
	const struct limit_watch *w = &i->limits.watch;
	bool just_now = s->oom_kills > w->oom_kills || (w->oom_at && io_now_ms() - w->oom_at < OOM_RECENT_MS);

	return s->oom_kills && i->exit.status && !i->exit.stopped && !i->exit.timeout && (just_now || i->info.build);
}

static void describe(struct instance *i, const struct cleaned *c)
{
	struct sandbox_exit *e = &i->exit;
	struct monitor_record rec;
	bool known = i->fds[MONITOR_RECORD] >= 0 && monitor_read_record(i->fds[MONITOR_RECORD], &rec);
	char used[80];

	*e = (struct sandbox_exit){.status = known && rec.exited ? (int)rec.status : 128 + SIGKILL,
				   .stopped = i->stopped,
				   .timeout = i->timed_out,
				   .log_dropped = known ? rec.dropped : 0,
				   .received = c->received,
				   .sent = c->sent};
	e->oom = memory_was_it(i, &c->stats);
	limits_memory(&c->stats, used, sizeof used);
	if (e->timeout)
		snprintf(e->reason, sizeof e->reason, "timeout");
	else if (e->oom && e->status == 128 + SIGKILL)
		snprintf(e->reason, sizeof e->reason, "killed: %s", used);
	else if (e->oom)
		snprintf(e->reason, sizeof e->reason, "a process of it was killed: %s", used);
	else if (e->stopped)
		snprintf(e->reason, sizeof e->reason, "stopped");
	else if (!known || !rec.exited)
		snprintf(e->reason, sizeof e->reason, "lost: its supervision was killed");
	else if (e->status > 128)
		snprintf(e->reason, sizeof e->reason, "killed by signal %d (%s)", e->status - 128,
			 sigdescr_np(e->status - 128) ? sigdescr_np(e->status - 128) : "unknown");
	else
		snprintf(e->reason, sizeof e->reason, "exit code %d", e->status);
}

static void answer_stops(struct instance *i)
{
	for (size_t k = 0; k < i->nstops; k++)
		spawn_ok(i->s, i->stops[k], NULL);
	free(i->stops);
	i->stops = NULL;
	i->nstops = 0;
}

static void cleaned(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	struct instance *i = ctx;
	struct reader r = reader_of(result->data, result->len);
	struct str last = get_bytes(&r);
	struct cleaned c = {0};
	cleanup_buf struct buf event = BUF_INIT;

	if (err)
		log_error("clean-up of %s: %s", i->info.name, err->msg);
	if (get_ok(&r) && last.n == sizeof c)
		memcpy(&c, last.p, sizeof c);
	describe(i, &c);
	instance_limits_last(i, &c.stats);
	for (int k = 0; k < MONITOR_NFDS; k++) {
		if (i->fds[k] >= 0)
			close(i->fds[k]);
		i->fds[k] = -1;
	}
	if (i->has_group && i->group.v2_dir >= 0)
		close(i->group.v2_dir);
	i->has_group = false;
	i->state = EXITED;
	answer_stops(i);
	if (i->init == 0 && i->lost) {
		struct err why = i->start_error;
		uint32_t id = i->start_id;
		log_info("%s", why.msg);
		instance_remove(i);
		if (id)
			spawn_error(s, id, &why);
		return;
	}
	ended_write(i);
	put_str(&event, i->info.name);
	sandbox_exit_encode(&i->exit, &event);
	spawn_event(s, SPAWN_EXITED, &event);
}

/* No worker to be had, for want of descriptors or processes: later, rather than that its group stays (battery H5). */
void instance_clean(struct instance *i)
{
	struct cleaning c = {.egress = i->s->egress, .number = i->info.egress, .netns = i->fds[MONITOR_NETNS]};
	struct err err = ERR_INIT;

	instance_group_name(&i->info, c.group);
	i->clean_at = 0;
	if (spawn_job(i->s, clean, &c, cleaned, i, NULL, &err) == 0)
		return;
	log_warn("clean-up of %s waits: %s", i->info.name, err.msg);
	i->clean_at = io_now_ms() + CLEAN_WAIT_MS;
}

/* Its monitor died before it told of it, or while no spawner was there: a host without cgroups has nothing else to end it by. */
static void kill_noted(struct instance *i)
{
	pid_t init;

	if (i->fds[MONITOR_PIDFD] < 0 && (i->fds[MONITOR_PIDFD] = pidnote_find(i->dir, "init", &init)) >= 0)
		pidfd_send_signal(i->fds[MONITOR_PIDFD], SIGKILL, NULL, 0);
}

void instance_end(struct instance *i)
{
	struct err gone;

	kill_noted(i);
	i->state = ENDING;
	instance_exec_detach(i);
	instance_exec_end(i, EXEC_APP_ENDED);
	i->kill_at = i->timeout_at = 0;
	err_set(&gone, ESRCH, "sandbox %s has ended", i->info.name);
	instance_freeze_end(i, &gone);
	instance_limits_unwatch(i);
	if (i->monitor.fd >= 0) {
		spawn_unwatch(i->s, &i->monitor);
		close(i->monitor.fd);
		i->monitor.fd = -1;
	}
	instance_clean(i);
}
