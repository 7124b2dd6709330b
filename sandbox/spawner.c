/* See spawner.h. One loop over epoll: the channels of control and the proxies, the monitors, the workers. A verb is one
 * function in a table; what is slow runs in a worker (spawn_job) and answers later. */
#include "sandbox/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/cgroup.h"
#include "sandbox/contain.h"
#include "sandbox/ids.h"
#include "sandbox/instance.h"
#include "sandbox/listeners.h"
#include "sandbox/rtnl.h"
#include "sandbox/shells.h"
#include "sandbox/sockets.h"

/* -- the loop ---------------------------------------------------------------------------------------------------------- */

int spawn_watch(struct spawn *s, struct source *src, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = src};
	return epoll_ctl(s->epfd, EPOLL_CTL_ADD, src->fd, &e);
}

void spawn_unwatch(struct spawn *s, struct source *src)
{
	epoll_ctl(s->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

static void job_ready(struct source *src, uint32_t events)
{
	struct job *j = container_of(src, struct job, src);
	cleanup_buf struct buf result = BUF_INIT;
	struct err err = ERR_INIT;

	if (!worker_read(src->fd, &j->raw))
		return;
	spawn_unwatch(j->s, src);
	close(src->fd);
	for (struct job **p = &j->s->jobs; *p; p = &(*p)->next) {
		if (*p == j) {
			*p = j->next;
			break;
		}
	}
	int r = worker_result(&j->raw, &result, &err);
	buf_release(&j->raw);
	j->done(j->s, j->ctx, &result, r < 0 ? &err : NULL);
	free(j);
}

int spawn_job(struct spawn *s, worker_fn fn, void *arg, job_done done, void *ctx, struct job **out, struct err *err)
{
	int fd = worker_start(fn, arg, err);

	if (fd < 0)
		return -1;
	struct job *j = xcalloc(1, sizeof *j);
	*j = (struct job){.src = {fd, job_ready}, .s = s, .next = s->jobs, .done = done, .ctx = ctx};
	s->jobs = j;
	if (out)
		*out = j;
	if (spawn_watch(s, &j->src, EPOLLIN) < 0)
		log_error("watch a worker: %m");
	return 0;
}

/* -- channels ------------------------------------------------------------------------------------------------------------ */

/* One peer. A request is read only when nothing waits to be sent: a peer that does not read its answers gets no more. */
struct link {
	struct source src;
	struct spawn *s;
	struct link *next; /* of s->links */
	bool control;
	bool dead;
	struct reply *first;
};

struct reply {
	struct reply *next;
	uint32_t type, id;
	struct buf payload;
	int fds[FRAME_MAX_FDS];
	int nfds;
};

static void reply_free(struct reply *r)
{
	for (int i = 0; i < r->nfds; i++)
		close(r->fds[i]);
	buf_release(&r->payload);
	free(r);
}

static void link_interest(struct link *l)
{
	struct epoll_event e = {.events = l->first ? EPOLLOUT : EPOLLIN, .data.ptr = &l->src};
	epoll_ctl(l->s->epfd, EPOLL_CTL_MOD, l->src.fd, &e);
}

/* Takes the descriptors over. */
static void link_send(struct link *l, uint32_t type, uint32_t id, const struct buf *payload, int *fds, int nfds)
{
	struct reply **at = &l->first;
	int r = -EAGAIN;

	if (!*at)
		r = frame_send(l->src.fd, type, id, payload ? payload->data : NULL, payload ? payload->len : 0, fds,
			       nfds);
	if (frame_again(r)) {
		struct reply *q = xcalloc(1, sizeof *q);
		*q = (struct reply){.type = type, .id = id, .nfds = nfds};
		if (payload)
			buf_add(&q->payload, payload->data, payload->len);
		for (int i = 0; i < nfds; i++)
			q->fds[i] = fds[i];
		while (*at)
			at = &(*at)->next;
		*at = q;
		link_interest(l);
		return;
	}
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
	/* Something is lost: the peer hears the end of the channel, and so does our loop, which then closes it. */
	if (r < 0)
		shutdown(l->src.fd, SHUT_RDWR);
}

static void link_flush(struct link *l)
{
	while (l->first) {
		struct reply *q = l->first;
		int r = frame_send(l->src.fd, q->type, q->id, q->payload.data, q->payload.len, q->fds, q->nfds);
		if (frame_again(r))
			return;
		if (r < 0)
			l->dead = true;
		l->first = q->next;
		reply_free(q);
	}
	link_interest(l);
}

static void link_close(struct link *l)
{
	struct link **p = &l->s->links;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	spawn_unwatch(l->s, &l->src);
	close(l->src.fd);
	while (l->first) {
		struct reply *q = l->first;
		l->first = q->next;
		reply_free(q);
	}
	if (l->control) {
		l->s->control = NULL;
		l->s->done = true;
	}
	free(l);
}

static void link_error(struct link *l, uint32_t id, const struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)(err->code ? err->code : EIO));
	put_str(&b, err->msg);
	link_send(l, SPAWN_ERROR, id, &b, NULL, 0);
}

void spawn_ok(struct spawn *s, uint32_t id, const struct buf *payload)
{
	if (s->control)
		link_send(s->control, SPAWN_OK, id, payload, NULL, 0);
}

void spawn_ok_fds(struct spawn *s, uint32_t id, const struct buf *payload, int *fds, int nfds)
{
	if (s->control) {
		link_send(s->control, SPAWN_OK, id, payload, fds, nfds);
		return;
	}
	while (nfds)
		close(fds[--nfds]);
}

