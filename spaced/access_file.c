/* See access_file.h. */
#include "spaced/access_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

#define COMPLAIN_MS 60000

struct access_file {
	uv_loop_t *loop;
	int dir, fd; /* fd: -1 after a failure, opened again by the next batch */
	uint64_t size, half;
	unsigned under_way;
	bool closing;
	uint64_t complained;
	void (*written)(void *ctx, uint64_t peer, uint32_t lost);
	void *ctx;
};

struct batch {
	uv_work_t work;
	struct access_file *file;
	uint64_t peer;
	uint32_t lines;
	int fd; /* its own: the log may be given another one meanwhile */
	int result;
	size_t n;
	char bytes[];
};

static void complain(struct access_file *l, int error)
{
	uint64_t now = io_now_ms();

	if (l->complained && now - l->complained < COMPLAIN_MS)
		return;
	l->complained = now;
	log_error("access log: %s; lines are lost", strerror(error));
}

static int open_current(struct access_file *l)
{
	struct stat st;

	l->fd = openat(l->dir, ACCESS_LOG_NAME, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (l->fd < 0 || fstat(l->fd, &st) < 0)
		return -errno;
	l->size = (uint64_t)st.st_size;
	return 0;
}

struct access_file *access_file_new(uv_loop_t *loop, const char *folder, uint64_t room,
				    void (*written)(void *ctx, uint64_t peer, uint32_t lost), void *ctx,
				    struct err *err)
{
	struct access_file *l = xcalloc(1, sizeof *l);

	l->loop = loop;
	l->half = room / 2;
	l->written = written;
	l->ctx = ctx;
	l->fd = -1;
	l->dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = l->dir < 0 ? -errno : open_current(l);
	if (r < 0) {
		err_set(err, -r, "access log in `%s`", folder);
		access_file_free(l);
		return NULL;
	}
	return l;
}

static void release(struct access_file *l)
{
	if (l->fd >= 0)
		close(l->fd);
	if (l->dir >= 0)
		close(l->dir);
	free(l);
}

void access_file_free(struct access_file *l)
{
	if (!l)
		return;
	l->closing = true;
	if (!l->under_way)
		release(l);
}

/* While a daemon makes way for a newer one both write here: what the other has turned over is only opened anew. */
static int rotate(struct access_file *l)
{
	struct stat mine, named;
	bool by_other = fstat(l->fd, &mine) == 0 &&
			fstatat(l->dir, ACCESS_LOG_NAME, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
			mine.st_ino != named.st_ino;

	if (!by_other && renameat(l->dir, ACCESS_LOG_NAME, l->dir, ACCESS_LOG_OLD) < 0)
		return -errno; /* then nothing is written: its room is a promise */
	close(l->fd);
	l->fd = -1;
	return 0;
}

static void write_now(uv_work_t *work)
{
	struct batch *b = (struct batch *)work;

	b->result = io_write_full(b->fd, b->bytes, b->n);
}

static void batch_end(struct batch *b, int result)
{
	struct access_file *l = b->file;

	if (b->fd >= 0)
		close(b->fd);
	if (result < 0)
		complain(l, -result);
	if (!l->closing)
		l->written(l->ctx, b->peer, result < 0 ? b->lines : 0);
	l->under_way--;
	if (l->closing && !l->under_way)
		release(l);
	free(b);
}

static void after_write(uv_work_t *work, int status)
{
	struct batch *b = (struct batch *)work;

	batch_end(b, status < 0 ? status : b->result);
}

void access_file_write(struct access_file *l, uint64_t peer, struct str bytes, uint32_t lines)
{
	struct batch *b = xcalloc(1, sizeof *b + bytes.n);
	int r = 0;

	b->file = l;
	b->peer = peer;
	b->lines = lines;
	b->n = bytes.n;
	memcpy(b->bytes, bytes.p, bytes.n);
	l->under_way++;
	/* Not under writes, so that a reader who sees the new file has all of the old one; but neither without end. */
	bool full = l->size > 0 && l->size + bytes.n > l->half;
	if (l->fd >= 0 && full && (l->under_way == 1 || l->size > 2 * l->half))
		r = rotate(l);
	if (r == 0 && l->fd < 0)
		r = open_current(l);
	b->fd = r < 0 ? -1 : fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	if (r == 0 && b->fd < 0)
		r = -errno;
	if (r == 0)
		r = uv_queue_work(l->loop, &b->work, write_now, after_write);
	if (r < 0) {
		batch_end(b, r);
		return;
	}
	l->size += bytes.n;
}
