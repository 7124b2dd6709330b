/* Puts apps that nobody visits to sleep, and wakes them (rules: sleep.h).
 *
 * No request meets a frozen app (battery I3). First the route becomes ROUTE_HOLD, then each proxy says, behind that route on
 * the same channel, that nothing is in flight any more and its idle connections are closed (PROXY_QUIETED); only then it is
 * frozen. What comes from the first moment on is held and asks to wake it (PROXY_WAKE):
 *   while the proxies are being asked   nothing has happened yet: the route comes back
 *   while it is being frozen            a thaw wins over a freeze at any time (sandbox/freeze.c)
 *   while it is being thawed            it is on its way
 *   while it is being stopped           it stops, and beside it a new instance starts
 * The store says SLEEPING before anything is frozen: whoever dies in between, a visit wakes it, since a thaw of what is not
 * frozen does no harm. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/space/internal.h"

#define LOOK_MS 500
#define MEMORY_MS 5000
#define PRESSED_MAX 256

struct sleeper {
	struct spaces *s;
	uv_timer_t timer;
	bool no_freezer; /* this host cannot */
	struct swap_view swap;
	uint32_t serials;
	uint64_t memory_at;
};

static void note_idle(const struct instance *in, const char *what, uint64_t now)
{
	cleanup_free char *text =
	    xasprintf("%s after %llu s without a visit", what, (unsigned long long)(now - in->visited) / 1000);

	life_note(in->unit->s, in->unit->id, "asleep", text);
}

static bool is_stage(struct unit *u, enum space_stage stage)
{
	struct space sp = {0};
	struct err err = ERR_INIT;
	bool is = store_space_by_id(u->s->store, u->id, &sp, &err) == 0 && sp.stage == stage;

	space_release(&sp);
	return is;
}

static void awake(struct instance *in)
{
	in->sleep = SLEEP_AWAKE;
	in->paged_out = false;
	in->visited = io_now_ms();
	route_publish_now(in->unit->s, in->unit->id);
	life_tick_need(in->unit->s); /* the others of it start */
}

/* ---- thaw ---- */

static void on_thawed(void *ctx, const char *name, const struct err *err)
{
	struct spaces *s = ctx;
	struct instance *in = space_instance(s, name);

	if (!in || in->sleep != SLEEP_THAWING)
		return;
	in->thaw_sent = false;
	if (err) {
		/* ENOENT: its end is told by itself. Else the spawner is being restarted: the next look tries again. */
		if (err->code != ENOENT && err->code != ECONNRESET)
			log_error("thaw %s: %s", name, err->msg);
		return;
	}
	cleanup_free char *text =
	    xasprintf("woken by %s in %llu ms", in->woken_by, (unsigned long long)(io_now_ms() - in->woken));
	life_note(s, in->unit->id, "woken", text);
	awake(in);
}

static void thaw(struct instance *in)
{
	if (in->thaw_sent || !place_connected(in->unit->s->place))
		return;
	in->thaw_sent = true;
	place_thaw(in->unit->s->place, in->name, on_thawed, in->unit->s);
}

static void begin_thaw(struct instance *in, const char *why)
{
	in->sleep = SLEEP_THAWING;
	in->woken = io_now_ms();
	in->woken_by = why;
	metrics_count(in->unit->s->metrics, in->unit->name, COUNT_WAKES, 1);
	life_stage(in->unit->s, in->unit->id, EV_WAKE, "");
	thaw(in);
}

/* ---- freeze ---- */

static void on_frozen(void *ctx, const char *name, const struct err *err)
{
	struct spaces *s = ctx;
	struct instance *in = space_instance(s, name);

	if (!in || in->sleep != SLEEP_FREEZING)
		return;
	if (!err || err->code == EALREADY) {
		in->sleep = SLEEP_FROZEN;
		return;
	}
	/* It runs on (a task that could not be frozen, a command inside), or nobody knows. */
	log_info("freeze %s: %s", name, err->msg);
	if (err->code == ENOTSUP)
		s->sleeper->no_freezer = true;
	begin_thaw(in, "the failure to freeze it");
}

void sleep_freeze(struct instance *in)
{
	in->sleep = SLEEP_FREEZING;
	place_freeze(in->unit->s->place, in->name, on_frozen, in->unit->s);
}

/* ---- page out ---- */

static void on_paged_out(void *ctx, const char *name, const struct err *err)
{
	struct spaces *s = ctx;
	struct instance *in = space_instance(s, name);
	struct swap_view *swap = &s->sleeper->swap;
	bool known = swap->full || swap->never, again = swap_ended(swap, err ? err->code : 0, io_now_ms());

	if (in && again)
		in->paged_out = false;
	if (err && (again || swap->never)) {
		if (!known)
			log_info("memory of frozen apps stays where it is: %s", err->msg);
	} else if (err) {
		log_info("page out %s: %s", name, err->msg); /* a visit came first, or it ends: not worth another try */
	} else if (in && in->sleep == SLEEP_FROZEN) {
		life_note(s, in->unit->id, "asleep", "its memory is paged out");
	}
}

