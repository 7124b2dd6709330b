/* Routes of smart HTTP, who may use them, and the ref advertisement of receive-pack. See git.h; the heavy parts are in
 * push.c and fetch.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/git/git_int.h"
#include "spaced/git/pktline.h"
#include "spaced/git/receive.h"
#include "spaced/git/refs.h"
#include "spaced/names.h"

struct git_server *git_server_new(uv_loop_t *loop, const struct config *config, const struct git_callbacks *cb)
{
	struct git_server *g = xcalloc(1, sizeof *g);

	git_lib_init();
	signal(SIGPIPE, SIG_IGN); /* a child that is gone must not take us along */
	*g = (struct git_server){.loop = loop, .config = config, .cb = *cb, .refs = 1};
	return g;
}

static void unref(struct git_server *g)
{
	if (--g->refs == 0)
		free(g);
}

void git_server_free(struct git_server *g)
{
	if (!g)
		return;
	g->closing = true;
	for (struct git_job *j = g->jobs; j; j = j->next)
		role_kill(&j->child);
	unref(g);
}

void git_server_drain(struct git_server *g)
{
	g->draining = true;
}

bool git_server_busy(const struct git_server *g)
{
	return g->receiving || g->fetches;
}

void git_refuse_push(struct http_req *r, const char *text)
{
	http_set_header(r, "Retry-After", "5");
	git_reply_text(r, 503, text);
}

void git_job_add(struct git_server *g, struct git_job *j)
{
	j->g = g;
	j->prev = NULL;
	j->next = g->jobs;
	if (g->jobs)
		g->jobs->prev = j;
	g->jobs = j;
	g->refs++;
}

void git_job_remove(struct git_job *j)
{
	if (j->prev)
		j->prev->next = j->next;
	else
		j->g->jobs = j->next;
	if (j->next)
		j->next->prev = j->prev;
	unref(j->g);
}

void git_no_cache(struct http_req *r)
{
	http_set_header(r, "Cache-Control", "no-cache, max-age=0, must-revalidate");
	http_set_header(r, "Expires", "Fri, 01 Jan 1980 00:00:00 GMT");
	http_set_header(r, "Pragma", "no-cache");
}

void git_reply_text(struct http_req *r, int status, const char *text)
{
	/* git shows a text/plain body as "remote:" lines */
	cleanup_free char *line = xasprintf("%s\n", text);

	git_no_cache(r);
	http_reply(r, status, "text/plain; charset=utf-8", line, strlen(line));
}

enum service { RECEIVE, UPLOAD };
static const char *const service_names[] = {[RECEIVE] = "git-receive-pack", [UPLOAD] = "git-upload-pack"};

/* One of ours: which service, and whether it is info/refs. */
struct route {
	enum service service;
	bool advertise;
};

/* Asks control who it is and whether they may. True when they may; else the answer is given. */
static bool authorise(struct git_server *g, struct http_req *r, const char *owner, const char *name,
		      const struct route *w, bool commit, struct git_target *t)
{
	char reason[256] = "";

	*t = (struct git_target){.repo = ""};
	switch (g->cb.authorise(g->cb.ctx, r, owner, name, w->service == RECEIVE, commit, t, reason)) {
	case GIT_ALLOWED:
		return true;
	case GIT_ASK:
		http_set_header(r, "WWW-Authenticate", "Basic realm=\"Spaced\"");
		git_reply_text(r, 401, reason[0] ? reason : "Log in with any user name and a token as password.");
		return false;
	case GIT_FORBIDDEN:
		git_reply_text(r, 403, reason[0] ? reason : "You may not do this here.");
		return false;
	default:
		git_reply_text(r, 404, reason[0] ? reason : "Repository not found.");
		return false;
	}
}

