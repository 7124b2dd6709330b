/* Logs of builds and runs: as server-sent events exactly as the Hub's clients read them (hub-api §16), or as plain text.
 * A follower looks at the file five times a second; the file on disk is the truth, so a reconnect replays the same events
 * from the same first one, with the same time stamps, or from where the client says that it was (log_position.h). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/json_quote.h"
#include "spaced/api/api_int.h"
#include "spaced/api/log_position.h"
#include "spaced/build/logfile.h"

#define POLL_MS 200
#define KEEP_ALIVE_MS 20000 /* more than 5 s, or a client that does not follow never ends; less than its 120 s */
#define LINE_MAX_BYTES (64U * 1024)
#define PENDING_MAX (256U * 1024)
#define CHUNK (64U * 1024)
#define TAIL_MAX 1000000

struct stream {
	struct stream *prev, *next;
	struct api *a;
	struct http_req *r; /* NULL once it is over */
	uv_timer_t timer;
	char user_id[STORE_ID]; /* who follows */
	char space_id[STORE_ID];
	char build_id[STORE_ID]; /* "": the newest */
	bool build, sse, follow;
	uint64_t tail; /* 0: everything */
	uint64_t from; /* what he has of it already; instead of `tail` */
	char *path;
	int fd;
	uint64_t offset;  /* of the next byte to read */
	struct buf line;  /* a line whose end has not come yet */
	uint64_t line_at; /* where it began */
	uint64_t base_ms; /* when the log began */
	uint64_t spoke_ms;
};

/* ---- events ---- */

/* The log has no time stamps of its own. What clients need is that they are stable and grow: the log's beginning, plus a
 * little for each byte before the line. */
static void event(struct stream *s, const char *p, size_t n, uint64_t next)
{
	cleanup_buf struct buf out = BUF_INIT;
	uint64_t us = s->line_at / 16;
	time_t t = (time_t)(s->base_ms / 1000);
	char stamp[40];
	struct tm tm;

	us += s->base_ms % 1000 * 1000;
	t += (time_t)(us / 1000000);
	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof(tm));
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_adds(&out, "id: ");
	log_position_add(&out, s->path, next);
	buf_adds(&out, "\ndata: {\"data\":");
	json_quote(&out, p, n);
	buf_addf(&out, ",\"timestamp\":\"%s.%06uZ\"}\n\n", stamp, (unsigned)(us % 1000000));
	http_write(s->r, out.data, out.len);
}

/* As much of a too long line as may be cut off without splitting a UTF-8 sequence. */
static size_t cut(const char *p)
{
	size_t n = LINE_MAX_BYTES;

	while (n > LINE_MAX_BYTES - 4 && ((unsigned char)p[n] & 0xc0) == 0x80)
		n--;
	return n;
}

static void add_bytes(struct stream *s, const char *p, size_t n)
{
	if (!s->sse) {
		http_write(s->r, p, n);
		return;
	}
	buf_add(&s->line, p, n);
	char *from = s->line.data, *end = from + s->line.len, *nl;
	while ((nl = memchr(from, '\n', (size_t)(end - from))) || end - from > LINE_MAX_BYTES) {
		size_t len = nl ? (size_t)(nl - from) : cut(from), used = nl ? len + 1 : len;
		if (len > LINE_MAX_BYTES)
			used = len = cut(from);
		event(s, from, len, s->line_at + used);
		from += used;
		s->line_at += used;
	}
	buf_consume(&s->line, (size_t)(from - s->line.data));
}

/* ---- the file ---- */

static uint64_t birth_ms(int fd)
{
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_MTIME, &sx) < 0)
		return 0;
	const struct statx_timestamp *t = sx.stx_mask & STATX_BTIME ? &sx.stx_btime : &sx.stx_mtime;
	return (uint64_t)t->tv_sec * 1000 + t->tv_nsec / 1000000;
}

/* Where the last `lines` lines begin. */
static uint64_t tail_offset(int fd, uint64_t lines)
{
	struct stat st;
	cleanup_free char *chunk = xmalloc(CHUNK);

	if (fstat(fd, &st) < 0)
		return 0;
	uint64_t at = (uint64_t)st.st_size, seen = 0, size = at;
	while (at > 0) {
		size_t want = at < CHUNK ? (size_t)at : CHUNK;
		ssize_t n = pread(fd, chunk, want, (off_t)(at - want));
		if (n != (ssize_t)want)
			return 0;
		for (size_t i = want; i-- > 0;)
			/* The newline that ends the file begins no line. */
			if (chunk[i] == '\n' && at - want + i + 1 < size && ++seen == lines)
				return at - want + i + 1;
		at -= want;
	}
	return 0;
}

