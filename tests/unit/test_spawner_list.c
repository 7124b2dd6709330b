/* An egress list by way of the spawner, in an Internet of the test's own (tests/fake_internet, within which this program
 * starts itself again): it outlives spawners and what kills the resolver, ends with the sandbox; and bytes are counted. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "spawner_helper.h"

static bool is_inside(void)
{
	return getenv("FAKE_INTERNET") != NULL;
}

static void need_internet(void)
{
	need_root();
	if (!is_inside())
		fail_msg("tests/fake_internet is not there: to be run from the root of the sources");
}

/* The app: takes lines "resolve NAME", "reach ADDR PORT", "get ADDR N" from whom the spawner lets in, answers with one. */
#define APP                                                                                                            \
	"import socket\n"                                                                                              \
	"def resolve(n):\n"                                                                                            \
	"    try: return socket.gethostbyname(n)\n"                                                                    \
	"    except OSError: return 'nothing'\n"                                                                       \
	"def reach(a, p):\n"                                                                                           \
	"    try: socket.create_connection((a, int(p)), 4).close(); return 'open'\n"                                   \
	"    except OSError: return 'closed'\n"                                                                        \
	"def get(a, n):\n"                                                                                             \
	"    s = socket.create_connection((a, 80), 60); s.sendall(b'get %s\\n' % n.encode()); got = 0\n"               \
	"    while c := s.recv(65536): got += len(c)\n"                                                                \
	"    return str(got)\n"                                                                                        \
	"l = socket.create_server(('127.0.0.1', 8000))\n"                                                              \
	"while True:\n"                                                                                                \
	"    c = l.accept()[0]; f = c.makefile('rw'); w = f.readline().split()\n"                                      \
	"    print(globals()[w[0]](*w[1:]), file=f, flush=True); f.close(); c.close()\n"

/* False when the app does not answer (yet). */
static bool ask_app(const char *name, const char *line, char *out, size_t size)
{
	struct sockaddr_in a = {
	    .sin_family = AF_INET, .sin_port = htons(8000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;

	put_str(&b, name);
	put_u32(&b, 1);
	assert_int_equal(answer(request(SPAWN_OPEN, &b, NULL, 0), &f), 0);
	cleanup_close int fd = frame_take_fd(&f, 0);
	frame_release(&f);
	io_set_nonblock(fd, false);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		return false;
	assert_int_equal(io_write_full(fd, line, strlen(line)), 0);
	size_t n = 0;
	ssize_t k;
	while (n + 1 < size && (k = read(fd, out + n, size - 1 - n)) > 0)
		n += (size_t)k;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return n > 0;
}

static char *said(const char *name, const char *line)
{
	static char out[128];
	uint64_t end = io_now_ms() + DEADLINE_MS;

	while (!ask_app(name, line, out, sizeof out)) {
		assert_true(io_now_ms() < end);
		poll(NULL, 0, 20);
	}
	return out;
}

/* Until it does: whom it asks for an answer or a connection may be kept from the CPU for longer than it waits. */
static void comes_to_say(const char *name, const char *line, const char *want)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	while (strcmp(said(name, line), want) != 0)
		assert_true(io_now_ms() < end);
}

static char secret[40]; /* made after the spawner, which is a fork of ours */

static void start_app(const char *name)
{
	static char variable[64];
	static char *env[] = {"PATH=/usr/bin:/bin", variable, NULL};
	static char *argv[] = {"/usr/bin/python3", "-c", APP, NULL};
	static char *list[] = {"ok.test:80", "203.0.113.0/24:81", NULL};
	struct sandbox_spec s = spec_of(name, argv);

	io_random_hex(secret, 16);
	snprintf(variable, sizeof variable, "SECRET=%s", secret);
	s.env = env;
	s.egress = EGRESS_LIST;
	s.egress_list = list;
	assert_int_equal(start(&s), 0);
}

/* Processes of a name that run as the sandbox's last id; all get `signo`, unless 0. */
static int helpers_named(const char *name, int signo)
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	char want[64];
	int n = 0;

	snprintf(want, sizeof want, "Name:\t%s\n", name);
	while (d && (e = readdir(d)) != NULL) {
		char path[300];
		snprintf(path, sizeof path, "/proc/%s/status", e->d_name);
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !has_id(e->d_name, SANDBOX_IDS - 2) ||
		    !lines_with(path, want) || lines_with(path, "State:\tZ"))
			continue;
		n++;
		if (signo)
			kill((pid_t)atoi(e->d_name), signo);
	}
	return n;
}

static int gates(void)
{
	return helpers_named("spaced-gate", 0);
}

static int resolvers(void)
{
	return helpers_named("spaced-resolver", 0);
}

