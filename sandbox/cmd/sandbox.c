/* `sandbox run`: one command inside the walls, for a person at a terminal or a script. Hands on stdin, stdout, stderr
 * and the exit status; needs neither daemon nor configuration. Everything is made for this one run and removed after. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cmd/feel.h"
#include "sandbox/cmd/slot.h"
#include "sandbox/egress.h"
#include "sandbox/egress_inside.h"
#include "sandbox/netns.h"
#include "sandbox/protection.h"
#include "sandbox/skeleton.h"

#define GRACE_MS 5000
#define EXIT_CANNOT 125 /* as env(1) and timeout(1) have it */
#define CACHE "/var/cache/spaced-sandbox"
#define NOBODY 65534
#define FIRST_ID 0x50000000U /* ranges of `sandbox run`; the daemon's are elsewhere (spaced/config.h) */

static const char usage[] =
    "usage: sandbox run [OPTION]... -- COMMAND [ARGUMENT]...\n"
    "       sandbox probe\n"
    "\n"
    "Runs COMMAND in a sandbox of its own: the host's /usr read-only, an empty system around it, nothing else.\n"
    "\n"
    "  --ro-bind SRC DST    show the host's SRC at DST, read-only\n"
    "  --bind SRC DST       the same, writable; ids on disk are ids inside\n"
    "  --memory SIZE        limit of memory and swap, as 512M, 2G\n"
    "  --cpus N             processors, as 1.5\n"
    "  --pids N             processes and threads\n"
    "  --disk SIZE          writable layer (in memory); default 256M\n"
    "  --io SIZE            bytes per second read, and written, from and to disks, as 50M\n"
    "  --egress POLICY      none (loopback only, the default), internet (no private or link-local address), or\n"
    "                       list:FILE: only what FILE names, a line each: HOST, *.HOST, ADDR/PREFIX; with :PORT or "
    "without\n"
    "  --bandwidth SIZE     bytes per second to the Internet, and from it, as 10M\n"
    "  --timeout TIME       as 60s, 5m, 1h: then SIGTERM, and SIGKILL five seconds later\n"
    "  --env NAME=VALUE     nothing is inherited; PATH, HOME, LANG and TERM have defaults\n"
    "  --cwd FOLDER         working folder inside; default /app\n"
    "  --uid N              user inside; default 1000\n"
    "  --base DIR           stand on the Debian tree in DIR (usr/, etc/, var/lib/dpkg/) instead of the host's /usr\n"
    "  --layer DIR          read-only layer over the system: DIR/root and DIR/usr; the first one is topmost\n"
    "  --top DIR            keep what is written in DIR (root, work, ...) instead of in memory\n"
    "  --build-root         root inside, with a writable /usr: for apt-get (as root only)\n"
    "  --rootless           as if an ordinary user had started it: only the caller's own id is mapped\n"
    "  --help\n"
    "\n"
    "sandbox probe prints what this host gives.\n"
    "Exit status: the command's; 128+N when signal N ended it; 125 when the sandbox cannot be made.\n";

struct options {
	struct sandbox_spec spec;
	size_t nenv;
	bool rootless;
	const char *base, *top, *layers[SANDBOX_MAX_LAYERS];
};

/* What is made for one run, and has to go with it. */
struct run {
	struct sandbox box;
	struct sandbox_sources src;
	struct egress egress;
	struct feel feel;
	char *state, *egress_lock;
	int number; /* of slot.h */
	bool connected;
	struct egress_policy policy;
	struct egress_inside inside;
};

struct outcome {
	int status; /* as of wait(2) */
	bool timeout;
};

__attribute__((format(printf, 1, 2))) _Noreturn static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("sandbox: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_CANNOT);
}

/* -- options ------------------------------------------------------------------------------------------------------ */

/* "1.5" with one of `units` behind it; their factors are in the same order. */
static double number(const char *what, const char *text, const char *units, const double *factors)
{
	char *end;
	double v = strtod(text, &end);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == text || !(v > 0) || v > 1e15 || (*end && (!unit || end[1])))
		die("%s: `%s` is not understood", what, text);
	return unit ? v * factors[unit - units] : v;
}

