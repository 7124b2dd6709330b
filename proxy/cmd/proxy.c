/* The proxy as a program of its own: `proxy --listen ADDR:PORT --routes FILE`. For use without the daemon, and for
 * comparison with other proxies on equal work. */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "proxy/proxy.h"
#include "proxy/worker.h"

#define WORKERS_MAX 256
#define RESTART_MS 100 /* between two starts in the same place */

static const char help[] =
    "usage: proxy --listen ADDR:PORT --routes FILE [--workers N] [--user NAME] [--access-log FILE]\n"
    "             [--trusted-proxy CIDR]... [--limit NAME=VALUE]...\n"
    "\n"
    "A reverse proxy for HTTP/1.1 and WebSockets, strict about what it lets through.\n"
    "\n"
    "  --listen ADDR:PORT   where to listen, e.g. 127.0.0.1:8080 or [::]:80\n"
    "  --routes FILE        one route per line: HOST ADDR:PORT, or HOST unix:PATH; *.HOST matches all names below;\n"
    "                       # begins a comment. Read again on SIGHUP; a file with a mistake changes nothing.\n"
    "                       Of several upstreams on a line (at most 16) a request goes to the one with the fewest in\n"
    "                       flight, and to another when that takes no connection; `sticky` at the end of the line\n"
    "                       keeps a visitor to one by a cookie, spaced-instance.\n"
    "  --workers N          processes, each with its own listening socket, which outlives it (default 1)\n"
    "  --user NAME          whose the processes that serve are, when root starts it: somebody who may read the routes\n"
    "                       and write the log. They can write no file outside the folder of the log in any case\n"
    "  --access-log FILE    a line of JSON for each request is appended; SIGHUP opens it anew\n"
    "  --log-sample N       of answers below 400 only one in N, which says so (default 1)\n"
    "  --trusted-proxy CIDR an address or network of proxies in front, whose X-Forwarded-For and X-Forwarded-Proto "
    "are\n"
    "                       believed; a list, or again. From others these are replaced\n"
    "  --limit NAME=VALUE   one of:\n"
    "                         head_bytes 32768, fields 100, url_bytes 8192   sizes of a request head\n"
    "                         head_ms 10000       time for a request head\n"
    "                         idle_ms 60000       keep-alive without a request\n"
    "                         connect_ms 5000     to connect to the upstream\n"
    "                         response_ms 300000  until the first byte of a response\n"
    "                         stall_ms 300000     without progress on a body\n"
    "                         connections 16384   clients per worker\n"
    "                         per_client 1024     connections per address; loopback only when set\n"
    "                         per_space 2048      requests in flight per route\n"
    "                         client_rate, space_rate   requests per second of an address, for a route; none by\n"
    "                         itself. What comes in 5 s may come at once. For all workers together\n"
    "                         drain_ms 10000      at SIGTERM, for requests, WebSockets and streams under way\n"
    "  --help\n"
    "  --version\n"
    "\n"
    "SIGTERM or SIGINT: accept nothing more, finish what is under way, exit; a second one, or SIGQUIT: exit now.\n";

static const struct {
	const char *name;
	size_t offset;
} limit_names[] = {
#define L(name)                                                                                                        \
	{                                                                                                              \
#name, offsetof(struct proxy_limits, name)                                                             \
	}
    L(head_bytes), L(fields),	   L(url_bytes),  L(head_ms),	L(idle_ms),  L(connect_ms),  L(response_ms),
    L(stall_ms),   L(connections), L(per_client), L(per_space), L(drain_ms), L(client_rate), L(space_rate),
#undef L
};

static int set_limit(struct proxy_limits *limits, const char *text)
{
	const char *eq = strchr(text, '=');
	char *end;

	for (size_t i = 0; eq && i < sizeof limit_names / sizeof *limit_names; i++) {
		size_t n = strlen(limit_names[i].name);
		if ((size_t)(eq - text) != n || memcmp(text, limit_names[i].name, n) != 0)
			continue;
		unsigned long v = strtoul(eq + 1, &end, 10);
		if (end == eq + 1 || *end || v == 0 || v > 1UL << 30)
			return -1;
		*(uint32_t *)((char *)limits + limit_names[i].offset) = (uint32_t)v;
		return 0;
	}
	return -1;
}

static volatile sig_atomic_t ended, changed; /* `changed`: the routes file, perhaps */
static pid_t workers[WORKERS_MAX];
static uint64_t started[WORKERS_MAX]; /* CLOCK_MONOTONIC ms */
static int listeners[WORKERS_MAX];    /* each worker's, kept for the next one when it crashes: its queue is not lost */
static int nworkers;

