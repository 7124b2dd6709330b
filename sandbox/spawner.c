/* See spawner.h. One loop over epoll: the channels of control and the proxies (link.c, verbs.c), the monitors, the workers. */
#include "sandbox/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/contain.h"
#include "sandbox/ids.h"
#include "sandbox/instance.h"
#include "sandbox/link.h"
#include "sandbox/shells.h"

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

/* Nothing that would end with us, or be answered by nobody. What runs goes on and is adopted by the next one. */
static bool is_idle(struct spawn *s)
{
	struct instance *i, *tmp;

	if (s->jobs || s->starts)
		return false;
	for (const struct link *l = s->links; l; l = l->next)
		if (l->first)
			return false;
	HASH_ITER(hh, s->instances, i, tmp)
	if (i->state == STARTING || i->state == ENDING || i->nstops || i->kill_at || i->commands || i->freezing.id ||
	    (i->state == RUNNING && i->info.build))
		return false;
	return true;
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
		bool leave = s.shells_lost && is_idle(&s);
		if (epoll_wait(s.epfd, &e, 1, leave ? 0 : timeout) == 1) {
			struct source *src = e.data.ptr;
			src->ready(src, e.events);
		} else if (leave) {
			log_warn("ends, for who makes sandboxes ahead is gone: another spawner takes its place");
			break;
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