static void try_open(struct stream *s)
{
	if (!s->path)
		s->path = spaces_log_path(s->a->parts.spaces, s->space_id, s->build, *s->build_id ? s->build_id : NULL);
	if (!s->path)
		return;
	s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (s->fd < 0)
		return;
	s->base_ms = birth_ms(s->fd);
	if (s->from)
		s->offset = s->line_at = s->from;
	else if (s->tail)
		s->offset = s->line_at = tail_offset(s->fd, s->tail);
}

/* May more come? Not when another build or run has taken the place of the one that is followed. */
static bool is_live(struct stream *s)
{
	const char *id = *s->build_id ? s->build_id : NULL;

	if (!s->follow || !spaces_log_live(s->a->parts.spaces, s->space_id, s->build, id))
		return false;
	if (!s->path)
		return true;
	cleanup_free char *now = spaces_log_path(s->a->parts.spaces, s->space_id, s->build, id);
	return now && !strcmp(now, s->path);
}

static void stop(struct stream *s)
{
	s->r = NULL;
	uv_timer_stop(&s->timer);
}

static void finish(struct stream *s)
{
	struct http_req *r = s->r;

	if (s->line.len)
		event(s, s->line.data, s->line.len, s->line_at + s->line.len);
	stop(s);
	http_end(r);
}

static void pump(struct stream *s)
{
	/* Asked before reading: what was written until then is in the file, so nothing at the end is lost. */
	bool live = is_live(s);
	cleanup_free char *chunk = NULL;

	if (s->fd < 0)
		try_open(s);
	while (s->fd >= 0) {
		if (http_pending(s->r) >= PENDING_MAX)
			return; /* the drain goes on */
		if (!chunk)
			chunk = xmalloc(CHUNK);
		ssize_t n = pread(s->fd, chunk, CHUNK, (off_t)s->offset);
		if (n <= 0)
			break;
		s->offset += (uint64_t)n;
		s->spoke_ms = io_now_ms();
		add_bytes(s, chunk, (size_t)n);
	}
	if (!live) {
		finish(s);
	} else if (s->sse && io_now_ms() - s->spoke_ms >= KEEP_ALIVE_MS) {
		s->spoke_ms = io_now_ms();
		http_write(s->r, ": keep-alive\n\n", 14);
	}
}

static void on_timer(uv_timer_t *t)
{
	struct stream *s = t->data;

	if (s->r)
		pump(s);
}

static void on_drain(struct http_req *r, void *ctx)
{
	struct stream *s = ctx;

	(void)r;
	if (s->r)
		pump(s);
}

/* ---- life ---- */

static void on_timer_closed(uv_handle_t *h)
{
	struct stream *s = h->data;

	if (s->fd >= 0)
		close(s->fd);
	buf_release(&s->line);
	free(s->path);
	free(s);
}

