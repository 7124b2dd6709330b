/* A whole proxy process as the daemon runs it: the test is its parent, its control and its spawner, and the apps. */
#include <dirent.h>
#include <stdio.h>

#include "tests/unit/proxy_rig.h"

/* Memory means something only without sanitizers. */
#ifdef __SANITIZE_ADDRESS__
#define MEASURES false
#else
#define MEASURES true
#endif

static void waits_for_the_first_commit(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	ask(client, "a.test");
	reset(f->control);
	route_page(f->control, "a.test", 503, true);
	struct pollfd p = {.fd = client, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 200), 0); /* no answer while the routes are not whole */
	commit(f->control);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	assert_non_null(strstr(b.data, "http-equiv=\"refresh\""));
	assert_non_null(strstr(b.data, "Building &lt;it&gt;"));
	assert_non_null(strstr(b.data, "step 1 &amp; 2"));
	close(client);
}

/* Adds up what the proxy says about alice/one and about no Space, until `answers` were counted and nothing is open. */
static void hear_counters(struct fixture *f, struct counters *all, uint64_t answers)
{
	struct counters some;
	char space[200];

	while (all->n[COUNT_ANSWERED + 1] < answers || all->now[GAUGE_OPEN] || !all->n[COUNT_CONNECTIONS]) {
		struct frame frame;
		hear(f->control, PROXY_ACTIVITY, &frame);
		struct reader r = reader_of(frame.payload, frame.len);
		for (uint32_t n = get_u32(&r); n; n--) {
			assert_true(get_str(&r, space, sizeof space));
			counters_get(&r, &some);
			for (size_t i = 0; i < COUNTERS; i++)
				all->n[i] += some.n[i];
			if (space[0])
				assert_string_equal(space, "alice/one");
			if (space[0])
				all->now[GAUGE_OPEN] = some.now[GAUGE_OPEN];
			else
				all->now[GAUGE_CONNECTIONS] = some.now[GAUGE_CONNECTIONS];
		}
		assert_true(get_ok(&r));
		frame_release(&frame);
	}
}

/* The connection to the app over which this client has got an answer. */
static int first_answer(struct fixture *f, int client)
{
	cleanup_buf struct buf b = BUF_INIT;

	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "one");
	read_until(client, "one", &b);
	return app;
}

static void sockets_of_the_spawner_are_pooled(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = ask_app(f), app = first_answer(f, client);

	for (int i = 0; i < 5; i++) {
		ask(client, "a.test");
		app_answers(app, "again");
		read_until(client, "again", &b);
	}
	/* What it did is told: nothing twice, nothing lost. */
	struct counters all = {0};
	hear_counters(f, &all, 6);
	ask(client, "a.test");
	app_answers(app, "last");
	read_until(client, "last", &b);
	hear_counters(f, &all, 7);
	assert_int_equal(all.n[COUNT_REQUESTS], 7);
	assert_int_equal(all.n[COUNT_ANSWERED + 1], 7);
	assert_int_equal(all.n[COUNT_CONNECTIONS], 1);
	assert_int_equal(all.now[GAUGE_CONNECTIONS], 1);
	assert_true(all.n[COUNT_BYTES_IN] > 7 * 40 && all.n[COUNT_BYTES_OUT] > 7 * 40);
	close(app);
	close(client);
}

static void errors_of_the_spawner(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = ask_app(f);
	int pair[2];

	spawn_error(f->spawner, ENOENT);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));

	/* It dies while a request waits for it, and control hands over the new one: who waits is served. */
	ask(client, "a.test");
	wait_readable(f->spawner);
	close(f->spawner);
	assert_int_equal(frame_pair(pair), 0);
	say(f->control, PROXY_SPAWNER, NULL, pair[1]);
	close(pair[1]);
	f->spawner = pair[0];
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "back");
	read_until(client, "back", &b);
	close(app);
	close(client);
}

/* Another one does not come, for longer than one waits for a connection and for an app. It has gone before it is asked: the time
 * for its answer would end as well. */
static void nobody_is_the_spawner(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	close(f->spawner);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	close(client);
}

/* The channel ends, and not the spawner: nobody would hand over another one unasked. */
static void asks_for_another_spawner(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	struct frame frame;
	int pair[2];

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	assert_int_equal(write(f->spawner, "garbage", 7), 7);
	hear(f->control, PROXY_NO_SPAWNER, &frame);
	assert_int_equal(frame.len, 0);
	frame_release(&frame);
	close(f->spawner);
	assert_int_equal(frame_pair(pair), 0);
	say(f->control, PROXY_SPAWNER, NULL, pair[1]);
	close(pair[1]);
	f->spawner = pair[0];
	int client = dial(f->port);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "back");
	read_until(client, "back", &b);
	close(app);
	close(client);
}

