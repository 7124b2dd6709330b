/* Control's end of the spawner protocol: asynchronous calls on the libuv loop. */
#ifndef SPACED_SPAWNER_CLIENT_H
#define SPACED_SPAWNER_CLIENT_H

#include <uv.h>

#include "sandbox/spawner.h"

struct spawner;
/* Called once (SPAWN_VOLUME_LIST: once for each frame). `err` is NULL on success. `f` is the answer (its descriptors may be taken); valid during the call only. */
typedef void (*spawner_cb)(void *ctx, struct frame *f, const struct err *err);

/* Takes over `sock`. `exited` is called for each SPAWN_EXITED event, `exec_ended` for each SPAWN_EXEC_ENDED; `lost` when the spawner is gone (all calls under way
 * have been answered with ECONNRESET; the parent will hand over a new channel: spawner_reconnect). */
struct spawner *
spawner_new(uv_loop_t *loop, int sock, void (*exited)(void *ctx, const char *name, const struct sandbox_exit *e),
	    void (*exec_ended)(void *ctx, const char *name, uint32_t exec, uint32_t status, const char *why),
	    void (*lost)(void *ctx), void *ctx);
/* `limited` is called for each SPAWN_LIMIT event, with the ctx of spawner_new. */
void spawner_on_limit(struct spawner *s,
		      void (*limited)(void *ctx, const char *name, enum limit_kind kind, const char *sentence));
void spawner_reconnect(struct spawner *s, int sock);
bool spawner_connected(const struct spawner *s);
void spawner_free(struct spawner *s);
/* `payload` is copied; `fds` stay the caller's. cb may be NULL. */
void spawner_call(struct spawner *s, enum spawn_verb verb, const struct buf *payload, const int *fds, int nfds,
		  spawner_cb cb, void *ctx);
/* Shorthands. */
void spawner_start(struct spawner *s, const struct sandbox_spec *spec, int log_fd, int stdin_fd, int stdout_fd,
		   spawner_cb cb, void *ctx);
void spawner_stop(struct spawner *s, const char *name, uint32_t grace_ms, spawner_cb cb, void *ctx);
void spawner_name_call(struct spawner *s, enum spawn_verb verb, const char *name, spawner_cb cb, void *ctx);

#endif
