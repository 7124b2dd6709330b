/* One fetch or clone, on control's side: the request goes into a confined `git upload-pack`, its output to the client,
 * both with back-pressure. The child ends when the client leaves. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/git/git_int.h"
#include "spaced/git/pktline.h"

#define REQUEST_MAX (32U << 20) /* a million wants or haves; inflated, the child limits it again */
#define PENDING_MAX (1U << 20)
#define CLIENT_JOBS_MAX 8 /* of one address: the slow readers of one client must not keep all others waiting */
#define WAITING_MAX 512

struct fetch {
	struct git_job job; /* first */
	struct fetch *next;
	bool waiting;
	char repo[64], client[64], protocol[64];
	bool gzip;
	struct http_req *req;
	struct body_pipe in;
	uv_pipe_t out;
	uv_timer_t timer;
	unsigned holds;
	uint64_t body_bytes;
	bool advertise, v2, begun, stopped, out_ended, exited, done;
	int64_t status;
	int sig;
	char room[65536];
};

static void start(struct fetch *f);

static bool has_place(const struct fetch *f)
{
	unsigned all = 0, own = 0;

	for (const struct fetch *o = f->job.g->fetches; o; o = o->next) {
		all += !o->waiting;
		own += !o->waiting && strcmp(o->client, f->client) == 0;
	}
	return all < GIT_MAX_JOBS && own < CLIENT_JOBS_MAX;
}

/* A place has become free. */
static void start_waiting(struct git_server *g)
{
	struct fetch *f = g->closing ? NULL : g->fetches;

	while (f && !(f->waiting && has_place(f)))
		f = f->next;
	if (f)
		start(f);
}

static void fetch_free(struct fetch *f)
{
	struct fetch **at = &f->job.g->fetches;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	start_waiting(f->job.g);
	git_job_remove(&f->job);
	free(f);
}

static void drop_hold(struct fetch *f)
{
	if (--f->holds == 0)
		fetch_free(f);
}

static void on_handle_closed(uv_handle_t *h)
{
	drop_hold(h->data);
}

static void on_pipe_closed(struct body_pipe *b)
{
	drop_hold(b->owner);
}

static void begin(struct fetch *f)
{
	cleanup_buf struct buf b = BUF_INIT;

	f->begun = true;
	git_no_cache(f->req);
	http_begin(
	    f->req, 200,
	    f->advertise ? "application/x-git-upload-pack-advertisement" : "application/x-git-upload-pack-result", -1);
	if (f->advertise && !f->v2) { /* as git-http-backend does: version 2 has no such head */
		pkt_addf(&b, "# service=git-upload-pack\n");
		pkt_flush(&b);
		http_write(f->req, b.data, b.len);
	}
}

/* The child is gone and all it wrote is on its way. */
static void finish(struct fetch *f)
{
	if (f->done || !f->exited || !f->out_ended)
		return;
	f->done = true;
	uv_close((uv_handle_t *)&f->timer, on_handle_closed);
	body_pipe_close(&f->in);
	if (!f->req)
		return;
	if (f->sig) {
		if (f->begun)
			http_abort(f->req);
		else
			git_reply_text(f->req, 503, "The repository cannot be served now: out of memory or time.");
		return;
	}
	if (!f->begun && f->status != 0) {
		git_reply_text(f->req, 500, "The repository cannot be read.");
		return;
	}
	/* A failure that git explains (a bad want) is in its output already. */
	if (!f->begun)
		begin(f);
	http_end(f->req);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct fetch *f = h->data;

	*buf = uv_buf_init(f->room, sizeof f->room);
}

static void on_output(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct fetch *f = s->data;

	if (n < 0) {
		f->out_ended = true;
		uv_close((uv_handle_t *)s, on_handle_closed);
		finish(f);
		return;
	}
	if (n == 0 || !f->req)
		return;
	if (!f->begun)
		begin(f);
	http_write(f->req, buf->base, (size_t)n);
	if (http_pending(f->req) > PENDING_MAX) {
		f->stopped = true;
		uv_read_stop(s);
	}
}

static void on_drain(struct http_req *r, void *ctx)
{
	struct fetch *f = ctx;

	if (f->stopped && !f->out_ended)
		uv_read_start((uv_stream_t *)&f->out, on_alloc, on_output);
	f->stopped = false;
}

static void on_child_exit(uv_process_t *process, int64_t status, int sig)
{
	struct fetch *f = process->data;

	f->job.child.running = false;
	f->exited = true;
	f->status = status;
	f->sig = sig;
	uv_close((uv_handle_t *)process, on_handle_closed);
	finish(f);
}

static void on_deadline(uv_timer_t *t)
{
	struct fetch *f = t->data;

	role_kill(&f->job.child);
}

