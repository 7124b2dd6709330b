/* Who builds next. Pure: knows ids only. FIFO; builds that have to install something are bounded by one number, those
 * that only place code by another, so that a code-only push never waits behind a long install. */
#ifndef SPACED_BUILD_QUEUE_H
#define SPACED_BUILD_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "spaced/store/store.h"

struct queue_item {
	char id[STORE_ID];
	char space_id[STORE_ID];
	bool heavy;
	bool running;
};
struct queue {
	struct queue_item *items; /* in order of arrival */
	size_t n;
	unsigned heavy_max, light_max;
};
void queue_init(struct queue *q, unsigned heavy_max, unsigned light_max);
void queue_release(struct queue *q);
void queue_push(struct queue *q, const char *id, const char *space_id, bool heavy);
/* Again at the front: it was interrupted by us, not by its author. */
void queue_again(struct queue *q, const char *id, const char *space_id, bool heavy);
/* Marks the next one that may run as running; NULL: none. One build of a Space at a time. Valid until the next change. */
const struct queue_item *queue_next(struct queue *q);
void queue_remove(struct queue *q, const char *id);		/* done, cancelled, superseded */
unsigned queue_position(const struct queue *q, const char *id); /* 1: next; 0: runs or is not there */

#endif
