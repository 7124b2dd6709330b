/* Bytes of apps from and to the Internet, kept across restarts: noted when an instance ends (its exit record has them), and
 * every minute, for what nobody can ask any more (the machine stops). With them come memory and CPU time, for /metrics. */
#include <string.h>

#include "base/log.h"
#include "spaced/space/internal.h"

#define EVERY_MS 60000

struct traffic {
	uv_timer_t timer;
	struct spaces *s;
};

void traffic_note(struct spaces *s, const char *instance, uint64_t received, uint64_t sent)
{
	char space_id[STORE_ID];
	uint32_t generation;
	struct err err = ERR_INIT;

	if ((received || sent) && instance_name_parse(instance, space_id, &generation) &&
	    store_traffic_note(s->store, space_id, generation, received, sent, &err) < 0)
		log_warn("traffic of %s: %s", instance, err.msg);
}

static void on_stats(void *ctx, const char *name, const struct place_stats *stats, const struct err *err)
{
	struct instance *in = space_instance(ctx, name);

	(void)err; /* it has just ended: then its exit says it */
	if (!stats)
		return;
	traffic_note(ctx, name, stats->received, stats->sent);
	if (!in)
		return;
	in->measured = true;
	in->memory = stats->memory;
	in->cpu_usec = stats->cpu_usec;
}

static void ask(struct spaces *s, const struct instance *in)
{
	if (in && in->up && !in->exited)
		place_stats(s->place, in->name, on_stats, s);
}

static void ask_all(const struct unit *u)
{
	ask(u->s, u->serving);
	for (struct instance *in = u->extra; in; in = in->next)
		ask(u->s, in);
	for (struct instance *in = u->old; in; in = in->next)
		ask(u->s, in);
}

void spaces_count_traffic(struct spaces *s, const char *space_id)
{
	const struct unit *u = unit_find(s, space_id);

	if (u)
		ask_all(u);
}

void spaces_each_usage(struct spaces *s, spaces_usage_cb cb, void *ctx)
{
	struct unit *u, *tmp;

	HASH_ITER(hh, s->units, u, tmp)
	{
		if (u->serving && u->serving->measured)
			cb(ctx, u->name, u->serving->name, u->serving->memory, u->serving->cpu_usec);
		for (const struct instance *in = u->extra; in; in = in->next)
			if (in->measured)
				cb(ctx, u->name, in->name, in->memory, in->cpu_usec);
	}
}

static void on_timer(uv_timer_t *t)
{
	struct traffic *traffic = t->data;
	struct unit *u, *tmp;

	HASH_ITER(hh, traffic->s->units, u, tmp)
	{
		ask_all(u);
	}
}

void traffic_new(struct spaces *s)
{
	struct traffic *t = xcalloc(1, sizeof *t);

	s->traffic = t;
	t->s = s;
	uv_timer_init(s->loop, &t->timer);
	t->timer.data = t;
	uv_timer_start(&t->timer, on_timer, EVERY_MS, EVERY_MS);
	uv_unref((uv_handle_t *)&t->timer);
}

static void closed(uv_handle_t *h)
{
	free(h->data);
}

void traffic_free(struct spaces *s)
{
	uv_close((uv_handle_t *)&s->traffic->timer, closed);
	s->traffic = NULL;
}
