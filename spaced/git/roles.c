/* See roles.h. */
#include "spaced/git/roles.h"

#include <errno.h>
#include <git2.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

#define LIMIT(name, field)                                                                                             \
	{                                                                                                              \
		"--limit-" name, offsetof(struct role_args, field)                                                     \
	}
static const struct {
	const char *flag;
	size_t offset;
} limits[] = {
    LIMIT("pack-bytes", pack_bytes),
    LIMIT("inflated-bytes", inflated_bytes),
    LIMIT("object-bytes", object_bytes),
    LIMIT("objects", objects),
    LIMIT("refs", refs),
    LIMIT("ref-bytes", ref_bytes),
    LIMIT("path-bytes", path_bytes),
    LIMIT("tree-depth", tree_depth),
    LIMIT("timeout", timeout_s),
    LIMIT("checkout-bytes", checkout_bytes),
    LIMIT("checkout-files", checkout_files),
};
#define TEXT(flag, field)                                                                                              \
	{                                                                                                              \
		flag, offsetof(struct role_args, field), sizeof(((struct role_args *)0)->field)                        \
	}
static const struct {
	const char *flag;
	size_t offset, size;
} texts[] = {
    TEXT("--repos", repos),   TEXT("--repo", repo),	    TEXT("--commit", commit),
    TEXT("--prefix", prefix), TEXT("--protocol", protocol),
};

static bool take_value(struct role_args *a, const char *flag, const char *value)
{
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (strcmp(flag, texts[i].flag) != 0)
			continue;
		int n = snprintf((char *)a + texts[i].offset, texts[i].size, "%s", value);
		return n >= 0 && (size_t)n < texts[i].size;
	}
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		if (strcmp(flag, limits[i].flag) != 0)
			continue;
		char *end;
		errno = 0;
		*(uint64_t *)((char *)a + limits[i].offset) = strtoull(value, &end, 10);
		return !errno && *value >= '0' && *value <= '9' && !*end;
	}
	return !strcmp(flag, "--role");
}

bool role_repo_name_ok(const char *repo)
{
	size_t n = strlen(repo);

	return n > 4 && n < 64 && repo[0] != '.' && repo[0] != '-' && !strcmp(repo + n - 4, ".git") &&
	       strspn(repo, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

int role_args_parse(struct role_args *a, int argc, char **argv, struct err *err)
{
	*a = (struct role_args){0};
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--gzip"))
			a->gzip = true;
		else if (!strcmp(argv[i], "--advertise"))
			a->advertise = true;
		else if (i + 1 >= argc || !take_value(a, argv[i], argv[i + 1]))
			return err_set(err, 0, "bad argument `%s`", argv[i]);
		else
			i++;
	}
	if (a->repos[0] != '/' || !role_repo_name_ok(a->repo))
		return err_set(err, 0, "no repository named");
	return 0;
}

static int set_limit(__rlimit_resource_t what, uint64_t value, struct err *err)
{
	struct rlimit have;

	if (getrlimit(what, &have) < 0)
		return err_set(err, errno, "getrlimit");
	if (value > have.rlim_max)
		value = have.rlim_max;
	struct rlimit want = {value, value};
	return setrlimit(what, &want) < 0 ? err_set(err, errno, "setrlimit") : 0;
}

int role_limit(uint64_t memory, uint64_t cpu_s, uint64_t file_bytes, struct err *err)
{
#ifndef __SANITIZE_ADDRESS__ /* its shadow memory is 16 TB of addresses */
	if (set_limit(RLIMIT_AS, memory, err) < 0)
		return -1;
#endif
	if (set_limit(RLIMIT_CPU, cpu_s, err) < 0 || set_limit(RLIMIT_FSIZE, file_bytes, err) < 0 ||
	    set_limit(RLIMIT_NOFILE, 256, err) < 0 || set_limit(RLIMIT_CORE, 0, err) < 0)
		return -1;
	return 0;
}

void git_lib_init(void)
{
	static bool done;
	static const int levels[] = {GIT_CONFIG_LEVEL_PROGRAMDATA, GIT_CONFIG_LEVEL_SYSTEM, GIT_CONFIG_LEVEL_XDG,
				     GIT_CONFIG_LEVEL_GLOBAL};

	if (done)
		return;
	done = true;
	git_libgit2_init();
	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
		git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "");
	git_libgit2_opts(GIT_OPT_SET_TEMPLATE_PATH, "");
	git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 1);
	git_libgit2_opts(GIT_OPT_ENABLE_STRICT_SYMBOLIC_REF_CREATION, 1);
	git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 1);
	git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0); /* the folder is ours by the state folder's mode */
	/* A window maps part of a pack; the defaults (1 GiB each, 8 GiB together) do not fit our address space. */
	git_libgit2_opts(GIT_OPT_SET_MWINDOW_SIZE, (size_t)32 << 20);
	git_libgit2_opts(GIT_OPT_SET_MWINDOW_MAPPED_LIMIT, (size_t)256 << 20);
	git_libgit2_opts(GIT_OPT_SET_MWINDOW_FILE_LIMIT, (size_t)128);
	git_libgit2_opts(GIT_OPT_SET_CACHE_MAX_SIZE, (ssize_t)16 << 20);
}

