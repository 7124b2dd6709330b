/* Requests to an app that sleeps or starts (ROUTE_HOLD) wait here, in order of arrival, one bounded queue per Space. Control
 * is asked once to wake it, however many wait. When another route comes all go on as if they had just arrived; each that
 * waits too long gets what hold_rule.h says. Of a held request there is its head and at most one block of its body: the
 * rest stays with the client, since nothing more is read.
 *
 * Races (battery I4): a request that comes between control's ROUTE_HOLD and the freeze is held and wakes the app; one in
 * flight at that moment is counted by PROXY_QUIET, which control waits for before it freezes. So no request is ever sent to
 * an app that is frozen, and none is lost. */
#include <errno.h>

#include <utlist.h>

#include "proxy/worker.h"

struct hold {
	UT_hash_handle hh;
	struct exchange *first;
	size_t n, bytes;
	struct target *asked; /* the route for which control knows that those here wait, or NULL */
	bool late;	      /* it will be asked when it listens */
	char space[];
};

static struct hold *hold_of(struct worker *w, const struct target *t)
{
	const char *name = t->space[0] ? t->space : t->host;
	size_t n = strlen(name);
	struct hold *h;

	HASH_FIND(hh, w->holds, name, n, h);
	if (!h) {
		h = xcalloc(1, sizeof *h + n + 1);
		memcpy(h->space, name, n);
		HASH_ADD_KEYPTR(hh, w->holds, h->space, n, h);
	}
	return h;
}

/* Without control the next one is asked when it has sent its routes. */
static void ask(struct worker *w, struct hold *h, const struct target *t)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (h->asked == t || !w->control)
		return;
	h->late = !control_listens(w);
	if (h->late)
		return;
	put_str(&b, h->space);
	channel_send(w->control, PROXY_WAKE, 0, b.data, b.len, NULL, 0);
	target_unref(h->asked);
	h->asked = target_ref(t);
	if (h->n == 1)
		h->first->woke = true;
}

static void forget(struct hold *h)
{
	target_unref(h->asked);
	h->asked = NULL;
}

/* X-Spaced-Hold tells the waiting page's script that the app has not answered yet. */
static void refuse(struct exchange *x, enum refusal why, const char *title, const char *text, unsigned retry_after)
{
	struct page page = {.status = 503,
			    .title = title,
			    .text = text,
			    .retry_after = retry_after,
			    .headers = "X-Spaced-Hold: waiting\r\n"};
	x->refused = why;
	exchange_page(x, &page);
}

static void expired(struct exchange *x)
{
	const struct target *t = x->target;
	bool page = x->hold_page;

	hold_cancel(x);
	x->refused = REFUSED_HELD_LONG;
	if (!page) {
		refuse(x, REFUSED_HELD_LONG, "This Space has not started in time",
		       "It is still on its way. Try again in a moment.", 5);
		return;
	}
	struct page waiting = {.status = 503,
			       .title = t->page_title[0] ? t->page_title : "Starting",
			       .text = t->page_text,
			       .retry_after = 3,
			       .waits_for = t->space,
			       .headers = "X-Spaced-Hold: waiting\r\n"};
	exchange_page(x, &waiting);
}

void hold_request(struct exchange *x, struct hold_rule rule)
{
	struct worker *w = x->c->conn.w;
	struct hold *h = hold_of(w, x->target);
	size_t bytes = x->head.len + (x->req_done ? 0 : BLOCK_SIZE);

	if (w->ending || h->n >= w->limits.hold_requests || h->bytes + bytes > w->limits.hold_bytes) {
		ask(w, h, x->target);
		if (!h->first)
			forget(h);
		refuse(x, REFUSED_HELD, "Too many requests wait for this Space to start", "Try again in a few seconds.",
		       5);
		return;
	}
	x->hold = h;
	x->hold_page = rule.page;
	x->hold_bytes = bytes;
	x->hold_until = uv_now(&w->loop) + rule.wait_ms;
	if (!w->hold_due || x->hold_until < w->hold_due)
		w->hold_due = x->hold_until;
	deadline_clear(&x->c->conn); /* of control's answer, when the gate asked */
	DL_APPEND(h->first, x);
	x->was_held = true;
	x->held_at = uv_now(&w->loop);
	x->space->count.n[COUNT_HELD]++;
	x->space->count.now[GAUGE_HELD]++;
	h->n++;
	h->bytes += bytes;
	ask(w, h, x->target);
}

void hold_cancel(struct exchange *x)
{
	struct hold *h = x->hold;

	if (!h)
		return;
	x->hold = NULL;
	DL_DELETE(h->first, x);
	x->space->count.now[GAUGE_HELD]--;
	x->held_ms += uv_now(&x->c->conn.w->loop) - x->held_at;
	h->n--;
	h->bytes -= x->hold_bytes;
	/* Who comes to an empty queue asks anew: no wake that control could not follow keeps a Space asleep for ever. */
	if (!h->first)
		forget(h);
}

static void release_from(struct worker *w, struct hold *h)
{
	struct exchange *x, *next;

	/* Sending one may end it, and its client's next request may come in: never another one of this queue. */
	DL_FOREACH_SAFE(h->first, x, next)
	{
		if (!reroute_due(x))
			continue;
		bool taken = reroute_take(x);
		if (taken && x->target->kind == ROUTE_HOLD)
			continue;
		hold_cancel(x);
		reroute_send(x, taken);
	}
	if (h->first)
		ask(w, h, h->first->target);
}

void hold_routes_changed(struct worker *w)
{
	struct hold *h, *next;

	HASH_ITER(hh, w->holds, h, next)
	release_from(w, h);
}

void hold_new_control(struct worker *w)
{
	struct hold *h, *next;

	HASH_ITER(hh, w->holds, h, next)
	forget(h);
}

void hold_end(struct worker *w)
{
	struct hold *h, *next;

	HASH_ITER(hh, w->holds, h, next)
	while (h->first) {
		struct exchange *x = h->first;
		hold_cancel(x);
		refuse(x, REFUSED_HELD_LONG, "The server is being restarted", "Try again in a few seconds.", 2);
	}
}

void hold_tick(struct worker *w)
{
	uint64_t now = uv_now(&w->loop);
	struct hold *h, *next;
	struct exchange *x, *after;
	uint64_t due = 0;

	HASH_ITER(hh, w->holds, h, next)
	if (h->late && h->first)
		ask(w, h, h->first->target);
	if (!w->holds || now < w->hold_due)
		return;
	HASH_ITER(hh, w->holds, h, next)
	{
		DL_FOREACH_SAFE(h->first, x, after)
		if (x->hold_until <= now)
			expired(x);
		/* Also one that came in just now, in the place of one that has got its answer. */
		DL_FOREACH(h->first, x)
		if (!due || x->hold_until < due)
			due = x->hold_until;
		if (!h->first) {
			HASH_DEL(w->holds, h);
			target_unref(h->asked);
			free(h);
		}
	}
	w->hold_due = due;
}
