/* GET /metrics: OpenMetrics 1.0 text for Prometheus and its kin, for admins. Every series of a name stands together, so all rows
 * are gone through once for each name; they are copied first, so that one answer is of one moment, and written piece by piece as
 * the reader takes them. */
#include <string.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"
#include "spaced/metrics.h"

#define SCRAPES_MAX 4 /* at a time: each holds a copy */
#define PIECE (128U * 1024)
#define NO_SPACE "-" /* the apex, unknown hosts, heads that could not be read: no Space has this name */

struct scrape {
	struct api *a;
	struct http_req *r; /* NULL: all is said, or nobody listens */
	struct metrics_row *rows;
	size_t nrows, row, family;
	struct buf out;
};

struct family {
	const char *name, *type, *unit, *help;
	void (*put)(struct buf *out, const struct family *f, const struct metrics_row *row);
	unsigned which; /* enum counter or gauge */
};

/* ---- the text ---- */

static void put_head(struct buf *out, const struct family *f)
{
	buf_addf(out, "# TYPE %s %s\n", f->name, f->type);
	if (f->unit)
		buf_addf(out, "# UNIT %s %s\n", f->name, f->unit);
	buf_addf(out, "# HELP %s %s\n", f->name, f->help);
}

static void put_label(struct buf *out, const char *name, const char *value)
{
	buf_addf(out, "%s=\"", name);
	for (const char *p = value; *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_addf(out, "\\%c", *p);
		else if (*p == '\n')
			buf_adds(out, "\\n");
		else
			buf_addc(out, *p);
	}
	buf_addc(out, '"');
}

/* `name``suffix`{space="owner/name" — more labels may follow. */
static void put_series(struct buf *out, const struct family *f, const char *suffix, const struct metrics_row *row)
{
	buf_addf(out, "%s%s{", f->name, suffix);
	put_label(out, "space", row->space[0] ? row->space : NO_SPACE);
}

static void put_value(struct buf *out, uint64_t v)
{
	buf_addf(out, "} %llu\n", (unsigned long long)v);
}

static void put_sum(struct buf *out, const struct family *f, const struct metrics_row *row)
{
	put_series(out, f, "_total", row);
	put_value(out, row->sum.n[f->which]);
}

static void put_gauge(struct buf *out, const struct family *f, const struct metrics_row *row)
{
	put_series(out, f, "", row);
	put_value(out, row->sum.now[f->which]);
}

static void put_answered(struct buf *out, const struct family *f, const struct metrics_row *row)
{
	for (unsigned i = 0; i < 5; i++) {
		put_series(out, f, "_total", row);
		buf_addf(out, ",code=\"%uxx\"", i + 1);
		put_value(out, row->sum.n[f->which + i]);
	}
}

static void put_refused(struct buf *out, const struct family *f, const struct metrics_row *row)
{
	for (unsigned i = 1; i < REFUSALS; i++) {
		if (!row->sum.n[f->which + i])
			continue; /* few ever are */
		put_series(out, f, "_total", row);
		buf_addf(out, ",reason=\"%s\"", refusal_name(i));
		put_value(out, row->sum.n[f->which + i]);
	}
}

static void put_durations(struct buf *out, const struct family *f, const struct metrics_row *row)
{
	uint64_t upto = 0, ms = row->sum.n[COUNT_DURATION_MS];

	for (unsigned i = 0; i < DURATIONS; i++) {
		upto += row->sum.n[f->which + i];
		put_series(out, f, "_bucket", row);
		if (i < DURATIONS - 1)
			buf_addf(out, ",le=\"%.*f\"", duration_ms[i] % 1000 ? 3 : 1, duration_ms[i] / 1000.0);
		else
			buf_adds(out, ",le=\"+Inf\"");
		put_value(out, upto);
	}
	put_series(out, f, "_count", row);
	put_value(out, upto);
	put_series(out, f, "_sum", row);
	buf_addf(out, "} %llu.%03u\n", (unsigned long long)(ms / 1000), (unsigned)(ms % 1000));
}

