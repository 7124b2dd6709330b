/* The client of the proxy benchmark, for what wrk does not do. One epoll loop, blocking nowhere. For bench.py:
 *
 *   load PORT MODE CONNECTIONS SECONDS [RATE]      prints one line of JSON
 *
 *   closed  as fast as answers come, connections kept    close   a new connection for each request
 *   rate    RATE requests a second, whatever the answers do: latency counts from when each was due, not from when it
 *           was sent (no coordinated omission)           ws      WebSocket echo round trips
 *   down    GET /big, one after the other                up      POST of 100 MB, one after the other
 *   idle    one request on each connection, then nothing until stdin ends
 *
 * env: LOAD_HOST (bench.localhost), LOAD_FROM (the address that connections come from) */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BIG (100u * 1000 * 1000)
#define PIECE (256u * 1024)

enum mode { CLOSED, CLOSE, RATE, WS, DOWN, UP, IDLE, MODES };
static const char *const mode_names[MODES] = {"closed", "close", "rate", "ws", "down", "up", "idle"};

struct conn {
	struct conn *next; /* rate: free ones */
	int fd;
	unsigned dials;
	bool connected, busy, upgraded;
	uint64_t due;
	size_t left, out; /* of the answer, of the request body */
};

static enum mode mode;
static int poll_fd;
static struct sockaddr_in server, from_address;
static struct conn *free_conns;
static char piece[PIECE], request[512];
static uint64_t done, failed, bytes;
static uint32_t *samples;
static size_t nsamples, max_samples;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void sample(uint64_t us)
{
	if (nsamples == max_samples) {
		max_samples = max_samples ? max_samples * 2 : 65536;
		samples = realloc(samples, max_samples * sizeof *samples);
	}
	samples[nsamples++] = (uint32_t)us;
}

static void dial(struct conn *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
	int on = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	c->dials++;
	c->connected = c->upgraded = false;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (from_address.sin_family && bind(c->fd, (struct sockaddr *)&from_address, sizeof from_address) < 0) {
		perror("load: LOAD_FROM");
		exit(1);
	}
	if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
		perror("load: connect");
		exit(1);
	}
	epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void send_body(struct conn *c)
{
	ssize_t n;

	while (c->out && (n = send(c->fd, piece, c->out < PIECE ? c->out : PIECE, MSG_NOSIGNAL)) > 0) {
		c->out -= (size_t)n;
		bytes += (uint64_t)n;
	}
}

static void send_request(struct conn *c, uint64_t due)
{
	/* A masked text frame of 16 bytes, with a mask of zeros. */
	static const char frame[22] = "\x81\x90\0\0\0\0"
				      "sixteen bytes ok";
	const char *p = c->upgraded ? frame : request;
	size_t n = c->upgraded ? sizeof frame : strlen(request);

	c->busy = true;
	c->due = due;
	c->left = 0;
	if (send(c->fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
		failed++;
	if (mode == UP) {
		c->out = BIG;
		send_body(c);
	}
}

static void again(struct conn *c)
{
	close(c->fd);
	dial(c);
}

static void answered(struct conn *c)
{
	uint64_t now = now_us();

	sample(now - c->due);
	done++;
	c->busy = false;
	if (mode == CLOSE) {
		again(c);
	} else if (mode == RATE) {
		c->next = free_conns;
		free_conns = c;
	} else if (mode != IDLE) {
		send_request(c, now);
	}
}

/* The first piece of an answer holds its head: all that is asked here is small but the big body. False: no more now. */
static bool on_input(struct conn *c)
{
	ssize_t n = recv(c->fd, piece, PIECE - 1, 0);
	bool more = n == PIECE - 1;

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			failed += c->busy;
			if (mode == IDLE)
				close(c->fd);
			else
				again(c);
		}
		return false;
	}
	bytes += (uint64_t)n;
	if (c->upgraded || mode == WS) {
		c->left += (size_t)n;
		if (!c->upgraded && memmem(piece, (size_t)n, "\r\n\r\n", 4)) {
			c->upgraded = true;
			send_request(c, now_us());
		} else if (c->upgraded && c->left >= 22) {
			answered(c);
		}
		return more;
	}
	if (c->left == 0) {
		piece[n] = '\0';
		char *end = strstr(piece, "\r\n\r\n"), *length = strcasestr(piece, "\ncontent-length:");
		if (strncmp(piece, "HTTP/1.1 200", 12) != 0 || !end || !length) {
			fprintf(stderr, "load: unexpected answer: %.200s\n", piece);
			exit(1);
		}
		c->left = strtoul(length + 16, NULL, 10) + (size_t)(end + 4 - piece);
	}
	c->left -= (size_t)n < c->left ? (size_t)n : c->left;
	if (c->left == 0)
		answered(c);
	return more;
}

