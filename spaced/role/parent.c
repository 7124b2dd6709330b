/* The parent: opens what needs its privilege, starts the roles, hands them their descriptors, starts a dead one again,
 * ends them in order. Of what they say it reads no more than which frame it is. Running apps belong to their monitors, not
 * to us. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/trim.h"
#include "proxy/rate.h"
#include "spaced/role/host.h"
#include "spaced/role/notify.h"
#include "spaced/role/parent_int.h"
#include "spaced/role/rootless.h"
#include "spaced/role/state.h"

#define STOP_APPS_MS 60000 /* control stops the apps, each with its own grace */

/* Waits until `role` (or, with -1, every child) is gone, at most `ms`. A second SIGINT cuts it short. */
static bool wait_gone(struct parent *p, int role, uint64_t ms)
{
	uint64_t until = io_now_ms() + ms;

	for (;;) {
		struct child *c;
		size_t at = 0;
		bool left = false;
		while ((c = children_next(p, &at)) != NULL)
			left = left || role < 0 || (int)c->role == role;
		uint64_t now = io_now_ms();
		if (!left || now >= until)
			return !left;
		int sig = children_wait(p, (int)(until - now));
		children_reap(p, true);
		if (sig == SIGINT && role >= 0)
			return false;
	}
}

static void signal_role(struct parent *p, int role, int sig)
{
	struct child *c;
	size_t at = 0;

	while ((c = children_next(p, &at)) != NULL)
		if (role < 0 || (int)c->role == role)
			kill(c->pid, sig);
}

/* Control outlives the proxies by as much as they need it: for sockets of apps, and for requests to itself. */
static void end_all(struct parent *p, bool stop_apps)
{
	struct child *control = child_of(p, ROLE_CONTROL), *c;
	size_t at = 0;

	p->ending = true;
	notify("STOPPING=1");
	log_info(stop_apps ? "ending: apps are stopped" : "ending: apps go on and are adopted by the next start");
	close(
	    p->public_listener); /* from here on visitors are refused, or wait for the next start where systemd holds it */
	signal_role(p, ROLE_PROXY, SIGTERM); /* take no new connection, finish the open ones */
	if (control->pid) {
		child_shutdown(control, stop_apps ? SHUTDOWN_STOP_APPS : SHUTDOWN_LEAVE_APPS, STOP_DRAIN_MS);
		wait_gone(p, ROLE_CONTROL, stop_apps ? STOP_APPS_MS : STOP_DRAIN_MS + STOP_MS);
	}
	signal_role(p, ROLE_CONTROL, SIGKILL);
	wait_gone(p, ROLE_PROXY, STOP_MS);
	while ((c = children_next(p, &at)) != NULL)
		shutdown(c->link, SHUT_RDWR);
	signal_role(p, ROLE_STATIC, SIGTERM);
	if (!wait_gone(p, -1, STOP_MS)) {
		signal_role(p, -1, SIGKILL);
		wait_gone(p, -1, 1000);
	}
}

static int take_or_listen(struct handed *h, const char *name, const char *dir, const char *file, mode_t mode, gid_t gid,
			  const struct accounts *a, struct err *err)
{
	int fd = handed_take(h, name);

	return fd >= 0 ? fd : state_listen_unix(dir, file, mode, a->control, gid, err);
}