static void page_out(struct instance *in)
{
	in->paged_out = true;
	swap_tried(&in->unit->s->sleeper->swap, io_now_ms());
	place_page_out(in->unit->s->place, in->name, on_paged_out, in->unit->s);
}

/* ---- going to sleep ---- */

static void stop(struct instance *in)
{
	struct unit *u = in->unit;
	struct err err = ERR_INIT;

	if (store_space_set_release(u->s->store, u->id, in->release_id, 0, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	life_retire(in);
	replicas_retire(u);
	route_publish_now(u->s, u->id);
}

static void quiet(struct instance *in, enum sleep_step step)
{
	struct spaces *s = in->unit->s;

	in->sleep = SLEEP_QUIETING;
	in->sleep_step = step;
	in->quiet = ++s->sleeper->serials;
	route_publish_now(in->unit->s, in->unit->id);
	router_quiet(s->router, in->name, in->generation, in->quiet);
	for (struct instance *other = in->unit->extra; other; other = other->next) {
		if (other->state != INST_SERVING)
			continue;
		other->quiet = ++s->sleeper->serials;
		router_quiet(s->router, other->name, other->generation, other->quiet);
	}
}

void spaces_quieted(struct spaces *s, const char *instance, uint32_t serial, bool busy)
{
	struct instance *asked = space_instance(s, instance);
	struct instance *in = asked && asked->extra ? asked->unit->serving : asked;

	if (!in || in->sleep != SLEEP_QUIETING || asked->quiet != serial)
		return;
	asked->quiet = 0;
	/* A push or a restart may have come in between. */
	if (busy || in != in->unit->serving || in->unit->starting || in->unit->start_at || s->ending ||
	    !is_stage(in->unit, STAGE_RUNNING)) {
		awake(in);
		return;
	}
	if (in->quiet || !replicas_quiet(in->unit))
		return; /* others have not answered yet */
	note_idle(in, in->sleep_step == SLEEP_FREEZE ? "asleep" : "stopped", io_now_ms());
	life_stage(s, in->unit->id, EV_SLEEP, "");
	replicas_retire(in->unit);
	if (in->sleep_step == SLEEP_FREEZE)
		sleep_freeze(in);
	else
		stop(in);
}

int spaces_sleep(struct spaces *s, const char *space_id, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);

	if (!u)
		return -1;
	if (is_stage(u, STAGE_SLEEPING) && !u->serving)
		return 0;
	struct instance *in = u->serving;
	if (!in || u->starting || u->start_at || !(is_stage(u, STAGE_RUNNING) || is_stage(u, STAGE_SLEEPING)))
		return err_text(err, EBUSY,
				"Only a Space that runs, with no build or start under way, can be put to sleep");
	in->sleep = SLEEP_FROZEN; /* held from now on; the drain waits for what is in flight */
	life_stage(s, space_id, EV_SLEEP, "");
	stop(in);
	return 0;
}

/* ---- waking ---- */

static void start_again(struct unit *u, const char *why)
{
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(u->s->store, u->id, &sp, &err) == 0 && sp.stage == STAGE_SLEEPING && *sp.release_id) {
		cleanup_free char *text = xasprintf("woken by %s: it is started", why);
		life_note(u->s, u->id, "woken", text);
		metrics_count(u->s->metrics, u->name, COUNT_WAKES, 1);
		life_start(u, sp.release_id, "", false);
	}
	space_release(&sp);
}

void sleep_wake(struct unit *u, const char *why)
{
	struct instance *in = u->serving;

	if (u->deleting || u->s->ending)
		return;
	if (!in) {
		if (!u->starting && !u->start_at)
			start_again(u, why);
		return;
	}
	switch (in->sleep) {
	case SLEEP_QUIETING:
		awake(in);
		break;
	case SLEEP_FREEZING:
	case SLEEP_FROZEN:
		begin_thaw(in, why);
		break;
	case SLEEP_THAWING:
	case SLEEP_AWAKE:
		break;
	}
}

/* Before control knows what runs, what is frozen looks as if it had been stopped, and a second instance would start beside it.
 * Nothing is lost: the proxies ask again when they get their routes, which is afterwards. */
static void wake_recovered(struct unit *u, const char *why)
{
	if (u && u->s->recovered)
		sleep_wake(u, why);
}

void spaces_wake(struct spaces *s, const char *space_id, const char *why)
{
	struct err err = ERR_INIT;

	wake_recovered(unit_get(s, space_id, &err), why);
}

void spaces_visited(struct spaces *s, const char *space)
{
	const char *slash = strchr(space, '/');
	struct space sp = {0};
	struct err err = ERR_INIT;
	struct unit *u;

	HASH_FIND(hh_name, s->units_by_name, space, strlen(space), u);
	if (u) {
		wake_recovered(u, "a visit");
	} else if (slash) {
		cleanup_free char *owner = xstrndup(space, (size_t)(slash - space));
		if (store_space_by_name(s->store, owner, slash + 1, &sp, &err) == 0)
			spaces_wake(s, sp.id, "a visit");
		space_release(&sp);
	}
}

