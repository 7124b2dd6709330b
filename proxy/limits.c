/* Bounds on time and requests: the deadline lists, run once per tick, the rates. */
#include <errno.h>
#include <netinet/in.h>

#include "proxy/worker.h"

#define LINGER_MS 3000

static uint32_t or_default(uint32_t v, uint32_t def)
{
	return v ? v : def;
}

int limits_init(struct worker *w, const struct proxy_config *config)
{
	struct proxy_limits *l = &w->limits;

	*l = config->limits;
	if (config->trusted)
		w->trusted = *config->trusted;
	w->rates = config->rates ? config->rates : rates_map(-1);
	if (!w->rates)
		return -errno;
	l->head_bytes = or_default(l->head_bytes, 32768);
	l->fields = or_default(l->fields, 100);
	l->url_bytes = or_default(l->url_bytes, 8192);
	l->head_ms = or_default(l->head_ms, 10000);
	l->idle_ms = or_default(l->idle_ms, 60000);
	l->connect_ms = or_default(l->connect_ms, 5000);
	/* Below the 5 s after which uvicorn and node close an idle connection: a request must not meet their close. */
	l->pool_ms = or_default(l->pool_ms, 4000);
	l->response_ms = or_default(l->response_ms, 300000);
	l->stall_ms = or_default(l->stall_ms, 300000);
	l->connections = or_default(l->connections, 16384);
	l->per_space = or_default(l->per_space, 2048);
	l->hold_ms = or_default(l->hold_ms, 60000);
	l->hold_max_ms = or_default(l->hold_max_ms, 300000);
	l->hold_page_ms = or_default(l->hold_page_ms, 1500);
	l->hold_requests = or_default(l->hold_requests, 256);
	l->hold_bytes = or_default(l->hold_bytes, 16U << 20);
	l->drain_ms = or_default(l->drain_ms, 10000);
	w->req_limits = (struct http1_limits){l->head_bytes, l->fields, l->url_bytes};
	w->res_limits = (struct http1_limits){65536, HTTP1_FIELDS_MAX, 0};
	w->deadline_ms[DL_HEAD] = l->head_ms;
	w->deadline_ms[DL_IDLE] = l->idle_ms;
	w->deadline_ms[DL_CONNECT] = l->connect_ms;
	w->deadline_ms[DL_RESPONSE] = l->response_ms;
	w->deadline_ms[DL_STALL] = l->stall_ms;
	w->deadline_ms[DL_LINGER] = LINGER_MS;
	w->deadline_ms[DL_POOL] = l->pool_ms;
	for (int i = 0; i < DL_KINDS; i++)
		w->deadlines[i].prev = w->deadlines[i].next = &w->deadlines[i];
	return 0;
}

void deadline_clear(struct conn *c)
{
	struct timed *t = &c->timed;

	if (t->kind == DL_NONE)
		return;
	t->prev->next = t->next;
	t->next->prev = t->prev;
	t->kind = DL_NONE;
}

void deadline_set(struct conn *c, enum deadline kind)
{
	struct timed *t = &c->timed;
	struct timed *list = &c->w->deadlines[kind];

	deadline_clear(c);
	if (kind == DL_NONE || c->closing)
		return;
	t->kind = kind;
	t->at = uv_now(&c->w->loop) + c->w->deadline_ms[kind];
	t->prev = list->prev;
	t->next = list;
	list->prev->next = t;
	list->prev = t;
}

void deadline_tick(struct worker *w)
{
	uint64_t now = uv_now(&w->loop);

	for (int kind = DL_NONE + 1; kind < DL_KINDS; kind++) {
		struct timed *list = &w->deadlines[kind];
		/* Whoever is called leaves the list or moves to its end, behind `now`. */
		while (list->next != list && list->next->at <= now) {
			struct conn *c = (struct conn *)((char *)list->next - offsetof(struct conn, timed));
			deadline_clear(c);
			if (c->is_client)
				client_timeout((struct client *)c, (enum deadline)kind);
			else
				upstream_close((struct upstream *)c);
		}
	}
}

static void refuse(struct exchange *x, enum refusal why, const char *text, uint32_t wait_ms)
{
	struct page page = {
	    .status = 429, .title = "Too many requests", .text = text, .retry_after = (wait_ms + 999) / 1000};

	x->refused = why;
	exchange_page(x, &page);
}

bool limits_refuse_client(struct exchange *x)
{
	struct worker *w = x->c->conn.w;
	uint32_t wait = 0;

	if (x->from.crowded) {
		refuse(x, REFUSED_CLIENT_CONNECTIONS, "There are too many connections from your address.", 2000);
		return true;
	}
	if (w->limits.client_rate)
		wait = rates_take(w->rates, RATE_CLIENT, x->from.who, w->limits.client_rate, uv_now(&w->loop));
	if (wait)
		refuse(x, REFUSED_CLIENT_RATE, "There were too many from your address. Try again in a moment.", wait);
	return wait != 0;
}

bool limits_refuse_space(struct exchange *x)
{
	struct worker *w = x->c->conn.w;
	uint32_t rate = x->target->rate;
	uint32_t wait = rate ? rates_take(w->rates, RATE_SPACE, x->space->who, rate, uv_now(&w->loop)) : 0;

	if (wait)
		refuse(x, REFUSED_SPACE_RATE, "This Space is asked too often. Try again in a moment.", wait);
	return wait != 0;
}
