/* One push, on control's side: the body goes into an unpack child, its result comes back as frames, the report goes to
 * the client at once, and then whatever the deployment prints, until push_finish. Control parses no byte of the push.
 *
 *   receiving ── END frame or death of the child ──▶ settled ── body ended ──▶ reported ── push_finish ──▶ finished */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/git/git_int.h"
#include "spaced/git/pktline.h"
#include "spaced/git/receive.h"
#include "spaced/git/refs.h"
#include "spaced/git/sideband.h"

#define KEEPALIVE_MS 5000
#define PRINT_PENDING_MAX (1U << 20) /* a client that does not read gets gaps, not our memory */

struct push {
	struct git_job job;   /* first */
	struct http_req *req; /* NULL: the client is gone, or has all it can take */
	struct git_target target;
	struct body_pipe in;
	struct channel *results;
	uv_timer_t timer; /* deadline of the child, then keep-alive of the answer */
	unsigned holds;	  /* handles and owners that still need this */
	uint64_t body_bytes;
	bool body_ended, child_gone, results_ended, timed_out;
	bool settled, reported, finished;
	bool has_head, report, side_band;
	char *options[RECEIVE_MAX_OPTIONS];
	size_t noptions;
	struct ref_update *updates;
	size_t n, cap;
	char *status; /* of the END frame; NULL: none came */
	struct text_filter filter;
	uint64_t left_out;
};

static void drop_hold(struct push *p)
{
	if (--p->holds)
		return;
	for (size_t i = 0; i < p->n; i++) {
		free(p->updates[i].name);
		free(p->updates[i].error);
	}
	free(p->updates);
	for (size_t i = 0; i < p->noptions; i++)
		free(p->options[i]);
	free(p->status);
	free(p->target.space_id);
	free(p->target.user_id);
	p->job.g->pushes--;
	git_job_remove(&p->job);
	free(p);
}

static void on_timer_closed(uv_handle_t *h)
{
	drop_hold(h->data);
}

static void on_process_closed(uv_handle_t *h)
{
	drop_hold(h->data);
}

static void on_pipe_closed(struct body_pipe *b)
{
	drop_hold(b->owner);
}

/* --- the answer ------------------------------------------------------------------------------------------------- */

static void send_band(struct push *p, int band, const char *text, size_t n)
{
	cleanup_buf struct buf b = BUF_INIT;

	pkt_band(&b, band, text, n);
	if (b.len)
		http_write(p->req, b.data, b.len);
}

static bool can_print(const struct push *p)
{
	return p->req && p->reported && !p->finished && p->side_band;
}

static void print_filtered(struct push *p, const char *text, size_t n)
{
	cleanup_buf struct buf clean = BUF_INIT;

	if (!can_print(p) || !n)
		return;
	if (http_pending(p->req) > PRINT_PENDING_MAX) {
		p->left_out += n;
		return;
	}
	if (p->left_out) {
		buf_addf(&clean, "\n... %llu bytes left out, your end reads too slowly ...\n",
			 (unsigned long long)p->left_out);
		p->left_out = 0;
	}
	text_filter(&p->filter, text, n, &clean);
	send_band(p, 2, clean.data, clean.len);
}

void push_write(struct push *p, const char *text, size_t n)
{
	print_filtered(p, text, n);
}

void push_print(struct push *p, const char *fmt, ...)
{
	cleanup_buf struct buf text = BUF_INIT;
	va_list ap;

	if (!can_print(p))
		return;
	va_start(ap, fmt);
	buf_addv(&text, fmt, ap);
	va_end(ap);
	print_filtered(p, text.data, text.len);
}

bool push_option(const struct push *p, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < p->noptions; i++)
		if (!strncmp(p->options[i], name, n) && (p->options[i][n] == '\0' || p->options[i][n] == '='))
			return true;
	return false;
}

bool push_gone(const struct push *p)
{
	return !p->req;
}