bool sleep_lost(struct instance *in)
{
	if (in != in->unit->serving || (in->sleep != SLEEP_FREEZING && in->sleep != SLEEP_FROZEN))
		return false;
	struct unit *u = in->unit;
	struct err err = ERR_INIT;
	if (store_space_set_release(u->s->store, u->id, in->release_id, 0, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	life_gone(in);
	route_publish_now(u->s, u->id);
	return true;
}

int spaces_set_sleep(struct spaces *s, const char *space_id, int32_t seconds, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);

	if (!u || store_space_set_sleep(s->store, space_id, seconds, err) < 0)
		return -1;
	u->sleep_s = seconds;
	if (seconds < 0)
		sleep_wake(u, "its owner");
	return 0;
}

/* ---- looking ---- */

static void look(struct unit *u, uint64_t now)
{
	struct spaces *s = u->s;
	struct instance *in = u->serving;

	if (in && in->sleep == SLEEP_THAWING)
		thaw(in); /* once more, if the spawner was away: whatever else happens, requests wait for it */
	if (!in || u->starting || u->start_at || u->deleting)
		return;
	if (exec_runs(s, in->name))
		in->visited = now;
	const struct sleep_host host = {.freeze_s = s->config->freeze_after_s,
					.page_out_s = s->config->page_out_after_s,
					.stop_s = s->config->sleep_after_s,
					.can_freeze = !s->sleeper->no_freezer,
					.can_page_out = swap_may(&s->sleeper->swap, now)};
	const struct sleep_rule rule = sleep_rule_of(&host, u->sleep_s);
	const struct sleep_view v = {.state = in->sleep, .paged_out = in->paged_out, .idle_ms = now - in->visited};
	enum sleep_step step = sleep_decide(&rule, &v);
	if (step == SLEEP_STAY || !place_connected(s->place))
		return;
	if (step == SLEEP_PAGE_OUT) {
		page_out(in);
	} else if (in->sleep == SLEEP_FROZEN) {
		note_idle(in, "stopped", now);
		stop(in);
	} else if (is_stage(u, STAGE_RUNNING)) {
		quiet(in, step);
	}
}

/* Bytes; 0: it cannot be told. */
static uint64_t memory_available(void)
{
	cleanup_buf struct buf text = BUF_INIT;
	const char *line;

	if (io_read_file(AT_FDCWD, "/proc/meminfo", 65536, &text) < 0 || !text.data ||
	    !(line = strstr(text.data, "\nMemAvailable:")))
		return 0;
	return strtoull(line + strlen("\nMemAvailable:"), NULL, 10) << 10;
}

bool sleep_memory_short(const struct spaces *s)
{
	uint64_t available = memory_available();

	return available && available < s->config->memory_reserve;
}

static void press(struct spaces *s, uint64_t now)
{
	struct sleep_view v[PRESSED_MAX];
	struct instance *of[PRESSED_MAX];
	struct unit *u, *tmp;
	size_t n = 0;

	HASH_ITER(hh, s->units, u, tmp)
	{
		if (!u->serving || u->serving->sleep != SLEEP_FROZEN || n == PRESSED_MAX)
			continue;
		of[n] = u->serving;
		v[n++] = (struct sleep_view){.state = SLEEP_FROZEN, .idle_ms = now - u->serving->visited};
	}
	int pick = sleep_victim(v, n);
	if (pick < 0 || !sleep_memory_short(s))
		return;
	if (!of[pick]->paged_out && swap_may(&s->sleeper->swap, now)) {
		page_out(of[pick]);
	} else {
		life_note(s, of[pick]->unit->id, "asleep", "stopped: the host's memory is short");
		stop(of[pick]);
	}
}

static void on_timer(uv_timer_t *t)
{
	struct sleeper *sl = t->data;
	struct spaces *s = sl->s;
	uint64_t now = io_now_ms();
	struct unit *u, *tmp;

	if (s->ending || !s->recovered)
		return;
	HASH_ITER(hh, s->units, u, tmp)
	look(u, now);
	if (now >= sl->memory_at) {
		sl->memory_at = now + MEMORY_MS;
		press(s, now);
	}
}

void sleep_new(struct spaces *s)
{
	struct sleeper *sl = xcalloc(1, sizeof *sl);

	s->sleeper = sl;
	sl->s = s;
	uv_timer_init(s->loop, &sl->timer);
	sl->timer.data = sl;
	uv_timer_start(&sl->timer, on_timer, LOOK_MS, LOOK_MS);
	uv_unref((uv_handle_t *)&sl->timer);
}

static void closed(uv_handle_t *h)
{
	free(h->data);
}

void sleep_free(struct spaces *s)
{
	uv_close((uv_handle_t *)&s->sleeper->timer, closed);
	s->sleeper = NULL;
}
