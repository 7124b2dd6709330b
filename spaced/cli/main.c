/* spacectl: what an operator and scripts say to a running daemon. This file reads the command line by tables and calls
 * the verb. `spacectl --help` lists them all. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/state_home.h"
#include "spaced/cli/cli.h"

static const struct verb *const groups[] = {space_verbs, exec_verbs,  build_verbs,  base_verbs, domain_verbs,
					    user_verbs,	 token_verbs, access_verbs, host_verbs};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))
#define HELP_COLUMN 28

struct option {
	const char *name; /* in a verb's list of options */
	const char *longer, *shorter, *value, *help;
	size_t offset;
};
#define OPT(name, longer, shorter, value, field, help)                                                                 \
	{                                                                                                              \
		name, longer, shorter, value, help, offsetof(struct cli, field)                                        \
	}
static const struct option options[] = {
    OPT("admin", "--admin", NULL, NULL, admin, "the user may do everything, also to the Spaces of others"),
    OPT("label", "--label", NULL, "TEXT", label, "what the token is for"),
    OPT("factory", "--factory", NULL, NULL, factory, "build again without using layers of earlier builds"),
    OPT("build", "--build", NULL, NULL, build, "the log of the last build, not of the app"),
    OPT("follow", "--follow", "-f", NULL, follow, "go on showing what is added, until it ends"),
    OPT("tail", "--tail", "-n", "N", tail, "only the last N lines"),
    OPT("limit", "--limit", NULL, "N", limit, "at most N rows"),
    OPT("tty", "--tty", "-t", NULL, tty, "with a terminal of its own, for programs that want one"),
    OPT("cwd", "--cwd", NULL, "FOLDER", folder, "working folder inside; default: the app's"),
    OPT("suite", "--suite", NULL, "NAME", suite, "the release, as trixie; default: the host's own"),
    OPT("variant", "--variant", NULL, "NAME", variant,
	"full (default): compilers, git, node, npm; minimal: Python only"),
    OPT("packages", "--packages", NULL, "LIST", packages, "more packages, separated by commas"),
    OPT("mirror", "--mirror", NULL, "URL", mirror, "where from; default: as the host's apt"),
    OPT("yes", "--yes", "-y", NULL, yes, "do not ask"),
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

/* ---- help ---- */

static bool has_option(const struct verb *v, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = v->options; p && (p = strstr(p, name)); p += n)
		if ((p == v->options || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

/* "space logs OWNER/NAME", with `more` where options may stand: behind "--" all belongs to the command. */
static void synopsis(const struct verb *v, const char *more, struct buf *out)
{
	buf_adds(out, v->group);
	if (v->name)
		buf_addf(out, " %s", v->name);
	if (*v->words)
		buf_addf(out, " %s", v->words);
	buf_adds(out, more);
	if (has_option(v, "command"))
		buf_adds(out, " [-- COMMAND ARGUMENT...]");
}

/* A line of a list of verbs; a long synopsis has a line of its own. */
static void help_line(const struct verb *v, const char *before, FILE *to)
{
	cleanup_buf struct buf line = BUF_INIT;

	synopsis(v, "", &line);
	fprintf(to, "  %s%-*s", before, HELP_COLUMN, line.data);
	if (line.len > HELP_COLUMN)
		fprintf(to, "\n  %*s", (int)strlen(before) + HELP_COLUMN, "");
	fprintf(to, " %.*s\n", (int)strcspn(v->help, "\n"), v->help);
}

static void help_verb(const struct verb *v, FILE *to)
{
	cleanup_buf struct buf line = BUF_INIT;

	synopsis(v, v->options ? " [OPTION...]" : "", &line);
	fprintf(to, "usage: spacectl [--state DIR] [--json] %s\n\n%s\n", line.data, v->help);
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];
		char left[64];
		if (!v->options || !has_option(v, o->name))
			continue;
		snprintf(left, sizeof(left), "%s%s%s%s%s", o->shorter ? o->shorter : "", o->shorter ? ", " : "",
			 o->longer, o->value ? " " : "", o->value ? o->value : "");
		fprintf(to, "  %-16s %s\n", left, o->help);
	}
}

static void help_all(FILE *to)
{
	fputs("usage: spacectl [--state DIR] [--json] VERB ...\n"
	      "\n"
	      "Speaks to the `spaced` that runs on this machine, through the socket in its state folder.\n"
	      "\n"
	      "  --state DIR   its state folder; default: $SPACED_STATE, else ./var when a daemon's socket is there, "
	      "else\n"
	      "                an ordinary user's own ($XDG_STATE_HOME/spaced, ~/.local/state/spaced) if it is there, "
	      "else\n"
	      "                /var/lib/spaced\n"
	      "  --json        print JSON\n"
	      "  --help        this text; behind a verb: about that verb\n"
	      "  --version     print the version\n"
	      "\nVerbs:\n",
	      to);
	for (size_t g = 0; g < GROUPS; g++)
		for (const struct verb *v = groups[g]; v->run; v++)
			help_line(v, "", to);
	fputs("\nExit status: 0 done, 1 failed, 2 wrong usage.\n", to);
}

/* The verbs of one group: `spacectl space --help`. */
static bool help_group(const char *group, FILE *to)
{
	bool any = false;

	for (size_t g = 0; g < GROUPS; g++)
		for (const struct verb *v = groups[g]; v->run; v++) {
			if (strcmp(v->group, group) != 0)
				continue;
			if (!any)
				fputs("Verbs:\n", to);
			help_line(v, "spacectl ", to);
			any = true;
		}
	return any;
}

/* ---- the command line ---- */

struct line {
	bool help, version;
	const char *words[CLI_WORDS + 2]; /* with group and name */
	size_t n;
	const char *used[OPTIONS]; /* names of the options that were given */
	size_t nused;
};

static int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *fmt, ...)
{
	va_list ap;

	fputs("spacectl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry `spacectl --help`.\n", stderr);
	return CLI_USAGE;
}

