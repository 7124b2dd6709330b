/* The proxy as a program of its own: `proxy --listen ADDR:PORT --routes FILE`. For use without the daemon, and for
 * comparison with other proxies on equal work. */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "proxy/proxy.h"
#include "proxy/rate.h"

#define WORKERS_MAX 256

static const char help[] =
    "usage: proxy --listen ADDR:PORT --routes FILE [--workers N] [--access-log FILE] [--limit NAME=VALUE]...\n"
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
    "  --access-log FILE    a line of JSON for each request is appended; SIGHUP opens it anew\n"
    "  --log-sample N       of answers below 400 only one in N, which says so (default 1)\n"
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
    "  --help               this text\n"
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

/* A listening socket of its own for each worker: the kernel spreads connections over them. */
static int open_listener(const char *text)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *ai;
	char host[64];
	const char *colon = strrchr(text, ':');
	int on = 1;

	if (!colon || (size_t)(colon - text) >= sizeof host) {
		errno = EINVAL;
		return -1;
	}
	const char *from = text[0] == '[' ? text + 1 : text;
	size_t n = (size_t)(colon - from) - (text[0] == '[');
	memcpy(host, from, n);
	host[n] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &ai) != 0) {
		errno = EINVAL;
		return -1;
	}
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
		if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 4096) < 0) {
			int saved = errno;
			close(fd);
			errno = saved;
			fd = -1;
		}
	}
	freeaddrinfo(ai);
	return fd;
}

static int run_worker(struct proxy_config *config, int fd)
{
	struct err err = ERR_INIT;

	if (confine_syscalls(PROMISE_FILES | PROMISE_INET | PROMISE_UNIX, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	config->listeners = &fd;
	config->nlisteners = 1;
	int status = proxy_main(config);
	config->listeners = NULL;
	return status;
}

static volatile sig_atomic_t ended;
static pid_t workers[WORKERS_MAX];
static int listeners[WORKERS_MAX]; /* each worker's, kept for the next one when it crashes: its queue is not lost */
static int nworkers;

static void pass_on(int signum)
{
	for (int i = 0; signum != SIGHUP && !ended && i < nworkers; i++)
		close(listeners[i]); /* first: what a worker does not take from its queue is refused */
	if (signum != SIGHUP)
		ended = 1;
	for (int i = 0; i < nworkers; i++)
		if (workers[i] > 0)
			kill(workers[i], signum);
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

/* Signals are held here. The worker takes them when it has its own handlers (proxy_main). */
static pid_t start_worker(struct proxy_config *config, int n)
{
	pid_t parent = getpid();
	pid_t pid = ended ? -1 : fork();

	if (pid != 0)
		return pid;
	for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
		signal(passed_on[i], SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (int i = 0; i < nworkers; i++)
		if (i != n)
			close(listeners[i]);
	_exit(getppid() == parent ? run_worker(config, listeners[n]) : 1);
}

/* Starts the workers and another one for each that crashes; one that cannot start ends the program. */
static int run_workers(struct proxy_config *config, int n)
{
	struct sigaction sa = {.sa_handler = pass_on};
	int status, result = 0;
	pid_t pid;

	nworkers = n;
	for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++) {
		sigaddset(&sa.sa_mask, passed_on[i]);
		sigaction(passed_on[i], &sa, NULL);
	}
	for (int i = 0; i < n; i++)
		workers[i] = start_worker(config, i);
	hold_signals(SIG_UNBLOCK);
	while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR) {
		for (int i = 0; pid > 0 && i < n; i++) {
			if (workers[i] != pid)
				continue;
			workers[i] = -1;
			if (!ended && WIFSIGNALED(status)) {
				log_error("worker %d died by signal %d", (int)pid, WTERMSIG(status));
				hold_signals(SIG_BLOCK);
				workers[i] = start_worker(config, i);
				hold_signals(SIG_UNBLOCK);
			} else if (!ended && WEXITSTATUS(status)) {
				result = WEXITSTATUS(status);
				pass_on(SIGTERM);
			}
		}
	}
	return result;
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
	    {"help", no_argument, NULL, 'h'},
	    {NULL, 0, NULL, 0},
	};
	struct proxy_config config = {.control = -1, .parent = -1, .spawner = -1};
	const char *listen_at = NULL;
	int n = 1, sample = 1, c;

	log_init("proxy", LOG_LEVEL_INFO);
	io_random_hex(config.sticky, 16);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'l') {
			listen_at = optarg;
		} else if (c == 'r') {
			config.routes_file = optarg;
		} else if (c == 'w') {
			n = (int)strtol(optarg, NULL, 10);
		} else if (c == 'a') {
			config.access_log = optarg;
		} else if (c == 's') {
			sample = (int)strtol(optarg, NULL, 10);
		} else if (c == 'h') {
			fputs(help, stdout);
			return 0;
		} else if (c != 'm' || set_limit(&config.limits, optarg) < 0) {
			if (c == 'm')
				fprintf(stderr, "proxy: unknown limit or value: %s\n", optarg);
			fputs("Try: proxy --help\n", stderr);
			return 2;
		}
	}
	if (!listen_at || !config.routes_file || sample < 1 || n < 1 || n > WORKERS_MAX || optind != argc) {
		fputs(help, stderr);
		return 2;
	}
	config.log_sample = config.access_log ? (uint32_t)sample : 0;
	if (!(config.rates = rates_map(-1))) {
		log_error("memory for the rates: %s", strerror(errno));
		return 1;
	}
	hold_signals(SIG_BLOCK);
	for (int i = 0; i < n; i++)
		if ((listeners[i] = open_listener(listen_at)) < 0) {
			log_error("listen on %s: %s", listen_at, strerror(errno));
			return 1;
		}
	return n == 1 ? run_worker(&config, listeners[0]) : run_workers(&config, n);
}