static uint64_t bytes(const char *what, const char *text)
{
	static const double factors[] = {
	    1024, 1024, 1024.0 * 1024, 1024.0 * 1024, 1024.0 * 1024 * 1024, 1024.0 * 1024 * 1024};

	return (uint64_t)number(what, text, "kKmMgG", factors);
}

static uint32_t count(const char *what, const char *text)
{
	double v = number(what, text, "", NULL);

	if (v > 4e6 || v != (double)(uint32_t)v)
		die("%s: `%s` is not a number of things", what, text);
	return (uint32_t)v;
}

static void add_bind(struct options *o, const char *src, const char *dst, bool write)
{
	struct sandbox_spec *s = &o->spec;
	cleanup_free char *real = src ? realpath(src, NULL) : NULL;

	if (!src || !dst)
		die("--%s wants SRC and DST", write ? "bind" : "ro-bind");
	if (!real)
		die("--%s: `%s`: %s", write ? "bind" : "ro-bind", src, strerror(errno));
	if (s->nbinds == SANDBOX_MAX_BINDS)
		die("more than %d binds", SANDBOX_MAX_BINDS);
	s->binds[s->nbinds++] =
	    (struct sandbox_bind){.source = steal_ptr(&real), .target = xstrdup(dst), .write = write};
}

static void add_env(struct options *o, const char *name, const char *value)
{
	struct sandbox_spec *s = &o->spec;

	s->env = xreallocarray(s->env, o->nenv + 2, sizeof *s->env);
	s->env[o->nenv++] = value ? xasprintf("%s=%s", name, value) : xstrdup(name);
	s->env[o->nenv] = NULL;
}

static bool has_env(const struct options *o, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < o->nenv; i++)
		if (strncmp(o->spec.env[i], name, n) == 0 && o->spec.env[i][n] == '=')
			return true;
	return false;
}

static void default_env(struct options *o)
{
	const char *term = getenv("TERM");
	const struct {
		const char *name, *value;
	} table[] = {
	    {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	    {"HOME", "/home/user"},
	    {"LANG", "C.UTF-8"},
	    {"TERM", term ? term : "dumb"},
	};

	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (!has_env(o, table[i].name))
			add_env(o, table[i].name, table[i].value);
}

enum {
	OPT_RO_BIND = 256,
	OPT_BIND,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_PIDS,
	OPT_DISK,
	OPT_IO,
	OPT_EGRESS,
	OPT_BANDWIDTH,
	OPT_TIMEOUT,
	OPT_ENV,
	OPT_CWD,
	OPT_UID,
	OPT_BASE,
	OPT_LAYER,
	OPT_TOP,
	OPT_BUILD_ROOT,
	OPT_ROOTLESS,
	OPT_HELP
};

static const struct option longopts[] = {
    {"ro-bind", required_argument, NULL, OPT_RO_BIND},
    {"bind", required_argument, NULL, OPT_BIND},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"pids", required_argument, NULL, OPT_PIDS},
    {"disk", required_argument, NULL, OPT_DISK},
    {"io", required_argument, NULL, OPT_IO},
    {"egress", required_argument, NULL, OPT_EGRESS},
    {"bandwidth", required_argument, NULL, OPT_BANDWIDTH},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"env", required_argument, NULL, OPT_ENV},
    {"cwd", required_argument, NULL, OPT_CWD},
    {"uid", required_argument, NULL, OPT_UID},
    {"rootless", no_argument, NULL, OPT_ROOTLESS},
    {"base", required_argument, NULL, OPT_BASE},
    {"layer", required_argument, NULL, OPT_LAYER},
    {"top", required_argument, NULL, OPT_TOP},
    {"build-root", no_argument, NULL, OPT_BUILD_ROOT},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static void set_egress(struct sandbox_spec *s, const char *policy)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;

	egress_list_free(s->egress_list);
	s->egress_list = NULL;
	if (strcmp(policy, "none") == 0) {
		s->egress = EGRESS_NONE;
	} else if (strcmp(policy, "internet") == 0) {
		s->egress = EGRESS_INTERNET;
	} else if (strncmp(policy, "list:", 5) == 0) {
		int rc = io_read_file(AT_FDCWD, policy + 5, EGRESS_LIST_BYTES, &text);
		if (rc < 0)
			die("--egress: read `%s`: %s", policy + 5, strerror(-rc));
		s->egress = EGRESS_LIST;
		s->egress_list = egress_list_parse((struct str){text.data, text.len}, &err);
		if (!s->egress_list)
			die("--egress: `%s`: %s", policy + 5, err.msg);
	} else {
		die("--egress: `%s` is none of none, internet, list:FILE", policy);
	}
}