int git_err(struct err *err, const char *doing)
{
	const git_error *e = git_error_last();

	return err_set(err, 0, "%s: %s", doing, e && e->message ? e->message : "failed");
}

struct arg_list {
	char *argv[64];
	int n;
};

static void add_arg(struct arg_list *l, char *arg)
{
	if (l->n < 63)
		l->argv[l->n++] = arg;
	else
		free(arg);
}

static void add_limit(struct arg_list *l, const char *name, uint64_t value)
{
	add_arg(l, xasprintf("--limit-%s", name));
	add_arg(l, xasprintf("%llu", (unsigned long long)value));
}

static void common_args(struct arg_list *l, const struct config *c, const char *role, const char *repo)
{
	add_arg(l, xstrdup("spaced"));
	add_arg(l, xstrdup("--role"));
	add_arg(l, xstrdup(role));
	add_arg(l, xstrdup("--repos"));
	add_arg(l, xasprintf("%s/" STATE_REPOS, c->state));
	add_arg(l, xstrdup("--repo"));
	add_arg(l, xstrdup(repo));
	add_limit(l, "pack-bytes", c->push_pack_bytes);
	add_limit(l, "inflated-bytes", c->push_inflated_bytes);
	add_limit(l, "object-bytes", c->push_object_bytes);
	add_limit(l, "objects", c->push_objects);
	add_limit(l, "refs", c->push_refs);
	add_limit(l, "ref-bytes", c->push_ref_bytes);
	add_limit(l, "path-bytes", c->push_path_bytes);
	add_limit(l, "tree-depth", c->push_tree_depth);
	add_limit(l, "timeout", c->push_timeout_s);
	add_limit(l, "checkout-bytes", c->checkout_bytes);
	add_limit(l, "checkout-files", c->checkout_files);
}

int role_spawn(uv_loop_t *loop, struct role_child *c, const struct config *config, const char *role, const char *repo,
	       const char *const *extra, uv_stdio_container_t *stdio, int nstdio, uv_exit_cb on_exit, struct err *err)
{
	struct arg_list l = {.n = 0};
	char *env[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", (char *)(uintptr_t) "LC_ALL=C.UTF-8", NULL};

	common_args(&l, config, role, repo);
	while (*extra)
		add_arg(&l, xstrdup(*extra++));
	uv_process_options_t o = {
	    .file = "/proc/self/exe",
	    .args = l.argv,
	    .env = env,
	    .exit_cb = on_exit,
	    .flags = UV_PROCESS_DETACHED, /* its own process group, so that all of it can be killed */
	    .stdio = stdio,
	    .stdio_count = nstdio,
	};
	int r = uv_spawn(loop, &c->process, &o);
	c->running = r == 0;
	for (int i = 0; i < l.n; i++)
		free(l.argv[i]);
	return r < 0 ? err_set(err, -r, "start the %s role", role) : 0;
}

void role_kill(struct role_child *c)
{
	if (c->running && c->process.pid > 0)
		kill(-c->process.pid, SIGKILL);
}
