/* The control role: one loop that joins store, lifecycle, git, API, spawner and proxies. Unprivileged.
 * Promise: its own folders of the state folder, unix sockets, children of this program (unpack, archive, ...) and git. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "base/trim.h"
#include "sandbox/base.h"
#include "spaced/access_file.h"
#include "spaced/api/api.h"
#include "spaced/metrics.h"
#include "spaced/role/role.h"
#include "spaced/superior.h"

#define END_TICK_MS 20
#define PROXIES_MS 2000		 /* at an end: what a visitor's next request on a kept connection may take */
#define REQUESTS_MS 2000	 /* to answer what is short */
#define HTTP_SOCKET "/http.sock" /* as the proxies see it */
#define REQUESTS_PER_CLIENT 256	 /* a sixteenth of the connections */

struct control {
	uv_loop_t loop;
	struct config *config;
	struct store *store;
	struct spawner *spawner;
	struct router *router;
	struct access_keys *keys;
	struct metrics *metrics;
	struct access_file *access; /* NULL: no access log is kept */
	struct spaces *spaces;
	struct git_server *git;
	struct api *api;
	struct http_server *http;
	struct channel *parent;
	struct superior *superior;
	struct {
		bool begun, last; /* last: nothing new is taken any more */
		bool drained;	  /* and nothing is left of what was */
		bool stop_apps, hand_over;
		uint64_t since, until, last_since;
		uv_timer_t timer;
	} end;
};

static void on_request(struct http_req *r, void *ctx)
{
	struct control *c = ctx;

	if (!git_server_handle(c->git, r))
		api_handle(c->api, r);
}

static enum git_access authorise(void *ctx, struct http_req *r, const char *owner, const char *name, bool write,
				 bool commit, struct git_target *out, char reason[256])
{
	struct control *c = ctx;

	return api_git_authorise(c->api, r, owner, name, write, commit, out, reason);
}

static void pushed(void *ctx, const struct git_target *t, struct ref_update *updates, size_t n, struct push *p)
{
	struct control *c = ctx;

	spaces_pushed(c->spaces, t, updates, n, p);
}

static void exited(void *ctx, const char *name, const struct sandbox_exit *e)
{
	struct control *c = ctx;

	if (c->spaces)
		spaces_exited(c->spaces, name, e);
}

static void exec_ended(void *ctx, const char *name, uint32_t exec, uint32_t status, const char *why)
{
	struct control *c = ctx;

	if (c->spaces)
		spaces_exec_ended(c->spaces, name, exec, status, why);
}

static void limited(void *ctx, const char *name, enum limit_kind kind, const char *sentence)
{
	struct control *c = ctx;

	if (c->spaces)
		spaces_limited(c->spaces, name, kind, sentence);
}

static void lost(void *ctx)
{
	struct control *c = ctx;

	if (c->spaces)
		spaces_spawner_lost(c->spaces);
}

/* Proxies are trusted less: a name that they make up gets no row, or the rows would have no end. */
static bool is_space(struct control *c, const char *space)
{
	const char *slash = strchr(space, '/');
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (!*space || metrics_has(c->metrics, space))
		return true;
	if (!slash)
		return false;
	cleanup_free char *owner = xstrndup(space, (size_t)(slash - space));
	bool is = store_space_by_name(c->store, owner, slash + 1, &sp, &err) == 0;
	/* In its own spelling, in which it is deleted one day. */
	is = is && strcmp(sp.owner, owner) == 0 && strcmp(sp.name, slash + 1) == 0;
	space_release(&sp);
	return is;
}

static void activity(void *ctx, uint64_t peer, const char *space, const struct counters *growth)
{
	struct control *c = ctx;

	if (!is_space(c, space))
		return;
	const struct counters *sum = metrics_add(c->metrics, peer, space, growth);

	if (*space)
		spaces_activity(c->spaces, space, growth->n[COUNT_REQUESTS], sum->now[GAUGE_OPEN],
				counters_visited(growth));
}

