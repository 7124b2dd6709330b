/* See config.h. One table names every option; parsing, --help and --print-config loop over it. */
#include "spaced/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/state_home.h"
#include "sandbox/egress_list.h"

enum kind { TEXT, COUNT, SIZE, DURATION, CPUS, EGRESS, LIST, OWNERS };

struct option_row {
	const char *name; /* as in the file; `--name` on the command line */
	enum kind kind;
	size_t offset;
	const char *fallback;
	const char *help;
	enum config_change change;
};

#define ROW(name, kind, field, fallback, help, change)                                                                 \
	{                                                                                                              \
		name, kind, offsetof(struct config, field), fallback, help, change                                     \
	}
#define OPT(name, kind, field, fallback, help) ROW(name, kind, field, fallback, help, CONFIG_AT_UPGRADE)
#define LIVE(name, kind, field, fallback, help) ROW(name, kind, field, fallback, help, CONFIG_AT_RELOAD)
#define FIXED(name, kind, field, fallback, help) ROW(name, kind, field, fallback, help, CONFIG_AT_START)
static const struct option_row rows[] = {
    FIXED("state", TEXT, state, "/var/lib/spaced",
	  "state folder; everything Spaced keeps is in it. An ordinary user's: $XDG_STATE_HOME/spaced, "
	  "~/.local/state/spaced"),
    FIXED("listen", TEXT, listen, "127.0.0.1:7000", "address and port of the public port; [::1]:7000 for IPv6"),
    OPT("domain", TEXT, domain, "localhost", "apex host name; a Space is at {owner}-{name}.DOMAIN"),
    OPT("public-url", TEXT, public_url, "",
	"how people reach the apex: http:// or https://, DOMAIN, and a :PORT that is not the usual one; default "
	"http://DOMAIN:PORT"),
    OPT("proxies", COUNT, proxies, "0", "proxy processes, at most 16; 0: one per CPU, up to 4"),
    FIXED("user", TEXT, user, "spaced", "account of the control role; -proxy and -static are appended for the others"),
    OPT("log-level", TEXT, log_level, "info", "debug, info, warn or error"),
    OPT("client-rate", COUNT, client_rate, "0",
	"requests per second of one client address (IPv6: /64), five seconds' worth at once; 0: no limit"),
    OPT("space-rate", COUNT, space_rate, "0", "requests per second for one Space, the same"),
    OPT("client-connections", COUNT, client_connections, "0",
	"connections of one client address to each proxy; 0: 1024, and of loopback any number"),
    OPT("trusted-proxies", TEXT, trusted_proxies, "",
	"addresses and networks of proxies in front, whose X-Forwarded-For and -Proto are believed: 10.0.0.0/8 ::1"),
    OPT("space-requests", COUNT, space_requests, "2048", "requests in flight to one Space through each proxy"),
    OPT("access-log-size", SIZE, access_log_bytes, "256M", "access log, both files together; 0: none is kept"),
    OPT("access-log-sample", COUNT, access_log_sample, "1", "of answers below 400 only one in so many is in it"),
    LIVE("memory", SIZE, memory, "2G", "memory of a running app, swap included"),
    LIVE("cpus", CPUS, cpu_milli, "2", "CPUs of a running app"),
    LIVE("pids", COUNT, pids, "1024", "processes and threads of a running app"),
    LIVE("disk", SIZE, disk, "10G", "disk that a running app may write; lost when it restarts"),
    LIVE("data-max", SIZE, data_max, "20G", "the most that a Space may ask for as persistent storage (/data)"),
    LIVE("io", SIZE, io, "0", "bytes per second that an app may read, and write, from and to disks; 0: unlimited"),
    LIVE("startup-timeout", DURATION, startup_timeout_s, "30m",
	 "from start to healthy, unless README.md says otherwise"),
    LIVE("startup-timeout-max", DURATION, startup_timeout_max_s, "2h", "the most that README.md may ask for"),
    LIVE("starts", COUNT, starts, "4",
	 "apps that start at the same time, for 20 s each at most; others wait for their turn"),
    LIVE("drain-timeout", DURATION, drain_timeout_s, "30s",
	 "after a deploy, for what is in flight to the version before: responses, event streams, WebSockets; then they "
	 "are closed"),
    LIVE("log-size", SIZE, log_bytes, "64M", "log of one build or run; what goes beyond is dropped and counted"),
    LIVE("egress", EGRESS, egress, "internet", "network of apps: internet (no private ranges), list or none"),
    LIVE("egress-list", LIST, egress_list, "",
	 "with list: HOST, *.HOST, ADDR/PREFIX, each with :PORT or not, as in a.org *.b.org:443"),
    LIVE("bandwidth", SIZE, bandwidth, "0",
	 "bytes per second that an app may send to the Internet, and receive; 0: no limit"),
    LIVE("freeze-after", DURATION, freeze_after_s, "15m",
	 "an app without a visit for so long is frozen: no CPU, back in milliseconds at the next visit; 0: never"),
    LIVE("page-out-after", DURATION, page_out_after_s, "1h",
	 "a frozen app's memory goes to swap after so long without a visit, where there is swap and cgroup v2; 0: "
	 "never"),
    LIVE("sleep-after", DURATION, sleep_after_s, "2d",
	 "an app without a visit for so long is stopped; the next visit starts it. 0: never"),
    LIVE(
	"memory-reserve", SIZE, memory_reserve, "256M",
	"frozen apps are stopped, longest without a visit first, while less memory of the host is available; 0: never"),
    OPT("hold-timeout", DURATION, hold_timeout_s, "60s",
	"how long a request waits for an app that sleeps, starts or takes no connection"),
    OPT("hold-requests", COUNT, hold_requests, "256", "requests that may wait so for one Space at each proxy"),
    LIVE("build-memory", SIZE, build_memory, "4G", "memory of a build step"),
    LIVE("build-cpus", CPUS, build_cpu_milli, "2", "CPUs of a build step"),
    LIVE("build-pids", COUNT, build_pids, "2048", "processes and threads of a build step"),
    LIVE("build-disk", SIZE, build_disk, "20G", "disk of a layer being built"),
    LIVE("build-io", SIZE, build_io, "0", "the same as io for a build step"),
    LIVE("build-timeout", DURATION, build_timeout_s, "30m", "time of a build step"),
    LIVE("build-egress", EGRESS, build_egress, "internet", "network of build steps that fetch, as egress"),
    LIVE("build-egress-list", LIST, build_egress_list, "",
	 "with list, as egress-list: pypi.org files.pythonhosted.org"),
    LIVE("builds", COUNT, builds, "2", "builds at the same time"),
    LIVE("push-pack-size", SIZE, push_pack_bytes, "5G", "bytes of one push"),
    LIVE("push-inflated-size", SIZE, push_inflated_bytes, "20G", "bytes of one push, inflated"),
    LIVE("push-object-size", SIZE, push_object_bytes, "1G", "one file in git, inflated"),
    LIVE("push-objects", COUNT, push_objects, "2000000", "objects in one push"),
    LIVE("push-refs", COUNT, push_refs, "1000", "refs changed by one push"),
    LIVE("push-ref-length", COUNT, push_ref_bytes, "255", "bytes of a ref's name"),
    LIVE("push-path-length", COUNT, push_path_bytes, "4000", "bytes of a path in a tree"),
    LIVE("push-tree-depth", COUNT, push_tree_depth, "128", "depth of nested folders"),
    LIVE("push-timeout", DURATION, push_timeout_s, "1h", "time to receive and check one push"),
    LIVE("checkout-size", SIZE, checkout_bytes, "10G", "bytes of a deployed tree"),
    LIVE("checkout-files", COUNT, checkout_files, "200000", "files of a deployed tree"),
    LIVE("spaces-per-user", COUNT, spaces_per_user, "1000", "Spaces that one user may own"),
    LIVE("replicas-max", COUNT, replicas_max, "4",
	 "instances that one Space may have, each with an app's limits; at most 16"),
    LIVE("keep-releases", COUNT, keep_releases, "5", "releases kept per Space for roll-back"),
    LIVE("domains-by", OWNERS, owners_add_domains, "admins",
	 "who may serve a Space at a host name of its own: admins, or owners too, who are believed to own it"),
    FIXED("id-base", COUNT, id_base, "1879048192", "first uid and gid of the ranges given to Spaces (2048 each)"),
};
#define NROWS (sizeof rows / sizeof *rows)

