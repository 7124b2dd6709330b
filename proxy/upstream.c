/* Connections to apps and roles: made, read, given up. Who uses which: pool.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/worker.h"

void upstream_attach(struct upstream *u, struct exchange *x)
{
	u->x = x;
	x->u = u;
}

void upstream_connected(struct upstream *u, int status)
{
	struct exchange *x = u->x;

	if (!x)
		return;
	if (status < 0) {
		exchange_upstream_lost(x, status);
		return;
	}
	u->connected = true;
	conn_read_start(&u->conn);
	exchange_ready(x);
}

int upstream_address(const char *text, struct sockaddr_storage *sa)
{
	char host[INET6_ADDRSTRLEN + 2];
	const char *colon = strrchr(text, ':');
	char *end;

	if (!colon || (size_t)(colon - text) >= sizeof host)
		return -EINVAL;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	unsigned long port = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || port == 0 || port > 65535)
		return -EINVAL;
	size_t n = strlen(host);
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		return uv_ip6_addr(host + 1, (int)port, (struct sockaddr_in6 *)sa);
	}
	return uv_ip4_addr(host, (int)port, (struct sockaddr_in *)sa);
}

static int address_of(const struct pool *p, struct sockaddr_storage *sa, socklen_t *len)
{
	struct sockaddr_un *un = (struct sockaddr_un *)sa;

	*sa = (struct sockaddr_storage){0};
	*len = sizeof *sa;
	if (p->kind == ROUTE_APP)
		return uv_ip4_addr("127.0.0.1", p->port, (struct sockaddr_in *)sa);
	if (p->kind != ROUTE_UNIX)
		return upstream_address(p->name, sa);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, p->name, strnlen(p->name, sizeof un->sun_path - 1));
	*len = sizeof *un;
	return 0;
}

static int open_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

int upstream_connect(struct pool *p, struct exchange *x, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int on = 1;
	int r = address_of(p, &sa, &len);

	if (r == 0 && fd < 0)
		r = fd = open_socket(sa.ss_family);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	struct upstream *u = xcalloc(1, sizeof *u);
	u->pool = p;
	u->quiets = p->quiets;
	conn_open(&u->conn, x->c->conn.w, fd);
	if (p->kind != ROUTE_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	r = conn_connect(&u->conn, (struct sockaddr *)&sa, len);
	if (r < 0) {
		conn_close(&u->conn, false);
		return r;
	}
	upstream_attach(u, x);
	knock_begin(u);
	return 0;
}

int upstream_connect_again(struct upstream *u)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int r = address_of(u->pool, &sa, &len);

	return r < 0 ? r : conn_connect_again(&u->conn, (struct sockaddr *)&sa, len);
}

void upstream_close(struct upstream *u)
{
	if (u->conn.closing)
		return;
	knock_end(u);
	if (u->pooled)
		pool_remove_idle(u);
	conn_close(&u->conn, false);
}

void upstream_input(struct upstream *u, char *p, ssize_t n)
{
	struct exchange *x = u->x;

	if (!x) {
		upstream_close(u); /* idle: it has closed, or says what nobody asked for */
		return;
	}
	if (n > 0) {
		/* Nothing may be said before there was a request. */
		if (x->head_sent)
			relay_response_bytes(u, p, (size_t)n);
		else
			exchange_upstream_lost(x, -EPROTO);
		return;
	}
	if (x->tunnel && n == 0)
		relay_tunnel_eof(x, &u->conn);
	else if (x->tunnel)
		client_cut(x->c, false);
	else if (x->res_head && x->res_body == HTTP1_UNTIL_CLOSE && n == 0)
		relay_response_eof(x);
	else
		exchange_upstream_lost(x, (int)n);
}

void upstream_drained(struct upstream *u)
{
	struct exchange *x = u->x;

	if (x && !(x->tunnel && relay_tunnel_over(x)))
		client_resume(x->c);
}

void upstream_broken(struct upstream *u)
{
	struct exchange *x = u->x;

	if (!x)
		return;
	if (x->tunnel) {
		if (!relay_tunnel_over(x))
			client_cut(x->c, false);
		return;
	}
	/* Its reading side says what became of it: perhaps an early answer. */
	x->upload_broken = true;
	client_resume(x->c);
}
