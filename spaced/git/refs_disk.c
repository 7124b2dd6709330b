/* See refs.h: reading and replacing the refs on disk. */
#include "spaced/git/refs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/git/quarantine.h"

#define PACKED "packed-refs"
#define PACKED_NEW "packed-refs.lock" /* the name under which git itself would lock it */
#define LOCK "spaced.lock"
#define MAX_PACKED_REFS (256U << 20)
#define MAX_LOOSE_DEPTH 32

int refs_head(int repo_fd, char *out, size_t size, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	int r = io_read_file(repo_fd, "HEAD", 4096, &text);

	if (r < 0)
		return err_set(err, -r, "read HEAD");
	struct str s = pkt_chomp((struct str){text.data ? text.data : "", text.len});
	if (s.n < 6 || memcmp(s.p, "ref: ", 5) != 0 || s.n - 5 >= size)
		return err_set(err, 0, "HEAD is not a symbolic ref");
	memcpy(out, s.p + 5, s.n - 5);
	out[s.n - 5] = '\0';
	return 0;
}

static void read_loose_file(int dir, const char *entry, const char *name, struct ref_table *t)
{
	cleanup_buf struct buf text = BUF_INIT;

	if (io_read_file(dir, entry, 4096, &text) < 0 || !text.data)
		return;
	struct str s = pkt_chomp((struct str){text.data, text.len});
	char oid[41] = "";
	if (!receive_is_oid(s)) /* a symbolic ref below refs/: not ours, left alone */
		return;
	memcpy(oid, s.p, 40);
	struct ref *have = ref_table_find(t, name);
	if (!have || strcmp(have->oid, oid) != 0)
		ref_table_put(t, name, oid);
}

/* Takes over `fd`. */
static void read_loose(int fd, const char *path, int depth, struct ref_table *t)
{
	cleanup_dir DIR *d = fdopendir(fd);

	if (!d) {
		close(fd);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		size_t n = strlen(e->d_name);
		if (e->d_name[0] == '.' || (n > 5 && !strcmp(e->d_name + n - 5, ".lock")))
			continue;
		cleanup_free char *name = xasprintf("%s/%s", path, e->d_name);
		int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0)
			read_loose_file(dirfd(d), e->d_name, name, t);
		else if (depth < MAX_LOOSE_DEPTH)
			read_loose(sub, name, depth + 1, t);
		else
			close(sub);
	}
}

int refs_read(int repo_fd, struct ref_table *t, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	int r = io_read_file(repo_fd, PACKED, MAX_PACKED_REFS, &text);

	if (r < 0 && r != -ENOENT)
		return err_set(err, -r, "read " PACKED);
	if (text.len && ref_table_parse(t, (struct str){text.data, text.len}, err) < 0)
		return -1;
	int fd = openat(repo_fd, "refs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, errno, "open refs");
	read_loose(fd, "refs", 0, t);
	return 0;
}

/* While somebody changes refs, LOCK holds a byte. Found there by the next holder, it says that the writer was killed,
 * so the lock file of packed-refs is nobody's. (Without it, it belongs to an operator's git.) */
static void recover(int repo_fd, int lock_fd)
{
	struct stat st;

	if (fstat(lock_fd, &st) == 0 && st.st_size > 0) {
		unlinkat(repo_fd, PACKED_NEW, 0);
		quarantine_sweep_packs(repo_fd);
		if (ftruncate(lock_fd, 0) < 0)
			return; /* tried again by the next one */
	}
}

int refs_mark(int lock_fd, bool set, struct err *err)
{
	if (set ? pwrite(lock_fd, "w", 1, 0) != 1 : ftruncate(lock_fd, 0) < 0)
		return err_set(err, errno, "mark the repository's lock");
	return 0;
}

int refs_lock(int repo_fd, struct err *err)
{
	cleanup_close int fd = openat(repo_fd, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set(err, errno, "open the repository's lock");
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_set(err, errno, "lock the repository");
	recover(repo_fd, fd);
	return steal_fd(&fd);
}

static int write_new(int repo_fd, const struct ref_table *t, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_close int fd = -1;

	/* An operator's `git gc` holds it for moments only. */
	for (int tries = 0; tries < 50; tries++) {
		fd = openat(repo_fd, PACKED_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0 || errno != EEXIST)
			break;
		usleep(100000);
	}
	if (fd < 0)
		return err_set(err, errno, "lock " PACKED);
	ref_table_print(t, &text);
	int r = io_write_full(fd, text.data, text.len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(repo_fd, PACKED_NEW, repo_fd, PACKED) < 0)
		r = -errno;
	if (r == 0 && fsync(repo_fd) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(repo_fd, PACKED_NEW, 0);
		return err_set(err, -r, "write " PACKED);
	}
	return 0;
}

int refs_write(int repo_fd, int lock_fd, const struct ref_table *t, const struct receive *r, struct err *err)
{
	if (refs_mark(lock_fd, true, err) < 0)
		return -1;
	int done = write_new(repo_fd, t, err);
	if (done == 0)
		done = refs_mark(lock_fd, false, err);
	else if (ftruncate(lock_fd, 0) < 0)
		return done; /* the next holder clears it */
	/* A loose file wins over packed-refs; only an operator's git can have made one. */
	for (size_t i = 0; done == 0 && i < r->ncommands; i++)
		if (!r->commands[i].error)
			unlinkat(repo_fd, r->commands[i].name, 0);
	return done;
}
