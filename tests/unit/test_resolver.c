/* The resolver of an egress list as a process, between an app, a name server and a gate that are all this program. */
#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/dns.h"
#include "sandbox/resolver.h"

#define DEADLINE_MS 60000
#define ASKERS 8

static struct {
	pid_t pid;
	int app, servers[2], gate;
} rig;

static int bound(struct sockaddr_in *at)
{
	socklen_t len = sizeof *at;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof *at), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
	return fd;
}

static int setup(void **state)
{
	static struct egress_entry entries[2] = {{.name = "a.test"}, {.name = "b.test"}};
	static struct egress_policy policy = {.kind = EGRESS_LIST, .entries = entries, .n = 2};
	struct resolver r = {.policy = &policy, .nupstream = 2, .try_ms = DEADLINE_MS};
	struct sockaddr_in at;
	int sv[2];

	assert_int_equal(frame_pair(sv), 0);
	r.gate = sv[1];
	rig.gate = sv[0];
	io_set_nonblock(r.gate, true);
	r.clients = bound(&at);
	rig.app = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(rig.app, (struct sockaddr *)&at, sizeof at), 0);
	for (size_t i = 0; i < 2; i++) {
		struct sockaddr_in server, own;

		rig.servers[i] = bound(&server);
		r.upstream[i] = bound(&own);
		assert_int_equal(connect(r.upstream[i], (struct sockaddr *)&server, sizeof server), 0);
		assert_int_equal(connect(rig.servers[i], (struct sockaddr *)&own, sizeof own), 0);
	}
	rig.pid = fork();
	if (rig.pid == 0) {
		close(sv[0]);
		resolver_run(&r);
	}
	close(sv[1]);
	return 0;
}

static int teardown(void **state)
{
	kill(rig.pid, SIGKILL);
	waitpid(rig.pid, NULL, 0);
	return 0;
}

static size_t take(int fd, uint8_t out[DNS_MESSAGE])
{
	struct pollfd p = {fd, POLLIN, 0};

	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	ssize_t n = recv(fd, out, DNS_MESSAGE, 0);
	assert_true(n > 0);
	return (size_t)n;
}

static void ask(uint16_t id, const char *name)
{
	uint8_t m[DNS_MESSAGE];
	size_t n = dns_build_query(id, name, m);

	assert_int_equal(send(rig.app, m, n, 0), (ssize_t)n);
}

static struct dns_query question_at(size_t server)
{
	uint8_t m[DNS_MESSAGE];
	struct dns_query q;
	size_t n = take(rig.servers[server], m);

	assert_int_equal(dns_parse_query(m, n, &q), 0);
	return q;
}

static void say(size_t server, const struct dns_query *q, uint32_t addr)
{
	const struct dns_address a = {addr, 60};
	uint8_t m[DNS_MESSAGE];
	size_t n = dns_build_answer(q, DNS_OK, &a, 1, m);

	assert_int_equal(send(rig.servers[server], m, n, 0), (ssize_t)n);
}

/* What it wants to be let through; it is. */
static uint32_t admitted(void)
{
	struct pollfd p = {rig.gate, POLLIN, 0};
	cleanup_buf struct buf yes = BUF_INIT;
	struct frame f;

	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	assert_int_equal(frame_recv(rig.gate, &f), 1);
	struct reader r = reader_of(f.payload, f.len);
	assert_int_equal(get_u32(&r), 1);
	get_u32(&r);
	uint32_t addr = get_u32(&r);
	put_u8(&yes, 1);
	assert_int_equal(frame_send(rig.gate, RESOLVER_ADMITTED, f.id, yes.data, yes.len, NULL, 0), 0);
	frame_release(&f);
	return addr;
}

/* Who guesses an id has one to hit, however often the app asks; and all that have asked are answered. */
static void a_name_is_asked_for_once_at_a_time(void **state)
{
	bool got[ASKERS] = {0};

	for (uint16_t id = 0; id < ASKERS; id++)
		ask(id, "a.test");
	ask(100, "b.test"); /* in order: when this has arrived, all others were read */
	struct dns_query a = question_at(0), b = question_at(0);
	assert_string_equal(a.name, "a.test");
	assert_string_equal(b.name, "b.test");
	say(0, &a, 0xc6336401);
	assert_int_equal(admitted(), 0xc6336401);
	for (int k = 0; k < ASKERS; k++) {
		uint8_t m[DNS_MESSAGE];
		struct dns_answer answer;

		assert_int_equal(dns_parse_answer(m, take(rig.app, m), "a.test", &answer), 0);
		assert_true(answer.id < ASKERS && !got[answer.id]);
		got[answer.id] = true;
		assert_int_equal(answer.n, 1);
	}
	say(0, &b, 0xc6336402);
	assert_int_equal(admitted(), 0xc6336402);
}

/* An answer counts only from whom was asked. */
static void another_server_has_no_say(void **state)
{
	ask(1, "a.test");
	struct dns_query q = question_at(0);
	say(1, &q, 0xc6336403);
	ask(2, "b.test"); /* when this has arrived, that answer is being looked at, if not later than the next */
	question_at(0);
	say(0, &q, 0xc6336404);
	assert_int_equal(admitted(), 0xc6336404);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_name_is_asked_for_once_at_a_time, setup, teardown),
	    cmocka_unit_test_setup_teardown(another_server_has_no_say, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