static const struct family families[] = {
    {"spaced_requests", "counter", NULL, "Requests answered, by class of status; 1xx became WebSockets.", put_answered,
     COUNT_ANSWERED},
    {"spaced_request_duration_seconds", "histogram", "seconds",
     "From the head of a request to the end of its answer; without WebSockets and event streams.", put_durations,
     COUNT_DURATION},
    {"spaced_received_bytes", "counter", "bytes", "Bytes of requests.", put_sum, COUNT_BYTES_IN},
    {"spaced_sent_bytes", "counter", "bytes", "Bytes of answers.", put_sum, COUNT_BYTES_OUT},
    {"spaced_requests_open", "gauge", NULL, "Requests in flight, WebSockets and streams among them.", put_gauge,
     GAUGE_OPEN},
    {"spaced_websockets_open", "gauge", NULL, "WebSockets that are open.", put_gauge, GAUGE_WEBSOCKETS},
    {"spaced_requests_held", "gauge", NULL, "Requests that wait for the start of their app.", put_gauge, GAUGE_HELD},
    {"spaced_holds", "counter", NULL, "Requests that have waited for the start of their app.", put_sum, COUNT_HELD},
    {"spaced_wakes", "counter", NULL, "Times that a sleeping app was woken.", put_sum, COUNT_WAKES},
    {"spaced_refused", "counter", NULL, "Requests and connections that the proxy answered itself, by reason.",
     put_refused, COUNT_REFUSED},
};
#define FAMILIES (sizeof families / sizeof *families)

/* ---- what is not counted by proxies ---- */

static void put_one(struct buf *out, const char *name, const char *type, const char *unit, const char *help,
		    uint64_t value)
{
	const struct family f = {.name = name, .type = type, .unit = unit, .help = help};

	put_head(out, &f);
	buf_addf(out, "%s%s %llu\n", name, strcmp(type, "counter") == 0 ? "_total" : "", (unsigned long long)value);
}

static int put_store(struct buf *out, struct api *a, struct err *err)
{
	static const struct family spaces = {.name = "spaced_spaces", .type = "gauge", .help = "Spaces, by stage."};
	static const struct family builds = {
	    .name = "spaced_builds", .type = "gauge", .help = "Builds that are not over, by state."};
	uint64_t stages[SPACE_STAGES];
	struct store_counts n;

	if (store_counts(a->parts.store, &n, err) < 0 || store_stage_counts(a->parts.store, stages, err) < 0)
		return -1;
	put_one(out, "spaced_users", "gauge", NULL, "Users.", n.users);
	put_head(out, &spaces);
	for (unsigned i = 0; i < SPACE_STAGES; i++)
		buf_addf(out, "%s{stage=\"%s\"} %llu\n", spaces.name, space_stage_name(i),
			 (unsigned long long)stages[i]);
	put_head(out, &builds);
	buf_addf(out, "%s{state=\"queued\"} %llu\n%s{state=\"running\"} %llu\n", builds.name,
		 (unsigned long long)n.builds_queued, builds.name, (unsigned long long)n.builds_running);
	return 0;
}

static void put_daemon(struct buf *out, struct api *a)
{
	static const struct family build = {.name = "spaced_build", .type = "info", .help = "The program."};

	put_head(out, &build);
	buf_adds(out, "spaced_build_info{");
	put_label(out, "version", SPACED_VERSION);
	buf_adds(out, "} 1\n");
	put_one(out, "spaced_start_time_seconds", "gauge", "seconds",
		"When control started, since 1970; all counters began at 0 then.", a->started / 1000);
	put_one(out, "spaced_spawner_up", "gauge", NULL, "1: the spawner can be reached.",
		spawner_connected(a->parts.spawner));
	put_one(out, "spaced_proxies", "gauge", NULL, "Proxy processes.", router_proxies(a->parts.router));
}

static void put_connections(struct buf *out, const struct metrics_row *rows, size_t n)
{
	static const struct counters none;
	const struct counters *c = n && !rows[0].space[0] ? &rows[0].sum : &none; /* by name: "" is first */

	put_one(out, "spaced_connections_open", "gauge", NULL, "Connections of clients.", c->now[GAUGE_CONNECTIONS]);
	put_one(out, "spaced_connections", "counter", NULL, "Connections of clients that were accepted.",
		c->n[COUNT_CONNECTIONS]);
	put_one(out, "spaced_access_log_dropped", "counter", NULL,
		"Lines of the access log for which there was no room.", c->n[COUNT_LOG_DROPPED]);
}

/* A series for each instance: a sum over them would shrink when one ends. */
static void put_instance(struct buf *out, const char *name, const char *space, const char *instance)
{
	buf_addf(out, "%s{", name);
	put_label(out, "space", space);
	buf_addc(out, ',');
	put_label(out, "sandbox", instance);
}

