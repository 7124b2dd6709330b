/* See health.h. */
#include "spaced/space/health.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"

#define BATCH 8		/* sockets asked for at a time */
#define ANSWER_MS 15000 /* patience with one answer: first requests load models */
#define LINGER_MS 5000	/* an answer is read to its end: no reset, no traceback in the app's log */
#define LINGER_BYTES (4U << 20)
#define HINT_FIRST_MS 8000 /* then every 60 s */
#define HINT_EVERY_MS 60000

struct attempt {
	uv_tcp_t tcp;
	uv_connect_t connect;
	uv_write_t write;
	struct health *h; /* NULL: not wanted any more */
	uv_timer_t linger;
	int open; /* handles not closed yet */
	char in[64];
	size_t n;
	size_t drained;
	char *rest; /* room for what is dropped */
};

struct health {
	uv_loop_t *loop;
	struct place *place;
	char name[SANDBOX_NAME_MAX + 1];
	char *request;
	uint16_t port;
	uint32_t timeout_s;
	health_cb cb;
	void *ctx;
	unsigned refs; /* the owner, and calls under way */
	bool done;
	uint64_t began, hinted;
	uv_timer_t timer; /* the next attempt, or the patience with this one */
	int fds[BATCH];
	int nfds;
	struct attempt *attempt;
	char last[160]; /* result of the last attempt */
};

static void try_now(struct health *h);

static void closed(uv_handle_t *t)
{
	struct health *h = t->data;

	for (int i = 0; i < h->nfds; i++)
		close(h->fds[i]);
	free(h->request);
	free(h);
}

static void unref(struct health *h)
{
	if (--h->refs == 0)
		uv_close((uv_handle_t *)&h->timer, closed);
}

static void attempt_closed(uv_handle_t *t)
{
	struct attempt *a = t->data;

	if (--a->open)
		return;
	free(a->rest);
	free(a);
}

static void attempt_close(struct attempt *a)
{
	if (uv_is_closing((uv_handle_t *)&a->tcp))
		return;
	uv_close((uv_handle_t *)&a->tcp, attempt_closed);
	uv_close((uv_handle_t *)&a->linger, attempt_closed);
}

static void on_linger(uv_timer_t *t)
{
	attempt_close(t->data);
}

static void drop_attempt(struct health *h)
{
	struct attempt *a = h->attempt;

	if (!a)
		return;
	h->attempt = NULL;
	a->h = NULL;
	if (a->n)
		uv_timer_start(&a->linger, on_linger, LINGER_MS, 0);
	else
		attempt_close(a);
}

void health_free(struct health *h)
{
	if (!h)
		return;
	h->done = true;
	drop_attempt(h);
	uv_timer_stop(&h->timer);
	unref(h);
}

static void finish(struct health *h, enum health_news news, const char *text)
{
	if (h->done)
		return;
	h->done = true;
	drop_attempt(h);
	uv_timer_stop(&h->timer);
	h->cb(h->ctx, h->name, news, text);
}

/* "0.0.0.0:8000, [::]:8000" -> "8000": people think in ports. */
static void ports_of(const char *list, char *out, size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	for (const char *end = list; *list && n + 8 < size; list = *end ? end + 2 : end) {
		end = strchr(list, ',');
		end = end ? end : list + strlen(list);
		const char *colon = end;
		while (colon > list && colon[-1] != ':')
			colon--;
		char port[8];
		snprintf(port, sizeof port, "%.*s", (int)(end - colon), colon);
		if (!strstr(out, port))
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", port);
		if (end[0] && !end[1])
			break;
	}
}

static void describe(struct health *h, const char *list, char *out, size_t size)
{
	char ports[120];

	if (list && *list) {
		ports_of(list, ports, sizeof ports);
		snprintf(out, size, "listening on %s, expected %u", ports, h->port);
	} else if (list) {
		snprintf(out, size, "nothing listens, expected port %u", h->port);
	} else {
		snprintf(out, size, "%s", h->last);
	}
}

/* "0.0.0.0:7860" in "..., 0.0.0.0:7860": it listens where it should. */
static bool lists_port(const char *list, uint16_t port)
{
	char want[8];
	int n = snprintf(want, sizeof want, ":%u", port);

	for (const char *p = list; (p = strstr(p, want)); p++)
		if (p[n] == '\0' || p[n] == ',')
			return true;
	return false;
}

static void on_deadline_listeners(void *ctx, const char *name, const char *list)
{
	struct health *h = ctx;
	char where[300], text[500];

	(void)name;
	if (list && lists_port(list, h->port))
		list = NULL; /* it listens where it should, and does not answer well */
	describe(h, list, where, sizeof where);
	snprintf(text, sizeof text, "Launch timed out, workload was not healthy after %u %s: %s",
		 h->timeout_s % 60 ? h->timeout_s : h->timeout_s / 60, h->timeout_s % 60 ? "s" : "min", where);
	finish(h, HEALTH_TIMEOUT, text);
	unref(h);
}

static void on_hint_listeners(void *ctx, const char *name, const char *list)
{
	struct health *h = ctx;
	char text[300];

	(void)name;
	if (!h->done && list && *list && !lists_port(list, h->port)) {
		describe(h, list, text, sizeof text);
		h->cb(h->ctx, h->name, HEALTH_HINT, text);
	}
	unref(h);
}

static void on_timer(uv_timer_t *t)
{
	struct health *h = t->data;

	if (h->attempt) {
		snprintf(h->last, sizeof h->last, "port %u is open but does not answer", h->port);
		drop_attempt(h);
	}
	try_now(h);
}

