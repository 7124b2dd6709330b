/* See metrics.h. */
#include "spaced/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

/* What one proxy has now of one Space; none of a proxy that has nothing. */
struct share {
	struct share *next;
	uint64_t peer;
	uint32_t now[GAUGES];
};

struct entry {
	UT_hash_handle hh;
	struct counters sum;
	struct share *shares;
	char name[];
};

struct metrics {
	struct entry *entries;
};

struct metrics *metrics_new(void)
{
	return xcalloc(1, sizeof(struct metrics));
}

static void entry_free(struct metrics *m, struct entry *e)
{
	HASH_DEL(m->entries, e);
	while (e->shares) {
		struct share *s = e->shares;
		e->shares = s->next;
		free(s);
	}
	free(e);
}

void metrics_free(struct metrics *m)
{
	struct entry *e, *next;

	HASH_ITER(hh, m->entries, e, next)
	{
		entry_free(m, e);
	}
	free(m);
}

static struct entry *entry_find(const struct metrics *m, const char *space)
{
	struct entry *e;

	HASH_FIND(hh, m->entries, space, strlen(space), e);
	return e;
}

bool metrics_has(const struct metrics *m, const char *space)
{
	return entry_find(m, space) != NULL;
}

static struct entry *entry_of(struct metrics *m, const char *space)
{
	size_t n = strlen(space);
	struct entry *e = entry_find(m, space);

	if (e)
		return e;
	e = xcalloc(1, sizeof *e + n + 1);
	memcpy(e->name, space, n);
	HASH_ADD_KEYPTR(hh, m->entries, e->name, n, e);
	return e;
}

/* Takes away what the proxy had, and puts `now` in its place. */
static void set_share(struct entry *e, uint64_t peer, const uint32_t now[GAUGES])
{
	struct share *s;
	bool any = false;

	LL_SEARCH_SCALAR(e->shares, s, peer, peer);
	for (size_t i = 0; i < GAUGES; i++) {
		e->sum.now[i] += now[i] - (s ? s->now[i] : 0);
		any = any || now[i];
	}
	if (s && !any) {
		LL_DELETE(e->shares, s);
		free(s);
		return;
	}
	if (!any)
		return;
	if (!s) {
		s = xcalloc(1, sizeof *s);
		s->peer = peer;
		LL_PREPEND(e->shares, s);
	}
	memcpy(s->now, now, sizeof s->now);
}

const struct counters *metrics_add(struct metrics *m, uint64_t peer, const char *space, const struct counters *growth)
{
	struct entry *e = entry_of(m, space);

	for (size_t i = 0; i < COUNTERS; i++)
		e->sum.n[i] += growth->n[i];
	set_share(e, peer, growth->now);
	return &e->sum;
}

void metrics_count(struct metrics *m, const char *space, enum counter which, uint64_t n)
{
	entry_of(m, space)->sum.n[which] += n;
}

void metrics_peer_gone(struct metrics *m, uint64_t peer)
{
	static const uint32_t nothing[GAUGES];
	struct entry *e, *next;

	HASH_ITER(hh, m->entries, e, next)
	{
		set_share(e, peer, nothing);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct metrics_row *)a)->space, ((const struct metrics_row *)b)->space);
}

struct metrics_row *metrics_rows(struct metrics *m, bool (*exists)(void *ctx, const char *space), void *ctx, size_t *n)
{
	struct metrics_row *rows = xreallocarray(NULL, HASH_COUNT(m->entries) + 1, sizeof *rows);
	struct entry *e, *next;

	*n = 0;
	HASH_ITER(hh, m->entries, e, next)
	{
		if (e->name[0] && !exists(ctx, e->name)) {
			entry_free(m, e);
			continue;
		}
		rows[*n].space = xstrdup(e->name);
		rows[(*n)++].sum = e->sum;
	}
	qsort(rows, *n, sizeof *rows, by_name);
	return rows;
}
