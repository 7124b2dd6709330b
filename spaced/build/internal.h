/* What build.c (queue, life of a build) and drive.c (its steps) share. */
#ifndef SPACED_BUILD_INTERNAL_H
#define SPACED_BUILD_INTERNAL_H

#include "spaced/build/base_tools.h"
#include "spaced/build/build.h"
#include "spaced/build/queue.h"

#define NO_ENDING ((enum build_outcome) - 1)

/* One build in memory. Every call under way holds a reference; it is freed when it has ended and none is left. */
struct job {
	struct builder *b;
	struct job *next;
	unsigned refs;
	bool ended;
	bool reported; /* nothing of it runs any more */
	bool lights;   /* the plan needs no sandbox or only unpacks the source */
	char id[STORE_ID];
	char space_id[STORE_ID];
	char commit[41];
	char repo[64];
	uint32_t slot;
	char wish[BASE_NAME_MAX + 1]; /* of its Space, as of base_resolve() */
	char base[BASE_ID];	      /* what it is built on; "": the host */
	bool factory;
	bool prepared;
	uv_timer_t timer; /* defers what must not happen inside a caller's call */
	struct card card;
	bool has_card;
	struct verdict verdict;
	struct recipe recipe;
	/* progress */
	enum build_outcome ending; /* asked to end, or decided; NO_ENDING */
	char *message;
	int log;
	uint64_t began; /* monotonic ms */
	const char *phase;
	uint64_t phase_began;
	size_t layer, step;
	unsigned attempts;
	char *volumes[RECIPE_LAYERS];	    /* finished ones, in the order of the recipe */
	char top[SANDBOX_NAME_MAX + 1];	    /* being made; "" none */
	char becomes[SANDBOX_NAME_MAX + 1]; /* its name once it is made; "" none */
	/* the step under way */
	char sandbox[SANDBOX_NAME_MAX + 1];
	bool starting, running; /* START not answered; waiting for its exit */
	bool streaming, extracting;
	bool fallback;
	bool interrupted; /* the spawner went away */
	off_t log_from;
	struct sandbox_exit exit;
	char *io_error; /* of the tree's stream or the site's extraction */
	char *start_error;
};

struct builder {
	uv_loop_t *loop;
	const struct config *config;
	struct store *store;
	struct place *place;
	struct builder_callbacks cb;
	struct tools tools;
	struct queue queue;
	struct job *jobs;
	uv_timer_t kick; /* looks at the queue */
	bool ending;
};

void job_unref(struct job *j);
/* The build is over; reports on a later turn of the loop. */
void job_end(struct job *j, enum build_outcome outcome, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void job_kick(struct builder *b);
/* From the beginning, when the spawner is back. */
void job_again(struct job *j);

void drive_begin(struct job *j);
/* Something that the step waits for has happened. */
void drive_check(struct job *j);
void drive_phase(struct job *j, const char *phase); /* NULL: closes the one before */
/* Ends what is under way (cancel); drive_check() goes on when it has ended. */
void drive_kill(struct job *j);
void drive_cleanup(struct job *j); /* volumes that nobody needs */

#endif
