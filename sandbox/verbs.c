/* See spawner.h: each verb is one function in a table. What is slow runs in a worker (spawn_job) and answers later. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/cgroup.h"
#include "sandbox/link.h"
#include "sandbox/listeners.h"
#include "sandbox/rtnl.h"
#include "sandbox/sockets.h"
#include "sandbox/usage.h"

struct request {
	struct spawn *s;
	struct link *link;
	struct frame *f;
	struct reader r;
	char name[SANDBOX_NAME_MAX + 1];
};

static int malformed(struct err *err)
{
	return err_set(err, EBADMSG, "malformed request");
}

static int find(struct request *q, struct instance **i, struct err *err)
{
	*i = instance_find(q->s, q->name);
	return *i ? 0 : err_set(err, ENOENT, "sandbox %s", q->name);
}

static int find_running(struct request *q, struct instance **i, struct err *err)
{
	if (find(q, i, err) < 0)
		return -1;
	return (*i)->state == RUNNING ? 0 : err_set(err, ESRCH, "sandbox %s does not run", q->name);
}

static int verb_start(struct request *q, struct err *err)
{
	struct sandbox_spec spec = {0};
	int stdio[2] = {-1, -1};
	int at = 1;

	if (!q->s->skeleton[0]) {
		waiting_add(&q->s->starts, q->f);
		return 0;
	}
	if (sandbox_spec_decode(&q->r, &spec, err) < 0)
		return -1;
	if (instance_start_waits(q->s, &spec)) {
		sandbox_spec_release(&spec);
		waiting_add(&q->s->behind_upkeep, q->f);
		return 0;
	}
	bool has[2];
	has[0] = get_u8(&q->r);
	has[1] = get_u8(&q->r);
	int r = get_ok(&q->r) && q->f->nfds == 1 + has[0] + has[1] ? 0 : malformed(err);
	explicit_bzero(q->f->payload,
		       q->f->len); /* the environment's secrets: a later fork would have them in its memory */
	for (int k = 0; r == 0 && k < 2; k++)
		if (has[k])
			stdio[k] = q->f->fds[at++];
	if (r == 0)
		r = instance_start(q->s, &spec, q->f->id, q->f->fds[0], stdio, err);
	sandbox_spec_release(&spec);
	return r;
}

static int verb_stop(struct request *q, struct err *err)
{
	uint32_t grace = get_u32(&q->r);
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find(q, &i, err) < 0)
		return -1;
	if (i->state == EXITED) {
		spawn_ok(q->s, q->f->id, NULL);
		return 0;
	}
	i->stops = xreallocarray(i->stops, i->nstops + 1, sizeof *i->stops);
	i->stops[i->nstops++] = q->f->id;
	instance_stop(i, grace);
	return 0;
}

static int verb_freeze(struct request *q, struct err *err)
{
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find_running(q, &i, err) < 0)
		return -1;
	if (i->commands)
		return err_set(err, EBUSY, "a command runs in %s", q->name);
	return instance_freeze(i, q->f->id, err);
}

static int verb_thaw(struct request *q, struct err *err)
{
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find_running(q, &i, err) < 0)
		return -1;
	if (instance_thaw(i, err) < 0)
		return -1;
	spawn_ok(q->s, q->f->id, NULL);
	return 0;
}

static int verb_page_out(struct request *q, struct err *err)
{
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find_running(q, &i, err) < 0)
		return -1;
	return instance_page_out(i, q->f->id, err);
}

static int verb_list(struct request *q, struct err *err)
{
	static const struct sandbox_exit none;
	cleanup_buf struct buf entries = BUF_INIT;
	cleanup_buf struct buf b = BUF_INIT;
	struct instance *i, *tmp;
	uint32_t n = 0;

	if (!get_ok(&q->r))
		return malformed(err);
	for (int exited = 0; exited < 2; exited++) { /* what runs comes first, should there be too many */
		HASH_ITER(hh, q->s->instances, i, tmp)
		{
			if ((i->state == EXITED) != exited || entries.len > REPLY_ROOM - 512)
				continue;
			put_str(&entries, i->info.name);
			put_u8(&entries, !exited);
			put_u64(&entries, i->info.started_wall);
			sandbox_exit_encode(exited ? &i->exit : &none, &entries);
			n++;
		}
	}
	put_u32(&b, n);
	buf_add(&b, entries.data, entries.len);
	spawn_ok(q->s, q->f->id, &b);
	return 0;
}

static int verb_forget(struct request *q, struct err *err)
{
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find(q, &i, err) < 0)
		return -1;
	if (i->state != EXITED)
		return err_set(err, EBUSY, "sandbox %s still runs", q->name);
	instance_remove(i);
	spawn_ok(q->s, q->f->id, NULL);
	return 0;
}