static void close_timer(struct push *p)
{
	if (!uv_is_closing((uv_handle_t *)&p->timer))
		uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

void push_finish(struct push *p)
{
	if (p->finished)
		return;
	if (p->req && p->side_band) {
		cleanup_buf struct buf b = BUF_INIT, tail = BUF_INIT;
		text_filter_end(&p->filter, &tail);
		pkt_band(&b, 2, tail.data, tail.len);
		pkt_flush(&b);
		http_write(p->req, b.data, b.len);
	}
	if (p->req)
		http_end(p->req);
	p->finished = true;
	close_timer(p);
	drop_hold(p);
}

/* An empty packet, as git's receive-pack sends it while hooks run: proxies and NATs drop silent connections. */
static void on_keepalive(uv_timer_t *t)
{
	struct push *p = t->data;

	if (p->req && p->side_band && !p->finished && http_pending(p->req) == 0)
		http_write(p->req, "0005\2", 5);
}

static void send_report(struct push *p)
{
	cleanup_buf struct buf report = BUF_INIT;

	receive_report_begin(&report, p->status);
	for (size_t i = 0; i < p->n; i++)
		receive_report_ref(&report, p->updates[i].name, p->updates[i].error);
	receive_report_end(&report);
	if (p->side_band)
		send_band(p, 1, report.data, report.len);
	else
		http_write(p->req, report.data, report.len);
}

/* Refs are durable (or refused) and the client has sent all it has: answer, then hand over. */
static void report(struct push *p)
{
	size_t moved = 0;

	if (p->reported || !p->settled || (!p->body_ended && p->req))
		return;
	p->reported = true;
	p->job.g->receiving--;
	for (size_t i = 0; i < p->n; i++)
		moved += p->updates[i].error == NULL;
	if (p->req) {
		git_no_cache(p->req);
		http_begin(p->req, 200, "application/x-git-receive-pack-result", -1);
		if (p->report && (p->n || strcmp(p->status, "ok") != 0))
			send_report(p);
		if (!p->side_band) { /* nothing can follow for such a client */
			http_end(p->req);
			p->req = NULL;
		}
	}
	if (moved && !p->job.g->closing) {
		git_maintain(p->job.g, p->target.repo);
		uv_timer_start(&p->timer, on_keepalive, KEEPALIVE_MS, KEEPALIVE_MS);
		p->job.g->cb.pushed(p->job.g->cb.ctx, &p->target, p->updates, p->n, p);
	} else {
		push_finish(p);
	}
}

/* --- the child's result ----------------------------------------------------------------------------------------- */

static void fail_updates(struct push *p, const char *why)
{
	for (size_t i = 0; i < p->n; i++)
		if (!p->updates[i].error)
			p->updates[i].error = xstrdup(why);
}

/* The child died without a last word. It had told which refs it was about to move: whether they did is on disk. */
static void settle_from_disk(struct push *p)
{
	cleanup_ref_table struct ref_table table = {0};
	cleanup_free char *path = xasprintf("%s/" STATE_REPOS "/%s", p->job.g->config->state, p->target.repo);
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct err err = ERR_INIT;
	bool moved = false, readable = fd >= 0 && refs_read(fd, &table, &err) == 0;

	for (size_t i = 0; i < p->n; i++) {
		struct ref_update *u = &p->updates[i];
		struct ref *ref = readable ? ref_table_find(&table, u->name) : NULL;
		if (!u->error && (!readable || strcmp(ref ? ref->oid : OID_ZERO, u->new_oid) != 0))
			u->error = xstrdup("unpacker error");
		moved |= u->error == NULL;
	}
	p->status = xstrdup(moved	   ? "ok"
			    : p->timed_out ? "the push took longer than the time limit"
					   : "the unpack process died: out of memory or time");
	log_warn("git: the unpack process of %s died (%s)", p->target.repo, p->status);
}

static void settle(struct push *p)
{
	if (p->settled)
		return;
	p->settled = true;
	uv_timer_stop(&p->timer);
	if (!p->status)
		settle_from_disk(p);
	else if (strcmp(p->status, "ok") != 0)
		fail_updates(p, "unpacker error");
	/* What still comes of the body is read and dropped, so that the client gets to read the answer. */
	body_pipe_close(&p->in);
	report(p);
}

static bool take_head(struct push *p, struct reader *r)
{
	if (p->has_head)
		return false;
	p->has_head = true;
	p->report = get_u8(r);
	p->side_band = get_u8(r);
	uint32_t n = get_u32(r);
	for (uint32_t i = 0; i < n && n <= RECEIVE_MAX_OPTIONS; i++) {
		char *option = get_strdup(r, RECEIVE_MAX_OPTION_BYTES);
		if (!option)
			return false;
		p->options[p->noptions++] = option;
	}
	return get_ok(r);
}

static bool take_ref(struct push *p, struct reader *r)
{
	if (p->n == p->cap) {
		p->cap = p->cap ? 2 * p->cap : 4;
		p->updates = xreallocarray(p->updates, p->cap, sizeof *p->updates);
	}
	struct ref_update *u = &p->updates[p->n];
	*u = (struct ref_update){.name = get_strdup(r, 4096)};
	if (!u->name || p->n >= p->job.g->config->push_refs) {
		free(u->name);
		return false;
	}
	p->n++;
	get_str(r, u->old_oid, sizeof u->old_oid);
	get_str(r, u->new_oid, sizeof u->new_oid);
	u->forced = get_u8(r);
	u->error = get_strdup(r, 1000);
	if (u->error && !u->error[0]) {
		free(u->error);
		u->error = NULL;
	}
	return get_ok(r);
}

static void on_result(void *ctx, struct frame *f)
{
	struct push *p = ctx;
	struct reader r = reader_of(f->payload, f->len);
	bool ok = false;

	if (p->settled)
		return;
	if (f->type == UNPACK_HEAD)
		ok = take_head(p, &r);
	else if (f->type == UNPACK_REF)
		ok = take_ref(p, &r);
	else if (f->type == UNPACK_END)
		ok = (p->status = get_strdup(&r, 1000)) != NULL && get_ok(&r);
	if (!ok) { /* a child that has been taken over: nothing it says counts */
		log_error("git: malformed result from the unpack process of %s", p->target.repo);
		role_kill(&p->job.child);
		fail_updates(p, "unpacker error");
		free(p->status);
		p->status = xstrdup("internal error");
	}
	if (p->status)
		settle(p);
}

static void maybe_dead(struct push *p)
{
	if (p->child_gone && p->results_ended)
		settle(p);
}

static void on_results_end(void *ctx, int err)
{
	struct push *p = ctx;

	p->results_ended = true;
	maybe_dead(p);
	channel_close(p->results);
	p->results = NULL;
	drop_hold(p);
}

static void on_child_exit(uv_process_t *process, int64_t status, int sig)
{
	struct push *p = process->data;

	p->job.child.running = false;
	p->child_gone = true;
	uv_close((uv_handle_t *)process, on_process_closed);
	maybe_dead(p); /* frames may still wait to be read: the end of `results` decides */
}

static void on_deadline(uv_timer_t *t)
{
	struct push *p = t->data;

	p->timed_out = true;
	role_kill(&p->job.child);
}

/* --- the request ------------------------------------------------------------------------------------------------ */

static void on_body(struct http_req *r, const char *data, size_t n, void *ctx)
{
	struct push *p = ctx;

	p->body_bytes += n;
	if (!p->settled) {
		body_pipe_write(&p->in, data, n);
	} else if (p->body_bytes > 2 * p->job.g->config->push_pack_bytes) {
		p->body_ended = true; /* dropped enough: answer into whatever they still send */
		report(p);
	}
}

static void on_body_end(struct http_req *r, void *ctx)
{
	struct push *p = ctx;

	p->body_ended = true;
	body_pipe_end(&p->in);
	report(p);
}

static void on_close(struct http_req *r, void *ctx)
{
	struct push *p = ctx;

	p->req = NULL;
	p->in.req = NULL;
	/* The child sees the end of its input: an unfinished push fails there and clears up. A whole one goes on. */
	body_pipe_end(&p->in);
	report(p);
	drop_hold(p);
}

static int start_child(struct push *p, bool gzip, struct err *err)
{
	const char *const extra[] = {gzip ? "--gzip" : NULL, NULL};
	int sv[2], r = frame_pair(sv);

	if (r < 0)
		return err_set(err, -r, "socketpair");
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&p->in.pipe},
	    {.flags = UV_IGNORE},
	    {.flags = UV_INHERIT_FD, .data.fd = 2},
	    {.flags = UV_INHERIT_FD, .data.fd = sv[1]},
	};
	r = role_spawn(p->job.g->loop, &p->job.child, p->job.g->config, "unpack", p->target.repo, extra, stdio, 4,
		       on_child_exit, err);
	close(sv[1]);
	p->job.child.process.data = p;
	if (r < 0) {
		close(sv[0]);
		return -1;
	}
	p->results = channel_open(p->job.g->loop, sv[0], on_result, on_results_end, p);
	return 0;
}

