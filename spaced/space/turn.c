/* See turn.h. */
#include "spaced/space/turn.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct turns_owner {
	char *space; /* of the owner */
	uint64_t next;
};

static int by_owner(const char *a, const char *b)
{
	size_t n = strcspn(a, "/"), m = strcspn(b, "/");
	int c = memcmp(a, b, n < m ? n : m);

	return c ? c : (n > m) - (n < m);
}

static int by_arrival(const struct turn *a, const struct turn *b)
{
	return a->built != b->built ? b->built - a->built : (a->arrived > b->arrived) - (a->arrived < b->arrived);
}

static int within_owner(const void *x, const void *y)
{
	const struct turn *a = x, *b = y;
	int c = by_owner(a->space, b->space);

	return c ? c : by_arrival(a, b);
}

static int over_owners(const void *x, const void *y)
{
	const struct turn *a = x, *b = y;

	return a->round != b->round ? (a->round > b->round) - (a->round < b->round) : by_arrival(a, b);
}

static uint64_t first_round(const struct turns *q, const char *space)
{
	for (size_t i = 0; i < q->n; i++)
		if (by_owner(q->owners[i].space, space) == 0)
			return q->owners[i].next;
	return q->round;
}

void turns_sort(const struct turns *q, struct turn *t, size_t n)
{
	qsort(t, n, sizeof *t, within_owner);
	for (size_t i = 0; i < n; i++)
		t[i].round =
		    i && by_owner(t[i - 1].space, t[i].space) == 0 ? t[i - 1].round + 1 : first_round(q, t[i].space);
	qsort(t, n, sizeof *t, over_owners);
}

void turns_take(struct turns *q, const struct turn *t)
{
	size_t kept = 0;

	q->round = t->round;
	for (size_t i = 0; i < q->n; i++) {
		struct turns_owner *o = &q->owners[i];
		if (o->next > q->round && by_owner(o->space, t->space) != 0)
			q->owners[kept++] = *o;
		else
			free(o->space);
	}
	q->n = kept;
	q->owners = xreallocarray(q->owners, q->n + 1, sizeof *q->owners);
	q->owners[q->n++] = (struct turns_owner){.space = xstrdup(t->space), .next = t->round + 1};
}

void turns_release(struct turns *q)
{
	for (size_t i = 0; i < q->n; i++)
		free(q->owners[i].space);
	free(q->owners);
	*q = (struct turns){0};
}