static void proxy_gone(void *ctx, uint64_t peer)
{
	struct control *c = ctx;

	metrics_peer_gone(c->metrics, peer);
}

static void replace_proxy(void *ctx, uint32_t proxy)
{
	struct control *c = ctx;
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, proxy);
	channel_send(c->parent, LINK_REPLACE, 0, b.data, b.len, NULL, 0);
}

static void log_lines(void *ctx, uint64_t peer, struct str bytes, uint32_t lines)
{
	struct control *c = ctx;

	if (c->access)
		access_file_write(c->access, peer, bytes, lines);
}

static void logged(void *ctx, uint64_t peer, uint32_t lost)
{
	struct control *c = ctx;

	metrics_count(c->metrics, "", COUNT_LOG_DROPPED, lost);
	router_logged(c->router, peer);
}

static void idle(void *ctx, const char *instance, uint32_t generation)
{
	struct control *c = ctx;

	spaces_idle(c->spaces, instance, generation);
}

static enum gate_verdict may_enter(void *ctx, const char *space_id, const char *token, const char *client,
				   uint32_t *wait, char user[TICKET_ID])
{
	struct control *c = ctx;

	return api_may_enter(c->api, space_id, token, client, wait, user);
}

static void wake(void *ctx, const char *space)
{
	struct control *c = ctx;

	spaces_visited(c->spaces, space);
}

static void quieted(void *ctx, const char *instance, uint32_t serial, bool busy)
{
	struct control *c = ctx;

	spaces_quieted(c->spaces, instance, serial, busy);
}

/* A fresh channel between the spawner and one proxy: one end goes to each. */
static int spawner_socket(void *ctx)
{
	struct control *c = ctx;
	int pair[2];

	if (!spawner_connected(c->spawner) || frame_pair(pair) < 0)
		return -1;
	spawner_call(c->spawner, SPAWN_PEER, NULL, &pair[0], 1, NULL, NULL);
	close(pair[0]);
	return pair[1];
}

static void ended(void *ctx)
{
	struct control *c = ctx;

	uv_stop(&c->loop);
}

static void shutdown_spaces(struct control *c)
{
	uv_timer_stop(&c->end.timer);
	spaces_shutdown(c->spaces, c->end.stop_apps, ended, c);
}

static void drained(void *ctx)
{
	struct control *c = ctx;

	c->end.drained = true;
}

/* First pushes and fetches come to their end; without another control to follow the proxies, too, which need this one for
 * requests in flight. Then what is short is answered, while new requests wait in the sockets. On a connection that a proxy
 * keeps the next request may be on its way at any time, and only a GET can be repeated: so it is the proxies that close them. */
static void on_end_tick(uv_timer_t *t)
{
	struct control *c = t->data;
	uint64_t now = uv_now(&c->loop);
	bool over = now >= c->end.until;

	if (!c->end.last) {
		bool needed = !c->end.hand_over && router_proxies(c->router) && now < c->end.since + PROXIES_MS;
		if (!over && (git_server_busy(c->git) || needed))
			return;
		c->end.last = true;
		c->end.last_since = now;
		c->end.until += over ? REQUESTS_MS : 0;
		http_server_drain(c->http, drained, c);
		router_leave(c->router, HTTP_SOCKET);
		api_cut_streams(c->api);
		spaces_end_output(c->spaces);
	} else if (over || c->end.drained || (now >= c->end.last_since + REQUESTS_MS && !git_server_busy(c->git))) {
		shutdown_spaces(c);
	}
}

static void end(struct control *c, enum link_shutdown how, uint32_t ms)
{
	if (c->end.begun)
		return;
	c->end.begun = true;
	c->end.stop_apps = how == SHUTDOWN_STOP_APPS;
	c->end.hand_over = how == SHUTDOWN_HAND_OVER;
	if (c->end.stop_apps) {
		shutdown_spaces(c);
		return;
	}
	c->end.since = uv_now(&c->loop);
	c->end.until = c->end.since + ms;
	git_server_drain(c->git);
	uv_timer_start(&c->end.timer, on_end_tick, 0, END_TICK_MS);
}

