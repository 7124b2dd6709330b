/* The routes file of the stand-alone program: "HOST ADDR:PORT..." per line, "*.HOST" for a wildcard, "unix:PATH" for a unix
 * socket, "sticky" at the end for a cookie that keeps a visitor to one of several upstreams, # for a comment. Read at start and on SIGHUP; a file with a mistake changes nothing. */
#include <errno.h>
#include <fcntl.h>

#include "base/io.h"
#include "base/log.h"
#include "proxy/worker.h"

#define FILE_MAX (16U * 1024 * 1024)

static bool read_upstream(struct route *r, const char *text)
{
	bool is_unix = strncmp(text, "unix:", 5) == 0;
	enum route_kind kind = is_unix ? ROUTE_UNIX : ROUTE_TCP;
	const char *name = is_unix ? text + 5 : text;
	struct endpoint *e = &r->endpoints[r->nendpoints];

	if (r->nendpoints == ROUTE_ENDPOINTS_MAX || (r->nendpoints && r->kind != kind) ||
	    strlen(name) >= sizeof e->name || !strchr(name, is_unix ? '/' : ':'))
		return false;
	r->kind = kind;
	memcpy(e->name, name, strlen(name) + 1);
	r->nendpoints++;
	return true;
}

static bool read_line(struct route *r, char *line, const char *sticky)
{
	char *save = NULL;
	char *host = strtok_r(line, " \t\r", &save);
	char folded[ROUTE_HOST_MAX + 1];

	const char *name = strncmp(host, "*.", 2) == 0 ? host + 2 : host;
	if (!route_canonical_host(STRZ(name), folded) || strlen(folded) + 2 > ROUTE_HOST_MAX)
		return false;
	memset(r, 0, sizeof *r);
	snprintf(r->host, sizeof r->host, "%s%.*s", name == host ? "" : "*.", ROUTE_HOST_MAX - 2, folded);
	memcpy(r->space, r->host, strnlen(r->host, sizeof r->space - 1));
	for (char *word; (word = strtok_r(NULL, " \t\r", &save)) != NULL;) {
		if (r->sticky[0])
			return false;
		if (strcmp(word, "sticky") == 0)
			memcpy(r->sticky, sticky, sizeof r->sticky);
		else if (!read_upstream(r, word))
			return false;
	}
	return r->nendpoints > 0;
}

int routes_file_load(struct worker *w, const char *path)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct route_table *t = route_table_new();
	unsigned number = 0;
	int r = io_read_file(AT_FDCWD, path, FILE_MAX, &text);

	if (r < 0) {
		log_error("read %s: %s", path, strerror(-r));
		route_table_free(t);
		return r;
	}
	for (char *at = text.data, *next; at && *at; at = next) {
		struct route route;
		next = strchr(at, '\n');
		if (next)
			*next++ = '\0';
		number++;
		at[strcspn(at, "#")] = '\0';
		if (at[strspn(at, " \t\r")] == '\0')
			continue;
		if (!read_line(&route, at, w->sticky)) {
			log_error("%s:%u: expected HOST ADDR:PORT... [sticky]", path, number);
			route_table_free(t);
			return -EINVAL;
		}
		route.rate = w->limits.space_rate;
		route_table_set(t, &route);
	}
	route_table_free(w->routes.served);
	w->routes.served = t;
	log_info("%zu routes from %s", route_table_size(t), path);
	return 0;
}
