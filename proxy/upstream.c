/* Connections to apps and roles: made, read, given up. Who uses which: pool.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "proxy/worker.h"

static struct upstream *upstream_new(struct pool *p, struct worker *w)
{
	struct upstream *u = xcalloc(1, sizeof *u);

	u->pool = p;
	u->conn.w = w;
	return u;
}

void upstream_attach(struct upstream *u, struct exchange *x)
{
	u->x = x;
	x->u = u;
}

static void on_connect(uv_connect_t *req, int status)
{
	struct upstream *u = (struct upstream *)((char *)req - offsetof(struct upstream, connect));
	struct exchange *x = u->x;

	if (u->conn.closing || !x)
		return;
	if (status < 0) {
		exchange_upstream_lost(x, status);
		return;
	}
	u->connected = true;
	conn_read_start(&u->conn);
	exchange_ready(x);
}

/* "ADDR:PORT" or "[ADDR]:PORT". */
static int parse_address(const char *text, struct sockaddr_storage *sa)
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

static int connect_tcp(struct upstream *u, struct pool *p, int fd)
{
	struct sockaddr_storage sa;
	int r = fd >= 0 ? uv_ip4_addr("127.0.0.1", p->port, (struct sockaddr_in *)&sa) : parse_address(p->name, &sa);

	uv_tcp_init(&u->conn.w->loop, &u->conn.tcp);
	if (fd >= 0 && r == 0)
		r = uv_tcp_open(&u->conn.tcp, fd);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	r = uv_tcp_connect(&u->connect, &u->conn.tcp, (struct sockaddr *)&sa, on_connect);
	if (r == 0)
		uv_tcp_nodelay(&u->conn.tcp, 1);
	return r;
}

int upstream_connect(struct pool *p, struct exchange *x, int fd)
{
	struct worker *w = x->c->conn.w;
	struct upstream *u = upstream_new(p, w);
	int r = 0;

	if (p->kind == ROUTE_UNIX) {
		uv_pipe_init(&w->loop, &u->conn.pipe, 0);
		uv_pipe_connect(&u->connect, &u->conn.pipe, p->name, on_connect);
	} else {
		r = connect_tcp(u, p, fd);
	}
	if (r < 0) {
		conn_close(&u->conn, false);
		return r;
	}
	upstream_attach(u, x);
	return 0;
}

void upstream_close(struct upstream *u)
{
	if (u->conn.closing)
		return;
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
	if (n >= 0) {
		/* Nothing may be said before there was a request. */
		if (x->head_sent)
			relay_response_bytes(u, p, (size_t)n);
		else
			exchange_upstream_lost(x, -EPROTO);
		return;
	}
	if (x->tunnel && n == UV_EOF)
		relay_tunnel_eof(x, &u->conn);
	else if (x->tunnel)
		client_cut(x->c, false);
	else if (x->res_head && x->res_body == HTTP1_UNTIL_CLOSE && n == UV_EOF)
		relay_response_eof(x);
	else
		exchange_upstream_lost(x, (int)n);
}

void upstream_drained(struct upstream *u)
{
	if (u->x)
		client_resume(u->x->c);
}

void upstream_broken(struct upstream *u)
{
	struct exchange *x = u->x;

	if (!x)
		return;
	if (x->tunnel) {
		client_cut(x->c, false);
		return;
	}
	/* Its reading side says what became of it: perhaps an early answer. */
	x->upload_broken = true;
	client_resume(x->c);
}
