/* The parent: opens what needs its privilege, starts the roles, hands them their descriptors, starts a dead one again,
 * ends them in order. It parses nothing. Running apps belong to their monitors, not to us. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/trim.h"
#include "proxy/route.h"
#include "spaced/role/host.h"
#include "spaced/role/role.h"
#include "spaced/role/rootless.h"
#include "spaced/role/state.h"

#define MAX_PROXIES 16
#define RESTART_FLOOR_MS 100	/* between two starts of the same role */
#define RESTART_CEILING_MS 5000 /* when it dies again and again */
#define STOP_APPS_MS 60000	/* control stops the apps, each with its own grace */
#define STOP_MS 15000		/* everything else */

enum role { ROLE_SPAWNER, ROLE_CONTROL, ROLE_STATIC, ROLE_PROXY };
static const char *const role_names[] = {"spawner", "control", "static", "proxy"};

struct child {
	enum role role;
	pid_t pid;	       /* 0: not running */
	int link;	       /* our end of its channel, -1 */
	uint64_t started, due; /* ms; when it may be started again */
	uint32_t delay;
};

struct parent {
	struct config *config;
	struct accounts accounts;
	int lock, config_fd, signals;
	int public_listener, http_listener, admin_listener, static_listener;
	struct child children[3 + MAX_PROXIES];
	size_t nchildren;
	sigset_t inherited; /* signal mask to give back to children */
	bool given_up;
};

static int config_file(const struct config *c, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_close int fd = memfd_create("spaced-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	config_print(c, &text);
	if (fd < 0 || io_write_full(fd, text.data, text.len) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return err_set(err, errno, "configuration for the roles");
	return steal_fd(&fd);
}

/* In the child: puts fds[i] at ROLE_FD_PARENT + i and becomes the role. Only async-signal-safe calls. */
static void become(const struct parent *p, enum role role, const int *fds, size_t n)
{
	static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
				    NULL};
	char *keep[16];
	size_t k = 0;
	int high[8];

	setsid(); /* a Ctrl-C on the terminal is the parent's to handle */
	sigprocmask(SIG_SETMASK, &p->inherited, NULL);
	for (size_t i = 0; i < n; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD, 64)) < 0)
			_exit(126);
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], ROLE_FD_PARENT + (int)i) < 0)
			_exit(126);
	close_range(ROLE_FD_PARENT + (unsigned)n, ~0U, 0);
	for (size_t i = 0; env[i]; i++)
		keep[k++] = env[i];
	extern char **environ;
	for (char **e = environ; *e && k < 15; e++)
		if (strncmp(*e, "SPACED_", 7) == 0 || strncmp(*e, "ASAN_OPTIONS=", 13) == 0 ||
		    strncmp(*e, "LSAN_OPTIONS=", 13) == 0 || strncmp(*e, "UBSAN_OPTIONS=", 14) == 0)
			keep[k++] = *e;
	keep[k] = NULL;
	char *argv[] = {"spaced", "--role", (char *)(uintptr_t)role_names[role], NULL};
	execve("/proc/self/exe", argv, keep);
	_exit(127);
}

static void start(struct parent *p, struct child *c, const int *extra, size_t nextra)
{
	int link[2];
	int fds[8];
	size_t n = 0;

	c->started = io_now_ms();
	if (frame_pair(link) < 0) {
		log_error("no socket pair for %s", role_names[c->role]);
		c->due = c->started + RESTART_CEILING_MS;
		return;
	}
	fds[n++] = link[1];
	fds[n++] = p->config_fd;
	for (size_t i = 0; i < nextra; i++)
		fds[n++] = extra[i];
	pid_t pid = fork();
	if (pid == 0)
		become(p, c->role, fds, n);
	close(link[1]);
	if (pid < 0) {
		log_error("fork for %s: %s", role_names[c->role], strerror(errno));
		close(link[0]);
		c->due = c->started + RESTART_CEILING_MS;
		return;
	}
	c->pid = pid;
	c->link = link[0];
	log_info("%s started, pid %d", role_names[c->role], (int)pid);
}

static struct child *child_of(struct parent *p, enum role role)
{
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].role == role)
			return &p->children[i];
	abort(); /* the table has every role */
}

static void send_fd(struct child *c, uint32_t type, int fd)
{
	if (c->link < 0)
		return;
	int r = frame_send(c->link, type, 0, NULL, 0, &fd, 1);
	if (r < 0)
		log_warn("%s does not take a descriptor: %s", role_names[c->role], strerror(-r));
}

