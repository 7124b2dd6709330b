/* GET .../access-log: lines of the access log as text, all of them for admins, those of one Space for its owner. Both files are read
 * from the older one's beginning, a piece at a time: with ?tail=N first to find where the last N begin, then to be sent.
 * ?follow=1 goes on with what is added, also over a rotation. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "proxy/access_line.h"
#include "spaced/access_file.h"
#include "spaced/api/api_int.h"

#define PIECE (256U * 1024)
#define POLL_MS 200
#define TAIL_MAX 100000
#define READERS_MAX 16 /* at a time (call_may_follow) */

enum phase { LOOKING, SENDING, FOLLOWING };

struct access_reader {
	struct access_reader *prev, *next; /* in a->readers */
	struct api *a;
	struct http_req *r; /* NULL: over */
	uv_timer_t timer;
	char user_id[STORE_ID];			       /* who reads */
	char *space;				       /* owner/name with the quote behind it; NULL: all */
	char since[sizeof "2026-01-01T00:00:00.000Z"]; /* of a Space: before it was made another one had its name */
	int dir;
	int fd[2]; /* the older file and the one that grows; -1: not there */
	unsigned file;
	uint64_t offset; /* in fd[file], of the next byte */
	enum phase phase;
	bool follow;
	struct buf rest;  /* a line whose end has not come yet */
	uint64_t *places; /* LOOKING: of the last lines, a ring; file in the highest bit */
	uint64_t nplaces, tail;
	char piece[PIECE];
};
#define PLACE_NEW (1ULL << 63)

#define TIME_AT (sizeof "{\"time\":\"" - 1)

/* ---- lines ---- */

static bool wanted(const struct access_reader *s, const char *line, size_t n)
{
	size_t len = s->space ? strlen(s->space) : 0;

	if (!s->space)
		return true;
	return n > ACCESS_SPACE_AT + len && memcmp(line + ACCESS_SPACE_AT, s->space, len) == 0 &&
	       memcmp(line + TIME_AT, s->since, sizeof s->since - 1) >= 0;
}

static void take_line(struct access_reader *s, const char *line, size_t n, uint64_t at)
{
	if (!wanted(s, line, n))
		return;
	if (s->phase != LOOKING) {
		http_write(s->r, line, n);
		return;
	}
	s->places[s->nplaces++ % s->tail] = at | (s->file ? PLACE_NEW : 0);
}

/* The bytes of `piece`, which stand at s->offset. */
static void take_bytes(struct access_reader *s, size_t n)
{
	const char *p = s->piece, *end = p + n, *nl;

	while ((nl = memchr(p, '\n', (size_t)(end - p))) != NULL) {
		size_t len = (size_t)(nl + 1 - p);
		uint64_t at = s->offset + (uint64_t)(p - s->piece) - s->rest.len;
		if (s->rest.len) {
			buf_add(&s->rest, p, len);
			take_line(s, s->rest.data, s->rest.len, at);
			buf_clear(&s->rest);
		} else {
			take_line(s, p, len, at);
		}
		p = nl + 1;
	}
	buf_add(&s->rest, p, (size_t)(end - p));
	s->offset += n;
}

/* ---- files ---- */

static void go_to(struct access_reader *s, unsigned file, uint64_t offset)
{
	s->file = file;
	s->offset = offset;
	buf_clear(&s->rest);
}

