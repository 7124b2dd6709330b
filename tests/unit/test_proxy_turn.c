/* Turns of the loop: who is flooded waits, others do not, and nobody waits for ever. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/worker.h"

#define LONG_NS 300000 /* three times what one has in a turn */
#define TURNS 100

struct scene {
	struct worker w;
	struct client flooded, other, newcomer;
	struct upstream app; /* of the flooded one */
	struct exchange x;
};

static void client_of(struct scene *s, struct client *c, uint16_t place)
{
	c->conn.w = &s->w;
	c->conn.is_client = true;
	c->place = place;
}

static int setup(void **state)
{
	struct scene *s = calloc(1, sizeof *s);

	uv_loop_init(&s->w.loop);
	s->w.turns.number = 10;
	client_of(s, &s->flooded, turn_place(1));
	client_of(s, &s->other, turn_place(2));
	client_of(s, &s->newcomer, TURN_NEWCOMERS);
	s->app.conn.w = &s->w;
	s->app.x = &s->x;
	s->x.c = &s->flooded;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct scene *s = *state;

	uv_loop_close(&s->w.loop);
	free(s);
	return 0;
}

/* The time until the next question is nobody's, however long this test is kept from the CPU. */
static bool may_read(struct scene *s, struct conn *c)
{
	bool may = turn_may_read(c);

	s->w.turns.running = NULL;
	return may;
}

/* Who may read or accept has done so, and it took long. */
static void work(struct scene *s)
{
	s->w.turns.since -= LONG_NS;
}

static void alone(void **state)
{
	struct scene *s = *state;

	assert_true(may_read(s, &s->flooded.conn));
	assert_false(turn_shared(&s->w));
	assert_true(may_read(s, &s->other.conn));
	assert_true(may_read(s, &s->flooded.conn));
	assert_true(turn_shared(&s->w));
	s->w.loop.time += 2000;
	for (int i = 0; i < 5; i++) {
		assert_false(turn_shared(&s->w));
		assert_true(turn_may_read(&s->flooded.conn));
		assert_true(turn_may_read(&s->app.conn));
		work(s);
	}
	assert_true(turn_may_accept(&s->w));
}

static void both_ask(struct scene *s)
{
	assert_true(may_read(s, &s->flooded.conn));
	assert_true(may_read(s, &s->other.conn));
	assert_true(turn_shared(&s->w));
	turn_next(&s->w);
}

static void flooded(void **state)
{
	struct scene *s = *state;
	int waited = 0;

	both_ask(s);
	assert_true(turn_may_read(&s->flooded.conn));
	work(s);
	assert_false(turn_may_read(&s->flooded.conn));
	assert_false(turn_may_read(&s->app.conn)); /* what its app says is its own, too */
	assert_true(may_read(s, &s->other.conn));
	for (turn_next(&s->w); !turn_may_read(&s->flooded.conn); turn_next(&s->w)) {
		assert_true(may_read(s, &s->other.conn));
		assert_true(++waited < TURNS);
	}
	assert_true(waited > 0); /* it gives back what it took beyond its due */
}

/* Only what is done for it counts. */
static void charged(void **state)
{
	struct scene *s = *state;

	both_ask(s);
	assert_true(may_read(s, &s->other.conn));
	turn_is_of(&s->flooded.conn);
	work(s);
	assert_true(may_read(s, &s->other.conn));
	assert_false(turn_may_read(&s->app.conn));
}

/* A machine that stood still for an hour costs nobody more than a moment. */
static void forgiven(void **state)
{
	struct scene *s = *state;
	int waited = 0;

	both_ask(s);
	assert_true(turn_may_read(&s->flooded.conn));
	s->w.turns.since -= 3600ULL * 1000000000;
	for (turn_next(&s->w); !turn_may_read(&s->flooded.conn); turn_next(&s->w))
		assert_true(++waited < TURNS);
}

static void newcomers(void **state)
{
	struct scene *s = *state;
	int waited = 0;

	both_ask(s);
	assert_true(turn_may_accept(&s->w));
	work(s);
	assert_false(turn_may_accept(&s->w));
	assert_false(turn_may_read(&s->newcomer.conn));
	assert_true(may_read(s, &s->other.conn));
	do {
		turn_next(&s->w);
		assert_true(++waited < TURNS);
	} while (!may_read(s, &s->newcomer.conn));
	turn_next(&s->w);
	assert_true(turn_may_accept(&s->w));
}

/* Those who are in and were not read come before those who are not in. */
static void newcomers_in_order(void **state)
{
	struct scene *s = *state;

	both_ask(s);
	s->w.turns.places[TURN_NEWCOMERS].denied = s->w.turns.number - 1;
	assert_false(turn_may_accept(&s->w));
	assert_true(may_read(s, &s->newcomer.conn));
	turn_next(&s->w);
	assert_true(turn_may_accept(&s->w));
}

static const struct conn *served[4];
static size_t nserved;

static void serve(struct conn *c)
{
	served[nserved++] = c;
}

/* A kept connection to an app ends, and waits to be read as nobody's, when the flooded one takes it: behind it nobody waits for that. */
static void taken_while_it_waits(void **state)
{
	struct scene *s = *state;
	int waited = 0;

	nserved = 0;
	both_ask(s);
	s->app.x = NULL;
	turn_put_off(&s->app.conn);
	s->app.x = &s->x;
	turn_put_off(&s->newcomer.conn);
	assert_true(turn_may_read(&s->flooded.conn));
	work(s);
	assert_false(turn_may_read(&s->flooded.conn));
	turn_serve(&s->w, serve);
	assert_int_equal(nserved, 1);
	assert_ptr_equal(served[0], &s->newcomer.conn);
	for (; nserved < 2; turn_serve(&s->w, serve)) {
		turn_next(&s->w);
		assert_true(++waited < TURNS);
	}
	assert_ptr_equal(served[1], &s->app.conn);
	assert_null(s->w.turns.waiting);
}

/* A kept connection to an app that has ended is out of the pool at once, and not when all those have been read who are only just
 * coming: a request that took it meanwhile would be in vain. */
static void ended_while_nobody_has_it(void **state)
{
	struct scene *s = *state;
	struct upstream *kept = calloc(1, sizeof *kept);
	struct epoll_event e;
	int pair[2];

	s->w.poll_fd = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	conn_open(&kept->conn, &s->w, pair[0]);
	conn_read_start(&kept->conn);
	conn_later(&s->w);
	both_ask(s);
	assert_true(turn_may_accept(&s->w));
	work(s);
	assert_false(turn_may_accept(&s->w));
	close(pair[1]);
	int n;
	do /* a stop of this process ends it, too */
		n = epoll_wait(s->w.poll_fd, &e, 1, 20000);
	while (n < 0 && errno == EINTR);
	assert_int_equal(n, 1);
	kept->conn.source.ready(&kept->conn.source, e.events);
	assert_true(kept->conn.closing);
	conn_later(&s->w);
	assert_null(s->w.turns.waiting);
	free(s->w.block);
	close(s->w.poll_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(alone, setup, teardown),
	    cmocka_unit_test_setup_teardown(flooded, setup, teardown),
	    cmocka_unit_test_setup_teardown(charged, setup, teardown),
	    cmocka_unit_test_setup_teardown(forgiven, setup, teardown),
	    cmocka_unit_test_setup_teardown(newcomers, setup, teardown),
	    cmocka_unit_test_setup_teardown(newcomers_in_order, setup, teardown),
	    cmocka_unit_test_setup_teardown(taken_while_it_waits, setup, teardown),
	    cmocka_unit_test_setup_teardown(ended_while_nobody_has_it, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