static void start_spawner(struct parent *p)
{
	int pair[2];

	if (frame_pair(pair) < 0) {
		child_of(p, ROLE_SPAWNER)->due = io_now_ms() + RESTART_CEILING_MS;
		return;
	}
	start(p, child_of(p, ROLE_SPAWNER), &pair[1], 1);
	send_fd(child_of(p, ROLE_CONTROL), LINK_SPAWNER, pair[0]);
	close(pair[0]);
	close(pair[1]);
}

static void start_proxy(struct parent *p, struct child *c)
{
	int pair[2];

	if (frame_pair(pair) < 0) {
		c->due = io_now_ms() + RESTART_CEILING_MS;
		return;
	}
	int extra[2] = {p->public_listener, pair[1]};
	start(p, c, extra, 2);
	send_fd(child_of(p, ROLE_CONTROL), LINK_PROXY, pair[0]);
	close(pair[0]);
	close(pair[1]);
}

static void start_control(struct parent *p)
{
	int extra[2] = {p->http_listener, p->admin_listener};

	start(p, child_of(p, ROLE_CONTROL), extra, 2);
	for (size_t i = 0; i < p->nchildren; i++) {
		struct child *c = &p->children[i];
		int pair[2];
		if (c->role != ROLE_PROXY || !c->pid || frame_pair(pair) < 0)
			continue;
		send_fd(c, PROXY_NEW_CONTROL, pair[1]);
		send_fd(child_of(p, ROLE_CONTROL), LINK_PROXY, pair[0]);
		close(pair[0]);
		close(pair[1]);
	}
}

static void start_child(struct parent *p, struct child *c)
{
	switch (c->role) {
	case ROLE_SPAWNER:
		start_spawner(p);
		break;
	case ROLE_CONTROL:
		start_control(p);
		break;
	case ROLE_STATIC:
		start(p, c, &p->static_listener, 1);
		break;
	case ROLE_PROXY:
		start_proxy(p, c);
		break;
	}
}

/* Control's end takes the spawner along (its channel closes), and a new control gets a new spawner: order matters. */
static void start_due(struct parent *p)
{
	uint64_t now = io_now_ms();
	struct child *control = child_of(p, ROLE_CONTROL);
	struct child *spawner = child_of(p, ROLE_SPAWNER);

	if (!control->pid && spawner->pid && now > control->due + 2000)
		kill(spawner->pid, SIGKILL); /* it has not noticed; what it started lives on with its monitors */
	if (!control->pid && !spawner->pid && control->due <= now)
		start_control(p);
	if (control->pid && !spawner->pid && spawner->due <= now)
		start_spawner(p);
	for (size_t i = 0; i < p->nchildren; i++) {
		struct child *c = &p->children[i];
		if (c != control && c != spawner && !c->pid && c->due <= now)
			start_child(p, c);
	}
}

static void reap(struct parent *p, bool ending)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (size_t i = 0; i < p->nchildren; i++) {
			struct child *c = &p->children[i];
			if (c->pid != pid)
				continue;
			uint64_t now = io_now_ms();
			c->pid = 0;
			close(c->link);
			c->link = -1;
			c->delay = now - c->started > 10000 ? RESTART_FLOOR_MS
							    : c->delay * 2 + (c->delay ? 0 : RESTART_FLOOR_MS);
			if (c->delay > RESTART_CEILING_MS)
				c->delay = RESTART_CEILING_MS;
			c->due = now + (c->delay > RESTART_FLOOR_MS ? c->delay : 0);
			if (ending)
				break;
			if (WIFEXITED(status) && WEXITSTATUS(status) == ROLE_GIVES_UP)
				p->given_up = true;
			else if (WIFSIGNALED(status))
				log_error("%s (pid %d) was killed by signal %d; it is started again",
					  role_names[c->role], (int)pid, WTERMSIG(status));
			else
				log_warn("%s (pid %d) ended with status %d; it is started again", role_names[c->role],
					 (int)pid, WEXITSTATUS(status));
			break;
		}
	}
}

static int wait_signal(struct parent *p, int timeout_ms)
{
	struct pollfd pfd = {.fd = p->signals, .events = POLLIN};
	struct signalfd_siginfo si;

	if (poll(&pfd, 1, timeout_ms) <= 0 || read(p->signals, &si, sizeof si) != sizeof si)
		return 0;
	return (int)si.ssi_signo;
}

/* Waits until `role` (or, with -1, every child) is gone, at most `ms`. A second SIGINT cuts it short. */
static bool wait_gone(struct parent *p, int role, uint64_t ms)
{
	uint64_t until = io_now_ms() + ms;

	for (;;) {
		bool left = false;
		for (size_t i = 0; i < p->nchildren; i++)
			left = left || (p->children[i].pid && (role < 0 || (int)p->children[i].role == role));
		uint64_t now = io_now_ms();
		if (!left || now >= until)
			return !left;
		int sig = wait_signal(p, (int)(until - now));
		reap(p, true);
		if (sig == SIGINT && role >= 0)
			return false;
	}
}

