/* POST /api/spaces/OWNER/NAME/exec: a command inside the running app, for `spacectl exec`, on the admin socket alone. The
 * answer is a 101 with descriptors: first a frame socket (sandbox/exec.h), on which the client may send EXEC_SIGNAL and hears
 * EXEC_ENDED {u32 status, str why}, then what the command reads and writes. Its bytes do not pass here. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/api/api_int.h"

#define PROTOCOL "spaced-exec"
#define NOTE_MAX 200

struct exec_session {
	struct api *a;
	struct exec_session *prev, *next; /* of a->execs */
	struct call *call;		  /* until it is answered, or gone */
	struct exec *exec;
	struct channel *channel; /* from then on */
};

static void session_free(struct exec_session *x)
{
	if (x->prev)
		x->prev->next = x->next;
	else
		x->a->execs = x->next;
	if (x->next)
		x->next->prev = x->prev;
	if (x->call)
		x->call->exec = NULL;
	channel_close(x->channel);
	free(x);
}

static void leave(struct exec_session *x)
{
	spaces_exec_leave(x->exec);
	session_free(x);
}

/* ---- the client's frame socket ---- */

static void on_frame(void *ctx, struct frame *f)
{
	struct exec_session *x = ctx;
	struct reader r = reader_of(f->payload, f->len);
	uint32_t signo = get_u32(&r);

	if (f->type == EXEC_SIGNAL && get_ok(&r) && signo)
		spaces_exec_signal(x->exec, signo);
	else
		log_warn("exec: the client makes no sense");
}

static void on_end(void *ctx, int err)
{
	(void)err;
	leave(ctx);
}

/* ---- the command ---- */

static void ended(void *ctx, uint32_t status, const char *why)
{
	struct exec_session *x = ctx;
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, status);
	put_str(&b, why);
	channel_send(x->channel, EXEC_ENDED, 0, b.data, b.len, NULL, 0);
	session_free(x);
}

static int hand_over(struct exec_session *x, const int *fds, int n, struct err *err)
{
	int all[HTTP_HAND_OVER], pair[2];
	int rc = n >= HTTP_HAND_OVER ? -E2BIG : frame_pair(pair);

	if (rc < 0)
		return err_set(err, -rc, "descriptors of the command");
	all[0] = pair[1];
	memcpy(all + 1, fds, (size_t)n * sizeof *fds);
	rc = http_hand_over(x->call->r, PROTOCOL, all, n + 1);
	close(pair[1]);
	if (rc < 0) {
		close(pair[0]);
		return err_set(err, -rc, "hand the command over");
	}
	x->call->exec = NULL;
	x->call = NULL;
	x->channel = channel_open(x->a->loop, pair[0], on_frame, on_end, x);
	return 0;
}

static void started(void *ctx, const int *fds, int n, const struct err *err)
{
	struct exec_session *x = ctx;
	struct err own = ERR_INIT;

	if (err) {
		call_fail(x->call, err);
		session_free(x);
		return;
	}
	int rc = hand_over(x, fds, n, &own);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	if (rc < 0) {
		call_fail(x->call, &own);
		leave(x);
	}
}

/* Its client has gone before it began. */
void exec_call_gone(struct exec_session *x)
{
	if (x)
		leave(x);
}

void exec_close_all(struct api *a)
{
	while (a->execs)
		leave(a->execs);
}

/* ---- the request ---- */

static char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s && *s ? xstrdup(s) : NULL;
}

static uint32_t number(json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 && n <= UINT16_MAX ? (uint32_t)n : 0;
}

static int read_request(json_t *o, struct exec_request *q, struct err *err)
{
	json_t *argv = json_object_get(o, "argv"), *v;
	size_t i, n = json_array_size(argv);

	*q = (struct exec_request){.cwd = text(o, "cwd"),
				   .term = text(o, "term"),
				   .tty = json_is_true(json_object_get(o, "tty")),
				   .rows = number(o, "rows"),
				   .cols = number(o, "cols")};
	if (n > EXEC_MAX_ARGS)
		return err_text(err, E2BIG, "the command line has more than %d words", EXEC_MAX_ARGS);
	q->argv = xcalloc(n + 1, sizeof *q->argv);
	json_array_foreach(argv, i, v)
	{
		if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
			return err_text(err, EINVAL, "`argv` must be an array of strings without NUL");
		q->argv[i] = xstrdup(json_string_value(v));
	}
	return exec_request_check(q, err);
}

/* The program's name only: the arguments may be secrets. Not cut in the middle of a character. */
static void note(struct call *c, const char *program)
{
	struct err err = ERR_INIT;
	size_t n = strlen(program);

	if (n > NOTE_MAX)
		for (n = NOTE_MAX; n && ((unsigned char)program[n] & 0xc0) == 0x80;)
			n--;
	cleanup_free char *line = xasprintf("by uid %u: %.*s", http_peer_uid(c->r), (int)n, program);

	store_event_add(c->a->parts.store, c->space.id, c->me.id, "exec", line, &err);
}

void space_exec(struct call *c)
{
	static const struct exec_callbacks cb = {started, ended};
	struct exec_request q = {0};
	struct err err = ERR_INIT;
	uid_t uid = http_peer_uid(c->r);

	/* Not even for an admin's token: what comes back are descriptors, and who runs commands inside can read secrets. */
	if (uid != 0 && uid != geteuid()) {
		call_error(c, 403, NULL, "commands inside an app are for `spacectl exec` on the machine itself");
		return;
	}
	if (!http_wants_upgrade(c->r, PROTOCOL)) {
		http_set_header(c->r, "Upgrade", "%s", PROTOCOL);
		call_error(c, 426, NULL, "the answer is no HTTP: ask for Upgrade: " PROTOCOL);
		return;
	}
	struct exec_session *x = xcalloc(1, sizeof *x);
	x->a = c->a;
	x->call = c;
	x->next = c->a->execs;
	if (x->next)
		x->next->prev = x;
	c->a->execs = c->exec = x;
	if (read_request(c->body, &q, &err) == 0)
		x->exec = spaces_exec(c->a->parts.spaces, c->space.id, &q, &cb, x, &err);
	if (x->exec) {
		note(c, q.argv[0]); // NOLINT(clang-analyzer-core.NullDereference): exec_request_check() has looked
	} else {
		call_fail(c, &err);
		session_free(x);
	}
	exec_request_release(&q);
}
