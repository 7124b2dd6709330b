/* The builder: queue of builds and what drives each through its recipe, asynchronously on the loop of control. Reports to
 * the lifecycle (space/), which alone changes stages. A build's log file is written here. */
#ifndef SPACED_BUILD_BUILD_H
#define SPACED_BUILD_BUILD_H

#include <uv.h>

#include "spaced/build/recipe.h"
#include "spaced/config.h"
#include "spaced/space/place.h"
#include "spaced/store/store.h"

enum build_outcome { OUT_BUILT, OUT_NO_APP_FILE, OUT_CONFIG_ERROR, OUT_FAILED, OUT_CANCELLED, OUT_SUPERSEDED };

struct build_result {
	const char *build_id, *space_id, *commit;
	enum build_outcome outcome;
	const char *message; /* one sentence, "" when built */
	enum kind kind;
	const struct card *card; /* NULL when the header could not be read */
	const char *recipe;	 /* JSON for store_release_add; NULL unless built */
};
struct builder_callbacks {
	/* Called from the loop, never from within a call of the builder. */
	void (*finished)(void *ctx, const struct build_result *r);
	void *ctx;
};

struct builder;
struct builder *builder_new(uv_loop_t *loop, const struct config *config, struct store *store, struct place *place,
			    const struct builder_callbacks *cb);
void builder_free(struct builder *b);
/* Queues a build of `commit`. `factory`: layers are made anew. */
int builder_add(struct builder *b, const struct space *sp, const char *commit, const char *cause, bool factory,
		char build_id[STORE_ID], struct err *err);
/* Queues one that an earlier process did not finish. */
int builder_resume(struct builder *b, const struct space *sp, const struct build *bd, struct err *err);
/* Ends builds; `finished` comes with OUT_CANCELLED or OUT_SUPERSEDED. False: not one of ours any more. */
bool builder_cancel(struct builder *b, const char *build_id, enum build_outcome why);
bool builder_cancel_space(struct builder *b, const char *space_id, enum build_outcome why);
/* A build of the Space that will be deployed when it succeeds. */
bool builder_expects(const struct builder *b, const char *space_id);
/* Something of a build of the Space may still run. */
bool builder_busy(const struct builder *b, const char *space_id);
unsigned builder_position(const struct builder *b, const char *build_id);
bool builder_active(const struct builder *b, const char *build_id); /* queued or running */
/* Events of sandboxes named build-*. */
void builder_exited(struct builder *b, const char *name, const struct sandbox_exit *e);
void builder_limited(struct builder *b, const char *name, const char *sentence);
/* After the spawner came back: what runs. Steps that are gone are done again. */
void builder_reconcile(struct builder *b, const struct place_status *v, size_t n);
bool builder_owns(const struct builder *b, const char *sandbox); /* a step that we wait for */
bool builder_uses_volume(const struct builder *b, const char *volume);
bool builder_uses_base(const struct builder *b, const char *id);
/* Kills running steps and starts none any more; their builds stay unfinished in the store. */
void builder_shutdown(struct builder *b);

#endif
