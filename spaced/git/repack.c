/* The repack role: makes one pack of a repository's many, in the background. Stock `git pack-objects` writes it into a
 * quarantine; then, under the repository's lock, it moves in and the old ones go, those whose every object it holds.
 * (`git repack -d` would put it in place and delete without our lock.) Unreachable objects are kept: a push that is being
 * checked right now may build on them. Started by maintain.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <git2.h>
#include <git2/sys/odb_backend.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/log.h"
#include "spaced/git/git.h"
#include "spaced/git/quarantine.h"
#include "spaced/git/refs.h"
#include "spaced/git/roles.h"

#define PACK_DIR "objects/pack"
#define TMP_OLD_S (2 * 3600) /* longer than any repack may take */

struct pack_name {
	char hash[41];
	bool covered; /* the new pack holds all of it */
};

struct repack {
	char path[4200];
	int repo_fd;
	struct quarantine quarantine;
	struct pack_name *packs;
	size_t n;
	char hash[41]; /* of the new pack */
};

static bool has(int dir, const char *hash, const char *ext)
{
	char name[64];
	struct stat st;

	snprintf(name, sizeof name, "pack-%s%s", hash, ext);
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* Whole packs that no operator has marked (.keep) or made a special one (.mtimes, .promisor). */
static int list_packs(struct repack *r, struct err *err)
{
	int fd = openat(r->repo_fd, PACK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		return err_set(err, errno, "open " PACK_DIR);
	for (struct dirent *e; (e = readdir(d));) {
		struct pack_name p = {.covered = false};
		if (strlen(e->d_name) != strlen("pack-.idx") + 40 || strncmp(e->d_name, "pack-", 5) != 0 ||
		    strcmp(e->d_name + 45, ".idx") != 0)
			continue;
		memcpy(p.hash, e->d_name + 5, 40);
		if (!receive_is_oid(STRZ(p.hash)) || !has(dirfd(d), p.hash, ".pack") ||
		    has(dirfd(d), p.hash, ".keep") || has(dirfd(d), p.hash, ".mtimes") ||
		    has(dirfd(d), p.hash, ".promisor"))
			continue;
		r->packs = xreallocarray(r->packs, r->n + 1, sizeof *r->packs);
		r->packs[r->n++] = p;
	}
	return 0;
}

/* git writes its temporary files there; those of one that was killed are nobody's. */
static void sweep_tmp(int repo_fd)
{
	int fd = openat(repo_fd, PACK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *e; d && (e = readdir(d));) {
		struct stat st;
		if (strncmp(e->d_name, "tmp_", 4) == 0 && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && st.st_mtime < time(NULL) - TMP_OLD_S)
			unlinkat(dirfd(d), e->d_name, 0);
	}
}

static void exec_git(const struct repack *r, const char *git, int out)
{
	cleanup_free char *dir = xasprintf("--git-dir=%s", r->path);
	cleanup_free char *base = xasprintf("%s/%s/pack", r->path, r->quarantine.name);
	const char *const args[] = {git,
				    dir,
				    "pack-objects",
				    "--all",
				    "--keep-unreachable",
				    "--honor-pack-keep",
				    "--local",
				    "--non-empty",
				    "--delta-base-offset",
				    "--quiet",
				    base,
				    NULL};

	if (dup2(out, 1) >= 0)
		execve(git, (char **)(uintptr_t)args, git_child_env(r->path, ""));
	_exit(127);
}

/* Its output is the pack's name. */
static int pack_objects(struct repack *r, struct err *err)
{
	const char *git = git_find();
	char text[64];
	size_t n = 0;
	ssize_t k;
	int p[2], status;

	if (!git)
		return err_set(err, ENOENT, "no git on this host");
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe");
	pid_t pid = fork();
	if (pid == 0)
		exec_git(r, git, p[1]);
	close(p[1]);
	while (pid > 0 && n < sizeof text &&
	       ((k = read(p[0], text + n, sizeof text - n)) > 0 || (k < 0 && errno == EINTR)))
		n += k > 0 ? (size_t)k : 0;
	close(p[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return err_set(err, errno, "run git");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, 0, "git pack-objects ended with status %d", status);
	if (n != 41 || text[40] != '\n' || !receive_is_oid((struct str){text, 40}))
		return err_set(err, 0, "git pack-objects made no pack");
	memcpy(r->hash, text, 40);
	return 0;
}

static git_odb *open_pack(const struct repack *r, const char *dir, const char *hash, struct err *err)
{
	cleanup_free char *idx = xasprintf("%s/%s/pack-%s.idx", r->path, dir, hash);
	git_odb_backend *b;
	git_odb *odb;

	if (git_odb_new(&odb) < 0) {
		git_err(err, "open a pack");
		return NULL;
	}
	if (git_odb_backend_one_pack(&b, idx) < 0 || git_odb_add_backend(odb, b, 1) < 0) {
		git_err(err, "open a pack");
		git_odb_free(odb);
		return NULL;
	}
	return odb;
}

static int is_missing(const git_oid *id, void *ctx)
{
	return git_odb_exists_ext(ctx, id, GIT_ODB_LOOKUP_NO_REFRESH) ? 0 : 1;
}

/* What git says is not enough to delete anything: each object is looked up in the new pack. */
static int mark_covered(struct repack *r, struct err *err)
{
	git_odb *new = open_pack(r, r->quarantine.name, r->hash, err);

	if (!new)
		return -1;
	for (size_t i = 0; i < r->n; i++) {
		git_odb *old = open_pack(r, PACK_DIR, r->packs[i].hash, err);
		if (!old)
			continue; /* somebody else was faster; nothing to delete then */
		r->packs[i].covered = git_odb_foreach(old, is_missing, new) == 0;
		git_odb_free(old);
	}
	git_odb_free(new);
	return 0;
}

static int replace_packs(struct repack *r, struct err *err)
{
	/* The index first, as git does it: a pack without one is not looked into. */
	static const char *const parts[] = {".idx", ".pack", ".rev", ".bitmap"};
	cleanup_close int packs = openat(r->repo_fd, PACK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int lock = refs_lock(r->repo_fd, err);

	if (packs < 0)
		return err_set(err, errno, "open " PACK_DIR);
	if (lock < 0 || quarantine_accept(&r->quarantine, r->repo_fd, lock, r->hash, err) < 0 ||
	    refs_mark(lock, true, err) < 0)
		return -1;
	unlinkat(packs, "multi-pack-index", 0); /* an operator's; it names packs that go */
	for (size_t i = 0; i < r->n; i++) {
		for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
			char name[64];
			snprintf(name, sizeof name, "pack-%s%s", r->packs[i].hash, parts[k]);
			if (r->packs[i].covered && strcmp(r->packs[i].hash, r->hash) != 0)
				unlinkat(packs, name, 0);
		}
	}
	return refs_mark(lock, false, err);
}

static int confine_self(const struct role_args *a, const char *path, struct err *err)
{
	struct confine_path paths[] = {
	    {.path = path, .write = true},
	    {.path = "/usr", .exec = true},
	    {.path = "/bin", .exec = true},
	    {.path = "/lib", .exec = true},
	    {.path = "/lib64", .exec = true},
	    {.path = "/etc/ld.so.cache"},
	    {.path = "/dev/null", .write = true},
	    {.path = "/dev/urandom"},
	    /* for names of temporary files */ {.path = NULL},
	};

	if (role_limit((3ULL << 30) + a->object_bytes, 10 * a->timeout_s, UINT64_MAX, err) < 0)
		return -1;
	return confine_files(paths, err) < 0 || confine_syscalls(PROMISE_FILES | PROMISE_EXEC, err) < 0 ? -1 : 0;
}

static int run(struct repack *r, struct err *err)
{
	if (list_packs(r, err) < 0)
		return -1;
	if (r->n < 2)
		return 0;
	sweep_tmp(r->repo_fd);
	if (quarantine_open(&r->quarantine, r->repo_fd, err) < 0 || pack_objects(r, err) < 0 ||
	    mark_covered(r, err) < 0)
		return -1;
	return replace_packs(r, err);
}

int git_repack_main(int argc, char **argv)
{
	struct repack r = {.repo_fd = -1, .quarantine = QUARANTINE_INIT};
	struct role_args a;
	struct err err = ERR_INIT;

	log_init("repack", LOG_LEVEL_INFO);
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	git_lib_init();
	if (role_args_parse(&a, argc, argv, &err) < 0) {
		log_error("%s", err.msg);
		return 2;
	}
	snprintf(r.path, sizeof r.path, "%s/%s", a.repos, a.repo);
	r.repo_fd = open(r.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (setpriority(PRIO_PROCESS, 0, 19) < 0)
		log_warn("runs at normal priority: %m");
	int status = r.repo_fd < 0 ? err_set(&err, errno, "open the repository") : confine_self(&a, r.path, &err);
	if (status == 0)
		status = run(&r, &err);
	if (status < 0)
		log_error("%s: %s", a.repo, err.msg);
	quarantine_remove(&r.quarantine, r.repo_fd);
	free(r.packs);
	return status < 0 ? 1 : 0;
}
