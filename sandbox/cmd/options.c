/* See options.h. */
#include "sandbox/cmd/options.h"

#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/egress_list.h"
#include "sandbox/ids.h"

const char options_usage[] =
    "usage: sandbox run [OPTION]... -- COMMAND [ARGUMENT]...\n"
    "       sandbox probe\n"
    "\n"
    "Runs COMMAND in a sandbox of its own: the host's /usr read-only, an empty system around it, nothing else.\n"
    "\n"
    "  --ro-bind SRC DST    show the host's SRC at DST, read-only\n"
    "  --bind SRC DST       the same, writable; ids on disk are ids inside\n"
    "  --memory SIZE        limit of memory and swap, as 512M, 2G\n"
    "  --cpus N             processors, as 1.5\n"
    "  --pids N             processes and threads, with one of the sandbox's own\n"
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
    "  --version\n"
    "\n"
    "sandbox probe prints what this host gives.\n"
    "Exit status: the command's; 128+N when signal N ended it; 125 when the sandbox cannot be made, 126 when the "
    "command\n"
    "cannot be executed, 127 when it is not there.\n";

void die(const char *fmt, ...)
{
	va_list ap;

	fputs("sandbox: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_CANNOT);
}

/* "1.5" with one of `units` behind it; their factors are in the same order. `form` is how it should look. */
static double number(const char *what, const char *text, const char *units, const double *factors, const char *form)
{
	char *end;
	double v = strtod(text, &end);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == text || !(v > 0) || v > 1e15 || (*end && (!unit || end[1])))
		die("%s: `%s` is not understood: %s", what, text, form);
	return unit ? v * factors[unit - units] : v;
}

static uint64_t bytes(const char *what, const char *text)
{
	static const double factors[] = {
	    1024, 1024, 1024.0 * 1024, 1024.0 * 1024, 1024.0 * 1024 * 1024, 1024.0 * 1024 * 1024};

	return (uint64_t)number(what, text, "kKmMgG", factors, "bytes, or with K, M or G behind, as 512M");
}

static uint32_t count(const char *what, const char *text)
{
	static const char form[] = "a whole number from 1 to 4000000";
	double v = number(what, text, "", NULL, form);

	if (v > 4e6 || v != (double)(uint32_t)v)
		die("%s: `%s` is not understood: %s", what, text, form);
	return (uint32_t)v;
}

static double cpus(const char *text)
{
	static const char form[] = "a number from 0.01 to 4096, as 1.5";
	double v = number("--cpus", text, "", NULL, form);

	if (v < 0.01 || v > 4096)
		die("--cpus: `%s` is not understood: %s", text, form);
	return v;
}

static uint32_t seconds(const char *text)
{
	static const char form[] = "whole seconds from 1 to 10000000, or with s, m or h behind, as 90s or 1.5m";
	static const double factors[] = {1, 60, 3600};
	double v = number("--timeout", text, "smh", factors, form);
	double whole = v > 1e7 ? 0 : (double)(uint32_t)(v + 0.5);

	if (whole < 1 || v - whole > 1e-6 || whole - v > 1e-6) /* 4.1m is a bit less in binary, 1.1h more */
		die("--timeout: `%s` is not understood: %s", text, form);
	return (uint32_t)whole;
}

/* "/app/" is meant as "/app". */
static char *inner_path(const char *path)
{
	char *clean = xstrdup(path);

	for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/'; n--)
		clean[n - 1] = '\0';
	return clean;
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
	    (struct sandbox_bind){.source = steal_ptr(&real), .target = inner_path(dst), .write = write};
}

/* The entry of the variable that `name` or "name=value" names, or NULL. */
static char **find_env(const struct options *o, const char *name)
{
	size_t n = strcspn(name, "=");

	for (size_t i = 0; i < o->nenv; i++)
		if (strncmp(o->spec.env[i], name, n) == 0 && o->spec.env[i][n] == '=')
			return &o->spec.env[i];
	return NULL;
}

/* The last one of a name counts. */
static void set_env(struct options *o, char *entry)
{
	struct sandbox_spec *s = &o->spec;
	char **old = find_env(o, entry);

	if (old) {
		free(*old);
		*old = entry;
		return;
	}
	s->env = xreallocarray(s->env, o->nenv + 2, sizeof *s->env);
	s->env[o->nenv++] = entry;
	s->env[o->nenv] = NULL;
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
		if (!find_env(o, table[i].name))
			set_env(o, xasprintf("%s=%s", table[i].name, table[i].value));
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
		int rc = io_read_named(policy + 5, EGRESS_LIST_BYTES, &text);
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
	struct sandbox_spec *s = &o->spec;

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
		s->limits.cpu_milli = (uint32_t)(1000 * cpus(optarg) + 0.5);
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
		s->limits.timeout_s = seconds(optarg);
		break;
	case OPT_ENV:
		if (!strchr(optarg, '=') || *optarg == '=')
			die("--env: `%s` is not NAME=VALUE", optarg);
		set_env(o, xstrdup(optarg));
		break;
	case OPT_CWD:
		free(s->cwd);
		s->cwd = inner_path(optarg);
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
		fputs(options_usage, stdout);
		exit(0);
	default:
		fputs("sandbox: try --help\n", stderr);
		exit(EXIT_CANNOT);
	}
}

void options_parse(struct options *o, int argc, char **argv)
{
	static char program[] = "sandbox"; /* in getopt's messages */
	struct sandbox_spec *s = &o->spec;
	int opt;

	s->uid = s->gid = 1000;
	argv[0] = program;
	while ((opt = getopt_long(argc, argv, "+", longopts, NULL)) != -1)
		one_option(o, opt, argv);
	if (optind >= argc)
		die("no command; try --help");
	if (s->limits.bandwidth && s->egress == EGRESS_NONE)
		die("--bandwidth: there is no network to limit; add --egress internet or --egress list:FILE");
	o->rootless |= !ids_host_root();
	s->argv = xcalloc((size_t)(argc - optind) + 1, sizeof *s->argv);
	for (int i = optind; i < argc; i++)
		s->argv[i - optind] = xstrdup(argv[i]);
	if (!s->cwd)
		s->cwd = xstrdup("/app");
	if (o->rootless && s->profile == SANDBOX_BUILD_ROOT)
		die("--build-root needs a range of ids: start it as root, without --rootless");
	default_env(o);
	s->hostname = xstrdup("sandbox");
}
