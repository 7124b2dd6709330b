/* The upload-pack role: confines itself to one repository, read-only, and becomes stock `git upload-pack`, which serves
 * fetches 8 to 24 times faster than libgit2 can. Started by fetch.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/git/git.h"
#include "spaced/git/inflate.h"
#include "spaced/git/roles.h"

#define REQUEST_MAX (32U << 20)

/* Configuration that no file of the repository or of a user can change (CVE-2024-41956, -32004, -32465 classes). */
static const struct {
	const char *key, *value;
} settings[] = {
    {"uploadpack.allowFilter", "true"},
    {"uploadpack.advertiseBundleURIs", "false"},
    {"core.hooksPath", "/dev/null"},
    {"core.alternateRefsCommand", ""},
    {"pack.threads", "1"},
    {"pack.windowMemory", "128m"},
    {"core.packedGitWindowSize", "32m"},
    {"core.packedGitLimit", "512m"},
};
#define NSETTINGS (sizeof settings / sizeof *settings)

/* The environment, made from nothing. HOME is not set at all: git then looks for no file of a user. */
char **git_child_env(const char *path, const char *protocol)
{
	char **env = xcalloc(2 * NSETTINGS + 16, sizeof *env);
	size_t n = 0;

	env[n++] = xstrdup("PATH=/usr/local/bin:/usr/bin:/bin");
	env[n++] = xstrdup("LC_ALL=C.UTF-8");
	env[n++] = xstrdup("GIT_CONFIG_NOSYSTEM=1");
	env[n++] = xstrdup("GIT_CONFIG_GLOBAL=/dev/null");
	env[n++] = xstrdup("GIT_ATTR_NOSYSTEM=1");
	env[n++] = xstrdup("GIT_NO_LAZY_FETCH=1");
	if (protocol[0])
		env[n++] = xasprintf("GIT_PROTOCOL=%s", protocol);
	env[n++] = xasprintf("GIT_CONFIG_COUNT=%zu", NSETTINGS + 1);
	for (size_t i = 0; i < NSETTINGS; i++) {
		env[n++] = xasprintf("GIT_CONFIG_KEY_%zu=%s", i, settings[i].key);
		env[n++] = xasprintf("GIT_CONFIG_VALUE_%zu=%s", i, settings[i].value);
	}
	env[n++] = xasprintf("GIT_CONFIG_KEY_%zu=safe.directory", NSETTINGS);
	env[n++] = xasprintf("GIT_CONFIG_VALUE_%zu=%s", NSETTINGS, path);
	return env;
}

static int sink(void *ctx, const void *p, size_t n, struct err *err)
{
	int r = io_write_full(*(int *)ctx, p, n);

	return r < 0 ? err_set(err, -r, "write to git") : 0;
}

/* Child: inflates descriptor 0 into the pipe. An error simply ends git's input: it then refuses the request. */
static void inflate_into(int out)
{
	struct inflate gz;
	struct err err = ERR_INIT;
	char room[16384];
	ssize_t n;

	if (inflate_init(&gz, REQUEST_MAX, &err) < 0)
		return;
	while ((n = read(0, room, sizeof room)) > 0)
		if (inflate_feed(&gz, room, (size_t)n, sink, &out, &err) < 0)
			return;
}

static int inflate_stdin(struct err *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe");
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, errno, "fork");
	if (pid == 0) {
		close(p[0]);
		close(1); /* or the answer would not end before we do */
		inflate_into(p[1]);
		_exit(0);
	}
	close(p[1]);
	return dup2(p[0], 0) < 0 ? err_set(err, errno, "dup2") : 0;
}

const char *git_find(void)
{
	static const char *const places[] = {"/usr/bin/git", "/usr/local/bin/git", "/bin/git"};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

static int confine_self(const struct role_args *a, const char *path, struct err *err)
{
	struct confine_path paths[] = {
	    {.path = path},
	    {.path = "/usr", .exec = true},
	    {.path = "/bin", .exec = true},
	    {.path = "/lib", .exec = true},
	    {.path = "/lib64", .exec = true},
	    {.path = "/etc/ld.so.cache"},
	    {.path = "/dev/null", .write = true},
	    {.path = NULL},
	};

	/* git refuses to run with a closed descriptor 0..2, so all are open here; FSIZE 0: it writes to pipes only */
	if (role_limit((3ULL << 30) + a->object_bytes, a->timeout_s, 0, err) < 0)
		return -1;
	return confine_files(paths, err) < 0 || confine_syscalls(PROMISE_FILES | PROMISE_EXEC, err) < 0 ? -1 : 0;
}

int git_upload_pack_main(int argc, char **argv)
{
	struct role_args a;
	struct err err = ERR_INIT;
	char path[4200];
	const char *git = git_find();

	log_init("upload-pack", LOG_LEVEL_INFO);
	if (!git) {
		log_error("no git on this host");
		return 2;
	}
	if (role_args_parse(&a, argc, argv, &err) < 0) {
		log_error("%s", err.msg);
		return 2;
	}
	snprintf(path, sizeof path, "%s/%s", a.repos, a.repo);
	if (confine_self(&a, path, &err) < 0 || (a.gzip && inflate_stdin(&err) < 0)) {
		log_error("%s", err.msg);
		return 2;
	}
	const char *args[] = {git, "upload-pack", "--strict", "--stateless-rpc", path, NULL, NULL};
	if (a.advertise) {
		args[4] = "--http-backend-info-refs";
		args[5] = path;
	}
	execve(git, (char **)(uintptr_t)args, git_child_env(path, a.protocol));
	log_error("exec git: %s", strerror(errno));
	return 2;
}