static void add_usage(void *ctx, const char *space, const char *instance, uint64_t memory, uint64_t cpu_usec)
{
	struct buf *to = ctx;

	put_instance(&to[0], "spaced_space_memory_bytes", space, instance);
	put_value(&to[0], memory);
	put_instance(&to[1], "spaced_space_cpu_seconds_total", space, instance);
	buf_addf(&to[1], "} %llu.%06u\n", (unsigned long long)(cpu_usec / 1000000), (unsigned)(cpu_usec % 1000000));
}

static void put_usage(struct buf *out, struct api *a)
{
	static const struct family memory = {.name = "spaced_space_memory_bytes",
					     .type = "gauge",
					     .unit = "bytes",
					     .help = "Memory of an instance that serves, a minute ago at most."};
	static const struct family cpu = {.name = "spaced_space_cpu_seconds",
					  .type = "counter",
					  .unit = "seconds",
					  .help = "CPU time of an instance that serves, a minute ago at most."};
	struct buf to[2] = {BUF_INIT, BUF_INIT};

	spaces_each_usage(a->parts.spaces, add_usage, to);
	put_head(out, &memory);
	buf_add(out, to[0].data, to[0].len);
	put_head(out, &cpu);
	buf_add(out, to[1].data, to[1].len);
	buf_release(&to[0]);
	buf_release(&to[1]);
}

/* ---- the answer ---- */

struct names {
	char **list; /* sorted */
	size_t n;
};

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool exists(void *ctx, const char *space)
{
	const struct names *names = ctx;

	return bsearch(&space, names->list, names->n, sizeof *names->list, by_text) != NULL;
}

static void pump(struct scrape *s)
{
	while (http_pending(s->r) < PIECE) {
		buf_clear(&s->out);
		if (s->family == FAMILIES) {
			http_write(s->r, "# EOF\n", 6);
			http_end(s->r);
			s->r = NULL;
			return;
		}
		const struct family *f = &families[s->family];
		if (s->row == 0)
			put_head(&s->out, f);
		while (s->row < s->nrows && s->out.len < PIECE)
			f->put(&s->out, f, &s->rows[s->row++]);
		if (s->row == s->nrows) {
			s->row = 0;
			s->family++;
		}
		http_write(s->r, s->out.data, s->out.len);
	}
}

static void on_drain(struct http_req *r, void *ctx)
{
	struct scrape *s = ctx;

	(void)r;
	if (s->r)
		pump(s);
}

void metrics_scrape_free(struct scrape *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->nrows; i++)
		free(s->rows[i].space);
	free(s->rows);
	buf_release(&s->out);
	s->a->nscrapes--;
	free(s);
}

static struct scrape *scrape_new(struct call *c, struct names *names)
{
	struct scrape *s = xcalloc(1, sizeof *s);

	s->a = c->a;
	s->r = c->r;
	s->rows = metrics_rows(c->a->parts.metrics, exists, names, &s->nrows);
	c->a->nscrapes++;
	c->scrape = s;
	return s;
}

void metrics_get(struct call *c)
{
	cleanup_buf struct buf head = BUF_INIT;
	struct err err = ERR_INIT;
	struct names names;

	if (c->a->nscrapes >= SCRAPES_MAX) {
		http_set_header(c->r, "Retry-After", "5");
		call_error(c, 503, NULL, "the metrics are being read by %d already", SCRAPES_MAX);
		return;
	}
	put_daemon(&head, c->a);
	if (put_store(&head, c->a, &err) < 0 || store_space_names(c->a->parts.store, &names.list, &names.n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	struct scrape *s = scrape_new(c, &names);
	store_names_free(names.list, names.n);
	put_connections(&head, s->rows, s->nrows);
	put_usage(&head, c->a);
	http_set_header(c->r, "Cache-Control", "no-store");
	http_set_header(c->r, "X-Content-Type-Options", "nosniff");
	http_begin(c->r, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", -1);
	if (str_eq(http_method(c->r), "HEAD")) {
		http_end(c->r);
		s->r = NULL;
		return;
	}
	http_drain_level(c->r, PIECE);
	http_on_drain(c->r, on_drain, s);
	http_write(c->r, head.data, head.len);
	pump(s);
}