static int parse_number(const char *s, double *v, const char **rest)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	*v = strtod(s, &end);
	if (errno || end == s || memchr(s, 'x', (size_t)(end - s)) || memchr(s, 'X', (size_t)(end - s)))
		return -EINVAL;
	*rest = end;
	return 0;
}

int config_parse_size(const char *s, uint64_t *bytes)
{
	static const struct {
		const char *unit;
		uint64_t factor;
	} units[] = {{"", 1},
		     {"B", 1},
		     {"K", 1ULL << 10},
		     {"KB", 1ULL << 10},
		     {"KiB", 1ULL << 10},
		     {"M", 1ULL << 20},
		     {"MB", 1ULL << 20},
		     {"MiB", 1ULL << 20},
		     {"G", 1ULL << 30},
		     {"GB", 1ULL << 30},
		     {"GiB", 1ULL << 30},
		     {"T", 1ULL << 40},
		     {"TB", 1ULL << 40},
		     {"TiB", 1ULL << 40}};
	const char *rest;
	double v;

	if (parse_number(s, &v, &rest) < 0)
		return -EINVAL;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcasecmp(rest, units[i].unit) != 0)
			continue;
		v *= (double)units[i].factor;
		if (v > 9e18)
			return -EINVAL;
		*bytes = (uint64_t)v;
		return 0;
	}
	return -EINVAL;
}