static void one_option(struct options *o, int opt, char **argv)
{
	static const double seconds[] = {1, 60, 3600};
	struct sandbox_spec *s = &o->spec;
	double v;

	switch (opt) {
	case OPT_RO_BIND:
	case OPT_BIND:
		add_bind(o, optarg, argv[optind], opt == OPT_BIND);
		optind++;
		break;
	case OPT_MEMORY:
		s->limits.memory = bytes("--memory", optarg);
		break;
	case OPT_CPUS:
		v = number("--cpus", optarg, "", NULL);
		if (v < 0.01 || v > 4096)
			die("--cpus: `%s` is not between 0.01 and 4096", optarg);
		s->limits.cpu_milli = (uint32_t)(v * 1000);
		break;
	case OPT_PIDS:
		s->limits.pids = count("--pids", optarg);
		break;
	case OPT_DISK:
		s->top_bytes = bytes("--disk", optarg);
		break;
	case OPT_IO:
		s->limits.io_bytes = bytes("--io", optarg);
		break;
	case OPT_EGRESS:
		set_egress(s, optarg);
		break;
	case OPT_BANDWIDTH:
		s->limits.bandwidth = bytes("--bandwidth", optarg);
		break;
	case OPT_TIMEOUT:
		v = number("--timeout", optarg, "smh", seconds);
		if (v < 1 || v > 1e7)
			die("--timeout: `%s` is out of bounds", optarg);
		s->limits.timeout_s = (uint32_t)v;
		break;
	case OPT_ENV:
		if (!strchr(optarg, '=') || *optarg == '=')
			die("--env: `%s` is not NAME=VALUE", optarg);
		add_env(o, optarg, NULL);
		break;
	case OPT_CWD:
		free(s->cwd);
		s->cwd = xstrdup(optarg);
		break;
	case OPT_UID:
		s->uid = s->gid = strcmp(optarg, "0") == 0 ? 0 : count("--uid", optarg);
		break;
	case OPT_BASE:
		o->base = optarg;
		break;
	case OPT_LAYER:
		if (s->nlayers == SANDBOX_MAX_LAYERS)
			die("more than %d layers", SANDBOX_MAX_LAYERS);
		o->layers[s->nlayers] = optarg;
		s->layers[s->nlayers++] = xstrdup("layer");
		break;
	case OPT_TOP:
		o->top = optarg;
		break;
	case OPT_BUILD_ROOT:
		s->profile = SANDBOX_BUILD_ROOT;
		s->uid = s->gid = 0;
		break;
	case OPT_ROOTLESS:
		o->rootless = true;
		break;
	case OPT_HELP:
		fputs(usage, stdout);
		exit(0);
	default:
		fputs("sandbox: try --help\n", stderr);
		exit(EXIT_CANNOT);
	}
}

/* Copies all strings: pid 1 inside wipes the memory of our arguments. */
static void parse(struct options *o, int argc, char **argv)
{
	struct sandbox_spec *s = &o->spec;
	int opt;

	s->uid = s->gid = 1000;
	while ((opt = getopt_long(argc, argv, "+", longopts, NULL)) != -1)
		one_option(o, opt, argv);
	if (optind >= argc)
		die("no command; try --help");
	o->rootless |= geteuid() != 0;
	s->argv = xcalloc((size_t)(argc - optind) + 1, sizeof *s->argv);
	for (int i = optind; i < argc; i++)
		s->argv[i - optind] = xstrdup(argv[i]);
	if (!s->cwd)
		s->cwd = xstrdup("/app");
	if (o->rootless && s->profile == SANDBOX_BUILD_ROOT)
		die("--build-root needs a range of ids, so it needs root");
	default_env(o);
	s->hostname = xstrdup("sandbox");
}

/* -- what the sandbox stands on ----------------------------------------------------------------------------------- */

