/* Repositories on disk: making, removing, and the few reads that control does (tips, README, content keys). What is read
 * here has passed check.c on its way in. */
#include <errno.h>
#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/git/git.h"
#include "spaced/git/refs.h"
#include "spaced/git/roles.h"

static int open_repos(const char *repos, const char *repo, struct err *err)
{
	if (!role_repo_name_ok(repo))
		return err_set(err, EINVAL, "repository `%s`", repo);
	int fd = open(repos, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_set(err, errno, "open `%s`", repos) : fd;
}

/* The parts of a bare repository, gitrepository-layout(5); no hooks, no templates. */
static int fill(int fd)
{
	static const char *const dirs[] = {"objects", "objects/pack", "objects/info",
					   "refs",    "refs/heads",   "refs/tags"};
	static const char config[] = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";
	static const char head[] = "ref: refs/heads/main\n";
	int r = 0;

	for (size_t i = 0; i < sizeof dirs / sizeof *dirs && r == 0; i++)
		r = io_mkdir(fd, dirs[i], 0700);
	if (r == 0)
		r = io_write_file(fd, "config", config, sizeof config - 1, 0600);
	if (r == 0)
		r = io_write_file(fd, "HEAD", head, sizeof head - 1, 0600);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

int git_repo_create(const char *repos, const char *repo, struct err *err)
{
	cleanup_close int dir = open_repos(repos, repo, err), fd = -1;
	char tmp[32] = "tmp-", id[17];
	struct stat st;

	if (dir < 0)
		return -1;
	if (fstatat(dir, repo, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	/* Whole or not at all: made under another name. */
	io_random_hex(id, 8);
	memcpy(tmp + 4, id, sizeof id);
	if (mkdirat(dir, tmp, 0700) < 0)
		return err_set(err, errno, "make repository `%s`", repo);
	fd = openat(dir, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? -errno : fill(fd);
	if (r == 0 && renameat(dir, tmp, dir, repo) < 0)
		r = -errno;
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	if (r < 0) {
		io_remove_tree(dir, tmp);
		if (r != -EEXIST && r != -ENOTEMPTY) /* somebody else was faster */
			return err_set(err, -r, "make repository `%s`", repo);
	}
	return 0;
}

int git_repo_remove(const char *repos, const char *repo, struct err *err)
{
	cleanup_close int dir = open_repos(repos, repo, err);

	if (dir < 0)
		return -1;
	int r = io_remove_tree(dir, repo);
	return r < 0 ? err_set(err, -r, "remove repository `%s`", repo) : 0;
}

int git_repo_branch(const char *repos, const char *repo, const char *branch, char oid[41], struct err *err)
{
	cleanup_ref_table struct ref_table table = {0};
	cleanup_free char *name = xasprintf("refs/heads/%s", branch);
	cleanup_close int dir = open_repos(repos, repo, err), fd = -1;

	if (dir < 0)
		return -1;
	fd = openat(dir, repo, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, errno, "open repository `%s`", repo);
	if (refs_read(fd, &table, err) < 0)
		return -1;
	struct ref *ref = ref_table_find(&table, name);
	if (!ref)
		return err_set(err, ENOENT, "branch `%s`", branch);
	memcpy(oid, ref->oid, 41);
	return 0;
}

struct lookup {
	git_odb *odb;
	git_repository *repo;
	git_tree *tree; /* of the commit */
};

static void lookup_release(struct lookup *l)
{
	git_tree_free(l->tree);
	git_repository_free(l->repo);
	git_odb_free(l->odb);
}
#define cleanup_lookup __attribute__((cleanup(lookup_release)))

static int open_commit(struct lookup *l, const char *repos, const char *repo, const char *commit, struct err *err)
{
	cleanup_free char *objects = xasprintf("%s/%s/objects", repos, repo);
	git_commit *c = NULL;
	git_oid id;

	git_lib_init();
	if (!role_repo_name_ok(repo) || !receive_is_oid(STRZ(commit)))
		return err_set(err, EINVAL, "commit `%s` of `%s`", commit, repo);
	if (git_odb_open(&l->odb, objects) < 0 || git_repository_wrap_odb(&l->repo, l->odb) < 0)
		return git_err(err, "open repository");
	int r = git_oid_fromstr(&id, commit);
	if (r == 0)
		r = git_commit_lookup(&c, l->repo, &id);
	if (r == 0)
		r = git_commit_tree(&l->tree, c);
	git_commit_free(c);
	if (r == GIT_ENOTFOUND)
		return err_set(err, ENOENT, "commit `%s`", commit);
	return r < 0 ? git_err(err, "read commit") : 0;
}

static int find_entry(struct lookup *l, const char *path, git_tree_entry **e, struct err *err)
{
	int r = git_tree_entry_bypath(e, l->tree, path);

	if (r == GIT_ENOTFOUND)
		return err_set(err, ENOENT, "`%s`", path);
	return r < 0 ? git_err(err, "find a path") : 0;
}

int git_repo_read(const char *repos, const char *repo, const char *commit, const char *path, size_t max,
		  struct buf *out, struct err *err)
{
	cleanup_lookup struct lookup l = {0};
	git_tree_entry *e = NULL;
	git_odb_object *o = NULL;
	git_object_t type;
	size_t size;

	if (open_commit(&l, repos, repo, commit, err) < 0 || find_entry(&l, path, &e, err) < 0)
		return -1;
	git_oid id = *git_tree_entry_id(e);
	git_filemode_t mode = git_tree_entry_filemode(e);
	git_tree_entry_free(e);
	if (mode == GIT_FILEMODE_TREE || mode == GIT_FILEMODE_COMMIT)
		return err_set(err, EISDIR, "`%s`", path);
	if (mode == GIT_FILEMODE_LINK) /* never followed: `README.md -> /etc/shadow` */
		return err_set(err, ELOOP, "`%s` is a symbolic link", path);
	if (git_odb_read_header(&size, &type, l.odb, &id) < 0)
		return git_err(err, "read a file");
	if (size > max)
		return err_set(err, EFBIG, "`%s`", path);
	if (git_odb_read(&o, l.odb, &id) < 0)
		return git_err(err, "read a file");
	buf_add(out, git_odb_object_data(o), git_odb_object_size(o));
	git_odb_object_free(o);
	return 0;
}

int git_repo_entry(const char *repos, const char *repo, const char *commit, const char *path, char oid[41],
		   bool *is_dir, struct err *err)
{
	cleanup_lookup struct lookup l = {0};
	git_tree_entry *e = NULL;

	if (open_commit(&l, repos, repo, commit, err) < 0)
		return -1;
	if (!path[0]) {
		git_oid_tostr(oid, 41, git_tree_id(l.tree));
		*is_dir = true;
		return 0;
	}
	if (find_entry(&l, path, &e, err) < 0)
		return -1;
	git_oid_tostr(oid, 41, git_tree_entry_id(e));
	*is_dir = git_tree_entry_filemode(e) == GIT_FILEMODE_TREE;
	git_tree_entry_free(e);
	return 0;
}
