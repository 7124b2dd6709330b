/* What was counted, told to control at most once a second (PROXY_ACTIVITY): what it decides sleep by, and shows. */
#include <errno.h>

#include "proxy/worker.h"

#define REPORT_MS 1000
#define FRAME_FULL (FRAME_MAX_PAYLOAD - 1024)

static struct space *space_new(struct worker *w, const char *name, size_t n)
{
	struct space *s = xcalloc(1, sizeof *s + n + 1);

	memcpy(s->name, name, n);
	s->who = rates_who(w->rates, name, n);
	return s;
}

void activity_init(struct worker *w)
{
	w->nobody = space_new(w, "", 0);
}

struct space *space_of(struct worker *w, const char *name)
{
	struct space *s;
	size_t n = strlen(name);

	if (n == 0)
		return w->nobody;
	HASH_FIND(hh, w->spaces, name, n, s);
	if (!s) {
		s = space_new(w, name, n);
		HASH_ADD_KEYPTR(hh, w->spaces, s->name, n, s);
	}
	return s;
}

/* `told` is only compared: a new control that is told nothing of a Space takes its gauges for 0. */
void activity_forget(struct worker *w)
{
	struct space *s, *next;

	memset(w->nobody->told, 0, sizeof w->nobody->told);
	HASH_ITER(hh, w->spaces, s, next)
	memset(s->told, 0, sizeof s->told);
}

struct report {
	struct worker *w;
	struct buf spaces;
	uint32_t n;
};

static void send_report(struct report *r)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (r->n == 0)
		return;
	put_u32(&b, r->n);
	buf_add(&b, r->spaces.data, r->spaces.len);
	channel_send(r->w->control, PROXY_ACTIVITY, 0, b.data, b.len, NULL, 0);
	buf_clear(&r->spaces);
	r->n = 0;
}

/* False: there was nothing to say. */
static bool report(struct report *r, struct space *s)
{
	if (!counters_any(&s->count) && memcmp(s->told, s->count.now, sizeof s->told) == 0)
		return false;
	put_str(&r->spaces, s->name);
	counters_put(&r->spaces, &s->count);
	memset(s->count.n, 0, sizeof s->count.n);
	memcpy(s->told, s->count.now, sizeof s->told);
	r->n++;
	if (r->spaces.len > FRAME_FULL)
		send_report(r);
	return true;
}

void activity_report(struct worker *w)
{
	struct report r = {.w = w, .spaces = BUF_INIT};
	struct space *s, *next;
	uint64_t now = uv_now(&w->loop);

	if (!control_listens(w) || now < w->activity_at)
		return;
	w->activity_at = now + REPORT_MS;
	w->nobody->count.now[GAUGE_CONNECTIONS] = (uint32_t)w->nclients;
	report(&r, w->nobody);
	HASH_ITER(hh, w->spaces, s, next)
	{
		if (!report(&r, s) && s->count.now[GAUGE_OPEN] == 0) {
			HASH_DEL(w->spaces, s);
			free(s);
		}
	}
	send_report(&r);
	buf_release(&r.spaces);
}
