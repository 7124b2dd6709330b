/* See quarantine.h. */
#include "spaced/git/quarantine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/git/refs.h"

#define PREFIX "quarantine-"
#define PACK_DIR "objects/pack"

static void remove_if_orphan(int repo_fd, const char *name)
{
	cleanup_close int fd = openat(repo_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		io_remove_tree(repo_fd, name);
}

static void sweep_quarantines(int repo_fd)
{
	int fd = openat(repo_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *e; d && (e = readdir(d));)
		if (!strncmp(e->d_name, PREFIX, strlen(PREFIX)))
			remove_if_orphan(repo_fd, e->d_name);
}

/* Only names that quarantine_accept makes, and only when the lock's mark says so: a pack that an operator's `git gc` is
 * just putting in its place has no index for a moment either. */
void quarantine_sweep_packs(int repo_fd)
{
	int fd = openat(repo_fd, PACK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *e; d && (e = readdir(d));) {
		size_t n = strlen(e->d_name);
		char idx[64];
		struct stat st;
		if (n != strlen("pack-.pack") + 40 || strncmp(e->d_name, "pack-", 5) != 0 ||
		    strcmp(e->d_name + n - 5, ".pack") != 0)
			continue;
		snprintf(idx, sizeof idx, "%.*s.idx", (int)(n - 5), e->d_name);
		if (fstatat(dirfd(d), idx, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
			unlinkat(dirfd(d), e->d_name, 0);
	}
}

int quarantine_open(struct quarantine *q, int repo_fd, struct err *err)
{
	char id[17];
	/* Made and locked while nobody else sweeps. */
	cleanup_close int lock = refs_lock(repo_fd, err);

	if (lock < 0)
		return -1;
	sweep_quarantines(repo_fd);
	io_random_hex(id, 8);
	snprintf(q->name, sizeof q->name, PREFIX "%s", id);
	if (mkdirat(repo_fd, q->name, 0700) < 0)
		return err_set(err, errno, "make the quarantine");
	q->fd = openat(repo_fd, q->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (q->fd < 0 || flock(q->fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, errno, "lock the quarantine");
	return 0;
}

void quarantine_remove(struct quarantine *q, int repo_fd)
{
	if (q->fd < 0)
		return;
	io_remove_tree(repo_fd, q->name);
	close(q->fd);
	q->fd = -1;
}

static int sync_file(int dirfd, const char *name, struct err *err)
{
	cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_set(err, errno, "sync the pack");
	return 0;
}

int quarantine_accept(struct quarantine *q, int repo_fd, int lock_fd, const char *name, struct err *err)
{
	cleanup_close int packs = openat(repo_fd, PACK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char pack[80], idx[80];
	struct stat st;

	if (packs < 0)
		return err_set(err, errno, "open " PACK_DIR);
	snprintf(pack, sizeof pack, "pack-%s.pack", name);
	snprintf(idx, sizeof idx, "pack-%s.idx", name);
	/* The same objects are there already: replacing one file of a live pair would break a reader. */
	if (fstatat(packs, idx, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (sync_file(q->fd, pack, err) < 0 || sync_file(q->fd, idx, err) < 0 || refs_mark(lock_fd, true, err) < 0)
		return -1;
	/* The index last: readers find packs by it. */
	if (renameat(q->fd, pack, packs, pack) < 0 || renameat(q->fd, idx, packs, idx) < 0 || fsync(packs) < 0)
		return err_set(err, errno, "move the pack in"); /* the mark stays: the next holder clears up */
	return refs_mark(lock_fd, false, err);
}
