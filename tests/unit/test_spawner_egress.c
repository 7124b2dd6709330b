/* The way out of a sandbox: none, or the Internet without the host, its networks and the neighbours. And its deciders. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include "spawner_helper.h"

static void test_resolvers(void **unused)
{
	uint32_t a[4];

	assert_int_equal(egress_resolvers("# x\nsearch a b\nnameserver 127.0.0.53\noptions edns0\n", a), 0);
	assert_int_equal(egress_resolvers("nameserver 198.51.100.7\n  nameserver\t192.0.2.1\nnameserver ::1\n", a), 2);
	assert_int_equal(a[0], 0xc6336407);
	assert_int_equal(a[1], 0xc0000201);
	assert_int_equal(egress_resolvers("nameserver 0.0.0.0\nnameserver x\n#nameserver 192.0.2.1\n", a), 0);
	assert_int_equal(
	    egress_resolvers("nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n"
			     "nameserver 1.1.1.5\n",
			     a),
	    4);
	assert_int_equal(egress_resolvers("", a), 0);
}

static void test_rules(void **unused)
{
	cleanup_buf struct buf with = BUF_INIT;
	cleanup_buf struct buf without = BUF_INIT;
	uint32_t two[2] = {0xc6336407, 0xc0000201};

	egress_rules("0abcd", two, 2, "\"eth0\"", &with);
	assert_non_null(strstr(with.data, "numgen random mod 2 map { 0 : 198.51.100.7, 1 : 192.0.2.1 }"));
	assert_non_null(strstr(with.data, "iifname != \"spd*\" oifname != \"spd*\" jump foreign"));
	assert_non_null(strstr(with.data, "iifname != { \"eth0\" } meta iifkind"));
	assert_non_null(strstr(with.data, "169.254.0.0/16"));
	egress_rules("0abcd", NULL, 0, NULL, &without);
	assert_null(strstr(without.data, "dnat to"));
	assert_null(strstr(without.data, "foreign"));
}

static void test_uplinks(void **unused)
{
	cleanup_buf struct buf b = BUF_INIT;

	egress_uplinks("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
		       "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
		       "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
		       "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n"
		       "x\"y\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
		       "wlan0.7\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n",
		       &b);
	assert_string_equal(b.data, "\"eth0\", \"wlan0.7\"");
	buf_clear(&b);
	egress_uplinks("", &b);
	assert_int_equal(b.len, 0);
}

/* An address of this host that is neither loopback nor a gateway of sandboxes, which come and go. */
static void host_address(char out[64])
{
	struct ifaddrs *all = NULL;

	out[0] = '\0';
	assert_int_equal(getifaddrs(&all), 0);
	for (const struct ifaddrs *a = all; a; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && !(a->ifa_flags & IFF_LOOPBACK) &&
		    strncmp(a->ifa_name, EGRESS_PREFIX, strlen(EGRESS_PREFIX)) != 0)
			inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr, out, 64);
	freeifaddrs(all);
}

/* Connects to each "ADDR PORT" of its arguments and says what came of it. */
#define PROBE                                                                                                          \
	"import socket,sys\n"                                                                                          \
	"for a in sys.argv[1:]:\n"                                                                                     \
	"    h,p=a.split()\n"                                                                                          \
	"    s=socket.socket(); s.settimeout(3)\n"                                                                     \
	"    try: s.connect((h,int(p))); r='open'\n"                                                                   \
	"    except ConnectionRefusedError: r='reached'\n"                                                             \
	"    except OSError as e: r='blocked'\n"                                                                       \
	"    print(a,r)\n"

static int listen_on_host(uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static void test_none(void **unused)
{
	char *argv[] = {"/usr/bin/python3", "-c", PROBE, "192.0.2.1 80", "10.0.2.3 53", "127.0.0.1 9", NULL};
	struct sandbox_spec s = spec_of("app-1-1", argv);

	need_root();
	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit("app-1-1").status, 0);
	cleanup_free char *text = log_text("app-1-1");
	assert_string_equal(text, "192.0.2.1 80 blocked\n10.0.2.3 53 blocked\n127.0.0.1 9 reached\n");
	assert_int_equal(call_name(SPAWN_FORGET, "app-1-1", NULL), 0);
	assert_int_equal(links(), 0);
}

static void neighbour_address(char out[64])
{
	cleanup_free char *text = log_text("app-2-1");
	assert_int_equal(sscanf(text, "address %63s", out), 1);
}

static int open_inside(const char *name)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;

	put_str(&b, name);
	put_u32(&b, 1);
	assert_int_equal(answer(request(SPAWN_OPEN, &b, NULL, 0), &f), 0);
	int fd = frame_take_fd(&f, 0);
	frame_release(&f);
	return fd;
}

static bool connects(int fd, const char *target)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct pollfd p = {fd, POLLOUT, 0};
	socklen_t len = sizeof(int);
	char ip[64];
	unsigned port;
	int e = 0;

	assert_int_equal(sscanf(target, "%63s %u", ip, &port), 2);
	a.sin_port = htons((uint16_t)port);
	assert_int_equal(inet_pton(AF_INET, ip, &a.sin_addr), 1);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS)
		return false;
	return poll(&p, 1, DEADLINE_MS) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 && e == 0;
}