static int open_or_die(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		die("open `%s`: %s", path, strerror(errno));
	return fd;
}

static char *state_folder(void)
{
	const char *home = getenv("XDG_CACHE_HOME");
	char *path;

	if (geteuid() == 0)
		path = xstrdup(CACHE);
	else if (geteuid() == NOBODY)
		path = xstrdup(CACHE "-rootless"); /* made by become_nobody() */
	else if (home && *home == '/')
		path = xasprintf("%s/spaced-sandbox", home);
	else
		path = xasprintf("%s/.cache/spaced-sandbox", getenv("HOME") ? getenv("HOME") : "/nonexistent");
	char *slash = strrchr(path, '/');
	*slash = '\0';
	io_mkdir(AT_FDCWD, path, 0700);
	*slash = '/';
	int rc = io_mkdir(AT_FDCWD, path, 0700);
	if (rc < 0)
		die("make `%s`: %s", path, strerror(-rc));
	return path;
}

/* The system around the command is copied from the base once, and again when the base has changed. Where the file system
 * cannot be idmapped, each range has a copy of its own (`id_base` as of spec.h). */
static int skeleton_of(int root, const char *state, int number, uint32_t id_base)
{
	cleanup_close int dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	char hash[SKELETON_NAME], name[SKELETON_NAME + 70], making[64];
	struct err err = ERR_INIT;
	struct utsname kernel;

	skeleton_name(root, hash);
	/* Another kernel may not be able to show this one's copy with other ids. */
	uname(&kernel);
	snprintf(name, sizeof name, "%s-%s", hash, kernel.release);
	int fd = dir < 0 ? -1 : openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0 || (fd >= 0 && (!id_base || sandbox_has_idmaps())))
		return dir < 0 ? open_or_die(state) : fd;
	if (fd >= 0)
		close(fd);
	bool shift = id_base && !sandbox_can_idmap(dir);
	if (shift) {
		snprintf(name, sizeof name, "%s-%u", hash, id_base);
		if ((fd = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) >= 0)
			return fd;
	}
	snprintf(making, sizeof making, "making-%d", number);
	io_remove_tree(dir, making);
	if (mkdirat(dir, making, 0755) < 0)
		die("make `%s/%s`: %s", state, making, strerror(errno));
	cleanup_close int to = openat(dir, making, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (to < 0 || fchmod(to, 0755) < 0 || skeleton_build(root, to, &err) < 0 ||
	    (shift && skeleton_shift(to, id_base, &err) < 0)) {
		io_remove_tree(dir, making);
		die("%s", err.msg);
	}
	/* Somebody else may have been quicker: theirs is as good. */
	if (renameat(dir, making, dir, name) < 0)
		io_remove_tree(dir, making);
	fd = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		die("open `%s/%s`: %s", state, name, strerror(errno));
	return fd;
}

/* As root by a veth pair, made ahead; the rest (a list; all of it rootless) is done by the launcher's hook. */
static void connect_out(struct run *r, const struct options *o)
{
	struct err err = ERR_INIT;

	if (egress_policy_of(&o->spec, &r->policy, &err) < 0)
		die("%s", err.msg);
	r->inside = (struct egress_inside){.policy = &r->policy, .spec = &o->spec, .slirp = o->rootless, .gone = -1};
	if (!o->rootless) {
		r->inside.uid = EGRESS_INSIDE_UID(o->spec.id_base);
		r->src.netns = netns_make(&err);
		if (r->src.netns < 0 || egress_ensure(&r->egress, &err) < 0 ||
		    egress_detach(&r->egress, (uint32_t)r->number, &err) < 0 ||
		    egress_attach(&r->egress, (uint32_t)r->number, r->src.netns, r->policy.bandwidth, &err) < 0)
			die("%s", err.msg);
		r->connected = true;
	}
	if (egress_inside_needed(&r->policy, o->rootless)) {
		r->src.network = egress_inside_network;
		r->src.network_ctx = &r->inside;
	}
}