void spawn_error(struct spawn *s, uint32_t id, const struct err *err)
{
	if (s->control)
		link_error(s->control, id, err);
}

void spawn_event(struct spawn *s, uint32_t type, const struct buf *payload)
{
	if (s->control)
		link_send(s->control, type, 0, payload, NULL, 0);
}

/* -- verbs ------------------------------------------------------------------------------------------------------------------ */

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

static void link_ready(struct source *src, uint32_t events);

static struct link *link_add(struct spawn *s, int fd, bool control)
{
	struct link *l = xcalloc(1, sizeof *l);

	*l = (struct link){.src = {fd, link_ready}, .s = s, .control = control};
	io_set_nonblock(fd, true);
	if (spawn_watch(s, &l->src, EPOLLIN) == 0) {
		l->next = s->links;
		s->links = l;
		return l;
	}
	log_error("watch a channel: %m");
	close(fd);
	free(l);
	return NULL;
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

static void handle(struct link *l, struct frame *f)
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
			handle(s->control, &w->frame);
		frame_release(&w->frame);
		free(w);
		w = next;
	}
}

static void link_ready(struct source *src, uint32_t events)
{
	struct link *l = container_of(src, struct link, src);
	struct frame f;

	if (l->first) {
		link_flush(l);
	} else {
		int r = frame_recv(src->fd, &f);
		if (r == 1) {
			handle(l, &f);
			frame_release(&f);
		} else if (r != -EAGAIN) {
			if (r < 0)
				log_warn("channel of %s: %s", l->control ? "control" : "a proxy", strerror(-r));
			l->dead = true;
		}
	}
	if (l->dead)
		link_close(l);
}

/* -- main -------------------------------------------------------------------------------------------------------------------- */

static int own_mounts(struct spawn *s, struct err *err)
{
	s->host_mnt = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (s->host_mnt < 0 || unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "private mount namespace");
	return sandbox_birthplace(err);
}

static int set_up(struct spawn *s, const struct spawner_config *config, struct err *err)
{
	struct rlimit files;
	char tree[32];

	if (geteuid() != 0)
		return err_set(err, EPERM, "the spawner needs root");
	s->state = xstrdup(config->state);
	s->id_base = config->id_base;
	s->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epfd < 0)
		return err_set(err, errno, "epoll");
	if (own_mounts(s, err) < 0 || volumes_open(s->state, &s->volumes, err) < 0)
		return -1;
	cleanup_free char *path = xasprintf("%s/sandboxes", s->state);
	int r = io_mkdir(AT_FDCWD, path, 0700);
	s->sandboxes = r < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->sandboxes < 0)
		return err_set(err, r < 0 ? -r : errno, "folder %s", path);
	s->egress_lock = xasprintf("%s/.egress", path);
	egress_init(&s->egress, s->state, s->egress_lock);
	snprintf(tree, sizeof tree, "spaced-%s", s->egress.tag);
	cgroup_set_tree(tree);
	cgroup_host(); /* found once, for all that is forked from here */
	netns_pool_init(&s->pool);
	/* what init still says to an earlier spawner is not taken for an answer to us */
	if (getrandom(&s->next_exec, sizeof s->next_exec, 0) != (ssize_t)sizeof s->next_exec)
		return err_set(err, errno, "random number");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* eight descriptors per sandbox */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (!s->volumes.images)
		log_warn("no loop devices: volumes are plain folders, and the size of a Space's disk is not limited");
	malloc_trim(0);
	if (shells_init(s, config->control, err) < 0)
		return -1;
	s->control = link_add(s, config->control, true);
	return s->control ? 0 : err_set(err, EIO, "channel of control");
}

static int wait_ms(struct spawn *s)
{
	uint64_t now = io_now_ms();
	uint64_t next = s->tick;
	struct instance *i, *tmp;

	if (now >= s->tick)
		upkeep_tick(s, now);
	HASH_ITER(hh, s->instances, i, tmp)
	{
		uint64_t at = instance_timers(i, now);
		if (at && at < next)
			next = at;
	}
	now = io_now_ms();
	return next > now ? (int)(next - now) : 0;
}

static int remove_rules(void *arg, struct buf *result, struct err *err)
{
	const struct spawn *s = arg;

	(void)result;
	return egress_remove_rules(&s->egress, err);
}

int spawner_main(const struct spawner_config *config)
{
	/* Not on the stack: what is under way when the role ends is still reachable, so no leak. */
	static struct spawn s = {
	    .epfd = -1, .sandboxes = -1, .host_mnt = -1, .pool = {.refill = -1}, .shell_maker = -1};
	struct err err = ERR_INIT;
	struct instance *i, *tmp;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* workers and monitors are followed by their pipes */
	if (set_up(&s, config, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	instance_adopt_all(&s);
	upkeep_skeleton(&s);
	s.tick = io_now_ms() + 1000;
	spawn_pool(&s);
	shells_refill(&s);
	while (!s.done) {
		struct epoll_event e; /* one at a time: handling it may end other sources */
		int timeout = wait_ms(&s);
		if (epoll_wait(s.epfd, &e, 1, timeout) == 1) {
			struct source *src = e.data.ptr;
			src->ready(src, e.events);
		}
	}
	/* nobody is left behind them: the rules go too (in a worker, as everything that libnftables does) */
	if (ids_host_root() && !s.instances && worker_run(remove_rules, &s, NULL, &err) < 0)
		log_warn("firewall rules stay behind: %s", err.msg);
	shells_end(&s);
	HASH_ITER(hh, s.instances, i, tmp)
	instance_free(i);
	netns_pool_release(&s.pool);
	return 0;
}
