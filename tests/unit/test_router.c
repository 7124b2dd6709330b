/* Control's end of the proxies against one that is not ours any more: what it says is no more than its word, costs no more than
 * it may, and ends its channel when it has no form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/frame.h"
#include "base/io.h"
#include "base/log.h"
#include "proxy/access_line.h"
#include "spaced/router.h"

#define ROUTES 2000

struct rig {
	uv_loop_t loop;
	struct router *router;
	int proxy; /* its end */
	unsigned logs, gone;
};

static void log_lines(void *ctx, uint64_t peer, struct str bytes, uint32_t lines)
{
	struct rig *g = ctx;

	g->logs++;
}

static void gone(void *ctx, uint64_t peer)
{
	struct rig *g = ctx;

	g->gone++;
}

static int no_spawner(void *ctx)
{
	return -1;
}

static int rig_up(void **state)
{
	struct rig *g = xcalloc(1, sizeof *g);
	const struct router_callbacks cb = {
	    .log = log_lines, .proxy_gone = gone, .spawner_socket = no_spawner, .ctx = g};
	int pair[2];

	log_init("control", LOG_LEVEL_ERROR);
	uv_loop_init(&g->loop);
	g->router = router_new(&g->loop, "test", &cb);
	for (unsigned i = 0; i < ROUTES; i++) {
		struct route r = {.kind = ROUTE_PAGE, .page_status = 404};
		snprintf(r.host, sizeof r.host, "h%u.test", i);
		router_set(g->router, &r);
	}
	router_ready(g->router);
	assert_int_equal(frame_pair(pair), 0);
	io_set_nonblock(pair[1], true);
	g->proxy = pair[1];
	router_attach(g->router, pair[0]);
	*state = g;
	return 0;
}

static int rig_down(void **state)
{
	struct rig *g = *state;

	router_free(g->router);
	close(g->proxy);
	uv_run(&g->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&g->loop), 0);
	free(g);
	return 0;
}

/* As often as there is something to do. */
static void turn(struct rig *g)
{
	for (int i = 0; i < 200; i++)
		uv_run(&g->loop, UV_RUN_NOWAIT);
}

static void say(struct rig *g, uint32_t type, const struct buf *b)
{
	assert_int_equal(frame_send(g->proxy, type, 0, b->data, b->len, NULL, 0), 0);
	turn(g);
}

/* Takes what has come; how many of `type`. */
static unsigned hear_all(struct rig *g, uint32_t type)
{
	struct frame f;
	unsigned n = 0, quiet = 0;

	while (quiet < 3) {
		turn(g);
		int r = frame_recv(g->proxy, &f);
		quiet = r == 1 ? 0 : quiet + 1;
		n += r == 1 && f.type == type;
		if (r == 1)
			frame_release(&f);
	}
	return n;
}

static void put_log(struct buf *b, const char *more)
{
	const struct access_entry e = {.space = STR("a/b"), .status = 200};
	cleanup_buf struct buf line = BUF_INIT;

	access_line(&line, &e);
	buf_adds(&line, more);
	put_u32(b, 1);
	put_bytes(b, line.data, line.len);
}

static void no_more_logs_than_it_may(void **state)
{
	struct rig *g = *state;
	cleanup_buf struct buf b = BUF_INIT;

	put_log(&b, "");
	for (unsigned i = 0; i < PROXY_LOGS_MAX; i++)
		say(g, PROXY_LOG, &b);
	assert_int_equal(g->logs, PROXY_LOGS_MAX);
	assert_int_equal(router_proxies(g->router), 1);
	router_logged(g->router, 1);
	say(g, PROXY_LOG, &b); /* in the place of the one that is written */
	assert_int_equal(g->logs, PROXY_LOGS_MAX + 1);
	say(g, PROXY_LOG, &b);
	assert_int_equal(g->logs, PROXY_LOGS_MAX + 1);
	assert_int_equal(g->gone, 1);
	router_logged(g->router, 1); /* written after it has gone */
}

static void no_other_form_of_lines(void **state)
{
	struct rig *g = *state;
	cleanup_buf struct buf b = BUF_INIT;

	put_log(&b, "{\"time\":\""); /* the beginning of a line of another's */
	say(g, PROXY_LOG, &b);
	assert_int_equal(g->logs, 0);
	assert_int_equal(g->gone, 1);
}

/* Nor can it fill our memory with routes that it does not read. */
static void all_routes_to_who_reads_them(void **state)
{
	struct rig *g = *state;
	cleanup_buf struct buf b = BUF_INIT;

	put_u64(&b, 1);
	assert_int_equal(hear_all(g, PROXY_ROUTE), ROUTES);
	say(g, PROXY_STALE, &b);
	assert_int_equal(hear_all(g, PROXY_ROUTE), ROUTES);
	assert_int_equal(router_proxies(g->router), 1);
	say(g, PROXY_STALE, &b);
	say(g, PROXY_STALE, &b);
	assert_int_equal(router_proxies(g->router), 0);
	assert_int_equal(g->gone, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_up, rig_down)
	const struct CMUnitTest tests[] = {
	    TEST(no_more_logs_than_it_may),
	    TEST(no_other_form_of_lines),
	    TEST(all_routes_to_who_reads_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
