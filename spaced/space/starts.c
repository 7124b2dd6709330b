/* How many apps start at once: a start takes CPU and memory of what runs, and a crawler can wake all Spaces within a second.
 * The others wait for their turn (turn.h) with the stage of one that starts, so that requests are held for them.
 *
 * A place is taken until the app is healthy or has failed, but not for longer than PLACE_MS: one that loads a model for
 * minutes, or never answers, holds up nobody. While the host's memory is short one starts after the other. */
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

#define PLACE_MS 20000
#define EACH_TOLD 10 /* those with so few before them hear of each step, the others of each halving */

static bool takes_place(const struct instance *in, uint64_t now)
{
	return in && in->state == INST_STARTING && now - in->began < PLACE_MS;
}

static unsigned places_taken(const struct spaces *s)
{
	uint64_t now = io_now_ms();
	unsigned n = 0;

	for (const struct unit *u = s->units; u; u = u->hh.next) {
		n += takes_place(u->starting, now);
		for (const struct instance *in = u->extra; in; in = in->next)
			n += takes_place(in, now);
	}
	return n;
}

static unsigned places(const struct spaces *s)
{
	return sleep_memory_short(s) ? 1 : s->config->starts;
}

bool starts_room(const struct spaces *s)
{
	return places_taken(s) < places(s);
}

static bool waits(const struct unit *u, uint64_t now)
{
	return u->start_at && now >= u->start_at && !u->deleting && life_may_start(u);
}

static size_t collect(const struct spaces *s, struct turn **out)
{
	uint64_t now = io_now_ms();
	size_t n = 0;

	*out = NULL;
	for (struct unit *u = s->units; u; u = u->hh.next)
		n += waits(u, now);
	if (!n)
		return 0;
	*out = xcalloc(n, sizeof **out);
	n = 0;
	for (struct unit *u = s->units; u; u = u->hh.next)
		if (waits(u, now))
			(*out)[n++] = (struct turn){
			    .space = u->name, .built = *u->start_build, .arrived = u->start_turn, .of = u};
	return n;
}

/* What people read about a Space that waits, without a write to the store at each step of each. */
static void tell(struct unit *u, unsigned before)
{
	if (u->told && (before == u->told_before || (before >= EACH_TOLD && before > u->told_before / 2)))
		return;
	cleanup_free char *text = xasprintf("Waiting for a free place to start, %u before it.", before);
	if (!u->told && *u->start_build) {
		cleanup_free char *log = logfile_build(u->s->config, u->start_build);
		logfile_append(log, "%s\n", text);
	}
	u->told = true;
	u->told_before = before;
	life_say(u->s, u->id, text);
}

/* False: it failed at once. */
static bool begin(struct unit *u)
{
	struct spaces *s = u->s;
	struct err err = ERR_INIT;
	struct space sp = {0};

	u->start_at = 0;
	u->start_alone = false;
	if (u->told)
		life_say(s, u->id, "");
	u->told = false;
	if (*u->start_build) {
		cleanup_free char *log = logfile_build(s->config, u->start_build);
		logfile_append(log, "--> start\n");
	}
	if (store_space_by_id(s->store, u->id, &sp, &err) == 0)
		u->starting = start_instance(u, &sp, u->start_release, u->start_build, u->start_again, &err);
	if (!u->starting) {
		life_stage(s, u->id, EV_START_FAILED, err.msg);
		if (*u->start_build)
			watch_end(s, u->start_build, "Failed: %s\n", err.msg);
	}
	space_release(&sp);
	return u->starting != NULL;
}

void starts_settle(struct spaces *s)
{
	cleanup_free struct turn *t = NULL;

	if (s->ending || !s->recovered)
		return;
	size_t n = collect(s, &t);
	if (!n)
		return;
	unsigned taken = places_taken(s), all = places(s);
	size_t next = 0;
	turns_sort(&s->turns, t, n);
	for (; next < n && taken < all; next++) {
		turns_take(&s->turns, &t[next]);
		taken += begin(t[next].of);
	}
	for (size_t i = next; i < n; i++)
		tell(t[i].of, (unsigned)(i - next));
}
