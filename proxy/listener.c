/* Listening sockets: accepting, and an end that loses nobody who waits in them. */
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "proxy/worker.h"

#define ACCEPTS 4 /* of a flood, in one turn of the loop: those who are in have their turns between */

int listener_init(struct listener *l, struct worker *w, int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} sa = {.in6 = {0}};
	socklen_t len = sizeof sa;
	int on = 1, off = 0;

	l->w = w;
	l->fd = fd;
	if (getsockname(fd, &sa.any, &len) < 0)
		return -errno;
	/* sin_port and sin6_port lie at the same place. */
	l->port = ntohs(sa.in.sin_port);
	/* Accepted sockets inherit these. Without quick ACKs the answer acknowledges the request, not a packet of its own. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
	return 0;
}

int listener_resume(struct listener *l)
{
	if (!l->listening || l->watched)
		return 0;
	int r = loop_watch(l->w, EPOLL_CTL_ADD, l->fd, EPOLLIN, &l->source);
	l->watched = r == 0;
	return r;
}

/* Somebody else may hold the socket too, so that closing it would not do. */
static void unwatch(struct listener *l)
{
	if (l->watched)
		loop_watch(l->w, EPOLL_CTL_DEL, l->fd, 0, NULL);
	l->watched = false;
}

/* False: nobody waits, or nobody can be taken now. */
static bool accept_one(struct listener *l)
{
	union {
		struct sockaddr any;
		struct sockaddr_storage storage;
	} sa;
	socklen_t len = sizeof sa;
	int fd = accept4(l->fd, &sa.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0)
		client_new(l, fd, &sa.any);
	return fd >= 0 || errno == ECONNABORTED || errno == EINTR;
}

static void on_visitors(struct source *s, uint32_t events)
{
	struct listener *l = (struct listener *)s;

	for (int i = 0; l->watched && turn_may_accept(l->w); i++) {
		if (i == ACCEPTS) {
			turn_share(l->w);
			return;
		}
		if (accept_one(l))
			continue;
		if (errno != EAGAIN)
			unwatch(l); /* no descriptor or memory for one more: asked again with the next tick */
		return;
	}
}

int listener_start(struct listener *l)
{
	l->source.ready = on_visitors;
	if (listen(l->fd, LISTEN_BACKLOG) < 0)
		return -errno;
	l->listening = true;
	return listener_resume(l);
}

/* What the kernel has accepted for us: with the socket it would be reset. No more than was there: they may go on to come as
 * fast as they are taken. */
static void take_queue(struct listener *l)
{
	for (int i = 0; i <= LISTEN_BACKLOG && accept_one(l); i++)
		;
}

void listener_close(struct listener *l)
{
	unwatch(l);
	if (l->listening)
		take_queue(l);
	l->listening = false;
	close(l->fd);
}