static void take_config(struct control *c, int file)
{
	char path[40];
	char *argv[] = {"spaced", "--config", path, NULL};
	struct config fresh;
	struct err err = ERR_INIT;

	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	if (config_load(&fresh, 3, argv, &err) < 0)
		log_error("configuration from the parent: %s", err.msg);
	else
		config_adopt(c->config, &fresh);
	config_release(&fresh);
	close(file);
}

static void on_link(void *ctx, struct frame *f)
{
	struct control *c = ctx;
	struct reader r = reader_of(f->payload, f->len);
	int fd;

	switch (f->type) {
	case LINK_SPAWNER:
		if ((fd = frame_take_fd(f, 0)) < 0)
			break;
		spawner_reconnect(c->spawner, fd);
		router_renew_spawner(c->router);
		spaces_recover(c->spaces);
		break;
	case LINK_PROXY:
		if ((fd = frame_take_fd(f, 0)) >= 0)
			router_attach(c->router, fd, get_u32(&r));
		break;
	case LINK_SHUTDOWN:
		fd = get_u8(&r);
		end(c, (enum link_shutdown)fd, get_u32(&r));
		break;
	case LINK_CONFIG:
		if ((fd = frame_take_fd(f, 0)) >= 0)
			take_config(c, fd);
		break;
	case LINK_ANSWER:
		superior_answered(c->superior, f);
		break;
	default:
		log_warn("parent: unknown frame %u", f->type);
	}
}

/* The parent is gone without a word: end as it would have asked; running apps stay up. */
static void on_parent_end(void *ctx, int err)
{
	(void)err;
	end(ctx, SHUTDOWN_LEAVE_APPS, 0);
}

static int confine(const struct config *config, struct err *err)
{
	struct accounts a = role_accounts(config);
	cleanup_free char *control = xasprintf("%s/%s", config->state, STATE_CONTROL);
	cleanup_free char *repos = xasprintf("%s/%s", config->state, STATE_REPOS);
	cleanup_free char *logs = xasprintf("%s/%s", config->state, STATE_LOGS);
	cleanup_free char *sites = xasprintf("%s/%s", config->state, STATE_SITES);
	cleanup_free char *access = xasprintf("%s/%s", config->state, STATE_ACCESS);
	cleanup_free char *bases = xasprintf("%s/%s", config->state, STATE_BASES);
	const struct confine_path paths[] = {
	    {.path = control, .write = true},
	    {.path = repos, .write = true},
	    {.path = logs, .write = true},
	    {.path = sites, .write = true},
	    {.path = access, .write = true},
	    {.path = bases},
	    {.path = "/usr", .exec = true},
	    {.path = "/lib", .exec = true},
	    {.path = "/lib64", .exec = true},
	    {.path = "/bin", .exec = true},
	    {.path = "/proc", .exec = true},
	    {.path = "/etc"},
	    {.path = "/dev", .write = true},
	    {.path = "/proc/self/exe", .exec = true},
	    {0},
	};

	umask(0077);
	if (confine_user(a.control, a.control_gid, err) < 0 || confine_files(paths, err) < 0)
		return -1;
	return confine_syscalls(PROMISE_FILES | PROMISE_UNIX | PROMISE_EXEC, err);
}

