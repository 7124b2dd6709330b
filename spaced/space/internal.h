/* What the files of space/ share. Only lifecycle.c changes stages; the others tell it what happened. */
#ifndef SPACED_SPACE_INTERNAL_H
#define SPACED_SPACE_INTERNAL_H

#include <uthash.h>

#include "spaced/build/build.h"
#include "spaced/space/health.h"
#include "spaced/space/place.h"
#include "spaced/space/sleep.h"
#include "spaced/space/space.h"
#include "spaced/space/stage.h"
#include "spaced/space/turn.h"

#define TICK_MS 250
#define STOP_GRACE_MS 10000
#define GOING_MAX 3	      /* instances of a Space that are being stopped when another one starts */
#define UNIT_INSTANCES_MAX 64 /* of one Space, of every state: more are not adopted */

/* What a release says about its start; parsed from release.recipe. */
struct run_plan {
	char *kind;
	char *layers[SANDBOX_MAX_LAYERS]; /* topmost first */
	size_t nlayers;
	char **argv;
	char *cwd, *headers, *site, *title;
	char *base; /* id of the image that it was built on; NULL: the host */
	uint16_t port;
	uint32_t timeout_s; /* 0: the configuration's */
};
int run_plan_parse(const char *recipe, struct run_plan *out, struct err *err);
void run_plan_release(struct run_plan *p);

enum instance_state { INST_STARTING, INST_SERVING, INST_DRAINING, INST_STOPPING };
struct instance {
	struct unit *unit;
	struct instance *next; /* in unit->old or unit->extra */
	char name[SANDBOX_NAME_MAX + 1];
	uint32_t generation;
	char release_id[STORE_ID];
	char build_id[STORE_ID]; /* its log gets the report; "" for a plain restart */
	char commit[41];
	uint16_t port;
	char *headers;
	enum instance_state state;
	bool again; /* a restart after a crash */
	bool extra; /* in unit->extra */
	bool stop_sent;
	bool up; /* the spawner has started it */
	bool exited;
	char data[SANDBOX_NAME_MAX + 1]; /* the persistent volume that it has, or "" */
	uint64_t started;		 /* wall ms */
	uint64_t began;			 /* monotonic ms */
	uint64_t deadline;		 /* of draining */
	struct health *health;
	uint64_t requests;
	uint32_t open;
	/* as of the last minute, once `measured` */
	bool measured;
	uint64_t memory, cpu_usec;
	enum sleep_state sleep;
	enum sleep_step sleep_step; /* what follows when the proxies are quiet */
	uint32_t quiet;		    /* serial of the question to them */
	uint64_t visited;	    /* monotonic ms: the last activity */
	uint64_t woken;		    /* monotonic ms */
	const char *woken_by;
	bool thaw_sent;
	bool paged_out; /* since it was frozen; also when it was tried in vain */
};

/* A Space that something happens to; made when first needed, kept until the Space is deleted. */
struct unit {
	struct spaces *s;
	char id[STORE_ID];
	char *name; /* "owner/name" */
	char *label;
	struct instance *serving, *starting, *old;
	struct instance *extra; /* beside `serving`, of its release (replicas.c) */
	uint32_t replicas;	/* so many are to serve */
	uint64_t extra_at;	/* monotonic ms: not before is another one started */
	struct crashes crashes, extra_crashes;
	uint64_t start_at; /* monotonic ms: from then on `start_release` waits for its turn to start; 0: it does not */
	uint64_t start_turn;
	char start_release[STORE_ID];
	char start_build[STORE_ID];
	bool start_again;
	bool start_alone;     /* when nothing else of it runs any more */
	bool told;	      /* people read that it waits, */
	unsigned told_before; /* and that so many are before it */
	bool deleting;
	int32_t sleep_s; /* its own sleep time (store.h) */
	UT_hash_handle hh, hh_name;
};

struct spaces {
	uv_loop_t *loop;
	const struct config *config;
	struct store *store;
	struct spawner *spawner;
	struct router *router;
	struct metrics *metrics;
	struct place *place;
	struct builder *builder;
	struct unit *units, *units_by_name;
	struct watch *watches;
	uv_timer_t tick;
	bool recovered;	    /* the store was classified once */
	struct turns turns; /* to start */
	uint64_t arrivals;
	bool ending;
	unsigned shutdown_waits;
	void (*shutdown_done)(void *ctx);
	void *shutdown_ctx;
	uv_timer_t shutdown_timer;
	struct gc *gc;
	struct traffic *traffic;
	struct exec *execs;
	struct sleeper *sleeper;
};

/* lifecycle.c */
/* An event for people. */
void life_note(struct spaces *s, const char *space_id, const char *kind, const char *text);
struct unit *unit_get(struct spaces *s, const char *space_id, struct err *err); /* loads it; NULL: no such Space */
struct unit *unit_find(struct spaces *s, const char *space_id);			/* NULL: nothing happens to it */
struct instance *space_instance(struct spaces *s, const char *name);
void life_stage(struct spaces *s, const char *space_id, enum stage_event ev, const char *message);
/* What people read about it while the stage stays. */
void life_say(struct spaces *s, const char *space_id, const char *message);
void life_built(void *ctx, const struct build_result *r);
void life_build(struct spaces *s, const struct space *sp, const char *commit, const char *cause, bool factory,
		char build_id[STORE_ID], struct err *err);
