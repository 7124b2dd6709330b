/* Reading into the worker's block and writing with the rest kept: what clients and upstreams share. See worker.h. */
#include <errno.h>
#include <sys/socket.h>

#include "proxy/worker.h"

#define KEEP_BLOCKS 16

struct outgoing {
	uv_write_t req;
	struct conn *c;
	struct block *block; /* one read block that the bytes lie in, or NULL: they were copied */
	size_t n;
	char copy[];
};

static struct block *block_new(struct worker *w)
{
	struct block *b = w->free_blocks;

	if (!b)
		return xmalloc(sizeof *b);
	w->free_blocks = b->next;
	w->nfree_blocks--;
	return b;
}

static void block_free(struct worker *w, struct block *b)
{
	if (w->nfree_blocks >= KEEP_BLOCKS) {
		free(b);
		return;
	}
	b->next = w->free_blocks;
	w->free_blocks = b;
	w->nfree_blocks++;
}

void conn_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct worker *w = h->loop->data;

	if (!w->block)
		w->block = block_new(w);
	*buf = uv_buf_init(w->block->data, BLOCK_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

void conn_read_start(struct conn *c)
{
	if (c->reading || c->eof || c->closing)
		return;
	c->reading = uv_read_start(&c->stream, conn_alloc, on_read) == 0;
}

void conn_read_stop(struct conn *c)
{
	if (!c->reading)
		return;
	uv_read_stop(&c->stream);
	c->reading = false;
}

static void on_written(uv_write_t *req, int status)
{
	struct outgoing *o = (struct outgoing *)req;
	struct conn *c = o->c;

	c->pending -= o->n;
	if (o->block)
		block_free(c->w, o->block);
	free(o);
	if (c->closing)
		return;
	if (status < 0 && c->is_client)
		client_failed((struct client *)c);
	else if (status < 0)
		upstream_broken((struct upstream *)c);
	else if (c->pending == 0 && c->is_client)
		client_drained((struct client *)c);
	else if (c->pending == 0)
		upstream_drained((struct upstream *)c);
}

/* Keeps what the kernel did not take. Few bytes are copied; many stay in the block they were read into, which then goes
 * with them, and the worker reads into another one. */
static int write_rest(struct conn *c, uv_buf_t *bufs, unsigned n, size_t total)
{
	struct worker *w = c->w;
	const char *lo = w->block ? w->block->data : NULL;
	size_t copied = 0;
	bool steal = total > BLOCK_SIZE / 4 && lo != NULL;

	for (unsigned i = 0; i < n; i++)
		if (!steal || bufs[i].base < lo || bufs[i].base >= lo + BLOCK_SIZE)
			copied += bufs[i].len;
	struct outgoing *o = xmalloc(sizeof *o + copied);
	char *at = o->copy;
	o->c = c;
	o->block = NULL;
	o->n = total;
	for (unsigned i = 0; i < n; i++) {
		if (steal && bufs[i].base >= lo && bufs[i].base < lo + BLOCK_SIZE) {
			o->block = w->block;
			continue;
		}
		memcpy(at, bufs[i].base, bufs[i].len);
		bufs[i].base = at;
		at += bufs[i].len;
	}
	if (o->block)
		w->block = NULL;
	int r = uv_write(&o->req, &c->stream, bufs, n, on_written);
	if (r < 0) {
		if (o->block)
			block_free(w, o->block);
		free(o);
		return r;
	}
	c->pending += total;
	return 0;
}

/* Not uv_try_write: write(2) on a socket goes through the layer of files first. Bytes, or negative errno. */
static ssize_t send_now(struct conn *c, uv_buf_t *bufs, unsigned n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)bufs, .msg_iovlen = n};
	ssize_t r;
	int fd;

	uv_fileno(&c->handle, &fd);
	do
		r = n == 1 ? send(fd, bufs->base, bufs->len, MSG_NOSIGNAL | MSG_DONTWAIT)
			   : sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

int conn_write(struct conn *c, uv_buf_t *bufs, unsigned n)
{
	size_t total = 0, done = 0;

	if (c->closing || c->shut)
		return -EPIPE;
	for (unsigned i = 0; i < n; i++)
		total += bufs[i].len;
	if (total == 0)
		return 0;
	if (c->pending == 0) {
		ssize_t r = send_now(c, bufs, n);
		if (r < 0 && r != -EAGAIN)
			return (int)r;
		done = r < 0 ? 0 : (size_t)r;
	}
	if (done == total)
		return 0;
	unsigned i = 0;
	size_t skip = done;
	while (skip >= bufs[i].len)
		skip -= bufs[i++].len;
	bufs[i].base += skip;
	bufs[i].len -= skip;
	return write_rest(c, bufs + i, n - i, total - done);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
	free(req);
}

void conn_shutdown(struct conn *c)
{
	if (c->shut || c->closing)
		return;
	c->shut = true;
	uv_shutdown_t *req = xmalloc(sizeof *req);
	if (uv_shutdown(req, &c->stream, on_shutdown) < 0)
		free(req);
}

static void on_closed(uv_handle_t *h)
{
	struct conn *c = (struct conn *)h;

	buf_release(&c->in);
	free(c);
}

void conn_close(struct conn *c, bool reset)
{
	if (c->closing)
		return;
	deadline_clear(c);
	c->closing = true;
	c->reading = false;
	if (reset && !c->shut && c->handle.type == UV_TCP && uv_tcp_close_reset(&c->tcp, on_closed) == 0)
		return;
	uv_close(&c->handle, on_closed);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct conn *c = (struct conn *)stream;

	if (n == 0 || c->closing)
		return;
	if (n < 0) {
		conn_read_stop(c);
		c->eof = true;
	}
	if (c->is_client)
		client_input((struct client *)c, buf->base, n);
	else
		upstream_input((struct upstream *)c, buf->base, n);
}