static void on_body(struct http_req *r, const char *data, size_t n, void *ctx)
{
	struct fetch *f = ctx;

	f->body_bytes += n;
	if (f->body_bytes > REQUEST_MAX)
		role_kill(&f->job.child);
	else
		body_pipe_write(&f->in, data, n);
}

static void on_body_end(struct http_req *r, void *ctx)
{
	struct fetch *f = ctx;

	body_pipe_end(&f->in);
}

static void on_close(struct http_req *r, void *ctx)
{
	struct fetch *f = ctx;

	if (f->waiting) {
		fetch_free(f);
		return;
	}
	f->req = NULL;
	f->in.req = NULL;
	role_kill(&f->job.child);
	if (f->stopped && !f->out_ended) /* so that its end is seen */
		uv_read_start((uv_stream_t *)&f->out, on_alloc, on_output);
	f->stopped = false;
	drop_hold(f);
}

static int start_child(struct fetch *f, struct err *err)
{
	const char *extra[6];
	int n = 0, r;

	if (f->gzip)
		extra[n++] = "--gzip";
	if (f->advertise)
		extra[n++] = "--advertise";
	if (f->protocol[0]) {
		extra[n++] = "--protocol";
		extra[n++] = f->protocol;
	}
	extra[n] = NULL;
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&f->in.pipe},
	    {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&f->out},
	    {.flags = UV_IGNORE}, /* what git says there may hold bytes of the client */
	};
	r = role_spawn(f->job.g->loop, &f->job.child, f->job.g->config, "upload-pack", f->repo, extra, stdio, 3,
		       on_child_exit, err);
	f->job.child.process.data = f;
	return r;
}

static void start(struct fetch *f)
{
	struct git_server *g = f->job.g;
	struct http_req *r = f->req;
	struct err err = ERR_INIT;

	f->waiting = false;
	f->holds = 5; /* request, pipe in, pipe out, timer, process */
	uv_timer_init(g->loop, &f->timer);
	uv_pipe_init(g->loop, &f->out, 0);
	f->timer.data = f->out.data = f;
	body_pipe_init(&f->in, g->loop, r, on_pipe_closed, f);
	if (start_child(f, &err) < 0) {
		log_error("git: %s", err.msg);
		git_reply_text(r, 500, "The repository cannot be served now.");
		f->req = NULL;
		f->done = f->out_ended = true;
		uv_close((uv_handle_t *)&f->timer, on_handle_closed);
		uv_close((uv_handle_t *)&f->out, on_handle_closed);
		uv_close((uv_handle_t *)&f->job.child.process, on_handle_closed);
		body_pipe_close(&f->in);
		http_resume(r);
		return;
	}
	uv_timer_start(&f->timer, on_deadline, 1000ULL * g->config->push_timeout_s, 0);
	uv_read_start((uv_stream_t *)&f->out, on_alloc, on_output);
	http_on_drain(r, on_drain, f);
	if (f->advertise)
		body_pipe_end(&f->in);
	else
		http_on_body(r, (struct http_body_cb){on_body, on_body_end}, f);
	http_resume(r);
}

static unsigned count_waiting(const struct git_server *g)
{
	unsigned n = 0;

	for (const struct fetch *f = g->fetches; f; f = f->next)
		n += f->waiting;
	return n;
}

void git_fetch_start(struct git_server *g, struct http_req *r, const struct git_target *t, bool gzip, bool advertise,
		     const char *protocol)
{
	cleanup_free char *repos = xasprintf("%s/" STATE_REPOS, g->config->state);
	struct str client = http_client(r);
	struct err err = ERR_INIT;
	struct fetch **end = &g->fetches;

	if (g->closing || count_waiting(g) >= WAITING_MAX) {
		http_set_header(r, "Retry-After", "5");
		git_reply_text(r, 503, "Too many fetches at the same time, try again in a moment.");
		return;
	}
	if (!t->repo[0] || git_repo_create(repos, t->repo, &err) < 0) { /* a Space that nobody has pushed to is empty */
		git_reply_text(r, 404, "Repository not found.");
		return;
	}
	struct fetch *f = xcalloc(1, sizeof *f);
	f->req = r;
	f->gzip = gzip;
	f->advertise = advertise;
	f->v2 = strstr(protocol, "version=2") != NULL;
	snprintf(f->repo, sizeof f->repo, "%s", t->repo);
	snprintf(f->client, sizeof f->client, "%.*s", (int)client.n, client.p);
	snprintf(f->protocol, sizeof f->protocol, "%s", protocol);
	f->waiting = true;
	git_job_add(g, &f->job);
	while (*end)
		end = &(*end)->next;
	*end = f;
	http_on_close(r, on_close, f);
	http_pause(r); /* its body waits too */
	if (has_place(f))
		start(f);
}
