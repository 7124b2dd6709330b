/* Bytes of a peer against the whole server on a real socket: sent in pieces (the first bytes choose their sizes), with
 * handlers that echo, collect, pause or hold, and a peer that leaves. Every request must be closed exactly once. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "spaced/http/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct sockaddr_un addr;
static socklen_t addr_len;
static int requests, closes;
static struct http_req *held;

static void on_close(struct http_req *r, void *ctx)
{
	closes++;
	if (held == r)
		held = NULL;
}

static void data_cb(struct http_req *r, const char *p, size_t n, void *ctx)
{
	if (!http_begun(r))
		http_begin(r, 200, "text/plain", -1);
	http_write(r, p, n);
}

static void end_cb(struct http_req *r, void *ctx)
{
	if (!http_begun(r))
		http_begin(r, 200, "text/plain", -1);
	http_end(r);
}

static void collected(struct http_req *r, struct str body, void *ctx)
{
	http_reply(r, 200, NULL, body.p, body.n);
}

static void on_request(struct http_req *r, void *ctx)
{
	struct str path = http_path(r), s;
	struct buf value = BUF_INIT;

	requests++;
	http_on_close(r, on_close, NULL);
	http_query_get(r, "a", &value);
	buf_release(&value);
	http_header(r, "X", &s);
	http_host(r);
	http_client(r);
	switch (path.n > 1 ? path.p[1] : 0) {
	case 'e':
		http_on_body(r, (struct http_body_cb){data_cb, end_cb}, NULL);
		break;
	case 'c':
		http_collect(r, 50, collected, NULL);
		break;
	case 'p':
		http_on_body(r, (struct http_body_cb){data_cb, end_cb}, NULL);
		http_pause(r);
		held = r;
		break;
	case 'h':
		held = r;
		break;
	default:
		http_reply_error(r, 404, NULL, "no `%.*s`", (int)path.n, path.p);
	}
}

static void start(void)
{
	const struct http_handler h = {on_request};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sun_family = AF_UNIX; /* without a name, bind chooses an abstract one: unix(7) */
	addr_len = sizeof addr;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0 || uv_loop_init(&loop) < 0 ||
	    http_server_listen(http_server_new(&loop, &h, NULL), fd, false) < 0)
		abort();
}

static void turns(int n)
{
	while (n--)
		uv_run(&loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char sink[4096];

	if (!addr_len)
		start();
	if (size < 3)
		return 0;
	size_t first = data[0], step = data[1] ? data[1] * 16U : 65536;
	bool leave_early = data[2] & 1, half_close = data[2] & 2;
	data += 3;
	size -= 3;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(fd, (struct sockaddr *)&addr, addr_len) < 0)
		abort();
	for (size_t at = 0, n = first; at < size; at += n, n = step) {
		n = n < size - at ? n : size - at;
		if (send(fd, data + at, n, MSG_NOSIGNAL) < 0)
			break;
		turns(2);
		if (!leave_early)
			(void)!read(fd, sink, sizeof sink);
		if (held && (at & 1))
			http_resume(held);
	}
	if (half_close)
		shutdown(fd, SHUT_WR);
	turns(2);
	if (held)
		http_reply(held, 200, NULL, "x", 1);
	turns(1);
	close(fd);
	for (int i = 0; i < 1000 && closes != requests; i++) {
		if (held)
			http_resume(held);
		turns(1);
	}
	if (closes != requests)
		abort();
	turns(2);
	return 0;
}
