/* The end of a worker that loses nobody. It takes what waits in its listening sockets, closes them (where somebody else
 * holds them too, visitors go on to wait there), and says `Connection: close` with each answer from here on. Requests in
 * flight, WebSockets and event streams have until a deadline.
 *
 * A connection that is kept alive is closed only when its client has said nothing for a while, since a request may be on
 * its way to us: one that asks again is answered and told to go. */
#include "proxy/worker.h"

#define LAST_MS 2000

void worker_drain(struct worker *w, bool ending, uint32_t ms)
{
	uint64_t until = uv_now(&w->loop) + ms;

	for (size_t i = 0; !w->draining && i < w->nlisteners; i++)
		listener_close(&w->listeners[i]);
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

	if (over) {
		hold_end(w);
		pool_end(w);
	}
	if (over || (w->draining && w->nclients == 0))
		w->over = true;
}