static int open_repo(struct git_server *g, const char *repo)
{
	cleanup_free char *path = xasprintf("%s/" STATE_REPOS "/%s", g->config->state, repo);

	return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The refs that a pusher sees (gitprotocol-pack(5), "Reference Discovery"). */
static void advertise_refs(struct buf *b, const struct ref_table *t, bool v1)
{
	pkt_addf(b, "# service=git-receive-pack\n");
	pkt_flush(b);
	if (v1)
		pkt_addf(b, "version 1\n");
	for (size_t i = 0; i < t->n; i++) {
		cleanup_buf struct buf line = BUF_INIT;
		buf_addf(&line, "%s %s", t->refs[i].oid, t->refs[i].name);
		if (i == 0) {
			buf_addc(&line, '\0');
			buf_adds(&line, RECEIVE_CAPABILITIES);
		}
		buf_addc(&line, '\n');
		pkt_add(b, line.data, line.len);
	}
	if (t->n == 0) {
		static const char none[] = OID_ZERO " capabilities^{}\0" RECEIVE_CAPABILITIES "\n";
		pkt_add(b, none, sizeof none - 1);
	}
	pkt_flush(b);
}

static void reply_receive_refs(struct git_server *g, struct http_req *r, const struct git_target *t,
			       const char *protocol)
{
	cleanup_ref_table struct ref_table table = {0};
	cleanup_buf struct buf body = BUF_INIT;
	struct err err = ERR_INIT;
	/* A Space that the push is going to create has none yet. */
	cleanup_close int fd = t->repo[0] ? open_repo(g, t->repo) : -1;

	if (fd >= 0 && refs_read(fd, &table, &err) < 0) {
		log_error("git: refs of %s: %s", t->repo, err.msg);
		git_reply_text(r, 500, "The repository cannot be read.");
		return;
	}
	advertise_refs(&body, &table, strstr(protocol, "version=1") != NULL);
	git_no_cache(r);
	http_reply(r, 200, "application/x-git-receive-pack-advertisement", body.data, body.len);
}

/* "version=2[:key=value...]", handed to the child as an environment variable: anything odd counts as absent. */
static void read_protocol(const struct http_req *r, char *out, size_t size)
{
	struct str v;

	out[0] = '\0';
	if (!http_header(r, "git-protocol", &v) || v.n >= size)
		return;
	for (size_t i = 0; i < v.n; i++)
		if (!((v.p[i] >= 'a' && v.p[i] <= 'z') || (v.p[i] >= 'A' && v.p[i] <= 'Z') ||
		      (v.p[i] >= '0' && v.p[i] <= '9') || strchr("=:._-", v.p[i])))
			return;
	memcpy(out, v.p, v.n);
	out[v.n] = '\0';
}

static bool find_service(struct str name, enum service *out)
{
	for (size_t i = 0; i < 2; i++)
		if (str_eq(name, service_names[i])) {
			*out = (enum service)i;
			return true;
		}
	return false;
}

static void handle_info_refs(struct git_server *g, struct http_req *r, const char *owner, const char *name)
{
	cleanup_buf struct buf service = BUF_INIT;
	struct route w = {.advertise = true};
	struct git_target t;
	char protocol[64];

	if (!http_query_get(r, "service", &service) ||
	    !find_service((struct str){service.data, service.len}, &w.service)) {
		git_reply_text(r, 403, "Only smart HTTP is spoken here: use git 1.6.6 or newer.");
		return;
	}
	if (w.service == RECEIVE && g->draining) {
		git_refuse_push(r, "The server is being restarted. Nothing was changed: push again in a few seconds.");
		return;
	}
	if (!authorise(g, r, owner, name, &w, false, &t))
		return;
	read_protocol(r, protocol, sizeof protocol);
	if (w.service == RECEIVE)
		reply_receive_refs(g, r, &t, protocol);
	else
		git_fetch_start(g, r, &t, false, true, protocol);
	free(t.space_id);
	free(t.user_id);
}

/* Before a big push git sends "0000" alone, to be asked for its password before the pack. It must create nothing. */
static bool is_probe(const struct http_req *r)
{
	struct str v;

	return http_header(r, "content-length", &v) && str_eq(v, "4");
}

static bool body_is_gzip(struct http_req *r, bool *gzip)
{
	struct str v;

	*gzip = false;
	if (!http_header(r, "content-encoding", &v) || str_ieq(v, "identity"))
		return true;
	*gzip = str_ieq(v, "gzip") || str_ieq(v, "x-gzip");
	return *gzip;
}

static void handle_post(struct git_server *g, struct http_req *r, const char *owner, const char *name,
			enum service service)
{
	cleanup_free char *want = xasprintf("application/x-%s-request", service_names[service]);
	struct route w = {.service = service};
	struct git_target t;
	struct str type;
	char protocol[64];
	bool gzip;

	if (!http_header(r, "content-type", &type) || !str_ieq(type, want) || !body_is_gzip(r, &gzip)) {
		git_reply_text(r, 415, "This is not a request of git.");
		return;
	}
	if (!authorise(g, r, owner, name, &w, !is_probe(r), &t))
		return;
	read_protocol(r, protocol, sizeof protocol);
	if (service == RECEIVE)
		git_push_start(g, r, &t, gzip);
	else
		git_fetch_start(g, r, &t, gzip, false, protocol);
	free(t.space_id);
	free(t.user_id);
}

static void refuse_method(struct http_req *r, const char *allow)
{
	http_set_header(r, "Allow", "%s", allow);
	git_reply_text(r, 405, "Method not allowed.");
}

/* git-lfs shows the message; without an answer of ours it would say that the repository does not exist. */
static void refuse_lfs(struct http_req *r)
{
	static const char body[] = "{\"message\":\"this server does not keep git-lfs files yet: commit the file itself "
				   "(git lfs migrate export --include='*'), git takes up to 1 GiB each\"}";

	http_reply(r, 501, "application/vnd.git-lfs+json", body, sizeof body - 1);
}

bool git_server_handle(struct git_server *g, struct http_req *r)
{
	struct str path = http_path(r), method = http_method(r);
	char owner[NAME_USER_MAX + 1], name[NAME_SPACE_MAX + 1];
	const char *rest;
	size_t rest_len;
	enum service service;

	if (!name_split_repo_path(path.p, path.n, owner, name, &rest, &rest_len) || rest_len < 2)
		return false;
	struct str tail = {rest + 1, rest_len - 1};
	bool info = str_eq(tail, "info/refs");
	if (tail.n > 9 && memcmp(tail.p, "info/lfs/", 9) == 0) {
		refuse_lfs(r);
		return true;
	}
	if (!info && !find_service(tail, &service))
		return false;
	if (info && !str_eq(method, "GET"))
		refuse_method(r, "GET");
	else if (info)
		handle_info_refs(g, r, owner, name);
	else if (!str_eq(method, "POST"))
		refuse_method(r, "POST");
	else
		handle_post(g, r, owner, name, service);
	return true;
}
