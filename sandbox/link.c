/* See link.h: frames in and out, and answers that wait for their reader. */
#include "sandbox/link.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

struct reply {
	struct reply *next;
	uint32_t type, id;
	struct buf payload;
	int fds[FRAME_MAX_FDS];
	int nfds;
};

static void reply_free(struct reply *r)
{
	for (int i = 0; i < r->nfds; i++)
		close(r->fds[i]);
	buf_release(&r->payload);
	free(r);
}

static void link_interest(struct link *l)
{
	struct epoll_event e = {.events = l->first ? EPOLLOUT : EPOLLIN, .data.ptr = &l->src};
	epoll_ctl(l->s->epfd, EPOLL_CTL_MOD, l->src.fd, &e);
}

void link_send(struct link *l, uint32_t type, uint32_t id, const struct buf *payload, int *fds, int nfds)
{
	struct reply **at = &l->first;
	int r = -EAGAIN;

	if (!*at)
		r = frame_send(l->src.fd, type, id, payload ? payload->data : NULL, payload ? payload->len : 0, fds,
			       nfds);
	if (frame_again(r)) {
		struct reply *q = xcalloc(1, sizeof *q);
		*q = (struct reply){.type = type, .id = id, .nfds = nfds};
		if (payload)
			buf_add(&q->payload, payload->data, payload->len);
		for (int i = 0; i < nfds; i++)
			q->fds[i] = fds[i];
		while (*at)
			at = &(*at)->next;
		*at = q;
		link_interest(l);
		return;
	}
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
	/* Something is lost: the peer hears the end of the channel, and so does our loop, which then closes it. */
	if (r < 0)
		shutdown(l->src.fd, SHUT_RDWR);
}

static void link_flush(struct link *l)
{
	while (l->first) {
		struct reply *q = l->first;
		int r = frame_send(l->src.fd, q->type, q->id, q->payload.data, q->payload.len, q->fds, q->nfds);
		if (frame_again(r))
			return;
		if (r < 0)
			l->dead = true;
		l->first = q->next;
		reply_free(q);
	}
	link_interest(l);
}

static void link_close(struct link *l)
{
	struct link **p = &l->s->links;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	spawn_unwatch(l->s, &l->src);
	close(l->src.fd);
	while (l->first) {
		struct reply *q = l->first;
		l->first = q->next;
		reply_free(q);
	}
	if (l->control) {
		l->s->control = NULL;
		l->s->done = true;
	}
	free(l);
}

void link_error(struct link *l, uint32_t id, const struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)(err->code ? err->code : EIO));
	put_str(&b, err->msg);
	link_send(l, SPAWN_ERROR, id, &b, NULL, 0);
}

void spawn_ok(struct spawn *s, uint32_t id, const struct buf *payload)
{
	if (s->control)
		link_send(s->control, SPAWN_OK, id, payload, NULL, 0);
}

void spawn_ok_fds(struct spawn *s, uint32_t id, const struct buf *payload, int *fds, int nfds)
{
	if (s->control) {
		link_send(s->control, SPAWN_OK, id, payload, fds, nfds);
		return;
	}
	while (nfds)
		close(fds[--nfds]);
}

void spawn_error(struct spawn *s, uint32_t id, const struct err *err)
{
	if (s->control)
		link_error(s->control, id, err);
}

void spawn_event(struct spawn *s, uint32_t type, const struct buf *payload)
{
	if (s->control)
		link_send(s->control, type, 0, payload, NULL, 0);
}

static void link_ready(struct source *src, uint32_t events)
{
	struct link *l = container_of(src, struct link, src);
	struct frame f;

	if (l->first) {
		link_flush(l);
	} else {
		int r = frame_recv(src->fd, &f);
		if (r == 1) {
			verb_handle(l, &f);
			frame_release(&f);
		} else if (r != -EAGAIN) {
			if (r < 0)
				log_warn("channel of %s: %s", l->control ? "control" : "a proxy", strerror(-r));
			l->dead = true;
		}
	}
	if (l->dead)
		link_close(l);
}

struct link *link_add(struct spawn *s, int fd, bool control)
{
	struct link *l = xcalloc(1, sizeof *l);

	*l = (struct link){.src = {fd, link_ready}, .s = s, .control = control};
	io_set_nonblock(fd, true);
	if (spawn_watch(s, &l->src, EPOLLIN) == 0) {
		l->next = s->links;
		s->links = l;
		return l;
	}
	log_error("watch a channel: %m");
	close(fd);
	free(l);
	return NULL;
}
