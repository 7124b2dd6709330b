/* See queue.h. */
#include "spaced/build/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

void queue_init(struct queue *q, unsigned heavy_max, unsigned light_max)
{
	*q = (struct queue){.heavy_max = heavy_max ? heavy_max : 1, .light_max = light_max ? light_max : 1};
}

void queue_release(struct queue *q)
{
	free(q->items);
	*q = (struct queue){0};
}

static void insert(struct queue *q, size_t at, const char *id, const char *space_id, bool heavy)
{
	q->items = xreallocarray(q->items, q->n + 1, sizeof *q->items);
	memmove(q->items + at + 1, q->items + at, (q->n - at) * sizeof *q->items);
	q->n++;
	q->items[at] = (struct queue_item){.heavy = heavy};
	snprintf(q->items[at].id, sizeof q->items[at].id, "%s", id);
	snprintf(q->items[at].space_id, sizeof q->items[at].space_id, "%s", space_id);
}

void queue_push(struct queue *q, const char *id, const char *space_id, bool heavy)
{
	insert(q, q->n, id, space_id, heavy);
}

void queue_again(struct queue *q, const char *id, const char *space_id, bool heavy)
{
	insert(q, 0, id, space_id, heavy);
}

static bool space_runs(const struct queue *q, const char *space_id)
{
	for (size_t i = 0; i < q->n; i++)
		if (q->items[i].running && strcmp(q->items[i].space_id, space_id) == 0)
			return true;
	return false;
}

const struct queue_item *queue_next(struct queue *q)
{
	unsigned running[2] = {0, 0};
	const unsigned max[2] = {q->light_max, q->heavy_max};

	for (size_t i = 0; i < q->n; i++)
		running[q->items[i].heavy] += q->items[i].running;
	for (size_t i = 0; i < q->n; i++) {
		struct queue_item *it = &q->items[i];
		if (it->running || running[it->heavy] >= max[it->heavy] || space_runs(q, it->space_id))
			continue;
		it->running = true;
		return it;
	}
	return NULL;
}

void queue_remove(struct queue *q, const char *id)
{
	for (size_t i = 0; i < q->n; i++) {
		if (strcmp(q->items[i].id, id) != 0)
			continue;
		memmove(q->items + i, q->items + i + 1, (q->n - i - 1) * sizeof *q->items);
		q->n--;
		return;
	}
}

unsigned queue_position(const struct queue *q, const char *id)
{
	unsigned waiting = 0;

	for (size_t i = 0; i < q->n; i++) {
		waiting += !q->items[i].running;
		if (strcmp(q->items[i].id, id) == 0)
			return q->items[i].running ? 0 : waiting;
	}
	return 0;
}