/* When it is its turn. */
void life_start(struct unit *u, const char *release_id, const char *build_id, bool again);
/* The same, in turn from `ms` on; the texts may be the unit's own. The stage stays as it is. */
void life_start_at(struct unit *u, const char *release_id, const char *build_id, bool again, uint64_t ms);
/* From serving, starting or extra into the list of those that go. */
void life_make_old(struct instance *in);
void life_drop_start(struct unit *u, const char *why);
bool life_may_start(const struct unit *u);
void life_retire(struct instance *in); /* no new requests; stopped when those in flight are over, or after DRAIN_MS */
void life_stop(struct instance *in, uint32_t grace_ms); /* takes its own time; frees it in the end */
void life_healthy(struct instance *in);
/* The instance is gone from its place: forget it. */
void life_gone(struct instance *in);
/* Drops a start whose fate is unknown and tries again in `ms`. */
void life_start_later(struct instance *in, uint32_t ms);
void life_delete_next(struct unit *u); /* goes on deleting when nothing runs any more */
/* Deletes the Space and frees the unit when it is to be deleted and nothing of it runs. */
bool unit_delete_due(struct unit *u);
void life_tick_need(struct spaces *s);
void life_shutdown_check(struct spaces *s);

/* Stops what runs of it; the release that served, or was being started, starts again when all of that is gone. */
void life_restart_alone(struct unit *u, const char *message);

/* ended.c */
void life_start_failed(struct instance *in, const char *message);

/* storage.c */
/* The persistent volume of a Space: a name that no other has had, nor will have: what is deleted stays deleted. */
void storage_volume(const struct space *sp, char out[SANDBOX_NAME_MAX + 1]);
/* What an instance has, as far as it can be told, that an earlier control has started; "" when nothing. */
void storage_adopted(const struct space *sp, char out[SANDBOX_NAME_MAX + 1]);
/* An instance is gone that may have had one: so is the volume, when it is not wanted any more. */
void storage_let_go(const struct instance *in);
/* A volume that gc has found: does a Space want it? What is not understood is wanted. */
bool storage_wanted(struct spaces *s, const char *volume);

/* start.c */
/* NULL with err. It is in none of the unit's places yet; whatever becomes of the start is told later. */
struct instance *start_instance(struct unit *u, const struct space *sp, const char *release_id, const char *build_id,
				bool again, struct err *err);
char *space_url(const struct config *c, const char *label);  /* malloc'd, without a slash at the end */
char *space_host(const struct config *c, const char *label); /* "label.domain[:port]" */
void space_instance_free(struct instance *in);		     /* frees it; must not be linked any more */

/* route.c */
void route_publish(struct spaces *s, const struct space *sp);
void route_publish_now(struct spaces *s, const char *space_id); /* as it is in the store */

/* replicas.c */
void replicas_link(struct instance *in);
bool replicas_unlink(struct instance *in);	 /* false: it is none */
unsigned replicas_serving(const struct unit *u); /* all that answer requests */
/* What has happened to one that was linked. */
void replicas_healthy(struct instance *in);
void replicas_ended(struct instance *in, const char *message);
void replicas_later(struct instance *in, uint32_t ms);
bool replicas_promote(struct unit *u);	   /* one of them serves in the place of what has ended; false: there is none */
void replicas_retire(struct unit *u);	   /* all; the route has none of them any more */
bool replicas_quiet(const struct unit *u); /* all proxies have answered for each (sleep.c) */
/* Starts or retires one towards what should be there. True: to be called again. */
bool replicas_settle(struct unit *u, uint64_t now);

/* domain.c */
/* The Space's route, for each host name of its own; `r->host` is changed. */
void domain_routes_set(struct spaces *s, const char *space_id, struct route *r);
void domain_routes_remove(struct spaces *s, const char *space_id);

/* push.c */
struct watch;
void watch_follow(struct spaces *s, struct push *p, const char *build_id);
/* The last thing about a build: its watchers print the rest of the log and `fmt`, and are finished. */
void watch_end(struct spaces *s, const char *build_id, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* spaces.c */
void space_tip(struct spaces *s, const struct space *sp, char oid[41]); /* of the default branch; "": none */

/* traffic.c */
/* What an instance has had so far; may be said again. */
void traffic_note(struct spaces *s, const char *instance, uint64_t received, uint64_t sent);
void traffic_new(struct spaces *s);
void traffic_free(struct spaces *s);

/* recover.c */
/* "app-{24 hex}-{generation}"; false for any other sandbox. */
bool instance_name_parse(const char *name, char space_id[STORE_ID], uint32_t *generation);

/* starts.c */
/* Starts those whose turn it is. To be called when one begins to wait, or a start is over. */
void starts_settle(struct spaces *s);
bool starts_room(const struct spaces *s); /* for one more at once */

/* sleep.c */
bool sleep_memory_short(const struct spaces *s); /* less than memory-reserve is available */
void sleep_new(struct spaces *s);
void sleep_free(struct spaces *s);
/* Freezes it without asking whether something is in flight: one that is adopted asleep. */
void sleep_freeze(struct instance *in);
/* What needs the app, or is about to replace it, comes; the stage is RUNNING, or a start is under way, before this returns.
 * No-op when it is awake. `why` is a literal. */
void sleep_wake(struct unit *u, const char *why);
/* It ended while it was asleep: it stays asleep, without an instance, and `in` is gone. False: it was awake. */
bool sleep_lost(struct instance *in);

/* exec.c */
void exec_lost(struct spaces *s);			      /* with the spawner */
bool exec_runs(const struct spaces *s, const char *instance); /* a command runs in it, or is on its way */
void exec_free_all(struct spaces *s);

/* gc.c */
void gc_soon(struct spaces *s);
/* A release that was added while gc may be under way. */
void gc_keep(struct spaces *s, const struct release *r);
void gc_free(struct spaces *s);
void gc_new(struct spaces *s);

#endif
