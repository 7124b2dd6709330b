/* See logfile.h. */
#include "spaced/build/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

char *logfile_build(const struct config *c, const char *build_id)
{
	return xasprintf("%s/%s/build-%s.log", c->state, STATE_LOGS, build_id);
}

char *logfile_run(const struct config *c, const char *space_id, uint32_t generation)
{
	return xasprintf("%s/%s/run-%s-%u.log", c->state, STATE_LOGS, space_id, generation);
}

int logfile_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? -errno : fd;
}

/* A full disk must not end a build by its log: what cannot be written is lost. */
static void write_all(int fd, const struct buf *b)
{
	if (fd >= 0 && b->len)
		(void)io_write_full(fd, b->data, b->len);
}

void logfile_printf(int fd, const char *fmt, ...)
{
	cleanup_buf struct buf b = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&b, fmt, ap);
	va_end(ap);
	write_all(fd, &b);
}

void logfile_append(const char *path, const char *fmt, ...)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_close int fd = logfile_open(path);
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&b, fmt, ap);
	va_end(ap);
	write_all(fd, &b);
}

off_t logfile_size(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : 0;
}

void logfile_tail(const char *path, off_t from, size_t max, unsigned lines, struct buf *out)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	off_t size = logfile_size(path);

	if (fd < 0 || size <= from)
		return;
	if ((size_t)(size - from) > max)
		from = size - (off_t)max;
	cleanup_buf struct buf b = BUF_INIT;
	buf_reserve(&b, (size_t)(size - from));
	ssize_t n = pread(fd, b.data, (size_t)(size - from), from);
	if (n <= 0)
		return;
	size_t at = (size_t)n;
	if (b.data[at - 1] == '\n')
		at--;
	while (at > 0 && (b.data[at - 1] != '\n' || --lines > 0))
		at--;
	buf_add(out, b.data + at, (size_t)n - at);
}

void logfile_time(char out[32])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
}
