/* The life of Spaces: from a pushed commit over build and start to the route, and back. The only place that changes a
 * stage. Everything asynchronous on the libuv loop of control.
 *
 * The seam to where things run (place, ensure, start, stop, open) is space/place.h: nothing above it knows a pid or path. */
#ifndef SPACED_SPACE_H
#define SPACED_SPACE_H

#include <uv.h>

#include "spaced/config.h"
#include "spaced/domain.h"
#include "spaced/git/git.h"
#include "spaced/metrics.h"
#include "spaced/router.h"
#include "spaced/space/place.h"
#include "spaced/spawner_client.h"
#include "spaced/store/store.h"

struct spaces;

struct spaces *spaces_new(uv_loop_t *loop, const struct config *config, struct store *store, struct spawner *spawner,
			  struct router *router, struct metrics *metrics);
void spaces_free(struct spaces *s);
/* After start of control or of the spawner: asks what runs, adopts it, starts what should run and does not, queues
 * interrupted builds again, removes leftovers; then router_ready(). */
void spaces_recover(struct spaces *s);
/* Wired to spawner_new and router_new. */
void spaces_exited(struct spaces *s, const char *name, const struct sandbox_exit *e);
void spaces_limited(struct spaces *s, const char *name, enum limit_kind kind, const char *sentence);
void spaces_spawner_lost(struct spaces *s);
void spaces_exec_ended(struct spaces *s, const char *instance, uint32_t exec, uint32_t status, const char *why);
void spaces_idle(struct spaces *s, const char *instance, uint32_t generation);
/* So many requests more, and so many open now; `visited`: some of them by who may. */
void spaces_activity(struct spaces *s, const char *space, uint64_t requests, uint32_t open, bool visited);
/* Somebody waits at a proxy for "owner/name". */
void spaces_visited(struct spaces *s, const char *space);
/* All proxies have answered router_quiet(). */
void spaces_quieted(struct spaces *s, const char *instance, uint32_t serial, bool busy);
/* Tells each push that follows its build that this ends, and ends it. */
void spaces_end_output(struct spaces *s);
/* Orderly end of control. With stop_apps all instances are stopped first; `done` is called when it may exit. */
void spaces_shutdown(struct spaces *s, bool stop_apps, void (*done)(void *ctx), void *ctx);

/* Refs are durable (git_callbacks.pushed). Takes over `p`: reports to it and finishes it. The stage has changed before
 * this returns. */
void spaces_pushed(struct spaces *s, const struct git_target *t, struct ref_update *updates, size_t n, struct push *p);

/* What people can ask for. 0 accepted (runs on in the background), -1 with a reason. */
int spaces_restart(struct spaces *s, const char *space_id, bool factory, struct err *err);
int spaces_pause(struct spaces *s, const char *space_id, struct err *err);
/* Stopped until somebody visits it. EBUSY: it does not run, or is being built or started. */
int spaces_sleep(struct spaces *s, const char *space_id, struct err *err);
void spaces_wake(struct spaces *s, const char *space_id, const char *why); /* `why` is a literal; no-op when awake */
int spaces_set_sleep(struct spaces *s, const char *space_id, int32_t seconds, struct err *err); /* store.h */
int spaces_delete(struct spaces *s, const char *space_id, struct err *err);
int spaces_cancel_build(struct spaces *s, const char *build_id, struct err *err);
/* Persistent storage of so many bytes, at /data; 0 deletes it with what is in it. It can grow, and not shrink. The Space is
 * started again where the app has to see it. EINVAL with a sentence for people; EBUSY: try again. */
int spaces_storage(struct spaces *s, const char *space_id, uint64_t bytes, struct err *err);
/* Figures of the instance that runs, asked for now; NULL when none does or it cannot be told. */
void spaces_stats(struct spaces *s, const char *space_id,
		  void (*cb)(void *ctx, const char *instance, const struct place_stats *stats, const struct err *err),
		  void *ctx);
/* Takes effect with the next request, and cuts the WebSockets and event streams of a Space that becomes private. */
int spaces_set_visibility(struct spaces *s, const char *space_id, enum space_visibility v, struct err *err);
/* Host names of its own; `host` is the name as it was understood. EINVAL, EEXIST, ENOENT with a sentence for people. */
int spaces_domain_add(struct spaces *s, const char *space_id, const char *text, char host[DOMAIN_MAX + 1],
		      struct err *err);
int spaces_domain_remove(struct spaces *s, const char *space_id, const char *text, char host[DOMAIN_MAX + 1],
			 struct err *err);
/* How many requests per second it may get (store.h), from now on. */
int spaces_set_rate(struct spaces *s, const char *space_id, int64_t rate, struct err *err);
/* So many instances; they are started, or end when what they have in flight is over. EINVAL with a sentence for people. */
int spaces_scale(struct spaces *s, const char *space_id, uint32_t n, struct err *err);
/* Whether a cookie keeps each visitor to one of them. Switched on again the cookies of before count no more. */
int spaces_set_sticky(struct spaces *s, const char *space_id, bool sticky, struct err *err);
/* What it is to stand on (store.h), from its next build on. ENOENT: there is no such base. */
int spaces_set_base(struct spaces *s, const char *space_id, const char *base, struct err *err);
/* All versions of a base, a moment later. EBUSY while a Space or a build stands on it, or it is the default. */
int spaces_remove_base(struct spaces *s, const char *name, struct err *err);
/* After store_space_add: its first route (a page that says nothing is deployed yet). */
void spaces_created(struct spaces *s, const char *space_id);

/* Log files. `build` picks the newest build's log (or of build_id), else the newest run log. Path in a malloc'd string. */
char *spaces_log_path(struct spaces *s, const char *space_id, bool build, const char *build_id);
/* True while more may be appended to that log. */
bool spaces_log_live(struct spaces *s, const char *space_id, bool build, const char *build_id);
/* Position in the build queue (1: next), 0 when it does not wait. */
unsigned spaces_queue_position(struct spaces *s, const char *build_id);
/* Asks what is running for its bytes: the store knows them a moment later. It does so by itself every minute. */
void spaces_count_traffic(struct spaces *s, const char *space_id);
/* Each instance that serves, with memory (bytes) and CPU time (of its cgroup) as it was told at that minute. */
typedef void (*spaces_usage_cb)(void *ctx, const char *space, const char *instance, uint64_t memory, uint64_t cpu_usec);
void spaces_each_usage(struct spaces *s, spaces_usage_cb cb, void *ctx);
/* Live figures of the running instance; false when none runs. */
struct space_live {
	char instance[81];
	uint64_t started; /* wall ms */
	uint64_t requests;
	uint32_t open_connections;
	char commit[41];
	uint16_t port;
	unsigned instances; /* that answer requests */
};
bool spaces_live(struct spaces *s, const char *space_id, struct space_live *out);

/* A command inside the running app (sandbox/exec.h). `started` is called once: with the descriptors (owned by the callee),
 * or with `err`, and then the exec is gone. `ended` at most once, after that; the exec is gone then. */
struct exec;
struct exec_callbacks {
	void (*started)(void *ctx, const int *fds, int n, const struct err *err);
	void (*ended)(void *ctx, uint32_t status, const char *why); /* `why` "": by itself */
};
/* NULL with a reason: static, not running. No callback from within the call. */
struct exec *spaces_exec(struct spaces *s, const char *space_id, const struct exec_request *q,
			 const struct exec_callbacks *cb, void *ctx, struct err *err);
void spaces_exec_signal(struct exec *e, uint32_t signo);
/* Nobody is there any more: the command is ended, no callback comes. */
void spaces_exec_leave(struct exec *e);

#endif