/* The newer one first: what is renamed meanwhile is then read once, or the old one twice never. */
static void open_files(struct access_reader *s)
{
	static const char *const names[] = {ACCESS_LOG_OLD, ACCESS_LOG_NAME};

	for (int i = 1; i >= 0; i--)
		s->fd[i] = openat(s->dir, names[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat a, b;
	if (s->fd[0] >= 0 && s->fd[1] >= 0 && fstat(s->fd[0], &a) == 0 && fstat(s->fd[1], &b) == 0 &&
	    a.st_ino == b.st_ino) { /* renamed in between */
		close(s->fd[1]);
		s->fd[1] = -1;
	}
	go_to(s, 0, 0);
}

/* At the end of the file that grows: has another one taken its place, or came something before that? */
static bool next_file(struct access_reader *s)
{
	struct stat mine = {0}, now;
	int fd = openat(s->dir, ACCESS_LOG_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return false;
	bool known = s->fd[1] >= 0 && fstat(s->fd[1], &mine) == 0;
	bool more = known && (uint64_t)mine.st_size > s->offset;
	if (more || fstat(fd, &now) < 0 || (known && mine.st_ino == now.st_ino)) {
		close(fd);
		return more;
	}
	if (s->fd[1] >= 0)
		close(s->fd[1]);
	s->fd[1] = fd;
	go_to(s, 1, 0);
	return true;
}

static void stop(struct access_reader *s)
{
	s->r = NULL;
	uv_timer_stop(&s->timer);
}

/* All that was there has been read once. */
static void phase_over(struct access_reader *s)
{
	if (s->phase == LOOKING) {
		uint64_t first = s->nplaces > s->tail ? s->places[s->nplaces % s->tail] : s->places[0];
		if (s->nplaces)
			go_to(s, first & PLACE_NEW ? 1 : 0, first & ~PLACE_NEW);
		s->phase = SENDING;
	} else if (s->follow) {
		s->phase = FOLLOWING;
	} else {
		struct http_req *r = s->r;
		stop(s);
		http_end(r);
	}
}

/* One piece; the milliseconds until the next one. */
static uint64_t step(struct access_reader *s)
{
	ssize_t n = s->fd[s->file] < 0 ? 0 : pread(s->fd[s->file], s->piece, PIECE, (off_t)s->offset);

	if (n > 0) {
		take_bytes(s, (size_t)n);
		return 0;
	}
	if (s->file == 0) {
		go_to(s, 1, 0);
		return 0;
	}
	if (s->phase == FOLLOWING)
		return next_file(s) ? 0 : POLL_MS;
	phase_over(s);
	return 0;
}

static void on_timer(uv_timer_t *t);

static void go_on(struct access_reader *s)
{
	if (!s->r || http_pending(s->r) >= PIECE)
		return; /* the drain goes on */
	uint64_t ms = step(s);
	if (s->r && http_pending(s->r) < PIECE)
		uv_timer_start(&s->timer, on_timer, ms, 0);
}

static void on_timer(uv_timer_t *t)
{
	go_on(t->data);
}

static void on_drain(struct http_req *r, void *ctx)
{
	(void)r;
	go_on(ctx);
}

/* ---- life ---- */

static void on_closed(uv_handle_t *h)
{
	struct access_reader *s = h->data;

	for (int i = 0; i < 2; i++)
		if (s->fd[i] >= 0)
			close(s->fd[i]);
	close(s->dir);
	buf_release(&s->rest);
	free(s->places);
	free(s->space);
	free(s);
}

void access_reader_free(struct access_reader *s)
{
	if (!s)
		return;
	stop(s);
	DL_DELETE(s->a->readers, s);
	s->a->nreaders--;
	uv_close((uv_handle_t *)&s->timer, on_closed);
}

void access_readers_cut(struct api *a)
{
	struct access_reader *s;

	DL_FOREACH(a->readers, s)
	{
		struct http_req *r = s->r;
		stop(s);
		if (r)
			http_abort(r);
	}
}

static void of_space(struct access_reader *s, const struct space *sp)
{
	time_t t = (time_t)(sp->created / 1000);
	struct tm tm;

	s->space = xasprintf("%s/%s\"", sp->owner, sp->name);
	gmtime_r(&t, &tm);
	size_t n = strftime(s->since, sizeof s->since, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(s->since + n, sizeof s->since - n, ".%03uZ", (unsigned)(sp->created % 1000));
}

static unsigned read_by(const struct api *a, const char *user_id)
{
	const struct access_reader *s;
	unsigned n = 0;

	DL_FOREACH(a->readers, s)
	n += strcmp(s->user_id, user_id) == 0;
	return n;
}

/* `sp` NULL: of all. */
static void answer(struct call *c, const struct space *sp)
{
	cleanup_free char *folder = xasprintf("%s/%s", c->a->config->state, STATE_ACCESS);
	cleanup_buf struct buf tail = BUF_INIT;

	if (!c->a->config->access_log_bytes) {
		call_error(c, 404, NULL, "no access log is kept: access-log-size is 0");
		return;
	}
	if (!call_may_follow(c, c->a->nreaders, read_by(c->a, c->me.id), READERS_MAX))
		return;
	int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		call_error(c, 500, NULL, "the folder of the access log: %s", strerror(errno));
		return;
	}
	struct access_reader *s = xcalloc(1, sizeof *s);
	s->a = c->a;
	s->r = c->r;
	s->dir = dir;
	memcpy(s->user_id, c->me.id, sizeof s->user_id);
	if (sp)
		of_space(s, sp);
	s->follow = call_flag(c, "follow");
	s->phase = SENDING;
	if (call_query(c, "tail", &tail)) {
		unsigned long n = strtoul(tail.data, NULL, 10);
		s->tail = n < 1 ? 1 : n < TAIL_MAX ? n : TAIL_MAX;
		s->places = xcalloc(s->tail, sizeof *s->places);
		s->phase = LOOKING;
	}
	open_files(s);
	uv_timer_init(c->a->loop, &s->timer);
	s->timer.data = s;
	DL_APPEND(c->a->readers, s);
	c->a->nreaders++;
	c->reader = s;
	http_set_header(c->r, "Cache-Control", "no-store");
	http_set_header(c->r, "X-Content-Type-Options", "nosniff");
	http_begin(c->r, 200, "application/x-ndjson", -1);
	if (str_eq(http_method(c->r), "HEAD")) {
		stop(s);
		http_end(c->r);
		return;
	}
	http_drain_level(c->r, PIECE);
	http_on_drain(c->r, on_drain, s);
	go_on(s);
}

void access_log_get(struct call *c)
{
	answer(c, NULL);
}

void space_access_log_get(struct call *c)
{
	answer(c, &c->space);
}
