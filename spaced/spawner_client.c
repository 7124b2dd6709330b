/* See spawner_client.h. */
#include "spaced/spawner_client.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

#include "base/channel.h"
#include "base/log.h"

struct call {
	uint32_t id;
	enum spawn_verb verb;
	spawner_cb cb;
	void *ctx;
	UT_hash_handle hh;
};

struct spawner {
	uv_loop_t *loop;
	struct channel *channel; /* NULL while the parent restarts the spawner */
	struct call *calls;
	uint32_t next_id;
	void (*exited)(void *ctx, const char *name, const struct sandbox_exit *e);
	void (*exec_ended)(void *ctx, const char *name, uint32_t exec, uint32_t status, const char *why);
	void (*lost)(void *ctx);
	void (*limited)(void *ctx, const char *name, enum limit_kind kind, const char *sentence); /* may be NULL */
	void *ctx;
};

static void answer(struct spawner *s, struct call *call, struct frame *f, const struct err *err)
{
	HASH_DEL(s->calls, call);
	if (call->cb)
		call->cb(call->ctx, f, err);
	free(call);
}

/* Calls that are made from within these answers wait for the next channel like any other: only those of now are ended. */
static void fail_all(struct spawner *s)
{
	struct err err;
	struct call *call, *next;
	struct call *old = s->calls;

	err_set(&err, ECONNRESET, "the spawner ended");
	s->calls = NULL;
	HASH_ITER(hh, old, call, next)
	{
		HASH_DEL(old, call);
		if (call->cb)
			call->cb(call->ctx, NULL, &err);
		free(call);
	}
}

static void on_exec_ended(struct spawner *s, struct reader *r, const char *name)
{
	char why[160];
	uint32_t exec = get_u32(r);
	uint32_t status = get_u32(r);

	if (get_str(r, why, sizeof why) && get_ok(r))
		s->exec_ended(s->ctx, name, exec, status, why);
	else
		log_warn("spawner: malformed event");
}

static void on_limit(struct spawner *s, struct reader *r, const char *name)
{
	enum limit_kind kind = (enum limit_kind)get_u8(r);
	char sentence[LIMIT_SENTENCE];

	if (get_str(r, sentence, sizeof sentence) && get_ok(r) && s->limited)
		s->limited(s->ctx, name, kind, sentence);
}

static void on_event(struct spawner *s, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	char name[SANDBOX_NAME_MAX + 1];
	struct sandbox_exit e;

	get_str(&r, name, sizeof name);
	if (f->type == SPAWN_EXEC_ENDED)
		on_exec_ended(s, &r, name);
	else if (f->type == SPAWN_LIMIT)
		on_limit(s, &r, name);
	else if (f->type == SPAWN_EXITED && sandbox_exit_decode(&r, &e) && get_ok(&r))
		s->exited(s->ctx, name, &e);
	else
		log_warn("spawner: unexpected event %u", f->type);
}

/* A list of volumes may take several frames; the first byte of each says whether another one comes. */
static bool more_follows(const struct call *call, const struct frame *f)
{
	return call->verb == SPAWN_VOLUME_LIST && f->len && f->payload[0];
}

static void on_frame(void *ctx, struct frame *f)
{
	struct spawner *s = ctx;
	struct call *call;

	if (f->id == 0) {
		on_event(s, f);
		return;
	}
	HASH_FIND(hh, s->calls, &f->id, sizeof f->id, call);
	if (!call)
		return;
	if (f->type == SPAWN_OK) {
		if (more_follows(call, f)) {
			if (call->cb)
				call->cb(call->ctx, f, NULL);
			return;
		}
		answer(s, call, f, NULL);
		return;
	}
	struct reader r = reader_of(f->payload, f->len);
	struct err err = ERR_INIT;
	err.code = (int)get_u32(&r);
	get_str(&r, err.msg, sizeof err.msg);
	if (f->type != SPAWN_ERROR || r.bad)
		err_set(&err, EBADMSG, "answer of the spawner");
	answer(s, call, NULL, &err);
}

