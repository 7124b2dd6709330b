/* The end of a worker that loses nobody. It takes what waits in its listening sockets, closes them (where somebody else
 * holds them too, visitors go on to wait there), and says `Connection: close` with each answer from here on. Requests in
 * flight, WebSockets and event streams have until a deadline.
 *
 * A connection that is kept alive is closed only when its client has said nothing for a while, since a request may be on
 * its way to us: one that asks again is answered and told to go. */
#include <errno.h>

#include "base/log.h"
#include "proxy/worker.h"

#define LAST_MS 2000

/* What the kernel has accepted for us: with the socket it would be reset. No more than was there: they may go on to come as
 * fast as they are taken. */
static void take_queue(struct listener *l)
{
	int fd;

	if (uv_fileno((uv_handle_t *)&l->tcp, &fd) < 0)
		return;
	for (int i = 0; i <= LISTEN_BACKLOG; i++) {
		int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (c >= 0)
			client_take(l, c);
		else if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

static void close_listeners(struct worker *w)
{
	for (size_t i = 0; i < w->nlisteners; i++) {
		if (w->listening)
			take_queue(&w->listeners[i]);
		uv_close((uv_handle_t *)&w->listeners[i].tcp, NULL);
	}
}

void worker_drain(struct worker *w, bool ending, uint32_t ms)
{
	uint64_t until = uv_now(&w->loop) + ms;

	if (!w->draining)
		close_listeners(w);
	if (!w->draining || until < w->drain_until)
		w->drain_until = until;
	w->draining = true;
	if (ending && !w->ending) {
		w->ending = true;
		client_hurry_idle(w);
		hold_end(w);
	}
	drain_tick(w);
}

/* The last moments of one that makes way are an end like any other. */
void drain_tick(struct worker *w)
{
	if (w->draining && !w->ending && uv_now(&w->loop) + LAST_MS >= w->drain_until)
		worker_drain(w, true, LAST_MS);
	bool over = w->draining && uv_now(&w->loop) >= w->drain_until;

	if (over)
		hold_end(w);
	if (over || (w->draining && w->nclients == 0))
		uv_stop(&w->loop);
}
