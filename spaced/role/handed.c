/* See handed.h. */
#include "spaced/role/handed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define FIRST 3
static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"};

/* A whole decimal number up to `max`; -1: none. */
static long number(const char *s, long max)
{
	char *end;

	if (!s || *s < '0' || *s > '9')
		return -1;
	errno = 0;
	long v = strtol(s, &end, 10);
	return errno || *end || v > max ? -1 : v;
}

int handed_parse(struct handed *h, const char *fds, const char *names, struct err *err)
{
	long n = number(fds, HANDED_MAX);

	h->n = 0;
	if (n < 0)
		return err_set(err, 0, "LISTEN_FDS = `%s`: expected a number up to %d", fds ? fds : "", HANDED_MAX);
	for (long i = 0; i < n; i++) {
		struct handed_fd *f = &h->at[h->n++];
		size_t len = names ? strcspn(names, ":") : 0;
		if (len >= sizeof f->name)
			return err_set(err, 0, "LISTEN_FDNAMES: a name of more than %zu characters",
				       sizeof f->name - 1);
		if (len)
			memcpy(f->name, names, len);
		f->name[len] = '\0';
		f->fd = FIRST + (int)i;
		if (names)
			names += len + (names[len] == ':');
	}
	return 0;
}

static void clean_environment(void)
{
	for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
}

int handed_receive(struct handed *h, struct err *err)
{
	h->n = 0;
	if (number(getenv("LISTEN_PID"), LONG_MAX) != getpid())
		return 0;
	int r = handed_parse(h, getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), err);
	clean_environment();
	for (size_t i = 0; r == 0 && i < h->n; i++)
		if (fcntl(h->at[i].fd, F_SETFD, FD_CLOEXEC) < 0)
			r = err_set(err, errno, "descriptor %d that came with the start (LISTEN_FDS)", h->at[i].fd);
	return r;
}

int handed_take(struct handed *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++) {
		if (h->at[i].fd < 0 || strcmp(h->at[i].name, name) != 0)
			continue;
		int fd = h->at[i].fd;
		h->at[i].fd = -1;
		return fd;
	}
	return -1;
}

void handed_add(struct handed *h, const char *name, int fd)
{
	if (h->n == HANDED_MAX || strlen(name) >= HANDED_NAME)
		abort(); /* the caller's tables are smaller */
	snprintf(h->at[h->n].name, HANDED_NAME, "%s", name);
	h->at[h->n++].fd = fd;
}

static void set_environment(const struct handed *h)
{
	cleanup_buf struct buf names = BUF_INIT;
	char pid[16], n[16];

	buf_adds(&names, "");
	for (size_t i = 0; i < h->n; i++)
		buf_addf(&names, "%s%s", i ? ":" : "", h->at[i].name);
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	snprintf(n, sizeof n, "%zu", h->n);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", n, 1);
	setenv("LISTEN_FDNAMES", names.data, 1);
}

int handed_exec(const struct handed *h, const char *path, char **argv, struct err *err)
{
	int copies[HANDED_MAX];
	size_t n = 0;
	int saved;

	while (n < h->n && (copies[n] = fcntl(h->at[n].fd, F_DUPFD_CLOEXEC, HANDED_ABOVE)) >= 0)
		n++;
	saved = errno;
	if (n == h->n) {
		for (size_t i = 0; i < n; i++)
			dup2(copies[i], FIRST + (int)i);
		set_environment(h);
		execv(path, argv);
		saved = errno;
		clean_environment();
		for (size_t i = 0; i < n; i++)
			close(FIRST + (int)i);
		for (size_t i = 0; i < n; i++)
			dup3(copies[i], h->at[i].fd, O_CLOEXEC);
	}
	while (n > 0)
		close(copies[--n]);
	return err_set(err, saved, "become %s", path);
}
