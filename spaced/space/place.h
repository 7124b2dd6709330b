/* The seam to where things run. What is above it names sandboxes and volumes, never a pid, a path or a machine; other
 * machines can join behind it later. Here: one machine, through the spawner.
 * Every callback comes later, never from within the call, exactly once, also when the spawner is gone (ECONNRESET). */
#ifndef SPACED_SPACE_PLACE_H
#define SPACED_SPACE_PLACE_H

#include <uv.h>

#include "spaced/spawner_client.h"

struct place;
typedef void (*place_cb)(void *ctx, const char *name, const struct err *err); /* err NULL: done */

struct place *place_new(uv_loop_t *loop, struct spawner *spawner);
void place_free(struct place *p);
bool place_connected(const struct place *p);

/* Volumes. What is in use for the moment, by who is just going away or by upkeep, is waited for a little (EBUSY). */
void place_volume_create(struct place *p, const char *name, uint64_t bytes, place_cb cb, void *ctx);
void place_volume_rename(struct place *p, const char *from, const char *to, place_cb cb, void *ctx); /* name: `to` */
void place_volume_remove(struct place *p, const char *name, place_cb cb, void *ctx); /* cb may be NULL */
void place_base_remove(struct place *p, const char *id, place_cb cb, void *ctx);     /* cb may be NULL */
struct place_volume {
	char name[SANDBOX_NAME_MAX + 1];
	uint64_t bytes;
};
void place_volumes(struct place *p,
		   void (*cb)(void *ctx, const struct place_volume *v, size_t n, const struct err *err), void *ctx);

/* A data volume: made, or grown, when it has not so many bytes. EBUSY: it can be grown only while nobody uses it. */
void place_volume_ensure(struct place *p, const char *name, uint64_t bytes, place_cb cb, void *ctx);

/* Sandboxes. place_start first makes the volume `spec->top` of `top_bytes` when that is not 0, and before it ensures that
 * the data volume of the first bind has `data_bytes` when these are not 0; one that cannot be grown now does as it is. */
void place_start(struct place *p, const struct sandbox_spec *spec, uint64_t top_bytes, uint64_t data_bytes, int log_fd,
		 int stdin_fd, int stdout_fd, place_cb cb, void *ctx);
void place_stop(struct place *p, const char *name, uint32_t grace_ms, place_cb cb, void *ctx); /* cb may be NULL */
void place_forget(struct place *p, const char *name);
void place_freeze(struct place *p, const char *name, place_cb cb,
		  void *ctx); /* SPAWN_FREEZE; ENOTSUP: not on this host */
void place_thaw(struct place *p, const char *name, place_cb cb, void *ctx);
void place_page_out(struct place *p, const char *name, place_cb cb,
		    void *ctx); /* SPAWN_PAGE_OUT; ENOTSUP: not on this host; ENOSPC: not now, swap has no room */
struct place_status {
	char name[SANDBOX_NAME_MAX + 1];
	bool running;
	uint64_t started; /* wall ms */
	struct sandbox_exit exit;
};
void place_list(struct place *p, void (*cb)(void *ctx, const struct place_status *v, size_t n, const struct err *err),
		void *ctx);
/* SPAWN_STATS; `stats` is NULL with err (it does not run). */
struct place_stats {
	uint64_t memory, memory_limit, memory_peak; /* bytes */
	uint64_t cpu_usec, throttled_usec, oom_kills;
	uint32_t cpu_milli, pids, pids_limit;
	struct disk_usage top, data;
	uint64_t received, sent; /* bytes from the Internet, and to it */
	char *cgroup;		 /* its path, "": not known; belongs to the answer */
};
void place_stats(struct place *p, const char *name,
		 void (*cb)(void *ctx, const char *name, const struct place_stats *stats, const struct err *err),
		 void *ctx);
/* Sockets inside the sandbox's network namespace, owned by the callee; n is 0 with err. */
void place_open(struct place *p, const char *name, uint32_t n,
		void (*cb)(void *ctx, const char *name, const int *fds, int n, const struct err *err), void *ctx);
/* A command inside; sandbox/exec.h says what `fds` are (owned by the callee; n is 0 with err). Its end comes by way of
 * spawner_new's exec_ended. */
void place_exec(struct place *p, const char *name, const struct exec_request *q,
		void (*cb)(void *ctx, uint32_t exec, const int *fds, int n, const struct err *err), void *ctx);
/* 0: nobody is there any more. */
void place_exec_signal(struct place *p, const char *name, uint32_t exec, uint32_t signo);
/* "127.0.0.1:8000, 0.0.0.0:22"; "" when nothing listens; NULL when it cannot be told. */
void place_listeners(struct place *p, const char *name, void (*cb)(void *ctx, const char *name, const char *list),
		     void *ctx);

#endif
