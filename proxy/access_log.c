/* The access log of a worker: a line for each exchange that is over and for each refusal outside one (access_line.h), gathered in
 * memory and sent off in batches: to control (PROXY_LOG), or into a file (stand-alone). One batch is under way at a time, so
 * a slow sink is felt here, where lines that find no room are dropped and counted; the loop waits for nothing. */
#include <errno.h>
#include <fcntl.h>

#include "base/io.h"
#include "base/log.h"
#include "proxy/access_line.h"
#include "proxy/worker.h"

#define ROOM (512U * 1024) /* of lines that wait */
#define KEPT (128U * 1024) /* of it, when there are none */
#define BATCH (64U * 1024)
#define FULL (32U * 1024) /* do not wait for the tick */
#define LAST_MS 2000	  /* at the end, for a file to take what is under way */

struct access_log {
	uint32_t sample, skipped; /* one in `sample` of 2xx and 3xx; skipped since the last one */
	struct buf lines, batch;
	bool under_way;
	uint64_t dropped; /* since the last line that was kept */
	const char *path; /* of the file, or NULL: control */
	int fd;
	uv_fs_t write;
	size_t written;
};

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	int r = fd < 0 ? -errno : fd;

	if (r < 0)
		log_error("open the access log %s: %s", path, strerror(-r));
	return r;
}

int access_log_init(struct worker *w, uint32_t sample, const char *path)
{
	if (sample == 0)
		return 0;
	int fd = path ? open_file(path) : -1;
	if (path && fd < 0)
		return fd;
	w->log = xcalloc(1, sizeof *w->log);
	w->log->sample = sample;
	w->log->path = path;
	w->log->fd = fd;
	return 0;
}

/* ---- batches ---- */

/* Whole lines, as many as a batch takes. */
static bool take_batch(struct access_log *l)
{
	size_t n = l->lines.len;

	if (n == 0)
		return false;
	if (n > BATCH) {
		const char *end = memrchr(l->lines.data, '\n', BATCH);
		n = (size_t)(end - l->lines.data) + 1; /* a line is far shorter than a batch */
	}
	buf_clear(&l->batch);
	buf_add(&l->batch, l->lines.data, n);
	buf_consume(&l->lines, n);
	if (l->lines.len == 0 && l->lines.cap > KEPT)
		buf_release(&l->lines);
	return true;
}

