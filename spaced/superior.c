/* See superior.h. */
#include "spaced/superior.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/cleanup.h"

#define TEXT_MAX 4000

struct wish {
	struct wish *next;
	uint32_t id;
	superior_cb answered;
	void *ctx;
};

struct superior {
	struct channel *parent;
	struct wish *wishes;
	uint32_t ids;
};

struct superior *superior_new(struct channel *parent)
{
	struct superior *s = xcalloc(1, sizeof *s);

	s->parent = parent;
	return s;
}

void superior_free(struct superior *s)
{
	struct wish *w, *next;

	if (!s)
		return;
	LL_FOREACH_SAFE(s->wishes, w, next)
	free(w);
	free(s);
}

void superior_ask(struct superior *s, enum link_verb verb, superior_cb answered, void *ctx)
{
	struct wish *w = xcalloc(1, sizeof *w);

	w->id = ++s->ids ? s->ids : ++s->ids;
	w->answered = answered;
	w->ctx = ctx;
	LL_PREPEND(s->wishes, w);
	channel_send(s->parent, verb, w->id, NULL, 0, NULL, 0);
}

void superior_forget(struct superior *s, void *ctx)
{
	struct wish *w, *next;

	LL_FOREACH_SAFE(s->wishes, w, next)
	if (w->ctx == ctx) {
		LL_DELETE(s->wishes, w);
		free(w);
	}
}

void superior_answered(struct superior *s, const struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	bool done = get_u8(&r);
	cleanup_free char *text = get_strdup(&r, TEXT_MAX);
	struct wish *w;

	LL_FOREACH(s->wishes, w)
	if (w->id == f->id)
		break;
	if (!w)
		return;
	LL_DELETE(s->wishes, w);
	w->answered(w->ctx, done && text, text ? text : "the answer of the parent is malformed");
	free(w);
}