static void stop_app(const char *name)
{
	assert_int_equal(call_stop(name, 0), 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
	/* the next one's are counted, and its monitor */
	assert_true(eventually_zero(gates) && eventually_zero(resolvers) && eventually_zero(processes));
}

static void test_outlives_the_spawner(void **unused)
{
	need_internet();
	start_app("app-1-1");
	assert_string_equal(said("app-1-1", "reach 198.51.100.10 80\n"), "closed");
	comes_to_say("app-1-1", "resolve ok.test\n", "198.51.100.10");
	comes_to_say("app-1-1", "reach 198.51.100.10 80\n", "open");
	for (int how = 0; how < 2; how++) {
		spawner_down(how ? SIGKILL : 0);
		spawner_up();
		assert_int_equal(listed("app-1-1"), 1);
		comes_to_say("app-1-1", "reach 198.51.100.10 80\n", "open");
		comes_to_say("app-1-1", "resolve ok.test\n", "198.51.100.10");
		assert_string_equal(said("app-1-1", "resolve other.test\n"), "nothing");
		assert_string_equal(said("app-1-1", "reach 198.51.100.10 81\n"), "closed");
		assert_string_equal(said("app-1-1", "reach 198.51.100.11 80\n"), "closed");
		comes_to_say("app-1-1", "reach 203.0.113.2 81\n", "open");
		assert_string_equal(said("app-1-1", "reach 203.0.113.1 81\n"), "closed");
	}
	assert_int_equal(gates(), 1);
	assert_int_equal(resolvers(), 1);
	stop_app("app-1-1");
	assert_true(eventually_zero(gates));
	assert_true(eventually_zero(resolvers));
	nothing_left();
}

/* Neither has a capability that is not said, a file, or a way back. */
static void test_helpers_are_confined(void **unused)
{
	static const struct {
		const char *name, *caps;
	} both[] = {{"spaced-gate", "CapEff:\t0000000000001000"}, {"spaced-resolver", "CapEff:\t0000000000000000"}};

	need_internet();
	start_app("app-2-1");
	comes_to_say("app-2-1", "resolve ok.test\n",
		     "198.51.100.10"); /* before that the resolver may still be a fresh fork of the gate */
	for (int k = 0; k < 2; k++) {
		cleanup_dir DIR *d = opendir("/proc");
		struct dirent *e;
		char want[64], path[300];
		int seen = 0;
		snprintf(want, sizeof want, "Name:\t%s\n", both[k].name);
		while (d && (e = readdir(d)) != NULL) {
			snprintf(path, sizeof path, "/proc/%s/status", e->d_name);
			if (e->d_name[0] < '1' || e->d_name[0] > '9' || !lines_with(path, want) ||
			    lines_with(path, "State:\tZ"))
				continue;
			seen++;
			assert_int_equal(lines_with(path, both[k].caps), 1);
			assert_int_equal(lines_with(path, "NoNewPrivs:\t1"), 1);
			assert_int_equal(lines_with(path, "Seccomp:\t2"), 1);
			assert_int_equal(lines_with(path, "Uid:\t0"), 0);
		}
		assert_int_equal(seen, 1);
	}
	stop_app("app-2-1");
}

/* Who parses DNS could be made to tell what it has in its memory: no secret of any app. */
static void test_helpers_know_no_secret(void **unused)
{
	static const char *const names[] = {"spaced-gate", "spaced-resolver", "spaced-monitor", "python3"};
	int seen[4] = {0};

	need_internet();
	start_app("app-6-1");
	comes_to_say("app-6-1", "resolve ok.test\n", "198.51.100.10");
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	while (d && (e = readdir(d)) != NULL) {
		char path[300], want[64];
		snprintf(path, sizeof path, "/proc/%s/status", e->d_name);
		for (int k = 0; e->d_name[0] >= '1' && e->d_name[0] <= '9' && k < 4; k++) {
			snprintf(want, sizeof want, "Name:\t%s\n", names[k]);
			if (!lines_with(path, want) || lines_with(path, "State:\tZ") || (k == 3 && !is_app(e->d_name)))
				continue;
			seen[k]++;
			/* the app itself is the positive control */
			assert_int_equal(memory_holds((pid_t)atoi(e->d_name), secret), k == 3);
		}
	}
	for (int k = 0; k < 4; k++)
		assert_int_equal(seen[k], 1);
	stop_app("app-6-1");
}

static void test_killed_helpers(void **unused)
{
	need_internet();
	start_app("app-3-1");
	comes_to_say("app-3-1", "resolve ok.test\n", "198.51.100.10");
	assert_int_equal(helpers_named("spaced-resolver", SIGKILL), 1); /* the gate starts another one */
	comes_to_say("app-3-1", "resolve ok.test\n", "198.51.100.10");
	assert_int_equal(helpers_named("spaced-gate", SIGKILL), 1); /* then it is closed, not open */
	assert_true(eventually_zero(resolvers));
	assert_string_equal(said("app-3-1", "resolve ok.test\n"), "nothing");
	assert_string_equal(said("app-3-1", "reach 198.51.100.11 80\n"), "closed");
	stop_app("app-3-1");
}

/* One that does not listen to its end (it parses what strangers send) ends all the same: with the sandbox, and with the gate. */
static void test_resolver_that_will_not_end(void **unused)
{
	need_internet();
	for (int k = 0; k < 2; k++) {
		start_app("app-6-1");
		comes_to_say("app-6-1", "resolve ok.test\n", "198.51.100.10");
		assert_int_equal(helpers_named("spaced-resolver", SIGSTOP), 1);
		if (k == 1)
			assert_int_equal(helpers_named("spaced-gate", SIGKILL), 1);
		else
			stop_app("app-6-1");
		assert_true(eventually_zero(resolvers));
		if (k == 1)
			stop_app("app-6-1");
	}
}

static void stats_of(const char *name, uint64_t *received, uint64_t *sent)
{
	struct frame f;

	assert_int_equal(call_name(SPAWN_STATS, name, &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	for (int k = 0; k < 8 + 8 + 4 + 4 * 8 + 2 * 4 + 2 * 32; k++)
		get_u8(&r); /* memory, CPU, processes, both disks */
	*received = get_u64(&r);
	*sent = get_u64(&r);
	assert_false(r.bad);
	frame_release(&f);
}

static void test_counters(void **unused)
{
	uint64_t received, sent, received2, sent2;

	need_internet();
	start_app("app-4-1");
	comes_to_say("app-4-1", "resolve ok.test\n", "198.51.100.10");
	stats_of("app-4-1", &received, &sent);
	assert_string_equal(said("app-4-1", "get 198.51.100.10 3000000\n"), "3000000");
	stats_of("app-4-1", &received2, &sent2);
	assert_in_range(received2 - received, 3000000, 3400000);
	assert_in_range(sent2 - sent, 200, 400000);
	assert_int_equal(call_stop("app-4-1", 0), 0);
	struct sandbox_exit e = wait_exit("app-4-1");
	assert_in_range(e.received, received2, received2 + 4000);
	assert_in_range(e.sent, sent2, sent2 + 4000);
	/* a later spawner tells the same */
	spawner_down(0);
	spawner_up();
	assert_int_equal(call_name(SPAWN_FORGET, "app-4-1", NULL), 0);
}

static int nft_lines(const char *family, const char *table, const char *what)
{
	char out[128];

	snprintf(out, sizeof out, "%s/nft", state);
	pid_t pid = fork();
	if (pid == 0) {
		int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		dup2(fd, 1);
		execlp("nft", "nft", "list", "table", family, table, (char *)NULL);
		_exit(127);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return lines_with(out, what);
}

/* Firewalls of others that drop what they do not know let sandboxes pass, by two rules each, put there once; what
 * sandboxes may do is still said by ours. */
static void test_foreign_firewalls(void **unused)
{
	static const char theirs[] =
	    "table inet theirs {\nchain forward { type filter hook forward priority 0; policy drop; }\n"
	    "chain input { type filter hook input priority 0; policy accept; }\n}\n"
	    "table ip old {\nchain FORWARD { type filter hook forward priority 10; policy drop;\n"
	    "ip saddr 192.0.2.1 accept\n}\n}\n"
	    "table ip kind {\nchain forward { type filter hook forward priority 20; policy accept; }\n}\n";
	struct egress e;
	struct err err = ERR_INIT;

	need_internet();
	egress_init(&e, state, "");
	assert_int_equal(egress_remove_rules(&e, &err), 0); /* they are looked at when ours are put there */
	assert_int_equal(egress_nft(theirs, &err), 0);
	for (int k = 0; k < 2; k++) {
		start_app("app-5-1");
		comes_to_say("app-5-1", "resolve ok.test\n", "198.51.100.10");
		comes_to_say("app-5-1", "reach 198.51.100.10 80\n", "open");
		assert_string_equal(said("app-5-1", "reach 203.0.113.1 81\n"), "closed");
		stop_app("app-5-1");
		assert_int_equal(nft_lines("inet", "theirs", "comment \"spaced\""), 2);
		assert_int_equal(nft_lines("ip", "old", "iifname \"spd*\" accept comment \"spaced\""), 1);
		assert_int_equal(
		    nft_lines("ip", "old", "oifname \"spd*\" ct state established,related accept comment \"spaced\""),
		    1);
		assert_int_equal(nft_lines("ip", "kind", "spaced"), 0);
		assert_int_equal(egress_remove_rules(&e, &err), 0);
	}
	assert_int_equal(egress_nft("delete table inet theirs\ndelete table ip old\ndelete table ip kind\n", &err), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_outlives_the_spawner),       cmocka_unit_test(test_helpers_are_confined),
	    cmocka_unit_test(test_helpers_know_no_secret),     cmocka_unit_test(test_killed_helpers),
	    cmocka_unit_test(test_resolver_that_will_not_end), cmocka_unit_test(test_counters),
	    cmocka_unit_test(test_foreign_firewalls),
	};

	if (geteuid() == 0 && !is_inside() && access("tests/fake_internet", X_OK) == 0)
		execl("tests/fake_internet", "tests/fake_internet", argv[0], (char *)NULL);
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