static void prepare(struct run *r, struct options *o)
{
	struct sandbox_spec *s = &o->spec;
	struct err err = ERR_INIT;

	r->src = (struct sandbox_sources){.top = -1, .netns = -1, .idmap = !o->rootless};
	r->state = state_folder();
	r->egress_lock = xasprintf("%s/egress.lock", r->state);
	egress_init(&r->egress, r->state, r->egress_lock);
	r->number = slot_take(r->state, r->egress.tag, s->name, &err);
	if (r->number < 0)
		die("%s", err.msg);
	cleanup_close int root = o->base ? open_or_die(o->base) : SKELETON_HOST;
	cleanup_free char *usr = xasprintf("%s/usr", o->base ? o->base : "");
	r->src.base_usr = open_or_die(usr);
	for (size_t i = 0; i < s->nbinds; i++)
		r->src.binds[i] = open_or_die(s->binds[i].source);
	for (size_t i = 0; i < s->nlayers; i++)
		r->src.layers[i] = open_or_die(o->layers[i]);
	if (o->top)
		r->src.top = open_or_die(o->top);
	if (!o->rootless)
		s->id_base = FIRST_ID + (uint32_t)r->number * SANDBOX_IDS;
	r->src.skeleton = skeleton_of(root, r->state, r->number, s->id_base);
	if (s->egress != EGRESS_NONE)
		connect_out(r, o);
}

/* -- the run ------------------------------------------------------------------------------------------------------ */

static void send_signal(const struct run *r, int sig)
{
	syscall(SYS_pidfd_send_signal, r->box.pidfd, sig, NULL, 0);
}

static void kill_all(struct run *r)
{
	struct err err;

	send_signal(r, SIGKILL);
	cgroup_host()->kill(&r->box.cgroup, GRACE_MS, &err);
}

static int read_status(struct run *r)
{
	int status = 0;

	/* Nothing in it: pid 1 itself was killed. */
	if (io_read_full(r->box.status_pipe, &status, sizeof status) < 0)
		return SIGKILL;
	return status;
}

static int left_ms(uint64_t until)
{
	uint64_t now = io_now_ms();

	return until == 0 ? -1 : until <= now ? 0 : until - now > 1U << 30 ? 1 << 30 : (int)(until - now);
}

static struct outcome wait_end(struct run *r, const struct sandbox_spec *s, int signals)
{
	struct outcome out = {0};
	uint64_t until = s->limits.timeout_s ? io_now_ms() + s->limits.timeout_s * 1000ULL : 0;
	int asked = 0;

	for (;;) {
		struct pollfd p[2 + FEEL_FDS] = {{.fd = r->box.status_pipe, .events = POLLIN},
						 {.fd = signals, .events = POLLIN}};
		struct signalfd_siginfo si;

		feel_poll(&r->feel, p + 2);
		if (poll(p, 2 + FEEL_FDS, left_ms(until && until < r->feel.due ? until : r->feel.due)) < 0 &&
		    errno != EINTR)
			die("poll: %s", strerror(errno));
		if (p[0].revents) {
			out.status = read_status(r);
			return out;
		}
		feel_look(&r->feel, p + 2);
		if (p[1].revents && read(signals, &si, sizeof si) == (ssize_t)sizeof si) {
			/* The third Ctrl-C is meant. */
			if (si.ssi_signo == SIGINT && ++asked == 3)
				kill_all(r);
			else
				send_signal(r, (int)si.ssi_signo);
		}
		if (until && left_ms(until) == 0) {
			if (out.timeout)
				kill_all(r);
			else
				send_signal(r, SIGTERM);
			until = out.timeout ? 0 : io_now_ms() + GRACE_MS;
			out.timeout = true;
		}
	}
}

static int report(struct run *r, const struct sandbox_spec *s, const struct outcome *out)
{
	int status = WIFEXITED(out->status) ? WEXITSTATUS(out->status) : 128 + WTERMSIG(out->status);
	char used[80];
	uint64_t oom_kills = feel_end(&r->feel, used, sizeof used);

	if (out->timeout)
		fprintf(stderr, "sandbox: stopped: it ran for %u s\n", s->limits.timeout_s);
	else if (oom_kills && status == 128 + SIGKILL)
		fprintf(stderr, "sandbox: killed: %s\n", used);
	else if (oom_kills)
		fprintf(stderr, "sandbox: a process of it was killed: %s\n", used);
	else if (!WIFEXITED(out->status))
		fprintf(stderr, "sandbox: ended by signal %d (%s)\n", WTERMSIG(out->status),
			strsignal(WTERMSIG(out->status)));
	return status;
}