static void on_output(struct conn *c)
{
	if (c->connected) {
		send_body(c);
		return;
	}
	c->connected = true;
	if (mode == RATE) {
		c->next = free_conns;
		free_conns = c;
	} else {
		send_request(c, now_us());
	}
}

/* Edge-triggered: all that is there is read now. An end may lie behind the last piece. */
static void on_event(struct conn *c, uint32_t what)
{
	unsigned dial_before = c->dials;

	if (what & EPOLLOUT)
		on_output(c);
	if (!(what & ~(uint32_t)EPOLLOUT))
		return;
	while (on_input(c) && c->dials == dial_before)
		;
	if (what & ~(uint32_t)(EPOLLIN | EPOLLOUT) && c->dials == dial_before)
		on_input(c);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void report(double seconds)
{
	qsort(samples, nsamples, sizeof *samples, by_size);
	printf("{\"done\": %llu, \"failed\": %llu, \"bytes\": %llu, \"seconds\": %.4f, \"p50\": %u, \"p99\": %u}\n",
	       (unsigned long long)done, (unsigned long long)failed, (unsigned long long)bytes, seconds,
	       nsamples ? samples[nsamples / 2] : 0, nsamples ? samples[nsamples * 99 / 100] : 0);
	fflush(stdout);
}

/* To the microsecond: who spins until the next request is due takes the CPU from the backend beside it. */
static void once(uint64_t us)
{
	struct timespec timeout = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
	struct epoll_event events[256];
	int n = epoll_pwait2(poll_fd, events, 256, &timeout, NULL);

	for (int i = 0; i < n; i++)
		on_event(events[i].data.ptr, events[i].events);
}

static void make_request(const char *host)
{
	const char *extra = mode == CLOSE ? "Connection: close\r\n"
			    : mode == WS  ? "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
					    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			    : mode == UP  ? "Content-Length: 100000000\r\n"
					  : "";

	snprintf(request, sizeof request, "%s /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\nAccept: */*\r\n%s\r\n",
		 mode == UP ? "POST" : "GET",
		 mode == DOWN ? "big"
		 : mode == WS ? "echo"
			      : "",
		 host, extra);
}

/* Not all at once: the accept queue of a server is bounded. */
static void dial_all(size_t n)
{
	struct conn *conns = calloc(n, sizeof *conns);

	for (size_t i = 0; i < n; i++) {
		dial(&conns[i]);
		if (mode != IDLE && i % 200 == 199)
			once(20000);
		while (mode == IDLE && i > done + failed + 200)
			once(20000);
	}
}

static void run_rate(uint64_t from, uint64_t until, double rate)
{
	uint64_t sent = 0;

	for (uint64_t now = from; now < until; now = now_us()) {
		uint64_t due = from + (uint64_t)((double)sent * 1e6 / rate);
		while (due <= now && free_conns) {
			struct conn *c = free_conns;
			free_conns = c->next;
			send_request(c, due);
			due = from + (uint64_t)((double)++sent * 1e6 / rate);
		}
		once(free_conns ? due - now : until - now);
	}
}

int main(int argc, char **argv)
{
	struct rlimit lim;

	if (argc < 5) {
		fprintf(stderr, "usage: load PORT MODE CONNECTIONS SECONDS [RATE]\n");
		return 2;
	}
	while (mode < MODES && strcmp(argv[2], mode_names[mode]) != 0)
		mode++;
	if (mode == MODES)
		return 2;
	prctl(PR_SET_TIMERSLACK, 1);
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	server = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	server.sin_port = htons((uint16_t)atoi(argv[1]));
	const char *host = getenv("LOAD_HOST"), *address = getenv("LOAD_FROM");
	if (address && inet_pton(AF_INET, address, &from_address.sin_addr) == 1)
		from_address.sin_family = AF_INET;
	make_request(host ? host : "bench.localhost");
	poll_fd = epoll_create1(0);
	size_t n = strtoul(argv[3], NULL, 10);
	double seconds = strtod(argv[4], NULL);
	dial_all(n);
	uint64_t from = now_us();
	if (mode == IDLE) {
		while (done < n && now_us() - from < 60000000)
			once(100000);
		report((double)(now_us() - from) / 1e6);
		while (read(0, piece, 1) > 0)
			;
		return done < n;
	}
	uint64_t until = from + (uint64_t)(seconds * 1e6);
	if (mode == RATE) {
		for (uint64_t settled = from + 200000; now_us() < settled;)
			once(1000);
		from = now_us();
		until = from + (uint64_t)(seconds * 1e6);
		run_rate(from, until, strtod(argc > 5 ? argv[5] : "1000", NULL));
	} else {
		while (now_us() < until)
			once(100000);
	}
	report((double)(now_us() - from) / 1e6);
	return 0;
}
