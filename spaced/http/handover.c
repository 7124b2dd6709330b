/* Leaving HTTP on the admin socket: the answer carries descriptors, so that two processes on this machine go on without
 * this server between them. Proxies' connections have none of it: nothing from the network gets or gives a descriptor. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "spaced/http/internal.h"

static bool has_token(struct str list, const char *token)
{
	while (list.n) {
		const char *comma = memchr(list.p, ',', list.n);
		struct str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};

		list.p += one.n + (comma != NULL);
		list.n -= one.n + (comma != NULL);
		while (one.n && (*one.p == ' ' || *one.p == '\t')) {
			one.p++;
			one.n--;
		}
		while (one.n && (one.p[one.n - 1] == ' ' || one.p[one.n - 1] == '\t'))
			one.n--;
		if (str_ieq(one, token))
			return true;
	}
	return false;
}

bool http_wants_upgrade(const struct http_req *r, const char *protocol)
{
	struct str connection, upgrade;

	return http_header(r, "Connection", &connection) && has_token(connection, "upgrade") &&
	       http_header(r, "Upgrade", &upgrade) && has_token(upgrade, protocol);
}

static ssize_t send_with(int sock, const struct buf *head, const int *fds, int n)
{
	struct iovec iov = {head->data, head->len};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * HTTP_HAND_OVER)];
	} ctl;
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = ctl.space,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};

	memset(&ctl, 0, sizeof ctl);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
	return sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* In one message: a descriptor arrives with the first byte that it was sent with. Nothing else may be on its way. */
int http_hand_over(struct http_req *r, const char *protocol, const int *fds, int n)
{
	struct http_conn *c = r->c;
	cleanup_buf struct buf head = BUF_INIT;
	int sock;

	if (!c->admin || n < 1 || n > HTTP_HAND_OVER)
		return -EPERM;
	if (r->mute || r->ended || r->begun || c->closing || c->out.len || c->writing)
		return -EPIPE;
	buf_addf(&head, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol);
	if (uv_fileno((uv_handle_t *)&c->pipe, &sock) < 0)
		return -EBADF;
	ssize_t sent = send_with(sock, &head, fds, n);
	if (sent != (ssize_t)head.len)
		return sent < 0 ? -errno : -EAGAIN;
	r->begun = r->ended = true;
	r->keep_alive = false;
	buf_clear(&r->body);
	conn_kick(c);
	return 0;
}