void logs_stream_free(struct stream *s)
{
	if (!s)
		return;
	stop(s);
	if (s->prev)
		s->prev->next = s->next;
	else
		s->a->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->a->nstreams--;
	uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static unsigned followed_by(const struct api *a, const char *user_id)
{
	unsigned n = 0;

	for (const struct stream *s = a->streams; s; s = s->next)
		n += strcmp(s->user_id, user_id) == 0;
	return n;
}

static struct stream *stream_new(struct call *c)
{
	struct stream *s = xcalloc(1, sizeof(*s));

	s->a = c->a;
	s->r = c->r;
	s->fd = -1;
	s->spoke_ms = io_now_ms();
	memcpy(s->user_id, c->me.id, sizeof(s->user_id));
	memcpy(s->space_id, c->space.id, sizeof(s->space_id));
	uv_timer_init(c->a->loop, &s->timer);
	s->timer.data = s;
	s->next = c->a->streams;
	if (s->next)
		s->next->prev = s;
	c->a->streams = s;
	c->a->nstreams++;
	c->stream = s;
	return s;
}

static bool is_build_of(struct call *c, const char *id)
{
	struct err err = ERR_INIT;
	struct build b;

	if (store_build_by_id(c->a->parts.store, id, &b, &err) < 0)
		return false;
	bool is = strcmp(b.space_id, c->space.id) == 0 && strcmp(b.id, id) == 0;
	build_release(&b);
	return is;
}

/* He has all of it, and another one has taken its place. */
static bool is_over_for(const struct stream *s, const char *path, uint64_t offset)
{
	const char *id = *s->build_id ? s->build_id : NULL;
	cleanup_free char *now = spaces_log_path(s->a->parts.spaces, s->space_id, s->build, id);
	struct stat st;

	return now && strcmp(now, path) != 0 && (stat(path, &st) < 0 || (uint64_t)st.st_size <= offset);
}

/* One who comes again, to this control or the next one, goes on where he was cut off: in the same file, though another may have
 * taken its place. An EventSource comes again by itself, also at the end of a log: it gets the next one then, or would come for
 * nothing for ever. What is not understood is as if he had never been here. */
static void resume(struct call *c, struct stream *s)
{
	cleanup_buf struct buf v = BUF_INIT;
	cleanup_free char *path = NULL;
	char id[STORE_ID] = "";
	struct log_position p;
	struct str last;
	uint32_t generation;
	bool asked = call_query(c, "from", &v);

	if (asked)
		last = (struct str){v.data, v.len};
	else if (!http_header(c->r, "Last-Event-ID", &last))
		return;
	if (!log_position_parse(last, &p))
		return;
	if (*p.name && s->build && log_position_build(&p, id) && is_build_of(c, id))
		path = logfile_build(c->a->config, id);
	else if (*p.name && !s->build && log_position_run(&p, s->space_id, &generation))
		path = logfile_run(c->a->config, s->space_id, generation);
	else if (*p.name)
		return;
	if (path && !asked && is_over_for(s, path, p.offset))
		return;
	if (path && s->build)
		memcpy(s->build_id, id, STORE_ID);
	s->path = steal_ptr(&path);
	s->from = p.offset;
}

/* Where a plain text begins, for who counts its bytes. */
static void tell_position(struct stream *s)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (s->fd < 0)
		return;
	log_position_add(&b, s->path, s->offset);
	http_set_header(s->r, "X-Log-Position", "%s", b.data);
}

/* The build named by ?build=, which must be one of this Space. False: answered. */
static bool read_build(struct call *c, char id[STORE_ID])
{
	cleanup_buf struct buf v = BUF_INIT;

	id[0] = '\0';
	if (!call_query(c, "build", &v))
		return true;
	if (!is_build_of(c, v.data)) {
		call_error(c, 404, NULL, "there is no build %s", v.data);
		return false;
	}
	memcpy(id, v.data, STORE_ID);
	return true;
}

static bool accepts(struct call *c, const char *type)
{
	struct str accept;

	return http_header(c->r, "Accept", &accept) && memmem(accept.p, accept.n, type, strlen(type));
}

void logs_get(struct call *c)
{
	cleanup_buf struct buf v = BUF_INIT;
	char build_id[STORE_ID];
	bool build = !strcmp(c->vars[2], "build"), plain = accepts(c, "text/plain") || accepts(c, "text/html");

	if (!build && strcmp(c->vars[2], "run") != 0) {
		call_error(c, 404, NULL, "there are two logs: build and run");
		return;
	}
	if (build && !read_build(c, build_id))
		return;
	if (!call_may_follow(c, c->a->nstreams, followed_by(c->a, c->me.id), API_STREAMS_MAX))
		return;
	struct stream *s = stream_new(c);
	s->build = build;
	s->sse = !plain;
	s->follow = plain ? call_flag(c, "follow") : !call_query(c, "follow", &v) || call_flag(c, "follow");
	if (build)
		memcpy(s->build_id, build_id, STORE_ID);
	if (call_query(c, "tail", &v)) {
		unsigned long n = strtoul(v.data, NULL, 10);
		s->tail = n < TAIL_MAX ? n : TAIL_MAX;
	}
	resume(c, s);
	try_open(s);
	tell_position(s);
	http_set_header(c->r, "Cache-Control", "no-store");
	http_set_header(c->r, "X-Content-Type-Options", "nosniff");
	http_begin(c->r, 200, s->sse ? "text/event-stream" : "text/plain; charset=utf-8", -1);
	if (str_eq(http_method(c->r), "HEAD")) {
		finish(s);
		return;
	}
	http_on_drain(c->r, on_drain, s);
	uv_timer_start(&s->timer, on_timer, POLL_MS, POLL_MS);
	pump(s);
}

void api_cut_streams(struct api *a)
{
	for (struct stream *s = a->streams; s; s = s->next) {
		struct http_req *r = s->r;
		stop(s);
		if (r)
			http_abort(r);
	}
	access_readers_cut(a);
}

void logs_close_all(struct api *a)
{
	for (struct stream *s = a->streams; s; s = s->next)
		stop(s);
}