static uint32_t count_lines(const struct buf *b)
{
	uint32_t n = 0;

	for (const char *p = b->data, *end = p + b->len; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
		n++;
	return n;
}

static void on_written(uv_fs_t *req);

static void write_batch(struct worker *w)
{
	struct access_log *l = w->log;
	uv_buf_t b = uv_buf_init(l->batch.data + l->written, (unsigned)(l->batch.len - l->written));

	l->write.data = w;
	if (uv_fs_write(&w->loop, &l->write, l->fd, &b, 1, -1, on_written) < 0)
		l->under_way = false;
}

static void on_written(uv_fs_t *req)
{
	struct worker *w = req->data;
	struct access_log *l = w->log;
	ssize_t n = req->result;

	uv_fs_req_cleanup(req);
	if (n > 0 && (l->written += (size_t)n) < l->batch.len) {
		write_batch(w);
		return;
	}
	if (n < 0) {
		uint32_t lost = count_lines(&l->batch);
		l->dropped += lost;
		w->nobody->count.n[COUNT_LOG_DROPPED] += lost;
		log_warn("access log: %s; %u lines are lost", strerror((int)-n), lost);
	}
	access_log_sent(w);
}

static void send_batch(struct worker *w)
{
	struct access_log *l = w->log;
	cleanup_buf struct buf b = BUF_INIT;

	if (l->under_way || (!l->path && !w->control) || !take_batch(l))
		return;
	l->under_way = true;
	if (l->path) {
		l->written = 0;
		write_batch(w);
		return;
	}
	put_u32(&b, count_lines(&l->batch));
	put_bytes(&b, l->batch.data, l->batch.len);
	channel_send(w->control, PROXY_LOG, 0, b.data, b.len, NULL, 0);
}

void access_log_tick(struct worker *w)
{
	if (w->log)
		send_batch(w);
}

void access_log_sent(struct worker *w)
{
	if (!w->log)
		return;
	w->log->under_way = false;
	if (w->log->lines.len >= FULL)
		send_batch(w);
}

/* What the old one was sent is written by it, or gone with it. */
void access_log_new_control(struct worker *w)
{
	if (w->log && !w->log->path)
		w->log->under_way = false;
}

/* A file that was renamed by log rotation: what comes goes into a new one, or, where there can be none, still into the old one. */
void access_log_reopen(struct worker *w)
{
	struct access_log *l = w->log;
	int fd = l && l->path ? open_file(l->path) : -1;

	if (fd < 0)
		return;
	dup3(fd, l->fd, O_CLOEXEC); /* also under a write that is under way */
	close(fd);
}

/* A batch that is under way is in the hands of another thread, perhaps for ever: of a pipe that nobody empties. */
static void end_file(struct worker *w)
{
	struct access_log *l = w->log;
	uint64_t until = io_now_ms() + LAST_MS;

	while (l->under_way && io_now_ms() < until)
		uv_run(&w->loop, UV_RUN_ONCE); /* until the next tick at most */
	if (!l->under_way && io_set_nonblock(l->fd, true) == 0)
		io_write_full(l->fd, l->lines.data, l->lines.len);
}

/* At the end there is nobody to wait for: what is left goes as far as it goes. */
void access_log_end(struct worker *w)
{
	struct access_log *l = w->log;

	if (!l)
		return;
	if (l->path)
		end_file(w);
	while (!l->path && w->control && l->lines.len) {
		l->under_way = false;
		send_batch(w);
	}
}

/* ---- lines ---- */

static void add(struct worker *w, const struct access_entry *e)
{
	struct access_log *l = w->log;

	if (l->lines.len >= ROOM) {
		l->dropped++;
		w->nobody->count.n[COUNT_LOG_DROPPED]++;
		return;
	}
	if (l->dropped) {
		access_line_dropped(&l->lines, e->at, l->dropped);
		l->dropped = 0;
	}
	access_line(&l->lines, e);
	if (l->lines.len >= FULL)
		send_batch(w);
}

void access_log_note(struct exchange *x, const struct http1_request *r)
{
	struct buf *b = &x->seen;

	if (!x->c->conn.w->log)
		return;
	x->seen_host = (uint16_t)strlen(r->host);
	x->seen_path = (uint16_t)(r->target.n < ACCESS_PATH_MAX ? r->target.n : ACCESS_PATH_MAX);
	buf_reserve(b, x->seen_host + (size_t)x->seen_path + ACCESS_AGENT_MAX);
	buf_add(b, r->host, x->seen_host);
	buf_add(b, r->target.p, x->seen_path);
	buf_add(b, r->user_agent.p, r->user_agent.n < ACCESS_AGENT_MAX ? r->user_agent.n : ACCESS_AGENT_MAX);
}

/* How many it stands for; 0: it is left out. */
static uint32_t sampled(struct access_log *l, const struct exchange *x)
{
	if (x->status < 200 || x->status > 399 || x->refused || !x->res_done)
		return 1;
	if (++l->skipped < l->sample)
		return 0;
	l->skipped = 0;
	return l->sample;
}

static struct str method_name(enum http1_method m)
{
	static const char *const names[] = {
	    [HTTP1_GET] = "GET",     [HTTP1_HEAD] = "HEAD",	[HTTP1_POST] = "POST",	    [HTTP1_PUT] = "PUT",
	    [HTTP1_PATCH] = "PATCH", [HTTP1_DELETE] = "DELETE", [HTTP1_OPTIONS] = "OPTIONS"};
	return STRZ(names[m]);
}

void access_log_exchange(struct exchange *x)
{
	struct worker *w = x->c->conn.w;
	uint32_t sample = w->log ? sampled(w->log, x) : 0;
	const char *seen = x->seen.data;
	size_t before_agent = x->seen_host + (size_t)x->seen_path;

	if (sample == 0)
		return;
	const struct access_entry e = {
	    .at = io_wall_ms(),
	    .space = STRZ(x->space->name),
	    .host = {seen, x->seen_host},
	    .method = method_name(x->method),
	    .path = {seen + x->seen_host, x->seen_path},
	    .agent = {seen + before_agent, x->seen.len - before_agent},
	    .client = x->from.addr,
	    .request_id = STRZ(x->request_id),
	    .status = x->status,
	    .minor = x->minor,
	    .refused = x->refused,
	    .bytes_in = x->bytes_in,
	    .bytes_out = x->bytes_out,
	    .duration_ms = uv_now(&w->loop) - x->began,
	    .answered = x->answered_at && x->sent_at,
	    .upstream_ms = x->answered_at - x->sent_at,
	    .held = x->was_held,
	    .held_ms = x->held_ms,
	    .woke = x->woke,
	    .websocket = x->tunnel,
	    .aborted = !x->res_done && !x->tunnel,
	    .sample = sample,
	};
	add(w, &e);
}

void access_log_refusal(struct client *c, int status, enum refusal why, const char *detail, size_t bytes_out)
{
	struct worker *w = c->conn.w;

	if (!w->log)
		return;
	const struct access_entry e = {
	    .at = io_wall_ms(),
	    .client = {c->addr, c->addr_len},
	    .status = (uint16_t)status,
	    .refused = why,
	    .detail = why == REFUSED_MALFORMED ? detail : NULL,
	    .bytes_out = bytes_out,
	};
	add(w, &e);
}