/* Options may stand anywhere. The value of `--x VALUE` or `--x=VALUE`. */
static int take_option(struct cli *c, struct line *l, int argc, char **argv, int *i)
{
	const char *arg = argv[*i], *eq = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
	size_t n = eq ? (size_t)(eq - arg) : strlen(arg);

	if (n == 7 && !strncmp(arg, "--state", n)) {
		c->state = eq ? eq + 1 : *i + 1 < argc ? argv[++*i] : "";
		return *c->state ? 0 : usage("%s needs a folder", "--state");
	}
	for (size_t k = 0; k < OPTIONS; k++) {
		const struct option *o = &options[k];
		bool is =
		    (strlen(o->longer) == n && !strncmp(arg, o->longer, n)) || (o->shorter && !strcmp(arg, o->shorter));
		if (!is)
			continue;
		l->used[l->nused++] = o->name;
		if (l->nused == OPTIONS)
			return usage("too many options at `%s`", arg);
		if (!o->value) {
			if (eq)
				return usage("`%s` takes no value", o->longer);
			*(bool *)((char *)c + o->offset) = true;
			return 0;
		}
		const char *v = eq ? eq + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (!v)
			return usage("`%s` needs a value", o->longer);
		*(const char **)((char *)c + o->offset) = v;
		return 0;
	}
	return usage("there is no option `%s`", arg);
}

static const struct verb *find_verb(const struct line *l, size_t *words)
{
	for (size_t g = 0; g < GROUPS; g++)
		for (const struct verb *v = groups[g]; v->run; v++) {
			*words = v->name ? 2 : 1;
			if (l->n >= *words && !strcmp(l->words[0], v->group) &&
			    (!v->name || !strcmp(l->words[1], v->name)))
				return v;
		}
	return NULL;
}

static int read_line(struct cli *c, struct line *l, int argc, char **argv)
{
	bool only_words = false;
	const struct verb *v;
	size_t skip;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		int rc = 0;
		if (only_words || arg[0] != '-' || !arg[1]) {
			if (l->n == CLI_WORDS + 2)
				return usage("too much at `%s`", arg);
			l->words[l->n++] = arg;
		} else if (!strcmp(arg, "--") && (v = find_verb(l, &skip)) && has_option(v, "command")) {
			c->command = argv + i + 1;
			return 0;
		} else if (!strcmp(arg, "--")) {
			only_words = true;
		} else if (!strcmp(arg, "--json")) {
			c->json = true;
		} else if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			l->help = true;
		} else if (!strcmp(arg, "--version")) {
			l->version = true;
		} else {
			rc = take_option(c, l, argc, argv, &i);
		}
		if (rc)
			return rc;
	}
	return 0;
}

static const char *default_state(void)
{
	const char *env = getenv("SPACED_STATE");
	struct stat st;

	if (env && *env)
		return env;
	if (stat("var/control.sock", &st) == 0 && S_ISSOCK(st.st_mode))
		return "var";
	/* kept until the end of the program */
	static char *home;
	home = state_home();
	return home && stat(home, &st) == 0 ? home : "/var/lib/spaced";
}

static int run_verb(struct cli *c, const struct line *l, const struct verb *v, size_t skip)
{
	c->nwords = l->n - skip;
	memcpy(c->word, l->words + skip, c->nwords * sizeof(*c->word));
	for (size_t i = 0; i < l->nused; i++)
		if (!v->options || !has_option(v, l->used[i]))
			return usage("this verb has no option `--%s`", l->used[i]);
	if (c->nwords < v->min || c->nwords > v->max) {
		help_verb(v, stderr);
		return CLI_USAGE;
	}
	if (!c->state)
		c->state = default_state();
	return v->run(c);
}

int main(int argc, char **argv)
{
	struct cli c = {0};
	struct line l = {0};
	size_t skip;

	io_keep_stdio();
	int rc = read_line(&c, &l, argc, argv);
	if (rc)
		return rc;
	if (l.version) {
		puts("spacectl " SPACED_VERSION);
		return CLI_OK;
	}
	if (!l.n) {
		help_all(l.help ? stdout : stderr);
		return l.help ? CLI_OK : CLI_USAGE;
	}
	const struct verb *v = find_verb(&l, &skip);
	if (v && l.help) {
		help_verb(v, stdout);
		return CLI_OK;
	}
	if (v) {
		rc = run_verb(&c, &l, v, skip);
		/* A full disk or a closed pipe behind `>` must not look like success. */
		if (fflush(stdout) != 0 && rc == CLI_OK)
			return complain("write: %s", strerror(errno));
		return rc;
	}
	if (l.n == 1 && help_group(l.words[0], l.help ? stdout : stderr))
		return l.help ? CLI_OK : CLI_USAGE;
	return usage("there is no verb `%s`", l.words[l.n > 1]);
}