/* At first often, so that a quick app is live the moment it can answer. */
static void again(struct health *h)
{
	uint64_t age = io_now_ms() - h->began;

	drop_attempt(h);
	if (!h->done)
		uv_timer_start(&h->timer, on_timer, age < 5000 ? 25 : age < 20000 ? 100 : age < 60000 ? 250 : 1000, 0);
}

/* "HTTP/1.x NNN" */
static int status_of(const struct attempt *a)
{
	if (a->n < 12 || memcmp(a->in, "HTTP/1.", 7) != 0 || a->in[8] != ' ')
		return -1;
	return (a->in[9] - '0') * 100 + (a->in[10] - '0') * 10 + (a->in[11] - '0');
}

static void on_alloc(uv_handle_t *t, size_t suggested, uv_buf_t *buf)
{
	struct attempt *a = t->data;

	(void)suggested;
	if (a->n < sizeof a->in) {
		*buf = uv_buf_init(a->in + a->n, (unsigned)(sizeof a->in - a->n));
		return;
	}
	if (!a->rest)
		a->rest = xmalloc(16384);
	*buf = uv_buf_init(a->rest, 16384);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct attempt *a = s->data;
	struct health *h = a->h;

	if (n > 0 && buf->base == a->in + a->n)
		a->n += (size_t)n;
	if (!h) {
		a->drained += n > 0 ? (size_t)n : 0;
		if (n < 0 || a->drained > LINGER_BYTES)
			attempt_close(a);
		return;
	}
	if (n == 0)
		return;
	int status = status_of(a);
	if (status >= 100 && status < 500) {
		finish(h, HEALTH_OK, "");
		return;
	}
	if (n > 0 && status < 0 && a->n < 12)
		return;
	if (status >= 500)
		snprintf(h->last, sizeof h->last, "GET / answers %d", status);
	else
		snprintf(h->last, sizeof h->last, "what port %u answers is not HTTP", h->port);
	again(h);
}

static void on_written(uv_write_t *w, int status)
{
	struct attempt *a = w->data;

	if (a->h && status < 0)
		again(a->h);
}

static void on_connect(uv_connect_t *c, int status)
{
	struct attempt *a = c->data;
	struct health *h = a->h;

	if (!h)
		return;
	if (status < 0) {
		snprintf(h->last, sizeof h->last, "nothing listens on port %u (%s)", h->port, uv_strerror(status));
		again(h);
		return;
	}
	uv_buf_t b = uv_buf_init(h->request, (unsigned)strlen(h->request));
	a->write.data = a;
	if (uv_write(&a->write, (uv_stream_t *)&a->tcp, &b, 1, on_written) < 0 ||
	    uv_read_start((uv_stream_t *)&a->tcp, on_alloc, on_read) < 0)
		again(h);
}

static void attempt_begin(struct health *h, int fd)
{
	struct attempt *a = xcalloc(1, sizeof *a);
	struct sockaddr_in to;

	uv_tcp_init(h->loop, &a->tcp);
	uv_timer_init(h->loop, &a->linger);
	a->open = 2;
	a->tcp.data = a;
	a->linger.data = a;
	a->connect.data = a;
	a->h = h;
	h->attempt = a;
	uv_timer_start(&h->timer, on_timer, ANSWER_MS, 0);
	uv_ip4_addr("127.0.0.1", h->port, &to);
	int rc = uv_tcp_open(&a->tcp, fd);
	if (rc < 0)
		close(fd);
	if (rc < 0 || uv_tcp_connect(&a->connect, &a->tcp, (const struct sockaddr *)&to, on_connect) < 0)
		again(h);
}

static void on_open(void *ctx, const char *name, const int *fds, int n, const struct err *err)
{
	struct health *h = ctx;

	(void)name;
	for (int i = 0; i < n; i++) {
		if (!h->done && h->nfds < BATCH)
			h->fds[h->nfds++] = fds[i];
		else
			close(fds[i]);
	}
	if (err)
		snprintf(h->last, sizeof h->last, "%.150s", err->msg);
	if (!h->done && n > 0)
		try_now(h);
	else if (!h->done)
		uv_timer_start(&h->timer, on_timer, 250, 0);
	unref(h);
}

static void try_now(struct health *h)
{
	uint64_t age = io_now_ms() - h->began;

	if (h->done || h->attempt)
		return;
	if (age >= (uint64_t)h->timeout_s * 1000) {
		h->refs++;
		place_listeners(h->place, h->name, on_deadline_listeners, h);
		return;
	}
	if (age >= HINT_FIRST_MS && age - h->hinted >= (h->hinted ? HINT_EVERY_MS : HINT_FIRST_MS)) {
		h->hinted = age;
		h->refs++;
		place_listeners(h->place, h->name, on_hint_listeners, h);
	}
	if (h->nfds) {
		attempt_begin(h, h->fds[--h->nfds]);
		return;
	}
	h->refs++;
	place_open(h->place, h->name, BATCH, on_open, h);
}

struct health *health_begin(uv_loop_t *loop, struct place *place, const char *name, const char *host, uint16_t port,
			    uint32_t timeout_s, health_cb cb, void *ctx)
{
	struct health *h = xcalloc(1, sizeof *h);

	h->loop = loop;
	h->place = place;
	snprintf(h->name, sizeof h->name, "%s", name);
	h->request = xasprintf("GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: spaced-health/1\r\nAccept: */*\r\n"
			       "Connection: close\r\n\r\n",
			       host);
	h->port = port;
	h->timeout_s = timeout_s;
	h->cb = cb;
	h->ctx = ctx;
	h->refs = 1;
	h->began = io_now_ms();
	snprintf(h->last, sizeof h->last, "not probed yet");
	uv_timer_init(loop, &h->timer);
	h->timer.data = h;
	uv_timer_start(&h->timer, on_timer, 0, 0);
	return h;
}