/* A socket bound there. `shared`: with others of ours, one for each worker, over which the kernel spreads connections. */
static int bind_socket(const struct sockaddr_storage *at, bool shared)
{
	socklen_t len = at->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	cleanup_close int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) ||
	    bind(fd, (const struct sockaddr *)at, len) < 0)
		return -1;
	return steal_fd(&fd);
}

/* 0, or -1 with errno. Another proxy there would share its port with ours, and each have a part of the visitors: only a socket
 * that does not share is refused then. */
static int open_listeners(const char *text, int n)
{
	struct sockaddr_storage at;
	int first;

	if (upstream_address(text, &at) < 0) {
		errno = EINVAL;
		return -1;
	}
	if ((first = bind_socket(&at, false)) < 0)
		return -1;
	close(first);
	for (int i = 0; i < n; i++)
		if ((listeners[i] = bind_socket(&at, true)) < 0 || listen(listeners[i], LISTEN_BACKLOG) < 0)
			return -1;
	return 0;
}

static const struct passwd *user; /* of the workers; NULL: who started this */

/* `log` NULL: none is kept. It may be a symlink, which a SIGHUP opens anew. */
static int confine(const char *log, struct err *err)
{
	cleanup_free char *at = log ? xstrdup(log) : NULL, *real = log ? realpath(log, NULL) : NULL;
	const struct confine_path paths[] = {{.path = "/"},
					     {.path = at ? dirname(at) : NULL, .write = true},
					     {.path = real ? dirname(real) : NULL, .write = true},
					     {0}};

	if (user && confine_user(user->pw_uid, user->pw_gid, err) < 0)
		return -1;
	if (confine_files(paths, err) < 0)
		return -1;
	return confine_syscalls(PROMISE_FILES | PROMISE_INET | PROMISE_UNIX, err);
}

/* `parent` 0: it has none. */
static int run_worker(struct proxy_config *config, int fd, pid_t parent)
{
	struct err err = ERR_INIT;

	if (confine(config->access_log, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	/* After the change of user, which takes it back: prctl(2). */
	if (parent && (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent))
		return 1;
	config->listeners = &fd;
	config->nlisteners = 1;
	int status = proxy_main(config);
	config->listeners = NULL;
	return status;
}

static void pass_on(int signum)
{
	int how = signum != SIGHUP && ended ? SIGQUIT : signum; /* the second one */

	for (int i = 0; signum != SIGHUP && !ended && i < nworkers; i++)
		close(listeners[i]); /* first: what a worker does not take from its queue is refused */
	if (signum == SIGHUP)
		changed = 1;
	else
		ended = 1;
	for (int i = 0; i < nworkers; i++)
		if (workers[i] > 0)
			kill(workers[i], how);
}

static const int passed_on[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};

/* Nobody is killed by one of them before it can end in order. */
static void hold_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
		sigaddset(&set, passed_on[i]);
	sigprocmask(how, &set, NULL);
}

/* One that dies as soon as it is there, for want of memory say, shall not take what is left of the machine. */
static void pause_before_restart(int n)
{
	uint64_t lived = io_now_ms() - started[n];

	if (lived < RESTART_MS)
		poll(NULL, 0, (int)(RESTART_MS - lived));
}

/* Signals are held here. The worker takes them when it has its own handlers (proxy_main). */
static pid_t start_worker(struct proxy_config *config, int n)
{
	pid_t parent = getpid();
	started[n] = io_now_ms();
	pid_t pid = ended ? -1 : fork();

	if (pid != 0)
		return pid;
	for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
		signal(passed_on[i], SIG_DFL);
	for (int i = 0; i < nworkers; i++)
		if (i != n)
			close(listeners[i]);
	_exit(run_worker(config, listeners[n], parent));
}

static void say_gone(pid_t pid, int status)
{
	if (WIFSIGNALED(status))
		log_error("worker %d died by signal %d", (int)pid, WTERMSIG(status));
	else
		log_warn("worker %d alone was told to end: another one takes its place", (int)pid);
}

/* For a worker that takes the place of another while the file has a mistake: what it said before that. */
static void keep_routes(struct proxy_config *config, char **kept)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT; /* each worker has said it */

	if (routes_file_read(config->routes_file, &text, &err) < 0)
		return;
	cleanup_free char *copy = xstrdup(text.data ? text.data : "");
	struct route_table *t = routes_parse(config->routes_file, text.data, config->sticky, 0, &err);
	if (!t)
		return;
	route_table_free(t);
	free(*kept);
	config->routes_before = *kept = steal_ptr(&copy);
}

/* Starts the workers, and another one for each that is gone, for its socket still has a part of the visitors; one that cannot
 * start ends the program. */
