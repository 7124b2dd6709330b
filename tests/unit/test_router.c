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
#define PROXY 77 /* what the parent calls it */

struct rig {
	uv_loop_t loop;
	struct router *router;
	int proxy; /* its end */
	unsigned logs, gone;
	uint32_t replaced; /* the last one */
	unsigned spawners; /* channels to it that were asked of us */
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

static void replace(void *ctx, uint32_t proxy)
{
	struct rig *g = ctx;

	assert_int_equal(g->gone, 1); /* what it held up is told before */
	g->replaced = proxy;
}

static int no_spawner(void *ctx)
{
	struct rig *g = ctx;

	g->spawners++;
	return -1;
}

static int rig_up(void **state)
{
	struct rig *g = xcalloc(1, sizeof *g);
	const struct router_callbacks cb = {
	    .log = log_lines, .proxy_gone = gone, .replace = replace, .spawner_socket = no_spawner, .ctx = g};
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
	router_attach(g->router, pair[0], PROXY);
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
	assert_int_equal(g->replaced, PROXY);
}

/* Nor of frames. */
static void no_other_form_of_frames(void **state)
{
	struct rig *g = *state;

	assert_int_equal(write(g->proxy, "SPCD", 4), 4);
	turn(g);
	assert_int_equal(g->gone, 1);
	assert_int_equal(g->replaced, PROXY);
}

/* It has ended, or will say itself why it hung up. */
static void one_that_hangs_up(void **state)
{
	struct rig *g = *state;

	close(g->proxy);
	turn(g);
	assert_int_equal(g->gone, 1);
	assert_int_equal(g->replaced, 0);
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

/* Nor with what happens to them: one that stands still is given up, with what it has not read. One that reads never is, however
 * much there is to read. */
static void who_does_not_read_is_given_up(void **state)
{
	struct rig *g = *state;
	struct route r = {.kind = ROUTE_PAGE, .page_status = 404, .host = "h1.test"};
	unsigned changes = 0;

	for (unsigned i = 0; i < 3 * ROUTES; i++) {
		r.page_status = (uint16_t)(404 + i % 2);
		router_set(g->router, &r);
		if (i % 100 == 0)
			hear_all(g, PROXY_ROUTE);
	}
	hear_all(g, PROXY_ROUTE);
	while (!g->gone && changes < 1000000) {
		r.page_status = (uint16_t)(404 + changes++ % 2);
		router_set(g->router, &r);
		uv_run(&g->loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(g->gone, 1);
	assert_int_equal(g->replaced, PROXY);
	assert_in_range(changes, 5 * ROUTES, 100000);
	assert_int_equal(router_proxies(g->router), 0);
}

/* One that has lost its spawner is given another, and no more of them than are good for it. */
static void a_spawner_for_who_asks(void **state)
{
	struct rig *g = *state;
	cleanup_buf struct buf none = BUF_INIT;
	uint64_t since = uv_now(&g->loop);

	assert_int_equal(g->spawners, 1);
	while (g->spawners < 3) {
		say(g, PROXY_NO_SPAWNER, &none);
		uv_update_time(&g->loop);
		assert_true(g->spawners <= 1 + (uv_now(&g->loop) - since) / 1000);
		assert_true(uv_now(&g->loop) - since < 20000);
	}
	assert_int_equal(router_proxies(g->router), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_up, rig_down)
	const struct CMUnitTest tests[] = {
	    TEST(no_more_logs_than_it_may), TEST(no_other_form_of_lines),	TEST(no_other_form_of_frames),
	    TEST(one_that_hangs_up),	    TEST(all_routes_to_who_reads_them), TEST(who_does_not_read_is_given_up),
	    TEST(a_spawner_for_who_asks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
