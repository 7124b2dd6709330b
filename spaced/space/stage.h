/* The deciders of the life of a Space. Pure tables and small functions; lifecycle.c acts on them. */
#ifndef SPACED_SPACE_STAGE_H
#define SPACED_SPACE_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaced/store/store.h"

enum stage_event {
	EV_BUILD,	 /* a build was queued */
	EV_CONFIG_ERROR, /* the build found a header that cannot be used */
	EV_NO_APP_FILE,
	EV_BUILD_FAILED, /* also cancelled */
	EV_START,	 /* an instance of a new release, or a restart, begins to start */
	EV_PUBLISHED,	 /* static: the files are live */
	EV_HEALTHY,	 /* an instance answers */
	EV_START_FAILED,
	EV_CRASHED, /* the serving instance ended; it will be started again */
	EV_GAVE_UP, /* ... too often */
	EV_SLEEP,   /* nobody visits it */
	EV_WAKE,    /* the instance that was frozen is back */
	EV_PAUSE,
	EV_DELETE,
	EV_COUNT,
};
/* Where `stage` goes on `ev`; itself when the event changes nothing. */
enum space_stage stage_next(enum space_stage stage, enum stage_event ev);
/* The stages in which something of the Space answers visitors. */
bool stage_serves(enum space_stage stage);
bool stage_builds(enum space_stage stage);

/* After a restart of control: which of the running instances (their generations) is the one that serves by the store.
 * -1: none; what runs is to be stopped. */
int stage_adopt(enum space_stage stage, uint32_t serving, const uint32_t *generations, size_t n);

/* Restarts after crashes: 1, 2, 4 ... seconds; the fifth within ten minutes ends it. */
#define CRASHES_MAX 5
#define CRASH_WINDOW_MS (10 * 60 * 1000)
struct crashes {
	uint64_t at[CRASHES_MAX]; /* monotonic ms, a ring */
	unsigned n;
};
/* Notes one; milliseconds until the restart, or -1: give up. */
int crashes_note(struct crashes *c, uint64_t now);

#endif
