/* The upstream of the proxy benchmark: one epoll loop that answers without thinking, so that it is never what is
 * measured. `backend PORT [ADDRESS]`, for tests/bench/proxy/bench.py; reads heads as its own clients send them, nothing else.
 *
 *   GET /...      200 with 13 bytes        GET /big      200 with 100 MB
 *   POST          200 when the whole body has come      GET /echo  101, then every byte comes back */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIG (100u * 1000 * 1000)
#define PIECE (256u * 1024)

struct conn {
	int fd;
	bool echo;
	size_t out, in; /* bytes of a big body still to send, of a request body still to come */
	size_t have;
	char head[8192];
};

static char piece[PIECE];
static int poll_fd;

static void end(struct conn *c)
{
	close(c->fd);
	free(c);
}

static bool say(struct conn *c, const char *text)
{
	return send(c->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static bool small(struct conn *c)
{
	return say(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n");
}

static bool send_big(struct conn *c)
{
	while (c->out) {
		ssize_t n = send(c->fd, piece, c->out < PIECE ? c->out : PIECE, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return false;
		c->out -= (size_t)n;
	}
	return true;
}

static bool answer(struct conn *c)
{
	if (strncmp(c->head, "GET /echo", 9) == 0) {
		c->echo = true; /* the accept of the key in RFC 6455 1.3, which is what the client sends */
		return say(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
	}
	if (strncmp(c->head, "POST", 4) == 0) {
		const char *length = strcasestr(c->head, "\ncontent-length:");
		c->in = length ? strtoul(length + 16, NULL, 10) : 0;
		return true;
	}
	if (strncmp(c->head, "GET /big", 8) != 0)
		return small(c);
	c->out = BIG;
	return say(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000000\r\n\r\n") &&
	       send_big(c);
}

static bool take_body(struct conn *c, size_t n)
{
	c->in -= n < c->in ? n : c->in;
	return c->in || small(c);
}

/* False: it is over, or an error. `more`: this was not all. */
static bool read_some(struct conn *c, bool *more)
{
	*more = false;
	if (c->echo) {
		ssize_t n = recv(c->fd, piece, PIECE, 0);
		*more = n == PIECE;
		return n < 0 ? errno == EAGAIN : n > 0 && send(c->fd, piece, (size_t)n, MSG_NOSIGNAL) == n;
	}
	if (c->in) {
		ssize_t n = recv(c->fd, piece, PIECE, 0);
		*more = n == PIECE;
		return n < 0 ? errno == EAGAIN : n > 0 && take_body(c, (size_t)n);
	}
	size_t room = sizeof c->head - 1 - c->have;
	ssize_t n = recv(c->fd, c->head + c->have, room, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	*more = (size_t)n == room;
	c->have += (size_t)n;
	c->head[c->have] = '\0';
	char *head_end = strstr(c->head, "\r\n\r\n");
	if (!head_end)
		return c->have < sizeof c->head - 1;
	size_t rest = c->have - (size_t)(head_end + 4 - c->head);
	c->have = 0;
	return answer(c) && (!c->in || !rest || take_body(c, rest));
}

/* Edge-triggered. An end may lie behind the last piece. */
static void on_event(struct conn *c, uint32_t what)
{
	bool more = true;

	if (what & EPOLLOUT && c->out && !send_big(c)) {
		end(c);
		return;
	}
	while (more || what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		if (!read_some(c, &more)) {
			end(c);
			return;
		}
	}
}

static void accept_all(int listener)
{
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		struct conn *c = calloc(1, sizeof *c);
		struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		c->fd = fd;
		epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	struct epoll_event e = {.events = EPOLLIN}, events[256];

	sa.sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "0"));
	if (argc > 2)
		inet_pton(AF_INET, argv[2], &sa.sin_addr);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(listener, 4096) < 0) {
		perror("backend");
		return 1;
	}
	poll_fd = epoll_create1(0);
	epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &e);
	for (;;) {
		int n = epoll_wait(poll_fd, events, 256, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (!c)
				accept_all(listener);
			else
				on_event(c, events[i].events);
		}
	}
}