static int verb_open(struct request *q, struct err *err)
{
	uint32_t n = get_u32(&q->r);
	int fds[SOCKETS_MAX];
	struct instance *i;

	if (!get_ok(&q->r) || n == 0 || n > SOCKETS_MAX)
		return malformed(err);
	if (find_running(q, &i, err) < 0 || sockets_make(i->fds[MONITOR_NETNS], SOCKET_TCP, n, fds, err) < 0)
		return -1;
	link_send(q->link, SPAWN_OK, q->f->id, NULL, fds, (int)n);
	return 0;
}

static int verb_listeners(struct request *q, struct err *err)
{
	cleanup_buf struct buf entries = BUF_INIT;
	cleanup_buf struct buf b = BUF_INIT;
	struct instance *i;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find_running(q, &i, err) < 0)
		return -1;
	put_u32(&b, listeners_of(i->init, &entries));
	buf_add(&b, entries.data, entries.len);
	spawn_ok(q->s, q->f->id, &b);
	return 0;
}

static void put_disk(struct buf *b, const struct disk_usage *d)
{
	put_u64(b, d->used);
	put_u64(b, d->size);
	put_u64(b, d->inodes_used);
	put_u64(b, d->inodes);
}

static int verb_stats(struct request *q, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	const struct cgroup *group;
	struct cgroup_stats stats;
	struct rtnl_counters net;
	struct instance *i;
	struct usage use;

	if (!get_ok(&q->r))
		return malformed(err);
	if (find_running(q, &i, err) < 0 || !(group = instance_group(i, err)) ||
	    cgroup_host()->stats(group, &stats, err) < 0)
		return -1;
	usage_of(i->init, &use);
	put_u64(&b, stats.memory);
	put_u64(&b, stats.cpu_usec);
	put_u32(&b, stats.pids);
	put_u64(&b, stats.memory_limit);
	put_u64(&b, stats.memory_peak);
	put_u64(&b, stats.throttled_usec);
	put_u64(&b, stats.oom_kills);
	put_u32(&b, stats.cpu_milli);
	put_u32(&b, stats.pids_limit);
	put_disk(&b, &use.top);
	put_disk(&b, &use.data);
	egress_counters(i->fds[MONITOR_NETNS], &net);
	put_u64(&b, net.received);
	put_u64(&b, net.sent);
	cleanup_free char *path = instance_group_path(i);
	put_str(&b, path);
	spawn_ok(q->s, q->f->id, &b);
	return 0;
}

static int verb_volume(struct request *q, struct err *err)
{
	struct volume_call c = {.s = q->s, .id = q->f->id, .verb = q->f->type};

	memcpy(c.name, q->name, sizeof c.name);
	if (c.verb == SPAWN_VOLUME_CREATE || c.verb == SPAWN_VOLUME_ENSURE)
		c.bytes = get_u64(&q->r);
	if (c.verb == SPAWN_VOLUME_RENAME)
		get_str(&q->r, c.to, sizeof c.to);
	if (!get_ok(&q->r))
		return malformed(err);
	if (upkeep_reserved(c.name) || upkeep_reserved(c.to))
		return err_set(err, EPERM, "volume %s", c.name);
	if (c.verb == SPAWN_VOLUME_RENAME && !sandbox_name_ok(c.to))
		return err_set(err, EINVAL, "bad name %s", c.to);
	if (spawn_volume_upkept(q->s, c.name) || (c.to[0] && spawn_volume_upkept(q->s, c.to))) {
		waiting_add(&q->s->behind_upkeep, q->f);
		return 0;
	}
	if (spawn_volume_under_work(q->s, c.name) || (c.to[0] && spawn_volume_under_work(q->s, c.to)) ||
	    (c.verb == SPAWN_VOLUME_RENAME && spawn_volume_used(q->s, c.name, true)) ||
	    (c.verb == SPAWN_VOLUME_REMOVE && spawn_volume_used(q->s, c.name, false)))
		return err_set(err, EBUSY, "volume %s", c.name);
	c.used = spawn_volume_used(q->s, c.name, false);
	return upkeep_volume(q->s, &c, upkeep_volume_done, err);
}

static int verb_base_remove(struct request *q, struct err *err)
{
	struct volume_call c = {.s = q->s, .id = q->f->id, .verb = SPAWN_BASE_REMOVE};

	if (!get_ok(&q->r) || !base_id_split(q->name, NULL))
		return malformed(err);
	snprintf(c.name, sizeof c.name, BASE_PREFIX "%.*s", BASE_ID, q->name);
	if (spawn_volume_upkept(q->s, c.name)) {
		waiting_add(&q->s->behind_upkeep, q->f);
		return 0;
	}
	if (spawn_volume_under_work(q->s, c.name) || spawn_volume_used(q->s, c.name, false))
		return err_set(err, EBUSY, "base %s", q->name);
	return upkeep_volume(q->s, &c, upkeep_volume_done, err);
}