int config_parse_duration(const char *s, uint32_t *seconds)
{
	static const struct {
		const char *unit;
		uint32_t factor;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}};
	const char *rest;
	double v;

	if (parse_number(s, &v, &rest) < 0)
		return -EINVAL;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(rest, units[i].unit) != 0)
			continue;
		v *= units[i].factor;
		if (v > UINT32_MAX)
			return -EINVAL;
		*seconds = (uint32_t)v;
		return 0;
	}
	return -EINVAL;
}

int config_parse_cpus(const char *s, uint32_t *milli)
{
	const char *rest;
	double v;

	if (parse_number(s, &v, &rest) < 0 || *rest || v > 4096)
		return -EINVAL;
	*milli = (uint32_t)(v * 1000 + 0.5);
	return 0;
}

int config_parse_count(const char *s, uint32_t *out)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	unsigned long v = strtoul(s, &end, 10);
	if (errno || *end || v > UINT32_MAX)
		return -EINVAL;
	*out = (uint32_t)v;
	return 0;
}

static const char *const kind_hint[] = {
    [TEXT] = "a text",
    [COUNT] = "a whole number",
    [SIZE] = "a size such as 512M or 1.5G",
    [DURATION] = "a time such as 90s, 30m or 1h",
    [CPUS] = "a number such as 1.5",
    [EGRESS] = "internet, list or none",
    [OWNERS] = "admins or owners",
};
static const char *const egress_names[] = {
    [EGRESS_NONE] = "none", [EGRESS_INTERNET] = "internet", [EGRESS_LIST] = "list"};

const char *config_egress_name(enum sandbox_egress e)
{
	return egress_names[e];
}