static void on_end(void *ctx, int e)
{
	struct spawner *s = ctx;

	log_warn("spawner: channel ended (%s)", e ? uv_strerror(e) : "closed");
	channel_close(s->channel);
	s->channel = NULL;
	fail_all(s);
	s->lost(s->ctx);
}

struct spawner *
spawner_new(uv_loop_t *loop, int sock, void (*exited)(void *ctx, const char *name, const struct sandbox_exit *e),
	    void (*exec_ended)(void *ctx, const char *name, uint32_t exec, uint32_t status, const char *why),
	    void (*lost)(void *ctx), void *ctx)
{
	struct spawner *s = xcalloc(1, sizeof *s);

	s->loop = loop;
	s->exited = exited;
	s->exec_ended = exec_ended;
	s->lost = lost;
	s->ctx = ctx;
	s->next_id = 1;
	if (sock >= 0)
		spawner_reconnect(s, sock);
	return s;
}

void spawner_on_limit(struct spawner *s,
		      void (*limited)(void *ctx, const char *name, enum limit_kind kind, const char *sentence))
{
	s->limited = limited;
}

void spawner_reconnect(struct spawner *s, int sock)
{
	channel_close(s->channel);
	s->channel = NULL;
	fail_all(s);
	s->channel = channel_open(s->loop, sock, on_frame, on_end, s);
}

bool spawner_connected(const struct spawner *s)
{
	return s->channel != NULL;
}

void spawner_free(struct spawner *s)
{
	channel_close(s->channel);
	fail_all(s);
	free(s);
}

void spawner_call(struct spawner *s, enum spawn_verb verb, const struct buf *payload, const int *fds, int nfds,
		  spawner_cb cb, void *ctx)
{
	if (!s->channel) {
		struct err err;
		err_set(&err, ECONNRESET, "the spawner is being restarted");
		if (cb)
			cb(ctx, NULL, &err);
		return;
	}
	struct call *call = xcalloc(1, sizeof *call);
	call->id = s->next_id++;
	if (s->next_id == 0)
		s->next_id = 1;
	call->verb = verb;
	call->cb = cb;
	call->ctx = ctx;
	HASH_ADD(hh, s->calls, id, sizeof call->id, call);
	channel_send(s->channel, verb, call->id, payload ? payload->data : NULL, payload ? payload->len : 0, fds, nfds);
}

void spawner_start(struct spawner *s, const struct sandbox_spec *spec, int log_fd, int stdin_fd, int stdout_fd,
		   spawner_cb cb, void *ctx)
{
	cleanup_buf struct buf b = BUF_INIT;
	int fds[3];
	int n = 0;

	sandbox_spec_encode(spec, &b);
	put_u8(&b, stdin_fd >= 0);
	put_u8(&b, stdout_fd >= 0);
	fds[n++] = log_fd;
	if (stdin_fd >= 0)
		fds[n++] = stdin_fd;
	if (stdout_fd >= 0)
		fds[n++] = stdout_fd;
	if (b.len > FRAME_MAX_PAYLOAD) {
		struct err err;
		err_set(&err, E2BIG, "arguments and environment of `%s` take %zu bytes, at most %u fit", spec->name,
			b.len, FRAME_MAX_PAYLOAD);
		cb(ctx, NULL, &err);
		return;
	}
	spawner_call(s, SPAWN_START, &b, fds, n, cb, ctx);
}

void spawner_stop(struct spawner *s, const char *name, uint32_t grace_ms, spawner_cb cb, void *ctx)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u32(&b, grace_ms);
	spawner_call(s, SPAWN_STOP, &b, NULL, 0, cb, ctx);
}

void spawner_name_call(struct spawner *s, enum spawn_verb verb, const char *name, spawner_cb cb, void *ctx)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	spawner_call(s, verb, &b, NULL, 0, cb, ctx);
}