static void test_forbidden(void **unused)
{
	/* the neighbour listens, and says its address */
	char *neighbour[] = {"/usr/bin/python3", "-c",
			     "import socket,time\n"
			     "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);u.connect(('192.0.2.1',1))\n"
			     "s=socket.socket();s.bind(('0.0.0.0',8000));s.listen()\n"
			     "print('address '+u.getsockname()[0]+'\\n',end='');time.sleep(1000)",
			     NULL};
	char host[64];
	char targets[6][96];
	uint16_t port;
	struct sandbox_spec s = spec_of("app-2-1", neighbour);

	need_root();
	cleanup_close int listener = listen_on_host(&port);
	s.egress = EGRESS_INTERNET;
	assert_int_equal(start(&s), 0);
	assert_int_equal(links(), 1);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	free(log_text("app-2-1"));
	while (!lines_with(log_path, "address") && io_now_ms() < end)
		poll(NULL, 0, 10);
	char addr[64];
	neighbour_address(addr);
	host_address(host);
	/* the gateway of the neighbour is an address of the host as well: the one below it */
	unsigned b[4];
	assert_int_equal(sscanf(addr, "%u.%u.%u.%u", &b[0], &b[1], &b[2], &b[3]), 4);
	snprintf(targets[0], 96, "%s %u", host[0] ? host : "127.0.0.1", port);
	snprintf(targets[1], 96, "%u.%u.%u.%u %u", b[0], b[1], b[2], b[3] - 1, port);
	snprintf(targets[2], 96, "%s 8000", addr);
	snprintf(targets[3], 96, "169.254.169.254 80");
	snprintf(targets[4], 96, "10.0.0.1 80");
	snprintf(targets[5], 96, "10.0.2.3 80");
	char *argv[] = {"/usr/bin/python3", "-c",	PROBE,	    targets[0], targets[1],
			targets[2],	    targets[3], targets[4], targets[5], NULL};
	/* the positive controls: each of the first three is open where it may be */
	cleanup_close int inside = open_inside("app-2-1");
	assert_true(connects(inside, targets[2]));
	for (int k = host[0] ? 0 : 1; k < 2; k++) {
		cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(connects(fd, targets[k]));
	}
	s = spec_of("app-2-2", argv);
	s.egress = EGRESS_INTERNET;
	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit("app-2-2").status, 0);
	cleanup_free char *text = log_text("app-2-2");
	print_message("# %s", text);
	assert_int_equal(lines_with(log_path, "blocked"), host[0] ? 6 : 5);
	assert_int_equal(call_stop("app-2-1", 0), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-1", NULL), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-2", NULL), 0);
	assert_int_equal(links(), 0);
}

static bool pip_works_here(void)
{
	char dir[96];
	int status;

	snprintf(dir, sizeof dir, "%s/pip", state);
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		unsetenv("PIP_FIND_LINKS");
		execl("/usr/bin/python3", "python3", "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-q", "-d",
		      dir, "six", (char *)NULL);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void test_download(void **unused)
{
	char *argv[] = {"/usr/bin/python3", "-m", "pip",      "download", "--no-deps",
			"--no-cache-dir",   "-d", "/tmp/out", "six",	  NULL};
	char *env[] = {"PATH=/usr/bin:/bin",
		       "HOME=/home/user",
		       "PIP_DISABLE_PIP_VERSION_CHECK=1",
		       "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
		       "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
		       "PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
		       NULL};
	struct sandbox_spec s = spec_of("build-3-pip", argv);

	need_root();
	if (!pip_works_here()) {
		print_message("# SKIP the host itself cannot download with pip\n");
		skip();
	}
	s.env = env;
	s.profile = SANDBOX_BUILD;
	s.egress = EGRESS_INTERNET;
	assert_int_equal(start(&s), 0);
	struct sandbox_exit e = wait_exit("build-3-pip");
	cleanup_free char *text = log_text("build-3-pip");
	if (e.status)
		print_message("# %s\n", text);
	assert_int_equal(e.status, 0);
	assert_non_null(strstr(text, "six-"));
	assert_int_equal(call_name(SPAWN_FORGET, "build-3-pip", NULL), 0);
}

/* A link of a sandbox that is no more is removed when a spawner starts. */
static void test_leftovers(void **unused)
{
	char *argv[] = {"/bin/sleep", "1000", NULL};
	struct sandbox_spec s = spec_of("app-4-1", argv);

	need_root();
	s.egress = EGRESS_INTERNET;
	assert_int_equal(start(&s), 0);
	spawner_down(SIGKILL);
	assert_int_equal(links(), 1);
	spawner_up();
	assert_int_equal(listed("app-4-1"), 1);
	assert_int_equal(links(), 1);
	assert_int_equal(call_stop("app-4-1", 0), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-4-1", NULL), 0);
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_resolvers), cmocka_unit_test(test_uplinks),	cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_none),      cmocka_unit_test(test_forbidden), cmocka_unit_test(test_download),
	    cmocka_unit_test(test_leftovers),
	};
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
