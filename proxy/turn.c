/* Whose turn it is: a Space that is flooded makes no other one wait. In one turn of the loop the connections of each Space, its
 * clients' and its app's, are served for so long in all, and so are those who have not said yet where they want to go. Who
 * took more gives it back in the turns that follow, and who is left over comes first then. A Space that is busy alone may
 * have all of the loop.
 *
 * Time, not reads or bytes: one read can cost a hundred times what another does. Two Spaces share a place when their keyed
 * hashes say so, one pair in a thousand. */
#include "proxy/worker.h"

#define TURN_NS 20000
#define DEBT_TURNS 16 /* at most: it may have been the machine that stood still */
#define ALONE_MS 1000 /* nobody else was served for so long */

uint16_t turn_place(uint64_t who)
{
	return (uint16_t)(1 + who % (TURN_PLACES - 1));
}

/* An app's connection that is idle belongs to nobody: it can only end. */
static uint16_t place_of(const struct conn *c)
{
	const struct exchange *x = c->is_client ? NULL : ((const struct upstream *)c)->x;
	const struct client *client = c->is_client ? (const struct client *)c : x ? x->c : NULL;

	return client ? client->place : TURN_NEWCOMERS;
}

bool turn_shared(const struct worker *w)
{
	return uv_now(&w->loop) < w->turns.shared_until;
}

void turn_share(struct worker *w)
{
	w->turns.shared_until = uv_now(&w->loop) + ALONE_MS;
}

static void run(struct turns *t, struct turn_place *p)
{
	uint64_t now = uv_hrtime();

	if (t->running) {
		t->running->spent += now - t->since;
		if (t->running->spent > DEBT_TURNS * TURN_NS)
			t->running->spent = DEBT_TURNS * TURN_NS;
	}
	t->running = p;
	t->since = now;
}

void turn_next(struct worker *w)
{
	if (w->turns.running)
		run(&w->turns, NULL);
	w->turns.number++;
}

static void give_back(struct turns *t, struct turn_place *p)
{
	uint64_t turns = t->number - p->turn;

	p->spent = turns < DEBT_TURNS && turns * TURN_NS < p->spent ? p->spent - turns * TURN_NS : 0;
	p->turn = t->number;
}

void turn_is_of(const struct conn *c)
{
	struct turns *t = &c->w->turns;
	struct turn_place *p = &t->places[place_of(c)];

	if (!turn_shared(c->w))
		return;
	give_back(t, p);
	run(t, p);
}

static bool has_time(struct turns *t, struct turn_place *p)
{
	give_back(t, p);
	if (p->spent < TURN_NS)
		run(t, p); /* whose time it was until now: perhaps its own */
	if (p->spent < TURN_NS)
		return true;
	if (t->running == p)
		t->running = NULL;
	p->denied = t->number;
	return false;
}

static void line_up(struct turns *t, struct turn_place *p)
{
	if (p->waits)
		return;
	p->waits = true;
	p->next = NULL;
	*(t->waiting ? &t->last_waiting->next : &t->waiting) = p;
	t->last_waiting = p;
}

bool turn_may_read(const struct conn *c)
{
	struct turns *t = &c->w->turns;
	uint16_t n = place_of(c);

	if (n != t->last && n != TURN_NEWCOMERS) {
		if (t->last)
			turn_share(c->w);
		t->last = n;
	}
	return !turn_shared(c->w) || has_time(t, &t->places[n]);
}

void turn_put_off(struct conn *c)
{
	struct turns *t = &c->w->turns;
	struct turn_place *p = &t->places[place_of(c)];

	if (c->put_off)
		return;
	c->put_off = true;
	c->next = NULL;
	*(p->first ? &p->last->next : &p->first) = c;
	p->last = c;
	line_up(t, p);
}

/* Once each of those who are there now, until its time is up. One that is closed costs none. One that is another Space's by now
 * waits there: it would hold up all behind it for as long as that one is flooded. */
static void serve_place(struct turn_place *p, void (*serve)(struct conn *c))
{
	const struct conn *last = p->last;
	bool over = false;

	while (!over) {
		struct conn *c = p->first;
		bool moves = !c->closing && p != &c->w->turns.places[place_of(c)];
		if (!c->closing && !moves && !turn_may_read(c))
			return;
		over = c == last;
		p->first = c->next;
		c->put_off = false;
		if (moves)
			turn_put_off(c);
		else
			serve(c);
	}
}

void turn_serve(struct worker *w, void (*serve)(struct conn *c))
{
	struct turns *t = &w->turns;
	struct turn_place *p = t->waiting, *next;

	for (t->waiting = NULL; p; p = next) {
		next = p->next;
		p->waits = false;
		serve_place(p, serve);
		if (p->first)
			line_up(t, p);
	}
}

/* Not while others wait who came before and were not read yet. */
bool turn_may_accept(struct worker *w)
{
	struct turn_place *p = &w->turns.places[TURN_NEWCOMERS];

	return !turn_shared(w) || (p->denied + 1 < w->turns.number && has_time(&w->turns, p));
}