static void clean_up(struct run *r)
{
	struct err err = ERR_INIT;

	kill_all(r);
	while (waitpid(r->box.init, NULL, 0) < 0 && errno == EINTR)
		;
	if (cgroup_host()->remove(&r->box.cgroup, &err) < 0)
		fprintf(stderr, "sandbox: %s\n", err.msg);
	if (r->connected && egress_detach(&r->egress, (uint32_t)r->number, &err) < 0)
		fprintf(stderr, "sandbox: %s\n", err.msg);
	sandbox_release(&r->box);
	struct pollfd helpers = {.fd = r->inside.gone, .events = POLLIN};
	if (r->src.network && poll(&helpers, 1, GRACE_MS) != 1)
		fprintf(stderr, "sandbox: what connected it is still there\n");
}

/* Root that wants to be rootless: its own id may not be mapped, so it goes on as nobody. */
static void become_nobody(void)
{
	int rc = io_mkdir(AT_FDCWD, CACHE "-rootless", 0700);

	if (rc < 0 || lchown(CACHE "-rootless", NOBODY, NOBODY) < 0)
		die("make `" CACHE "-rootless`: %s", strerror(rc < 0 ? -rc : errno));
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		die("become nobody: %s", strerror(errno));
	/* The change of ids has made us undumpable, and our /proc files root's: the id maps of the child too. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int run_command(int argc, char **argv)
{
	struct options o = {0};
	struct run r = {0};
	struct err err = ERR_INIT;
	const int stdio[3] = {0, 1, 2};
	sigset_t set;

	parse(&o, argc, argv);
	if (o.rootless && geteuid() == 0)
		become_nobody();
	if (o.spec.limits.io_bytes && !cgroup_has_io())
		fputs("sandbox: --io: this host gives no io controller, so it is not limited\n", stderr);
	prepare(&r, &o);
	sigemptyset(&set);
	for (size_t i = 0; i < 6; i++)
		sigaddset(&set, (int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	cleanup_close int signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		die("signalfd: %s", strerror(errno));
	if (sandbox_start(&o.spec, &r.src, stdio, &r.box, &err) < 0) {
		struct err ignored;

		if (r.connected)
			egress_detach(&r.egress, (uint32_t)r.number, &ignored);
		die("%s", err.msg);
	}
	feel_begin(&r.feel, &r.box);
	struct outcome out = wait_end(&r, &o.spec, signals);
	int status = report(&r, &o.spec, &out);
	clean_up(&r);
	return status;
}

static int probe(void)
{
	static const char *const ids[] = {[IDS_ALL] = "ranges", [IDS_RANGE] = "range", [IDS_ONE] = "one"};
	const struct protection *p[PROTECTIONS];
	struct sandbox_host h;

	sandbox_probe(&h);
	printf("kernel %s\nroot %d\nuser_namespaces %d\nidmapped_mounts %d\noverlay_in_userns %d\nloop_devices %d\n"
	       "landlock_abi %d\ncgroup %s\nio_limit %d\negress %d\nbandwidth %d\nmount_api %s\nopenat2 %d\nids %s\n",
	       h.kernel, h.root, h.user_namespaces, h.idmapped_mounts, h.overlay_in_userns, h.loop_devices,
	       h.landlock_abi, cgroup_host()->label, h.io, h.egress, h.bandwidth, h.mount_api, h.openat2, ids[h.ids]);
	size_t n = protections_of(&h, p);
	for (size_t i = 0; i < n; i++)
		if (!p[i]->given)
			printf("missing: %s: %s (%s)\n", p[i]->name, p[i]->lost, p[i]->mend);
	return h.user_namespaces && h.overlay_in_userns ? 0 : 1;
}

int main(int argc, char **argv)
{
	log_init("sandbox", LOG_LEVEL_WARN);
	if (argc >= 2 && strcmp(argv[1], "run") == 0)
		return run_command(argc - 1, argv + 1);
	if (argc == 2 && strcmp(argv[1], "probe") == 0)
		return probe();
	bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
	fputs(usage, help ? stdout : stderr);
	return help ? 0 : EXIT_CANNOT;
}
