/* A whole proxy process and the access log that it sends to control: one batch at a time, and what happens when control is gone. */
#include "tests/unit/proxy_rig.h"

#include "base/io.h"

/* The next batch, added to `text`; how many lines it has is said with it. */
static void hear_lines(int control, struct buf *text)
{
	struct frame f;
	uint32_t n = 0;

	hear(control, PROXY_LOG, &f);
	struct reader r = reader_of(f.payload, f.len);
	uint32_t told = get_u32(&r);
	struct str bytes = get_bytes(&r);
	assert_true(get_ok(&r));
	assert_int_equal(bytes.p[bytes.n - 1], '\n');
	for (size_t i = 0; i < bytes.n; i++)
		n += bytes.p[i] == '\n';
	assert_int_equal(n, told);
	buf_add(text, bytes.p, bytes.n);
	frame_release(&f);
}

static void visit(struct fixture *f, int client, const char *mark)
{
	cleanup_buf struct buf b = BUF_INIT;

	buf_addf(&b, "GET /%s HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\n\r\n", mark);
	assert_int_equal(write(client, b.data, b.len), (ssize_t)b.len);
	read_until(client, "</html>", &b);
}

/* Does a batch come within `ms`? Activity does not count. */
static bool comes(int control, int ms)
{
	struct pollfd p = {.fd = control, .events = POLLIN};
	uint64_t until = io_now_ms() + (uint64_t)ms;
	struct frame f;

	for (uint64_t now; (now = io_now_ms()) < until;) {
		if (poll(&p, 1, (int)(until - now)) == 0)
			return false;
		assert_int_equal(frame_recv(control, &f), 1);
		bool log = f.type == PROXY_LOG;
		frame_release(&f);
		if (log)
			return true;
	}
	return false;
}

static void one_batch_at_a_time(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf text = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 503, false);
	commit(f->control);
	visit(f, client, "one");
	hear_lines(f->control, &text);
	assert_non_null(strstr(text.data, "\"path\":\"/one\""));
	visit(f, client, "two");
	visit(f, client, "three");
	assert_false(comes(f->control, 1000)); /* four ticks */
	say(f->control, PROXY_LOGGED, NULL, -1);
	buf_clear(&text);
	while (!text.data || !strstr(text.data, "/three"))
		hear_lines(f->control, &text);
	assert_non_null(strstr(text.data, "\"path\":\"/two\""));
	assert_null(strstr(text.data, "\"path\":\"/one\""));
	close(client);
}

static void a_new_control_gets_what_waits(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf text = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 503, false);
	commit(f->control);
	visit(f, client, "one");
	hear_lines(f->control, &text); /* and dies with it */
	visit(f, client, "two");
	close(f->control);
	visit(f, client, "three");
	new_control(f);
	buf_clear(&text);
	while (!text.data || !strstr(text.data, "/three")) {
		hear_lines(f->control, &text);
		say(f->control, PROXY_LOGGED, NULL, -1);
	}
	assert_non_null(strstr(text.data, "\"path\":\"/two\""));
	close(client);
}

static void the_last_lines_come_at_the_end(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf text = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 503, false);
	commit(f->control);
	visit(f, client, "one");
	hear_lines(f->control, &text);
	visit(f, client, "two"); /* held back: the first one was not confirmed */
	kill(f->pid, SIGTERM);
	while (!strstr(text.data, "/two"))
		hear_lines(f->control, &text);
	close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_batch_at_a_time),
	    TEST(a_new_control_gets_what_waits),
	    TEST(the_last_lines_come_at_the_end),
	};
	signal(SIGPIPE, SIG_IGN);
	rig_log_sample = 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
