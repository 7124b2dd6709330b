/* The routes file of the stand-alone program: "HOST ADDR:PORT..." per line, "*.HOST" for a wildcard, "unix:PATH" for a unix
 * socket, "sticky" at the end for a cookie that keeps a visitor to one of several upstreams, # for a comment. Read at start
 * and on SIGHUP; a file with a mistake changes nothing. */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "proxy/worker.h"

#define FILE_MAX (16U * 1024 * 1024)

#define EXPECTED "expected HOST ADDR:PORT... [sticky]"

/* NULL, or what is wrong: as in all of these. */
static const char *read_upstream(struct route *r, const char *text)
{
	struct sockaddr_storage sa;
	bool is_unix = strncmp(text, "unix:", 5) == 0;
	enum route_kind kind = is_unix ? ROUTE_UNIX : ROUTE_TCP;
	const char *name = is_unix ? text + 5 : text;
	struct endpoint *e = &r->endpoints[r->nendpoints];

	if (r->nendpoints == ROUTE_ENDPOINTS_MAX)
		return "too many upstreams for one host";
	if (r->nendpoints && r->kind != kind)
		return "the upstreams of a host are all addresses or all unix sockets";
	if (strlen(name) >= sizeof e->name || !strchr(name, is_unix ? '/' : ':'))
		return EXPECTED;
	if (!is_unix && upstream_address(name, &sa) < 0)
		return EXPECTED ", where ADDR is an IP address: names are not looked up";
	r->kind = kind;
	memcpy(e->name, name, strlen(name) + 1);
	r->nendpoints++;
	return NULL;
}

/* Requests are routed by name alone: a port would look as if it mattered. */
static bool has_port(const char *host)
{
	return host[0] == '[' ? host[strlen(host) - 1] != ']' : strchr(host, ':') != NULL;
}

static const char *read_line(struct route *r, char *line, const char *sticky)
{
	char *save = NULL;
	char *host = strtok_r(line, " \t\r", &save);
	char folded[ROUTE_HOST_MAX + 1];

	const char *name = strncmp(host, "*.", 2) == 0 ? host + 2 : host;
	if (!route_canonical_host(STRZ(name), folded) || strlen(folded) + 2 > ROUTE_HOST_MAX)
		return EXPECTED;
	if (has_port(name))
		return EXPECTED ", where HOST has no port";
	memset(r, 0, sizeof *r);
	snprintf(r->host, sizeof r->host, "%s%.*s", name == host ? "" : "*.", ROUTE_HOST_MAX - 2, folded);
	memcpy(r->space, r->host, strnlen(r->host, sizeof r->space - 1));
	for (char *word; (word = strtok_r(NULL, " \t\r", &save)) != NULL;) {
		const char *why = NULL;
		if (r->sticky[0])
			return EXPECTED;
		if (strcmp(word, "sticky") == 0)
			memcpy(r->sticky, sticky, sizeof r->sticky);
		else
			why = read_upstream(r, word);
		if (why)
			return why;
	}
	return r->nendpoints ? NULL : EXPECTED;
}

/* Each worker reads the file, and again at each SIGHUP; what comes out of a pipe is for the first one alone. */
static bool is_pipe(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}

int routes_file_read(const char *path, struct buf *text, struct err *err)
{
	int r = is_pipe(path) ? -ESPIPE : io_read_named(path, FILE_MAX, text);

	if (r == 0 && text->len && memchr(text->data, '\0', text->len))
		r = -EILSEQ; /* what is behind it would not be read */
	if (r == -ESPIPE)
		return err_text(err, ESPIPE, "read %s: a pipe can be read only once", path);
	return r < 0 ? err_set(err, -r, "read %s", path) : 0;
}

struct route_table *routes_parse(const char *path, char *text, const char *sticky, uint32_t rate, struct err *err)
{
	struct route_table *t = route_table_new();
	unsigned number = 0;

	for (char *at = text, *next; at && *at; at = next) {
		struct route route;
		next = strchr(at, '\n');
		if (next)
			*next++ = '\0';
		number++;
		at[strcspn(at, "#")] = '\0';
		if (at[strspn(at, " \t\r")] == '\0')
			continue;
		const char *why = read_line(&route, at, sticky);
		if (!why && route_at(t, route.host))
			why = "this host has a route already; several upstreams stand on one line";
		if (why) {
			err_text(err, EINVAL, "%s:%u: %s", path, number, why);
			route_table_free(t);
			return NULL;
		}
		route.rate = rate;
		route_table_set(t, &route);
	}
	return t;
}

static bool serve(struct worker *w, const char *path, char *text, struct err *err)
{
	struct route_table *t = routes_parse(path, text, w->sticky, w->limits.space_rate, err);

	if (!t)
		return false;
	route_table_free(w->routes.served);
	w->routes.served = t;
	log_info("%zu routes from %s", route_table_size(t), path);
	return true;
}

bool routes_file_load(struct worker *w, const char *path, const char *before)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;

	if (routes_file_read(path, &text, &err) == 0 && serve(w, path, text.data, &err))
		return true;
	log_error("%s", err.msg);
	if (!before)
		return false;
	cleanup_free char *copy = xstrdup(before);
	log_warn("the routes stay as they were before that mistake");
	return serve(w, path, copy, &err);
}