static int run_workers(struct proxy_config *config, int n)
{
	struct sigaction sa = {.sa_handler = pass_on};
	cleanup_free char *kept = NULL;
	int status, result = 0;
	pid_t pid;

	nworkers = n;
	config->supervised = true;
	for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++) {
		sigaddset(&sa.sa_mask, passed_on[i]);
		sigaction(passed_on[i], &sa, NULL);
	}
	keep_routes(config, &kept);
	for (int i = 0; i < n; i++)
		workers[i] = start_worker(config, i);
	hold_signals(SIG_UNBLOCK);
	while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR) {
		if (changed) {
			changed = 0;
			keep_routes(config, &kept);
		}
		for (int i = 0; pid > 0 && i < n; i++) {
			if (workers[i] != pid)
				continue;
			workers[i] = -1;
			if (!ended && WIFEXITED(status) && WEXITSTATUS(status)) {
				result = WEXITSTATUS(status);
				pass_on(SIGTERM);
			} else if (!ended) {
				say_gone(pid, status);
				pause_before_restart(i);
				hold_signals(SIG_BLOCK);
				workers[i] = start_worker(config, i);
				hold_signals(SIG_UNBLOCK);
			}
		}
	}
	return result;
}

/* A whole number from 1 to `max`; 0: none. */
static int count(const char *text, long max)
{
	char *end;
	long v = strtol(text, &end, 10);

	return end == text || *end || v < 1 || v > max ? 0 : (int)v;
}

static int misused(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int misused(const char *fmt, ...)
{
	va_list ap;

	fputs("proxy: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry: proxy --help\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"listen", required_argument, NULL, 'l'},
	    {"routes", required_argument, NULL, 'r'},
	    {"workers", required_argument, NULL, 'w'},
	    {"limit", required_argument, NULL, 'm'},
	    {"access-log", required_argument, NULL, 'a'},
	    {"log-sample", required_argument, NULL, 's'},
	    {"trusted-proxy", required_argument, NULL, 't'},
	    {"user", required_argument, NULL, 'u'},
	    {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'v'},
	    {NULL, 0, NULL, 0},
	};
	struct trusted trusted = {.n = 0};
	struct proxy_config config = {.control = -1, .parent = -1, .spawner = -1, .trusted = &trusted};
	const char *listen_at = NULL;
	int n = 1, sample = 1, c;

	io_keep_stdio();
	log_init("proxy", LOG_LEVEL_INFO);
	io_random_hex(config.sticky, 16);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'l') {
			listen_at = optarg;
		} else if (c == 'r') {
			config.routes_file = optarg;
		} else if (c == 'w') {
			if ((n = count(optarg, WORKERS_MAX)) == 0)
				return misused("--workers %s: expected 1 to %d", optarg, WORKERS_MAX);
		} else if (c == 'a') {
			config.access_log = optarg;
		} else if (c == 's') {
			if ((sample = count(optarg, INT_MAX)) == 0)
				return misused("--log-sample %s: expected at least 1", optarg);
		} else if (c == 'h') {
			fputs(help, stdout);
			return 0;
		} else if (c == 'v') {
			puts("proxy " SPACED_VERSION);
			return 0;
		} else if (c == 't') {
			if (trusted_add(&trusted, STRZ(optarg)) < 0)
				return misused(
				    "--trusted-proxy %s: expected at most %d addresses or networks, as 10.0.0.0/8",
				    optarg, TRUSTED_MAX);
		} else if (c == 'u') {
			if (!(user = getpwnam(optarg)))
				return misused("--user %s: there is no such user", optarg);
		} else if (c != 'm') { /* getopt has said what is wrong */
			fputs("Try: proxy --help\n", stderr);
			return 2;
		} else if (set_limit(&config.limits, optarg) < 0) {
			return misused("unknown limit or value: %s", optarg);
		}
	}
	if (optind != argc)
		return misused("`%s` is no option", argv[optind]);
	if (config.limits.client_rate > RATE_MAX || config.limits.space_rate > RATE_MAX)
		return misused("--limit client_rate, space_rate: expected at most %d", RATE_MAX);
	if (config.limits.fields > HTTP1_FIELDS_MAX)
		return misused("--limit fields: expected at most %d", HTTP1_FIELDS_MAX);
	if (user && geteuid() != 0)
		return misused("--user: only root can be somebody else");
	if (!listen_at || !config.routes_file)
		return misused("--listen ADDR:PORT and --routes FILE are needed");
	config.log_sample = config.access_log ? (uint32_t)sample : 0;
	if (!(config.rates = rates_map(-1))) {
		log_error("memory for the rates: %s", strerror(errno));
		return 1;
	}
	hold_signals(SIG_BLOCK);
	if (open_listeners(listen_at, n) < 0) {
		log_error("listen on %s: %s", listen_at, strerror(errno));
		return 1;
	}
	if (n > 1)
		return run_workers(&config, n);
	_exit(run_worker(&config, listeners[0], 0)); /* exit(3) waits for libuv's threads: access_log_end() */
}
