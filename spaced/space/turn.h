/* Whose turn it is among the Spaces that wait for a free place to start. Pure; starts.c acts on it.
 *
 * Owners take turns: a crawler that wakes 500 Spaces of one owner holds up nobody else's. Of one owner's, what was just built goes
 * first, since its author watches; then who came first. Start-time fair queueing (Goyal, Vin, Cheng 1996), each start as long as
 * any other: the k-th of an owner waits for round k, counted from the current one, or from the round after the owner's last. */
#ifndef SPACED_SPACE_TURN_H
#define SPACED_SPACE_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct turn {
	const char *space; /* "owner/name" */
	bool built;
	uint64_t arrived; /* who came first has less */
	uint64_t round;	  /* set by turns_sort() */
	void *of;	  /* the caller's */
};
struct turns { /* zero: nobody has had a turn */
	uint64_t round;
	struct turns_owner *owners; /* those whose next round is a later one */
	size_t n;
};
/* The next one first. */
void turns_sort(const struct turns *q, struct turn *t, size_t n);
/* The first one of turns_sort() has its turn. */
void turns_take(struct turns *q, const struct turn *t);
void turns_release(struct turns *q);

#endif
