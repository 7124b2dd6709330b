/* The attacker of siege.py, in what slowhttptest has no mode for: connections at a stated rate from several addresses.
 *
 *   attack ADDRESS PORT MODE CONNECTIONS RATE FROM ADDRESSES
 *
 *   idle     CONNECTIONS come, RATE a second, each with a whole request, and then say nothing more
 *   flood    for ever: a new connection, a request, its answer, the end; at most CONNECTIONS at once
 *   heads    the same with 200 fields of 1000 bytes in the head
 *
 * RATE 0: as fast as they are answered. They come from as many addresses, in turn, FROM being the first. Each second says in a
 * line how many came, were answered with 200, and were refused (by an answer, an end or a reset), since the start. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIELDS 200
#define FIELD 1000
#define UNANSWERED 256 /* of idle ones, at once: the accept queue of a server is bounded */

struct conn {
	struct conn *next; /* free ones */
	int fd;
	bool served;
	size_t said;
};

static struct sockaddr_in server, from;
static uint32_t addresses;
static bool stay;
static char *request, answer[4096];
static size_t request_len;
static int poll_fd;
static struct conn *free_conns;
static uint64_t came, served, refused, under_way;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void end(struct conn *c)
{
	close(c->fd);
	c->next = free_conns;
	free_conns = c;
}

static void come(struct conn *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
	struct sockaddr_in mine = from;
	int on = 1;

	mine.sin_addr.s_addr = htonl(ntohl(from.sin_addr.s_addr) + (uint32_t)(came % addresses));
	c->served = false;
	c->said = 0;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&mine, sizeof mine) < 0 ||
	    (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)) {
		perror("attack");
		exit(1);
	}
	epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e);
	came++;
	under_way++;
}

/* Its answer has come, or none will. One that stays can still be sent away later. */
static void over(struct conn *c, bool well)
{
	if (c->served) {
		served--;
		refused++;
		end(c);
		return;
	}
	*(well ? &served : &refused) += 1;
	under_way--;
	c->served = well;
	if (!stay || !well)
		end(c);
}

static void act(struct conn *c, uint32_t events)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};

	if (events & EPOLLOUT) {
		ssize_t n = send(c->fd, request + c->said, request_len - c->said, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && !(events & EPOLLIN)) {
			over(c, false);
			return;
		}
		c->said += n > 0 ? (size_t)n : 0;
		if (c->said == request_len)
			epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t n = recv(c->fd, answer, sizeof answer, 0);
		if (n >= 0 || errno != EAGAIN)
			over(c, n > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0);
	}
}

static void make_request(bool heads, const char *host)
{
	size_t size = 256 + (heads ? FIELDS * (FIELD + 32) : 0), n;

	request = malloc(size);
	n = (size_t)snprintf(request, size, "GET / HTTP/1.1\r\nHost: %s\r\n", host);
	for (int i = 0; heads && i < FIELDS; i++)
		n += (size_t)snprintf(request + n, size - n, "X-%d: %0*d\r\n", i, FIELD, 0);
	n += (size_t)snprintf(request + n, size - n, "\r\n");
	request_len = n;
}

static void say(void)
{
	printf("%llu %llu %llu\n", (unsigned long long)came, (unsigned long long)served, (unsigned long long)refused);
	fflush(stdout);
}

static void run(uint64_t all, uint64_t limit, double rate)
{
	struct epoll_event events[256];
	uint64_t from_us = now_us(), told = from_us;

	for (;;) {
		uint64_t now = now_us();
		uint64_t due = rate > 0 ? (uint64_t)((double)(now - from_us) * rate / 1e6) : UINT64_MAX;
		while (came < due && came < all && under_way < limit && free_conns) {
			struct conn *c = free_conns;
			free_conns = c->next;
			come(c);
		}
		if (now - told >= 1000000) {
			told = now;
			say();
		}
		int n = epoll_wait(poll_fd, events, 256, 1);
		for (int i = 0; i < n; i++)
			act(events[i].data.ptr, events[i].events);
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: attack ADDRESS PORT idle|flood|heads CONNECTIONS RATE FROM ADDRESSES\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct rlimit lim;

	if (argc != 8)
		return usage();
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	server.sin_family = from.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	size_t n = strtoul(argv[4], NULL, 10);
	addresses = (uint32_t)strtoul(argv[7], NULL, 10);
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || inet_pton(AF_INET, argv[6], &from.sin_addr) != 1 ||
	    n == 0 || addresses == 0)
		return usage();
	stay = strcmp(argv[3], "idle") == 0;
	make_request(strcmp(argv[3], "heads") == 0, argv[1]);
	poll_fd = epoll_create1(0);
	struct conn *conns = calloc(n, sizeof *conns);
	for (size_t i = 0; i < n; i++) {
		conns[i].next = free_conns;
		free_conns = &conns[i];
	}
	run(stay ? n : UINT64_MAX, stay ? UNANSWERED : n, strtod(argv[5], NULL));
	return 0;
}
