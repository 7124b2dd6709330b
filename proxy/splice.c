/* Large bodies from socket to socket through a pipe of the worker, without a copy: half the CPU time of read and write. The
 * pipe is empty again after each call: what the receiver does not take is read out and kept like any other rest, so that
 * one pipe serves all connections. Called by relay.c. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "proxy/worker.h"

#define ROOM (4 * BLOCK_SIZE)

void splice_init(struct worker *w)
{
	/* SPACED_NO_SPLICE: the way without it, for tests. */
	if (getenv("SPACED_NO_SPLICE") || pipe2(w->pipe, O_NONBLOCK | O_CLOEXEC) < 0) {
		w->pipe[0] = w->pipe[1] = -1;
		return;
	}
	/* In slots of a page; each takes one fragment of a packet, and most are smaller. */
	fcntl(w->pipe[1], F_SETPIPE_SZ, ROOM);
}

static void give_up(struct worker *w)
{
	close(w->pipe[0]);
	close(w->pipe[1]);
	w->pipe[0] = w->pipe[1] = -1;
}

/* The rest of what is in the pipe: kept as pending, or dropped when `to` is broken. */
static int read_out(struct worker *w, struct conn *to, size_t left, bool broken)
{
	while (left) {
		uv_buf_t b = uv_buf_init(conn_block(w), BLOCK_SIZE);
		ssize_t n = read(w->pipe[0], b.base, left < b.len ? left : b.len);
		if (n <= 0)
			return -EPIPE;
		left -= (size_t)n;
		b.len = (size_t)n;
		if (!broken && conn_write(to, &b, 1) < 0)
			broken = true;
	}
	return broken ? -EPIPE : 0;
}

ssize_t conn_splice(struct conn *from, struct conn *to, uint64_t max)
{
	struct worker *w = from->w;

	if (w->pipe[0] < 0 || from->closing || from->eof || from->in.len || to->closing || to->shut || to->pending ||
	    max == 0)
		return -EAGAIN;
	ssize_t n =
	    splice(from->fd, NULL, w->pipe[1], NULL, max < ROOM ? max : ROOM, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n <= 0) {
		if (n < 0 && (errno == EINVAL || errno == EPERM || errno == ENOSYS))
			give_up(w);
		return -EAGAIN; /* an end or an error is seen by the next read */
	}
	size_t left = (size_t)n;
	ssize_t k = 0;
	while (left && (k = splice(w->pipe[0], NULL, to->fd, NULL, left, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)) > 0)
		left -= (size_t)k;
	bool broken = k < 0 && errno != EAGAIN && errno != EINVAL;
	if (left && read_out(w, to, left, broken) < 0)
		return -EPIPE;
	return n;
}