static int prepare(struct parent *p, struct handed *h, struct err *err)
{
	struct accounts *a = &p->accounts;
	const struct config *c = p->config;

	*a = role_accounts(c);
	if (a->stand_in)
		log_info("no system accounts `%s`, `%s-proxy`, `%s-static` (make install makes them): roles run as "
			 "uids %u..%u",
			 c->user, c->user, c->user, c->id_base - 3, c->id_base - 1);
	p->public_listener = parent_public_socket(h);
	if (p->public_listener >= 0 && state_check_listener(p->public_listener, c->listen, err) < 0)
		return -1;
	p->lock = handed_take(h, "lock");
	if (state_prepare(c, a, &p->lock, err) < 0 || rootless_note(c->state, err) < 0 ||
	    state_reachable(p->config, err) < 0)
		return -1;
	cleanup_free char *run = xasprintf("%s/%s", c->state, STATE_RUN);
	if (p->public_listener < 0 && (p->public_listener = state_listen_tcp(c->listen, err)) < 0)
		return -1;
	p->http_listener = take_or_listen(h, "http", run, "http.sock", 0660, a->proxy_gid, a, err);
	if (p->http_listener < 0)
		return -1;
	p->static_listener = take_or_listen(h, "static", run, "static.sock", 0660, a->proxy_gid, a, err);
	if (p->static_listener < 0)
		return -1;
	p->admin_listener = take_or_listen(h, "admin", c->state, STATE_SOCKET, 0666, a->control_gid, a, err);
	if (p->admin_listener < 0)
		return -1;
	cleanup_close int rates = handed_take(h, HANDED_RATES);
	if (rates < 0)
		rates = rates_create();
	p->rates_fd = rates < 0 ? -1 : fcntl(rates, F_DUPFD_CLOEXEC, HANDED_ABOVE);
	if (p->rates_fd < 0)
		return err_set(err, errno, "memory for the rates");
	p->config_fd = parent_config_file(c, err);
	return p->config_fd < 0 ? -1 : 0;
}

/* Also when the program that was here before has blocked them for this one: none may get lost in between. */
static void block_signals(struct parent *p)
{
	static const int ours[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, &p->inherited);
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		sigdelset(&p->inherited, ours[i]);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	p->signals = fcntl(fd, F_DUPFD_CLOEXEC, HANDED_ABOVE);
	close(fd);
	signal(SIGPIPE, SIG_IGN);
}

static int begin(struct parent *p, struct handed *h, struct err *err)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path);

	if (n <= 0 || n == sizeof path)
		return err_set(err, n < 0 ? errno : ENAMETOOLONG, "the path of this program");
	p->program = xstrndup(path, (size_t)n);
	if (config_load(&p->given, p->argc, p->argv, err) < 0)
		return -1;
	if (p->config->proxies == 0) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);
		p->config->proxies = cpus < 1 ? 1 : cpus > 4 ? 4 : (uint32_t)cpus;
	}
	if (handed_receive(h, err) < 0 || rootless_enter(p->config->state, err) < 0 || host_check(err) < 0)
		return -1;
	if (h->n == 0)
		host_report();
	block_signals(p);
	return prepare(p, h, err);
}

/* Until a signal, or a role, says that it is over. */
static void live(struct parent *p)
{
	int sig = 0;

	while (sig != SIGTERM && sig != SIGINT && !p->given_up) {
		cleanup_buf struct buf said = BUF_INIT;
		children_tick(p);
		upgrade_tick(p);
		sig = children_wait(p, 250);
		children_reap(p, false);
		if (!p->announced && children_serve(p)) {
			notify("READY=1");
			p->announced = true;
		}
		if (sig == SIGHUP)
			reload(p, &said);
		else if (sig == SIGUSR2)
			upgrade_begin(p, 0);
	}
	end_all(p, sig == SIGINT);
	log_info("ended");
}

int role_parent(struct config *config, int argc, char **argv)
{
	struct parent p = {.config = config, .argc = argc, .argv = argv};
	struct handed h = {0};
	struct err err = ERR_INIT;
	bool begun = begin(&p, &h, &err) == 0;

	if (!begun) {
		fprintf(stderr, "spaced: %s\n", err.msg);
	} else {
		children_init(&p);
		if (upgrade_adopt(&p, &h))
			log_info("spaced " SPACED_VERSION " takes over from the program before");
		else
			host_report_base(config->state);
		log_info("spaced " SPACED_VERSION ", state %s, listening on %s, apex %s", config->state, config->listen,
			 config->public_url);
		trim_resident();
		live(&p);
	}
	config_release(&p.given);
	free(p.program);
	return !begun || p.given_up;
}
