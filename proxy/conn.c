/* Reading into the worker's block and writing with the rest kept: what clients and upstreams share. See worker.h.
 *
 * Edge-triggered: epoll says once that there is something, and `readable` keeps it until a read shows that there is no more. */
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/worker.h"

#define KEEP_BLOCKS 16
#define READS 16 /* in a row: then others have their turn */
#define INPUT (EPOLLIN | EPOLLPRI | EPOLLRDHUP)
/* With these a short read is not the last one. Urgent data: a read stops before it. */
#define MORE (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)

/* What the kernel did not take yet. */
struct outgoing {
	struct outgoing *next;
	struct block *block; /* one read block that the bytes lie in, or NULL: they were copied */
	unsigned first, n;   /* of `bufs`: the next one to send, and how many there are */
	uv_buf_t bufs[];     /* the copied bytes lie behind them */
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

char *conn_block(struct worker *w)
{
	if (!w->block)
		w->block = block_new(w);
	return w->block->data;
}

static int watch(struct conn *c, uint32_t events)
{
	events |= EPOLLET;
	if (events == c->watched)
		return 0;
	int r = loop_watch(c->w, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, events, &c->source);
	if (r == 0)
		c->watched = events;
	return r;
}

void conn_read_start(struct conn *c)
{
	if (c->reading || c->eof || c->closing)
		return;
	c->reading = true;
	if (c->readable || !(c->watched & INPUT))
		turn_put_off(c);
}

void conn_read_stop(struct conn *c)
{
	c->reading = false;
}

static void take_input(struct conn *c, char *p, ssize_t n)
{
	if (n <= 0) {
		c->reading = false;
		c->eof = true;
	}
	if (c->is_client)
		client_input((struct client *)c, p, n);
	else
		upstream_input((struct upstream *)c, p, n);
}

/* One to an app that no request has can only end: that is looked at out of turn, before a request takes it in vain. */
static bool is_idle(const struct conn *c)
{
	return !c->is_client && !((const struct upstream *)c)->x;
}

/* It may be read, at least once. */
static void read_some(struct conn *c)
{
	for (int i = 0; i < READS && c->reading && c->readable && (i == 0 || is_idle(c) || turn_may_read(c)); i++) {
		char *block = conn_block(c->w);
		ssize_t n = recv(c->fd, block, BLOCK_SIZE, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->readable = c->more = false;
			return;
		}
		if (n < BLOCK_SIZE && !c->more)
			c->readable = false;
		take_input(c, block, n < 0 ? -errno : n);
	}
	if (c->reading && c->readable)
		turn_put_off(c);
}

/* All bytes are with the kernel. While it takes more at once nobody is to be woken for its room. */
static void drained(struct conn *c)
{
	watch(c, c->watched & ~(uint32_t)EPOLLOUT);
	if (c->shut)
		shutdown(c->fd, SHUT_WR);
	if (c->is_client)
		client_drained((struct client *)c);
	else
		upstream_drained((struct upstream *)c);
}

static void drop_outgoing(struct conn *c)
{
	struct outgoing *o = c->out;

	c->out = o->next;
	if (o->block)
		block_free(c->w, o->block);
	free(o);
}

static void write_failed(struct conn *c)
{
	while (c->out)
		drop_outgoing(c);
	c->pending = 0;
	if (c->is_client)
		client_failed((struct client *)c);
	else
		upstream_broken((struct upstream *)c);
}

/* Not write(2), which on a socket goes through the layer of files first. Bytes, or negative errno. */
static ssize_t send_now(struct conn *c, uv_buf_t *bufs, unsigned n, int flags)
{
	struct msghdr m = {.msg_iov = (struct iovec *)bufs, .msg_iovlen = n};
	ssize_t r;

	flags |= MSG_NOSIGNAL | MSG_DONTWAIT;
	do
		r = n == 1 ? send(c->fd, bufs->base, bufs->len, flags) : sendmsg(c->fd, &m, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* Takes `sent` bytes from the front of bufs[at..n]; the index of the first one that is left. */
static unsigned skip(uv_buf_t *bufs, unsigned at, unsigned n, size_t sent)
{
	while (at < n && sent >= bufs[at].len)
		sent -= bufs[at++].len;
	if (at < n) {
		bufs[at].base += sent;
		bufs[at].len -= sent;
	}
	return at;
}

static void write_more(struct conn *c)
{
	while (c->out) {
		struct outgoing *o = c->out;
		ssize_t sent = send_now(c, o->bufs + o->first, o->n - o->first, 0);
		if (sent == -EAGAIN)
			return;
		if (sent < 0) {
			write_failed(c);
			return;
		}
		c->pending -= (size_t)sent;
		o->first = skip(o->bufs, o->first, o->n, (size_t)sent);
		if (o->first < o->n)
			return;
		drop_outgoing(c);
	}
	drained(c);
}

/* Keeps what the kernel did not take. Few bytes are copied; many stay in the block they were read into, which then goes
 * with them, and the worker reads into another one. */
static int write_rest(struct conn *c, const uv_buf_t *bufs, unsigned n, size_t total)
{
	struct worker *w = c->w;
	const char *lo = w->block ? w->block->data : NULL;
	size_t copied = 0;
	bool steal = total > BLOCK_SIZE / 4 && lo != NULL;
	struct outgoing **end = &c->out;
	int r = watch(c, c->watched | EPOLLOUT);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		if (!steal || bufs[i].base < lo || bufs[i].base >= lo + BLOCK_SIZE)
			copied += bufs[i].len;
	struct outgoing *o = xmalloc(sizeof *o + n * sizeof *bufs + copied);
	char *at = (char *)(o->bufs + n);
	*o = (struct outgoing){.n = n};
	for (unsigned i = 0; i < n; i++) {
		o->bufs[i] = bufs[i];
		if (steal && bufs[i].base >= lo && bufs[i].base < lo + BLOCK_SIZE) {
			o->block = w->block;
			continue;
		}
		memcpy(at, bufs[i].base, bufs[i].len);
		o->bufs[i].base = at;
		at += bufs[i].len;
	}
	if (o->block)
		w->block = NULL;
	while (*end)
		end = &(*end)->next;
	*end = o;
	c->pending += total;
	return 0;
}

static int write_with(struct conn *c, uv_buf_t *bufs, unsigned n, int flags)
{
	size_t total = 0, done = 0;

	if (c->closing || c->shut)
		return -EPIPE;
	for (unsigned i = 0; i < n; i++)
		total += bufs[i].len;
	if (total == 0)
		return 0;
	if (c->pending == 0) {
		ssize_t r = send_now(c, bufs, n, flags);
		if (r < 0 && r != -EAGAIN)
			return (int)r;
		done = r < 0 ? 0 : (size_t)r;
	}
	if (done == total)
		return 0;
	unsigned i = skip(bufs, 0, n, done);
	return write_rest(c, bufs + i, n - i, total - done);
}

int conn_write(struct conn *c, uv_buf_t *bufs, unsigned n)
{
	return write_with(c, bufs, n, 0);
}

int conn_write_last(struct conn *c, uv_buf_t *bufs, unsigned n)
{
	return write_with(c, bufs, n, MSG_MORE);
}

void conn_shutdown(struct conn *c)
{
	if (c->shut || c->closing)
		return;
	c->shut = true;
	if (c->pending == 0)
		shutdown(c->fd, SHUT_WR);
}

void conn_keepalive(struct conn *c)
{
	int on = 1, seconds = 60;

	setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
}

void conn_acknowledge(struct conn *c)
{
	int on = 1;

	setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void connected(struct conn *c)
{
	int error = 0;
	socklen_t len = sizeof error;

	c->connecting = false;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	upstream_connected((struct upstream *)c, -error);
}

static void on_ready(struct source *s, uint32_t events)
{
	struct conn *c = (struct conn *)s;

	if (c->connecting || c->out)
		turn_is_of(c);
	if (c->connecting && !c->closing)
		connected(c);
	if (c->out && !c->closing && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		write_more(c);
	if (events & (EPOLLIN | MORE))
		c->readable = true;
	if (events & MORE)
		c->more = true;
	/* Who does not read for longer is not to be woken by each packet. */
	if (c->readable && !c->reading && !c->closing)
		watch(c, c->watched & ~(uint32_t)INPUT);
	if (c->reading && c->readable) {
		if (!is_idle(c) && (turn_shared(c->w) || !turn_may_read(c)))
			turn_put_off(c);
		else
			read_some(c);
	}
	/* It is gone, and no read will tell while the other side does not take what it has sent. */
	if (events & EPOLLERR && c->is_client && !c->reading && !c->closing)
		client_failed((struct client *)c);
}

void conn_open(struct conn *c, struct worker *w, int fd)
{
	c->source.ready = on_ready;
	c->w = w;
	c->fd = fd;
	c->readable = c->is_client;
}

int conn_connect(struct conn *c, const struct sockaddr *sa, socklen_t len)
{
	if (connect(c->fd, sa, len) < 0 && errno != EINPROGRESS)
		return -errno;
	c->connecting = true;
	return watch(c, INPUT | EPOLLOUT);
}

int conn_connect_again(struct conn *c, const struct sockaddr *sa, socklen_t len)
{
	static const struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct tcp_info info;
	socklen_t ilen = sizeof info, elen = sizeof(int);
	int error;

	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &ilen) < 0 || info.tcpi_state != TCP_SYN_SENT)
		return 0;
	/* connect(2): dissolves it. What that leaves as the socket's error would be taken for the next one's. */
	if (connect(c->fd, &none, sizeof none) < 0)
		return -errno;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &elen);
	return connect(c->fd, sa, len) < 0 && errno != EINPROGRESS ? -errno : 0;
}

void conn_close(struct conn *c, bool reset)
{
	static const struct linger none = {.l_onoff = 1};

	if (c->closing)
		return;
	deadline_clear(c);
	c->closing = true;
	c->reading = false;
	if (reset && !c->shut)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
	/* The spawner may hold a socket of its own making for a moment longer, and so would epoll. */
	if (c->watched && !c->is_client)
		loop_watch(c->w, EPOLL_CTL_DEL, c->fd, 0, NULL);
	close(c->fd);
	c->fd = -1;
	if (c->put_off)
		return;
	c->put_off = true;
	c->next = c->w->closed;
	c->w->closed = c;
}

static void free_conn(struct conn *c)
{
	while (c->out)
		drop_outgoing(c);
	buf_release(&c->in);
	free(c);
}

/* Read before it is watched: most clients have said something by then. */
static void serve(struct conn *c)
{
	if (c->closing) {
		free_conn(c);
		return;
	}
	if (c->is_client && c->in.len)
		client_resume((struct client *)c);
	read_some(c);
	if (!c->closing && (c->reading || !c->watched) && watch(c, c->watched | INPUT) < 0)
		take_input(c, NULL, -ENOMEM);
}

void conn_later(struct worker *w)
{
	struct conn *c, *next;

	turn_serve(w, serve);
	for (c = w->closed, w->closed = NULL; c; c = next) {
		next = c->next;
		free_conn(c);
	}
}
