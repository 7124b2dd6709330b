/* The main of a proxy process: one loop, its listeners, channels, signals and its end. See proxy.h. */
#include "proxy/proxy.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/io.h"
#include "base/log.h"
#include "proxy/worker.h"

#define TICK_MS 250
#define STANDSTILL_MS 1000 /* a tick that comes so much too late */

void worker_listen(struct worker *w)
{
	if (w->listening || w->draining)
		return;
	w->listening = true;
	for (size_t i = 0; i < w->nlisteners; i++) {
		int r = listener_start(&w->listeners[i]);
		if (r < 0)
			log_error("listen: %s", strerror(-r));
	}
	parent_say_listening(w);
}

/* While it stood still, for the machine swapped or had no CPU to spare, nobody was heard. That is no time that they took, and what
 * they have said meanwhile is heard only after this. */
static void make_up(struct worker *w)
{
	uint64_t now = uv_now(&w->loop), since = now - w->ticked_at;

	w->ticked_at = now;
	if (since >= TICK_MS + STANDSTILL_MS)
		client_put_off(w, since - TICK_MS);
}

static void on_tick(uv_timer_t *t)
{
	struct worker *w = t->data;

	make_up(w);
	deadline_tick(w);
	spawn_tick(w);
	pool_sweep(w);
	hold_tick(w);
	activity_report(w);
	access_log_tick(w);
	for (size_t i = 0; i < w->nlisteners; i++)
		listener_resume(&w->listeners[i]);
	drain_tick(w);
}

/* The second one, or SIGQUIT: now. Of a terminal's Ctrl-C, or a service manager's SIGTERM for the whole group, a supervised
 * worker gets two, its own and the one that is passed on: there only SIGQUIT counts. */
static void on_end_signal(uv_signal_t *s, int signum)
{
	struct worker *w = s->data;

	if (signum == SIGQUIT || (w->ending && !w->supervised))
		w->over = true;
	else
		worker_drain(w, true, w->limits.drain_ms);
}

static void on_hangup(uv_signal_t *s, int signum)
{
	struct worker *w = s->data;

	if (w->routes_file)
		routes_file_load(w, w->routes_file, NULL);
	access_log_reopen(w);
}

static int open_listeners(struct worker *w, const struct proxy_config *config)
{
	w->listeners = xcalloc(config->nlisteners, sizeof *w->listeners);
	w->nlisteners = config->nlisteners;
	for (size_t i = 0; i < config->nlisteners; i++) {
		int r = listener_init(&w->listeners[i], w, config->listeners[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static void watch_signal(struct worker *w, uv_signal_t *s, int signum, uv_signal_cb cb)
{
	uv_signal_init(&w->loop, s);
	s->data = w;
	uv_signal_start(s, cb, signum);
}

static int worker_init(struct worker *w, const struct proxy_config *config)
{
	int r = loop_init(w);
	sigset_t none;

	if (r < 0)
		return r;
	sigemptyset(&none);
	if ((r = limits_init(w, config)) < 0)
		return r;
	splice_init(w);
	feed_init(&w->routes);
	activity_init(w);
	if ((r = access_log_init(w, config->log_sample, config->access_log)) < 0)
		return r;
	gate_init(w);
	knock_init(w);
	io_random_hex(w->id_prefix, 8);
	w->dice = strtoull(w->id_prefix, NULL, 16) | 1;
	signal(SIGPIPE, SIG_IGN);
	watch_signal(w, &w->sigterm, SIGTERM, on_end_signal);
	watch_signal(w, &w->sigint, SIGINT, on_end_signal);
	watch_signal(w, &w->sigquit, SIGQUIT, on_end_signal);
	watch_signal(w, &w->sighup, SIGHUP, on_hangup);
	sigprocmask(SIG_SETMASK, &none, NULL); /* those that were held until now */
	uv_timer_init(&w->loop, &w->tick);
	w->tick.data = w;
	w->ticked_at = uv_now(&w->loop);
	uv_timer_start(&w->tick, on_tick, TICK_MS, TICK_MS);
	if ((r = open_listeners(w, config)) < 0)
		return r;
	if (config->parent >= 0)
		parent_channel_attach(w, config->parent);
	if (config->spawner >= 0)
		spawn_attach(w, config->spawner);
	if (config->control >= 0)
		control_channel_attach(w, config->control);
	w->supervised = config->supervised;
	w->routes_file = config->routes_file;
	memcpy(w->sticky, config->sticky, sizeof w->sticky);
	if (w->routes_file) {
		if (!routes_file_load(w, w->routes_file, config->routes_before))
			return -EINVAL;
		worker_listen(w);
	}
	return 0;
}

static void raise_file_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* The process ends right after: what the worker still holds goes with it, but its sockets are closed in order. */
int proxy_main(const struct proxy_config *config)
{
	static struct worker w;

	raise_file_limit();
	int r = worker_init(&w, config);
	if (r < 0) {
		log_error("the proxy cannot start: %s", strerror(-r));
		return 1;
	}
	loop_run(&w);
	w.activity_at = 0;
	activity_report(&w);
	access_log_end(&w);
	if (w.nclients)
		log_warn("%zu connections cut off at the end", w.nclients);
	return 0;
}