static void a_shortage_is_waited_out(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = ask_app(f);

	spawn_error(f->spawner, EMFILE);
	spawn_error(f->spawner, ENOMEM);
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "late");
	read_until(client, "late", &b);
	close(app);
	close(client);
}

#define FILES 64

/* Of those that count against FILES: what was inherited may lie above. */
static size_t open_files(pid_t pid)
{
	char path[64];
	size_t n = 0;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	DIR *folder = opendir(path);
	assert_non_null(folder);
	for (struct dirent *e; (e = readdir(folder)) != NULL;)
		n += e->d_name[0] != '.' && strtoul(e->d_name, NULL, 10) < FILES;
	closedir(folder);
	return n;
}

/* Descriptors that find no room are missed by one request, which waits for others, and are not the end of the channel on which
 * they came. */
static void no_room_for_sockets(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	struct route plain = {.kind = ROUTE_TCP, .host = "t.test", .nendpoints = 1};
	int clients[FILES] = {0}, n = 0;

	snprintf(plain.endpoints[0].name, sizeof plain.endpoints[0].name, "127.0.0.1:%u", f->app_port);
	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	send_route(f->control, &plain);
	commit(f->control);
	/* Until one more would find no room. */
	for (; n < FILES && open_files(f->pid) < FILES; n++) {
		clients[n] = dial(f->port);
		ask(clients[n], "p.test");
		read_until(clients[n], "</html>", &b);
	}
	assert_in_range(n, 2, FILES);
	ask(clients[1], "t.test");
	read_until(clients[1], "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	ask(clients[0], "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	while (n > 1)
		close(clients[--n]);
	/* It asks again until it has seen that they are gone. */
	struct pollfd p[] = {{.fd = f->spawner, .events = POLLIN}, {.fd = f->app, .events = POLLIN}};
	while (poll(p, 2, PATIENCE_MS) > 0 && !p[1].revents)
		spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "room");
	read_until(clients[0], "room", &b);
	close(app);
	close(clients[0]);
}

static void refused_by_the_app(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);
	uint16_t port = 0;
	int nobody = bind_port(&port);

	reset(f->control);
	route_app(f->control, "a.test", 1, port);
	commit(f->control);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));
	assert_non_null(strstr(b.data, "nothing listens on port"));
	close(nobody);
	close(client);
}