static void signal_role(struct parent *p, int role, int sig)
{
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].pid && (role < 0 || (int)p->children[i].role == role))
			kill(p->children[i].pid, sig);
}

static void end_all(struct parent *p, bool stop_apps)
{
	struct child *control = child_of(p, ROLE_CONTROL);
	uint8_t flag = stop_apps;

	log_info(stop_apps ? "ending: apps are stopped" : "ending: apps go on and are adopted by the next start");
	signal_role(p, ROLE_PROXY, SIGTERM); /* take no new connection, finish the open ones */
	if (control->pid) {
		frame_send(control->link, LINK_SHUTDOWN, 0, &flag, 1, NULL, 0);
		wait_gone(p, ROLE_CONTROL, stop_apps ? STOP_APPS_MS : STOP_MS);
	}
	signal_role(p, ROLE_CONTROL, SIGKILL);
	wait_gone(p, ROLE_PROXY, STOP_MS);
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].link >= 0)
			shutdown(p->children[i].link, SHUT_RDWR);
	signal_role(p, ROLE_STATIC, SIGTERM);
	if (!wait_gone(p, -1, STOP_MS)) {
		signal_role(p, -1, SIGKILL);
		wait_gone(p, -1, 1000);
	}
}

static int prepare(struct parent *p, struct err *err)
{
	struct accounts *a = &p->accounts;

	*a = role_accounts(p->config);
	if (a->stand_in)
		log_info("no system accounts `%s`, `%s-proxy`, `%s-static` (make install makes them): roles run as "
			 "uids %u..%u",
			 p->config->user, p->config->user, p->config->user, p->config->id_base - 3,
			 p->config->id_base - 1);
	if (state_prepare(p->config, a, &p->lock, err) < 0 || rootless_note(p->config->state, err) < 0 ||
	    state_reachable(p->config, err) < 0)
		return -1;
	cleanup_free char *run = xasprintf("%s/%s", p->config->state, STATE_RUN);
	if ((p->public_listener = state_listen_tcp(p->config->listen, err)) < 0)
		return -1;
	p->http_listener = state_listen_unix(run, "http.sock", 0660, a->control, a->proxy_gid, err);
	if (p->http_listener < 0)
		return -1;
	p->static_listener = state_listen_unix(run, "static.sock", 0660, a->control, a->proxy_gid, err);
	if (p->static_listener < 0)
		return -1;
	p->admin_listener = state_listen_unix(p->config->state, STATE_SOCKET, 0666, a->control, a->control_gid, err);
	if (p->admin_listener < 0)
		return -1;
	p->config_fd = config_file(p->config, err);
	return p->config_fd < 0 ? -1 : 0;
}

static void block_signals(struct parent *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &p->inherited);
	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	signal(SIGPIPE, SIG_IGN);
}

int role_parent(struct config *config)
{
	struct parent p = {.config = config};
	struct err err = ERR_INIT;

	if (config->proxies == 0) {
		long n = sysconf(_SC_NPROCESSORS_ONLN);
		config->proxies = n < 1 ? 1 : n > 4 ? 4 : (uint32_t)n;
	}
	if (config->proxies > MAX_PROXIES)
		config->proxies = MAX_PROXIES;
	if (rootless_enter(config->state, &err) < 0 || host_check(&err) < 0) {
		fprintf(stderr, "spaced: %s\n", err.msg);
		return 1;
	}
	host_report();
	block_signals(&p);
	if (prepare(&p, &err) < 0) {
		fprintf(stderr, "spaced: %s\n", err.msg);
		return 1;
	}
	host_report_base(config->state);
	for (enum role r = ROLE_SPAWNER; r <= ROLE_PROXY; r++)
		for (uint32_t i = 0; i < (r == ROLE_PROXY ? config->proxies : 1); i++)
			p.children[p.nchildren++] = (struct child){.role = r, .link = -1};
	log_info("spaced " SPACED_VERSION ", state %s, listening on %s, apex %s", config->state, config->listen,
		 config->public_url);
	trim_resident();
	for (;;) {
		start_due(&p);
		int sig = wait_signal(&p, 250);
		reap(&p, false);
		if (sig == SIGTERM || sig == SIGINT || p.given_up) {
			end_all(&p, sig == SIGINT);
			log_info("ended");
			return p.given_up;
		}
	}
}