/* Its body is read first: a client that said "Expect: 100-continue" may send it behind an early answer. */
static void answer_probe(struct http_req *r, struct str body, void *ctx)
{
	git_no_cache(r);
	http_reply(r, 200, "application/x-git-receive-pack-result", "", 0);
}

void git_push_start(struct git_server *g, struct http_req *r, const struct git_target *t, bool gzip)
{
	struct push *p;
	struct err err = ERR_INIT;
	cleanup_free char *repos = xasprintf("%s/" STATE_REPOS, g->config->state);

	if (g->closing || g->pushes >= GIT_MAX_JOBS) {
		git_refuse_push(r, "Too many pushes at the same time, try again in a moment.");
		return;
	}
	if (!t->repo[0]) { /* the probe of a push that will create its Space */
		http_collect(r, 4, answer_probe, NULL);
		return;
	}
	if (git_repo_create(repos, t->repo, &err) < 0) {
		log_error("git: %s", err.msg);
		git_reply_text(r, 500, "The repository cannot be made.");
		return;
	}
	p = xcalloc(1, sizeof *p);
	p->req = r;
	p->target = *t;
	p->target.space_id = t->space_id ? xstrdup(t->space_id) : NULL;
	p->target.user_id = t->user_id ? xstrdup(t->user_id) : NULL;
	git_job_add(g, &p->job);
	g->pushes++;
	g->receiving++;
	p->holds = 6; /* request, pipe, timer, process, results, push_finish */
	uv_timer_init(g->loop, &p->timer);
	p->timer.data = p;
	body_pipe_init(&p->in, g->loop, r, on_pipe_closed, p);
	http_on_close(r, on_close, p);
	if (start_child(p, gzip, &err) < 0) {
		log_error("git: %s", err.msg);
		git_reply_text(r, 500, "The push cannot be received now.");
		p->req = NULL;
		p->settled = p->reported = true;
		g->receiving--;
		body_pipe_close(&p->in);
		drop_hold(p); /* no results */
		if (p->job.child.process.type == UV_PROCESS)
			uv_close((uv_handle_t *)&p->job.child.process, on_process_closed);
		else
			drop_hold(p);
		push_finish(p);
		return;
	}
	uv_timer_start(&p->timer, on_deadline, 1000ULL * g->config->push_timeout_s, 0);
	http_on_body(r, (struct http_body_cb){on_body, on_body_end}, p);
}