static void deploy_drains_the_old(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_buf struct buf drain = BUF_INIT;
	struct frame frame;
	int old_client = dial(f->port), new_client = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(old_client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int old_app = accept_app(f); /* has the request, answers later */

	route_app(f->control, "a.test", 2, f->app_port);
	put_str(&drain, "app-1-1");
	put_u32(&drain, 1);
	say(f->control, PROXY_DRAIN, &drain, -1);
	commit(f->control);
	ask(new_client, "a.test");
	spawn_sockets(f->spawner, "app-1-2");
	int new_app = accept_app(f);
	app_answers(new_app, "new");
	read_until(new_client, "new", &b);

	app_answers(old_app, "old");
	read_until(old_client, "old", &b);
	hear(f->control, PROXY_IDLE, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	char name[81];
	get_str(&r, name, sizeof name);
	assert_string_equal(name, "app-1-1");
	assert_int_equal(get_u32(&r), 1);
	frame_release(&frame);
	wait_readable(old_app);
	assert_int_equal(read(old_app, name, 1), 0); /* closed, not pooled */

	/* One that it never heard of is idle at once. */
	buf_clear(&drain);
	put_str(&drain, "app-9-9");
	put_u32(&drain, 9);
	say(f->control, PROXY_DRAIN, &drain, -1);
	hear(f->control, PROXY_IDLE, &frame);
	frame_release(&frame);
	close(old_app);
	close(new_app);
	close(old_client);
	close(new_client);
}

/* The drain deadline: a response that has begun is cut off, one that has not becomes a page, others do not notice. */
static void a_cut_ends_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_buf struct buf cut = BUF_INIT;
	struct frame frame;
	int streams = dial(f->port), waits = dial(f->port), other = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	route_app(f->control, "b.test", 2, f->app_port);
	commit(f->control);
	ask(streams, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	read_until(app, "\r\n\r\n", &b);
	static const char begun[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
	assert_int_equal(write(app, begun, sizeof begun - 1), sizeof begun - 1);
	read_until(streams, "begun", &b);
	ask(waits, "a.test");
	int slow = accept_app(f);
	ask(other, "b.test");
	spawn_sockets(f->spawner, "app-1-2");
	int others = accept_app(f);
	read_until(slow, "\r\n\r\n", &b);

	put_str(&cut, "app-1-1");
	put_u32(&cut, 1);
	say(f->control, PROXY_DRAIN, &cut, -1);
	say(f->control, PROXY_CUT, &cut, -1);
	wait_readable(streams);
	assert_int_equal(read(streams, &(char){0}, 1), 0);
	read_until(waits, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	hear(f->control, PROXY_IDLE, &frame);
	frame_release(&frame);
	wait_readable(app);
	assert_int_equal(read(app, &(char){0}, 1), 0);
	app_answers(others, "kept");
	read_until(other, "kept", &b);
	close(app);
	close(slow);
	close(others);
	close(streams);
	close(waits);
	close(other);
}

/* A gap in the deltas: nothing of it is applied, a snapshot is asked for, and what comes with that is served. */
static void a_gap_is_mended_by_a_snapshot(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	struct frame frame;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 404, false);
	commit(f->control);
	uint64_t had = said.version++; /* one is lost on the way */
	route_page(f->control, "a.test", 410, false);
	hear(f->control, PROXY_STALE, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	assert_int_equal(get_u64(&r), had);
	assert_true(get_ok(&r));
	frame_release(&frame);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	reset(f->control);
	route_page(f->control, "a.test", 200, false);
	commit(f->control);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	close(client);
}

/* Whatever happens to the idle connections of the generation before, none of them is ever used for the next one. */
static void no_connection_crosses_a_generation(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port), apps[5];
	char c;

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	route_app(f->control, "b.test", 9, f->app_port);
	commit(f->control);
	for (uint32_t g = 1; g <= 5; g++) {
		char name[81];
		snprintf(name, sizeof name, "app-1-%u", g);
		if (g > 1)
			route_app(f->control, "a.test", g, f->app_port);
		commit(f->control);
		ask(client, "a.test");
		spawn_sockets(f->spawner, name); /* it asks for new ones, though idle ones are there */
		apps[g - 1] = accept_app(f);
		app_answers(apps[g - 1], name);
		read_until(client, name, &b);
		/* Kept for its own. */
		ask(client, "a.test");
		app_answers(apps[g - 1], "again");
		read_until(client, "again", &b);
	}
	/* Nor for another app at the same port. */
	ask(client, "b.test");
	spawn_sockets(f->spawner, "app-1-9");
	int other = accept_app(f);
	app_answers(other, "other");
	read_until(client, "other", &b);
	/* The idle ones of before have got no byte more. */
	for (int i = 0; i < 4; i++)
		assert_true(recv(apps[i], &c, 1, MSG_DONTWAIT) <= 0);
	for (int i = 0; i < 5; i++)
		close(apps[i]);
	close(other);
	close(client);
}

/* Before the app itself lets it go: a request would meet that. */
static void an_idle_connection_is_let_go(void **state)
{
	struct fixture *f = *state;
	int client = ask_app(f), app = first_answer(f, client);

	wait_readable(app);
	assert_int_equal(read(app, &(char){0}, 1), 0);
	close(app);
	close(client);
}

/* Kilobytes of a process that are its own. */
static size_t private_kib(pid_t pid)
{
	char path[64], line[256];
	size_t sum = 0, kib;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof line, file))
		if (sscanf(line, "Private_Clean: %zu", &kib) == 1 || sscanf(line, "Private_Dirty: %zu", &kib) == 1)
			sum += kib;
	fclose(file);
	return sum;
}

#define ROUTES 10000
#define UPDATES 500

/* 10,000 routes: what they cost; and while one of them is changed over and over, every request of others and of its own is
 * answered, and one in flight keeps what it has. */
static void updates_under_traffic(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port), patient = dial(f->port);
	char host[64];

	reset(f->control);
	commit(f->control);
	size_t before = private_kib(f->pid);
	reset(f->control);
	for (uint32_t i = 0; i < ROUTES; i++) {
		struct route r = {
		    .kind = ROUTE_APP, .nendpoints = 1, .endpoints[0].generation = i, .port = f->app_port};
		snprintf(r.host, sizeof r.host, "alice-space-%u.test", i);
		snprintf(r.endpoints[0].name, sizeof r.endpoints[0].name, "app-%024u-%u", i, i);
		snprintf(r.space, sizeof r.space, "alice/space-%u", i);
		snprintf(r.space_id, sizeof r.space_id, "%024u", i);
		r.headers = (char[]){"content-security-policy: frame-ancestors 'self' https://test\r\n"};
		send_route(f->control, &r);
	}
	route_app(f->control, "a.test", 1, f->app_port);
	route_page(f->control, "p.test", 200, false);
	route_page(f->control, "q.test", 200, false);
	commit(f->control);
	size_t after = private_kib(f->pid);
	print_message("# a worker with %d routes has %zu KiB more\n", ROUTES, after - before);
	if (MEASURES && before)
		assert_in_range(after - before, 1024, 4096 + 512); /* the allocator's own rest */

	ask(patient, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	unsigned answered = 0;
	for (int i = 0; i < UPDATES; i++) {
		route_app(f->control, "a.test", 2 + (uint32_t)i, f->app_port);
		route_page(f->control, "q.test", 200, i % 2);
		snprintf(host, sizeof host, i % 2 ? "p.test" : "q.test");
		ask(client, host);
		read_until(client, "</html>", &b);
		answered += strstr(b.data, "HTTP/1.1 200 ") != NULL;
	}
	assert_int_equal(answered, UPDATES);
	commit(f->control);
	app_answers(app, "at last");
	read_until(patient, "at last", &b);
	close(app);
	close(client);
	close(patient);
}

static void lives_without_control(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 200, false);
	commit(f->control);
	/* A snapshot that is never committed is nothing. */
	reset(f->control);
	route_page(f->control, "b.test", 200, false);
	close(f->control);
	for (int i = 0; i < 3; i++) {
		ask(client, "a.test");
		read_until(client, "</html>", &b);
		assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	}
	new_control(f);
	reset(f->control);
	route_page(f->control, "c.test", 200, false);
	commit(f->control);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	ask(client, "b.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	ask(client, "c.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	close(client);
}

static void garbage_ends_the_channel_only(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	struct frame frame;
	int client = dial(f->port);

	reset(f->control);
	route_page(f->control, "a.test", 200, false);
	commit(f->control);
	buf_adds(&b, "garbage");
	say(f->control, PROXY_ROUTE, &b, -1);
	hear_end(f->control);
	hear(f->parent, PROXY_READY, &frame);
	frame_release(&frame);
	hear(f->parent, PROXY_LOST, &frame);
	frame_release(&frame);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	close(client);
}

/* A proxy of before an upgrade follows a control that says more than it knows. */
static void a_newer_control(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT, more = BUF_INIT;
	struct route r = {.host = "a.test", .kind = ROUTE_PAGE, .page_status = 200, .page_title = (char[]){"known"}};
	int client = dial(f->port);
	struct frame frame;

	put_u64(&more, 1000);
	put_str(&more, "test");
	put_str(&more, "what nobody knows yet");
	say(f->control, PROXY_RESET, &more, -1);
	say(f->control, 99, &more, -1);
	put_u64(&b, 1000);
	route_encode(&r, &b);
	put_u64(&b, 12345);
	say(f->control, PROXY_ROUTE, &b, -1);
	buf_clear(&b);
	put_u64(&b, 1000);
	put_u32(&b, 1);
	put_str(&b, "as above");
	say(f->control, PROXY_COMMIT, &b, -1);
	hear(f->control, PROXY_READY, &frame);
	frame_release(&frame);
	ask(client, "a.test");
	read_until(client, "known", &b);
	close(client);
}

static void ends_with_its_parent(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port), idle = dial(f->port);

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	shutdown(f->parent, SHUT_RDWR);
	wait_readable(idle);
	assert_int_equal(read(idle, &(char){0}, 1), 0); /* one that says nothing */
	app_answers(app, "last");
	read_until(client, "last", &b);
	assert_non_null(strstr(b.data, "Connection: close"));
	wait_end(f);
	close(app);
	close(client);
	close(idle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(waits_for_the_first_commit),
	    TEST(sockets_of_the_spawner_are_pooled),
	    TEST(errors_of_the_spawner),
	    TEST(asks_for_another_spawner),
	    TEST(a_shortage_is_waited_out),
	    TEST(refused_by_the_app),
	    TEST(deploy_drains_the_old),
	    TEST(lives_without_control),
	    TEST(garbage_ends_the_channel_only),
	    TEST(a_newer_control),
	    TEST(ends_with_its_parent),
	    TEST(a_gap_is_mended_by_a_snapshot),
	    TEST(no_connection_crosses_a_generation),
	    TEST(updates_under_traffic),
	    TEST(a_cut_ends_what_is_in_flight),
	};
	const struct CMUnitTest scarce[] = {TEST(no_room_for_sockets)};
	const struct CMUnitTest in_vain[] = {TEST(nobody_is_the_spawner)};
	const struct CMUnitTest briefly[] = {TEST(an_idle_connection_is_let_go)};

	signal(SIGPIPE, SIG_IGN);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	rig_files = FILES;
	failed += cmocka_run_group_tests(scarce, NULL, NULL);
	rig_files = 0;
	rig_limits.connect_ms = 600;
	rig_limits.hold_ms = 1000;
	failed += cmocka_run_group_tests(in_vain, NULL, NULL);
	rig_limits.pool_ms = 300;
	return failed + cmocka_run_group_tests(briefly, NULL, NULL);
}