static int verb_volume_list(struct request *q, struct err *err)
{
	struct volume_call c = {.s = q->s, .id = q->f->id, .verb = SPAWN_VOLUME_LIST};

	return get_ok(&q->r) ? upkeep_volume(q->s, &c, upkeep_volume_listed, err) : malformed(err);
}

static int verb_exec(struct request *q, struct err *err)
{
	struct exec_request x;
	struct instance *i;
	int r;

	if (find_running(q, &i, err) < 0 || exec_request_decode(&q->r, &x, err) < 0)
		return -1;
	r = instance_thaw(i, err);
	if (r == 0)
		r = instance_exec(i, q->f->id, &x, err);
	exec_request_release(&x);
	return r;
}

static int verb_exec_signal(struct request *q, struct err *err)
{
	uint32_t exec = get_u32(&q->r);
	uint32_t signo = get_u32(&q->r);
	struct instance *i;

	if (!get_ok(&q->r) || signo > SIGSYS)
		return malformed(err);
	if (find_running(q, &i, err) < 0 || instance_exec_signal(i, exec, signo, err) < 0)
		return -1;
	spawn_ok(q->s, q->f->id, NULL);
	return 0;
}

static int verb_peer(struct request *q, struct err *err)
{
	int type = 0;
	socklen_t len = sizeof type;

	if (!get_ok(&q->r) || q->f->nfds != 1 || getsockopt(q->f->fds[0], SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_SEQPACKET)
		return malformed(err);
	if (!link_add(q->s, frame_take_fd(q->f, 0), false))
		return err_set(err, EIO, "cannot watch the channel");
	spawn_ok(q->s, q->f->id, NULL);
	return 0;
}

static const struct verb {
	int (*fn)(struct request *q, struct err *err);
	bool named;   /* the payload begins with a name */
	bool proxies; /* proxies may ask for it too */
} verbs[] = {
    [SPAWN_START] = {verb_start, false, false},
    [SPAWN_STOP] = {verb_stop, true, false},
    [SPAWN_FREEZE] = {verb_freeze, true, false},
    [SPAWN_THAW] = {verb_thaw, true, false},
    [SPAWN_LIST] = {verb_list, false, false},
    [SPAWN_FORGET] = {verb_forget, true, false},
    [SPAWN_OPEN] = {verb_open, true, true},
    [SPAWN_LISTENERS] = {verb_listeners, true, false},
    [SPAWN_STATS] = {verb_stats, true, false},
    [SPAWN_VOLUME_CREATE] = {verb_volume, true, false},
    [SPAWN_VOLUME_RENAME] = {verb_volume, true, false},
    [SPAWN_VOLUME_REMOVE] = {verb_volume, true, false},
    [SPAWN_VOLUME_ENSURE] = {verb_volume, true, false},
    [SPAWN_PEER] = {verb_peer, false, false},
    [SPAWN_VOLUME_LIST] = {verb_volume_list, false, false},
    [SPAWN_EXEC] = {verb_exec, true, false},
    [SPAWN_EXEC_SIGNAL] = {verb_exec_signal, true, false},
    [SPAWN_BASE_REMOVE] = {verb_base_remove, true, false},
    [SPAWN_PAGE_OUT] = {verb_page_out, true, false},
};

void verb_handle(struct link *l, struct frame *f)
{
	const struct verb *v = f->type < sizeof verbs / sizeof *verbs ? &verbs[f->type] : NULL;
	struct request q = {.s = l->s, .link = l, .f = f, .r = reader_of(f->payload, f->len)};
	struct err err = ERR_INIT;
	uint32_t id = f->id;
	int r;

	if (!l->control && (!v || !v->proxies)) {
		log_warn("a proxy asked for verb %u: its channel is closed", f->type);
		l->dead = true;
		return;
	}
	bool known = v && v->fn && id != 0;
	if (!known || (v->named && (!get_str(&q.r, q.name, sizeof q.name) || !sandbox_name_ok(q.name))))
		r = malformed(&err);
	else
		r = v->fn(&q, &err);
	if (r < 0)
		link_error(l, id, &err);
	if (r < 0 && err.code == EBADMSG && !l->control)
		l->dead = true;
}

void spawn_again(struct spawn *s, struct waiting **list)
{
	struct waiting *w = *list;

	*list = NULL;
	while (w) {
		struct waiting *next = w->next;
		if (s->control)
			verb_handle(s->control, &w->frame);
		frame_release(&w->frame);
		free(w);
		w = next;
	}
}