int config_parse_egress(const char *s, enum sandbox_egress *out)
{
	for (size_t i = 0; i < sizeof egress_names / sizeof *egress_names; i++) {
		if (strcmp(s, egress_names[i]) == 0) {
			*out = (enum sandbox_egress)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Entries between spaces or commas. */
static int set_list(char ***at, const struct option_row *row, const char *value, struct err *err)
{
	cleanup_free char *lines = xstrdup(value);

	for (char *p = lines; (p = strpbrk(p, " ,\t")) != NULL;)
		*p = '\n';
	char **list = egress_list_parse(STRZ(lines), err);
	if (!list)
		return err_prefix(err, "%s", row->name);
	egress_list_free(*at);
	*at = list;
	return 0;
}

static int set_value(struct config *c, const struct option_row *row, const char *value, struct err *err)
{
	void *at = (char *)c + row->offset;
	int r = 0;

	switch (row->kind) {
	case TEXT:
		free(*(char **)at);
		*(char **)at = xstrdup(value);
		break;
	case COUNT:
		r = config_parse_count(value, at);
		break;
	case SIZE:
		r = config_parse_size(value, at);
		break;
	case DURATION:
		r = config_parse_duration(value, at);
		break;
	case CPUS:
		r = config_parse_cpus(value, at);
		break;
	case EGRESS:
		r = config_parse_egress(value, at);
		break;
	case OWNERS:
		*(bool *)at = strcmp(value, "owners") == 0;
		r = *(bool *)at || strcmp(value, "admins") == 0 ? 0 : -EINVAL;
		break;
	case LIST:
		return set_list(at, row, value, err);
	}
	return r < 0 ? err_set(err, 0, "%s = `%s`: expected %s", row->name, value, kind_hint[row->kind]) : 0;
}

static const struct option_row *row_of(const char *name, size_t n)
{
	for (size_t i = 0; i < NROWS; i++)
		if (strlen(rows[i].name) == n && strncmp(rows[i].name, name, n) == 0)
			return &rows[i];
	return NULL;
}

/* Lines `name = value`, '#' starts a comment at the beginning of a line or after a space. */
static int load_file(struct config *c, const char *path, struct err *err)
{
	cleanup_file FILE *f = fopen(path, "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	unsigned no = 0;

	if (!f)
		return err_set(err, errno, "configuration file `%s`", path);
	while (getline(&line, &cap, f) >= 0) {
		no++;
		char *p = line;
		for (char *h = strchr(p, '#'); h; h = strchr(h + 1, '#'))
			if (h == p || isspace((unsigned char)h[-1])) {
				*h = '\0';
				break;
			}
		while (isspace((unsigned char)*p))
			p++;
		char *end = p + strlen(p);
		while (end > p && isspace((unsigned char)end[-1]))
			*--end = '\0';
		if (!*p)
			continue;
		char *eq = strchr(p, '=');
		if (!eq)
			return err_set(err, 0, "%s line %u: expected `name = value`", path, no);
		char *name_end = eq;
		while (name_end > p && isspace((unsigned char)name_end[-1]))
			name_end--;
		char *value = eq + 1;
		while (isspace((unsigned char)*value))
			value++;
		const struct option_row *row = row_of(p, (size_t)(name_end - p));
		if (!row)
			return err_set(err, 0, "%s line %u: no option `%.*s` (see spaced --help)", path, no,
				       (int)(name_end - p), p);
		if (set_value(c, row, value, err) < 0)
			return err_prefix(err, "%s line %u", path, no);
	}
	return 0;
}

static void help(void)
{
	puts("usage: spaced [--config FILE] [--OPTION VALUE]...\n\n"
	     "Runs a self-hosted \"Spaces\" in the foreground until SIGTERM (running apps stay up and are adopted by "
	     "the\n"
	     "next start) or SIGINT (running apps are stopped too). SIGHUP reads the file again; SIGUSR2 puts the "
	     "program\n"
	     "that is installed now in the place of this one. Neither drops a connection.\n\n"
	     "  --config FILE              lines `option = value`; the command line goes over the file\n"
	     "  --print-config             the effective configuration, as such a file\n"
	     "  --check                    says whether it could start so, and does not\n"
	     "  --help, --version\n\nOptions:");
	for (size_t i = 0; i < NROWS; i++)
		printf("  --%-24s %s%s%s%s\n", rows[i].name, rows[i].help, *rows[i].fallback ? " [" : "",
		       rows[i].fallback, *rows[i].fallback ? "]" : "");
	puts("\nExit status: 0 ended as asked; 1 it cannot start or go on, the reason is on stderr; 2 a wrong option.");
}

static int option_of(struct config *c, int argc, char **argv, int *i, bool *print, struct err *err)
{
	const char *arg = argv[*i];

	if (strcmp(arg, "--print-config") == 0) {
		*print = true;
		return 0;
	}
	if (strcmp(arg, "--check") == 0) {
		c->check = true;
		return 0;
	}
	if (strncmp(arg, "--", 2) != 0)
		return err_set(err, 0, "`%s`: expected an option that starts with -- (see spaced --help)", arg);
	const char *eq = strchr(arg, '=');
	const char *name = arg + 2;
	size_t n = eq ? (size_t)(eq - name) : strlen(name);
	const char *value = eq ? eq + 1 : NULL;
	const struct option_row *row = row_of(name, n);
	bool file = n == 6 && strncmp(name, "config", 6) == 0;
	if (!row && !file)
		return err_set(err, 0, "no option --%.*s (see spaced --help)", (int)n, name);
	if (!value) {
		if (*i + 1 >= argc)
			return err_set(err, 0, "%s needs a value (see spaced --help)", arg);
		value = argv[++*i];
	}
	return file ? 0 /* read before */ : set_value(c, row, value, err);
}

int config_load(struct config *c, int argc, char **argv, struct err *err)
{
	cleanup_free char *state = state_home();
	bool print = false;

	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < NROWS; i++)
		if (set_value(c, &rows[i], rows[i].fallback, err) < 0)
			return -1;
	if (state) {
		free(c->state);
		c->state = steal_ptr(&state);
	}
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			help();
			exit(0);
		}
		if (strcmp(argv[i], "--version") == 0) {
			puts("spaced " SPACED_VERSION);
			exit(0);
		}
		const char *file = NULL;
		if (strncmp(argv[i], "--config=", 9) == 0)
			file = argv[i] + 9;
		else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			file = argv[++i];
		if (file && load_file(c, file, err) < 0)
			return -1;
	}
	for (int i = 1; i < argc; i++)
		if (option_of(c, argc, argv, &i, &print, err) < 0)
			return -1;
	if (config_check(c, err) < 0)
		return -1;
	if (print) {
		cleanup_buf struct buf out = BUF_INIT;
		config_print(c, &out);
		fputs(out.data, stdout);
		exit(0);
	}
	return 0;
}

void config_release(struct config *c)
{
	for (size_t i = 0; i < NROWS; i++)
		if (rows[i].kind == TEXT)
			free(*(char **)((char *)c + rows[i].offset));
		else if (rows[i].kind == LIST)
			egress_list_free(*(char ***)((char *)c + rows[i].offset));
	memset(c, 0, sizeof *c);
}

/* As the file would say it. */
static void print_value(const struct config *c, const struct option_row *row, struct buf *out)
{
	const void *at = (const char *)c + row->offset;

	switch (row->kind) {
	case TEXT:
		buf_adds(out, *(char *const *)at);
		break;
	case COUNT:
		buf_addf(out, "%u", *(const uint32_t *)at);
		break;
	case SIZE:
		buf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case DURATION:
		buf_addf(out, "%us", *(const uint32_t *)at);
		break;
	case CPUS:
		buf_addf(out, "%u.%03u", *(const uint32_t *)at / 1000, *(const uint32_t *)at % 1000);
		break;
	case EGRESS:
		buf_adds(out, config_egress_name(*(const enum sandbox_egress *)at));
		break;
	case OWNERS:
		buf_adds(out, *(const bool *)at ? "owners" : "admins");
		break;
	case LIST:
		for (char *const *e = *(char **const *)at; e && *e; e++)
			buf_addf(out, "%s%s", e == *(char **const *)at ? "" : " ", *e);
		break;
	}
}

void config_print(const struct config *c, struct buf *out)
{
	for (size_t i = 0; i < NROWS; i++) {
		buf_addf(out, "# %s\n%s = ", rows[i].help, rows[i].name);
		print_value(c, &rows[i], out);
		buf_addc(out, '\n');
	}
}

void config_changes(const struct config *a, const struct config *b, enum config_change change, struct buf *names)
{
	for (size_t i = 0; i < NROWS; i++) {
		cleanup_buf struct buf x = BUF_INIT, y = BUF_INIT;
		buf_adds(&x, "");
		buf_adds(&y, "");
		print_value(a, &rows[i], &x);
		print_value(b, &rows[i], &y);
		if (rows[i].change == change && strcmp(x.data, y.data) != 0)
			buf_addf(names, "%s%s", names->len ? ", " : "", rows[i].name);
	}
}

void config_adopt(struct config *c, struct config *fresh)
{
	for (size_t i = 0; i < NROWS; i++) {
		static const size_t sizes[] = {
		    [TEXT] = sizeof(char *),	   [COUNT] = sizeof(uint32_t), [SIZE] = sizeof(uint64_t),
		    [DURATION] = sizeof(uint32_t), [CPUS] = sizeof(uint32_t),  [EGRESS] = sizeof(enum sandbox_egress),
		    [LIST] = sizeof(char **),	   [OWNERS] = sizeof(bool),
		};
		char *at = (char *)c + rows[i].offset, *from = (char *)fresh + rows[i].offset, kept[sizeof(uint64_t)];
		size_t n = sizes[rows[i].kind];
		if (rows[i].change != CONFIG_AT_RELOAD)
			continue;
		memcpy(kept, at, n);
		memcpy(at, from, n);
		memcpy(from, kept, n);
	}
}
