/* A request of which nothing was sent goes where the route of its host leads by now, as if it had just arrived. */
#include "proxy/worker.h"

/* What may pass here was judged for the route before; another Space under that name, or a gate, is none of it. */
static bool may_follow(const struct target *to, const struct target *from)
{
	return strcmp(to->space_id, from->space_id) == 0 && (!to->gated || from->gated);
}

bool reroute_due(const struct exchange *x)
{
	return route_at(x->c->conn.w->routes.served, x->target->host) != x->target;
}

bool reroute_take(struct exchange *x)
{
	struct target *before = x->target;
	const struct target *t = route_at(x->c->conn.w->routes.served, before->host);

	if (!t || !may_follow(t, before))
		return false;
	x->target = target_ref(t);
	target_unref(before);
	return true;
}

/* It became a static Space meanwhile: what exchange_start() says at once for one. */
static void name_site(struct exchange *x, const char *site)
{
	x->head.len -= 2; /* the empty line */
	buf_addf(&x->head, "X-Spaced-Site: %s\r\n\r\n", site);
}

/* Of the rule only the time is known when it did not come to an app that slept. */
static void hold(struct exchange *x)
{
	if (x->hold_rule.wait_ms == 0)
		x->hold_rule.wait_ms = x->c->conn.w->limits.hold_ms;
	hold_request(x, x->hold_rule);
}

void reroute_send(struct exchange *x, bool taken)
{
	if (!taken) {
		x->refused = REFUSED_HOST;
		exchange_error(x, 404, "There is nothing at this address", "This Space is not here any more.");
		return;
	}
	if (x->target->site[0])
		name_site(x, x->target->site);
	if (x->target->kind == ROUTE_HOLD)
		hold(x);
	else
		exchange_dispatch(x);
}