static int open_all(struct control *c, struct err *err)
{
	const struct router_callbacks rcb = {.activity = activity,
					     .proxy_gone = proxy_gone,
					     .replace = replace_proxy,
					     .log = log_lines,
					     .idle = idle,
					     .wake = wake,
					     .quieted = quieted,
					     .may_enter = may_enter,
					     .spawner_socket = spawner_socket,
					     .ctx = c};
	const struct git_callbacks gcb = {.authorise = authorise, .pushed = pushed, .ctx = c};
	static const struct http_handler handler = {.on_request = on_request};
	cleanup_free char *db = xasprintf("%s/%s/spaced.db", c->config->state, STATE_CONTROL);

	c->store = store_open(db, err);
	if (!c->store)
		return -1;
	uv_timer_init(&c->loop, &c->end.timer);
	c->end.timer.data = c;
	c->parent = channel_open(&c->loop, ROLE_FD_PARENT, on_link, on_parent_end, c);
	c->superior = superior_new(c->parent);
	c->spawner = spawner_new(&c->loop, -1, exited, exec_ended, lost, c);
	spawner_on_limit(c->spawner, limited);
	c->metrics = metrics_new();
	cleanup_free char *access = xasprintf("%s/%s", c->config->state, STATE_ACCESS);
	if (c->config->access_log_bytes &&
	    !(c->access = access_file_new(&c->loop, access, c->config->access_log_bytes, logged, c, err)))
		return -1;
	c->router = router_new(&c->loop, c->config->domain, &rcb);
	c->spaces = spaces_new(&c->loop, c->config, c->store, c->spawner, c->router, c->metrics);
	c->git = git_server_new(&c->loop, c->config, &gcb);
	c->keys = access_keys_new(&c->loop, c->config, c->router, err);
	if (!c->keys)
		return -1;
	const struct api_parts parts = {.store = c->store,
					.spaces = c->spaces,
					.spawner = c->spawner,
					.router = c->router,
					.keys = c->keys,
					.metrics = c->metrics,
					.superior = c->superior};
	c->api = api_new(&c->loop, c->config, &parts);
	c->http = http_server_new(&c->loop, &handler, c);
	http_server_limits(c->http, &(struct http_limits){.per_client = REQUESTS_PER_CLIENT});
	struct route apex = {.kind = ROUTE_UNIX, .nendpoints = 1};
	snprintf(apex.host, sizeof apex.host, "%s", c->config->domain);
	snprintf(apex.endpoints[0].name, sizeof apex.endpoints[0].name, HTTP_SOCKET);
	router_set(c->router, &apex);
	if (http_server_listen(c->http, ROLE_FD_FIRST, false) < 0 ||
	    http_server_listen(c->http, ROLE_FD_SECOND, true) < 0)
		return err_set(err, 0, "listening sockets from the parent");
	return 0;
}

/* Freed in the reverse order, so that a leak checker sees what is really lost. */
static void close_all(struct control *c)
{
	http_server_free(c->http);
	api_close(c->api);
	access_keys_free(c->keys);
	git_server_free(c->git);
	spaces_free(c->spaces);
	c->spaces = NULL;
	router_free(c->router);
	metrics_free(c->metrics);
	access_file_free(c->access);
	spawner_free(c->spawner);
	channel_close(c->parent);
	uv_close((uv_handle_t *)&c->end.timer, NULL);
	for (int i = 0; i < 100 && uv_run(&c->loop, UV_RUN_NOWAIT); i++)
		;
	api_free(c->api);
	superior_free(c->superior);
	store_close(c->store);
	uv_loop_close(&c->loop);
}

int role_control(struct config *config)
{
	struct control c = {.config = config};
	struct err err = ERR_INIT;

	signal(SIGPIPE, SIG_IGN);
	tzset();
	/* The loop after the filter: newer libuv would else hold an io_uring that the filter then cuts off, and abort. */
	if (confine(config, &err) < 0 || uv_loop_init(&c.loop) < 0 || open_all(&c, &err) < 0) {
		log_error("cannot start: %s", err.msg);
		return err.code == ENOTSUP ? ROLE_GIVES_UP : 1;
	}
	trim_resident();
	uv_run(&c.loop, UV_RUN_DEFAULT);
	close_all(&c);
	return 0;
}
