/* The loop of a worker: its sockets in an epoll of its own, edge-triggered, and libuv's loop as one more descriptor in it,
 * for timers, signals and channels. libuv's streams would do all of it, but level-triggered: the kernel then looks at each
 * socket a second time after it was read, and a connection costs two calls more. */
#include <errno.h>
#include <sys/epoll.h>

#include "proxy/worker.h"

#define EVENTS 256

int loop_init(struct worker *w)
{
	struct epoll_event others = {.events = EPOLLIN};
	int r = uv_loop_init(&w->loop);

	if (r < 0)
		return r;
	w->loop.data = w;
	w->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->poll_fd < 0 || epoll_ctl(w->poll_fd, EPOLL_CTL_ADD, uv_backend_fd(&w->loop), &others) < 0)
		return -errno;
	return 0;
}

int loop_watch(struct worker *w, int op, int fd, uint32_t events, struct source *s)
{
	struct epoll_event e = {.events = events, .data.ptr = s};

	return epoll_ctl(w->poll_fd, op, fd, &e) < 0 ? -errno : 0;
}

/* What is closed stays in memory until the end of the turn: a later event of the same turn may still be its own. */
void loop_run(struct worker *w)
{
	struct epoll_event events[EVENTS];

	while (!w->over) {
		int n = epoll_wait(w->poll_fd, events, EVENTS, w->turns.waiting ? 0 : uv_backend_timeout(&w->loop));
		bool others = false;
		uv_update_time(&w->loop);
		for (int i = 0; i < n; i++) {
			struct source *s = events[i].data.ptr;
			if (s)
				s->ready(s, events[i].events);
			else
				others = true;
		}
		/* 0: a timer is due, or something was begun with it that it has not told the kernel yet. */
		if (others || uv_backend_timeout(&w->loop) == 0)
			uv_run(&w->loop, UV_RUN_NOWAIT);
		conn_later(w);
		turn_next(w);
	}
}
