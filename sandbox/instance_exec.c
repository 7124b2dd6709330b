/* See instance.h: the spawner's part of commands inside a sandbox (exec.h). It passes requests on to the sandbox's pid 1,
 * and what comes back on to control; it reads nothing that a command writes. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/instance.h"

#define START_MS 10000 /* pid 1 is behind the limits of the app, which may be using them up */
#define HANGUP_MS 5000

static struct command *command_find(struct instance *i, uint32_t id)
{
	for (struct command *c = i->commands; c; c = c->next)
		if (c->id == id)
			return c;
	return NULL;
}

static void command_free(struct instance *i, struct command *c)
{
	struct command **at = &i->commands;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c);
}

static int tell(struct instance *i, enum exec_message type, uint32_t id, const struct buf *b, struct err *err)
{
	int r =
	    i->fds[MONITOR_EXEC] < 0 ? -EPIPE : frame_send(i->fds[MONITOR_EXEC], type, id, b->data, b->len, NULL, 0);

	if (r == -EPIPE)
		return err_text(err, ESRCH, "%s takes no commands: it is ending, or an earlier version has started it",
				i->info.name);
	return r < 0 ? err_set(err, -r, "ask pid 1 of %s", i->info.name) : 0;
}

static int tell_signal(struct instance *i, uint32_t id, int signo, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)signo);
	return tell(i, EXEC_SIGNAL, id, &b, err);
}

/* It has ended, by itself when `why` is "". */
static void ended(struct instance *i, struct command *c, uint32_t status, const char *why)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (c->request) {
		struct err err = ERR_INIT;

		err_set(&err, ECHILD, "the command did not start: %s", *why ? why : "it ended before it began");
		spawn_error(i->s, c->request, &err);
	} else {
		put_str(&b, i->info.name);
		put_u32(&b, c->id);
		put_u32(&b, status);
		put_str(&b, why);
		spawn_event(i->s, SPAWN_EXEC_ENDED, &b);
	}
	command_free(i, c);
}

static void failed(struct instance *i, struct command *c, const struct err *err)
{
	spawn_error(i->s, c->request, err);
	c->request = 0;
	command_free(i, c);
}

/* -- pid 1 says something ---------------------------------------------------------------------------------------------- */

static void on_started(struct instance *i, struct command *c, struct frame *f)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	int fds[FRAME_MAX_FDS];
	int n = f->nfds;

	if (exec_ends_check(c->tty, f->fds, n, &err) < 0) {
		log_warn("%s: %s", i->info.name, err.msg);
		tell_signal(i, c->id, SIGKILL, NULL);
		failed(i, c, &err);
		return;
	}
	for (int k = 0; k < n; k++)
		fds[k] = frame_take_fd(f, k);
	put_u32(&b, c->id);
	spawn_ok_fds(i->s, c->request, &b, fds, n);
	c->request = 0;
	c->start_by = 0;
}

static bool on_failed(struct instance *i, struct command *c, struct reader *r)
{
	struct err err = ERR_INIT;

	err.code = (int)get_u32(r);
	if (!get_str(r, err.msg, sizeof err.msg) || !get_ok(r))
		return false;
	err_prefix(&err, "the command did not start");
	failed(i, c, &err);
	return true;
}

/* False: that was no word of our pid 1. */
static bool handle(struct instance *i, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	struct command *c = command_find(i, f->id);

	if (!c) /* given up meanwhile, or asked for by an earlier spawner */
		return true;
	switch (f->type) {
	case EXEC_STARTED:
		if (!c->request)
			return false;
		on_started(i, c, f);
		return true;
	case EXEC_FAILED:
		return c->request && on_failed(i, c, &r);
	case EXEC_ENDED: {
		uint32_t status = get_u32(&r);

		if (!get_ok(&r) || status > 255)
			return false;
		ended(i, c, status, "");
		return true;
	}
	default:
		return false;
	}
}

static void exec_ready(struct source *src, uint32_t events)
{
	struct instance *i = container_of(src, struct instance, exec);
	struct frame f;
	int r = frame_recv(src->fd, &f);

	if (r == -EAGAIN)
		return;
	bool good = r == 1 && handle(i, &f);
	if (r == 1)
		frame_release(&f);
	if (good)
		return;
	if (r != 0)
		log_warn("pid 1 of %s makes no sense: no commands run in it any more", i->info.name);
	instance_exec_detach(i);
	instance_exec_end(i, r == 0 ? EXEC_APP_ENDED : "the sandbox makes no sense");
}

void instance_exec_attach(struct instance *i, bool adopted)
{
	i->exec = (struct source){.fd = i->fds[MONITOR_EXEC], .ready = exec_ready};
	io_set_nonblock(i->exec.fd, true);
	if (adopted)
		tell_signal(i, 0, SIGKILL, NULL);
	if (spawn_watch(i->s, &i->exec, EPOLLIN) < 0) {
		log_error("watch pid 1 of %s: %m", i->info.name);
		i->exec.fd = -1;
	}
}

void instance_exec_detach(struct instance *i)
{
	if (i->exec.fd >= 0)
		spawn_unwatch(i->s, &i->exec);
	i->exec.fd = -1;
}

/* -- verbs ------------------------------------------------------------------------------------------------------------- */

int instance_exec(struct instance *i, uint32_t request, const struct exec_request *q, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	size_t n = 0;

	for (struct command *c = i->commands; c; c = c->next)
		n++;
	if (n >= EXEC_MAX)
		return err_set(err, EAGAIN, "%zu commands run in it already", n);
	if (++i->s->next_exec == 0)
		i->s->next_exec = 1;
	exec_request_encode(q, &b);
	if (tell(i, EXEC_RUN, i->s->next_exec, &b, err) < 0)
		return -1;
	struct command *c = xcalloc(1, sizeof *c);
	*c = (struct command){.next = i->commands,
			      .id = i->s->next_exec,
			      .request = request,
			      .tty = q->tty,
			      .start_by = io_now_ms() + START_MS};
	i->commands = c;
	return 0;
}

int instance_exec_signal(struct instance *i, uint32_t exec, uint32_t signo, struct err *err)
{
	struct command *c = command_find(i, exec);

	if (!c)
		return err_set(err, ESRCH, "command %u does not run", exec);
	if (signo)
		return tell_signal(i, exec, (int)signo, err);
	if (!c->kill_at)
		c->kill_at = io_now_ms() + HANGUP_MS;
	tell_signal(i, exec, SIGCONT, NULL); /* one that is stopped does not hear it */
	return tell_signal(i, exec, SIGHUP, err);
}

void instance_exec_end(struct instance *i, const char *why)
{
	while (i->commands)
		ended(i, i->commands, 128 + SIGKILL, why);
}

uint64_t instance_exec_timers(struct instance *i, uint64_t now)
{
	uint64_t next = 0;

	for (struct command *c = i->commands, *following; c; c = following) {
		following = c->next;
		if (c->start_by && now >= c->start_by) {
			struct err err = ERR_INIT;

			err_set(&err, ETIMEDOUT, "the sandbox did not start the command in %d s", START_MS / 1000);
			tell_signal(i, c->id, SIGKILL, NULL);
			failed(i, c, &err);
			continue;
		}
		if (c->kill_at && now >= c->kill_at) {
			tell_signal(i, c->id, SIGKILL, NULL);
			c->kill_at = now + HANGUP_MS;
		}
		uint64_t at = c->start_by ? c->start_by : c->kill_at;
		if (at && (!next || at < next))
			next = at;
	}
	return next;
}
