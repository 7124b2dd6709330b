/* What the files of api/ share: the call (one request, who makes it, on which Space), the table of routes, the shapes. */
#ifndef SPACED_API_API_INT_H
#define SPACED_API_API_INT_H

#include <jansson.h>

#include "spaced/api/api.h"
#include "spaced/api/json.h"
#include "spaced/api/limiter.h"
#include "spaced/http/server.h"

#define API_BODY_MAX (1024U * 1024) /* of a JSON request */
#define API_VARS 3
#define API_STREAMS_MAX 256 /* log followers at a time (call_may_follow) */

struct api {
	uv_loop_t *loop;
	const struct config *config;
	struct api_parts parts;
	char *repos; /* absolute path of STATE/repos */
	uint64_t started;
	struct limiter limiter;
	struct stream *streams; /* open log followers */
	unsigned nstreams;
	unsigned nscrapes;	       /* of /metrics, under way */
	struct access_reader *readers; /* of the access log */
	unsigned nreaders;
	struct exec_session *execs; /* commands inside apps */
};

/* Who may call a route. The SPACE_ ones have {owner}/{name} as their first variables and find the Space. */
enum access {
	ACCESS_OPEN,
	ACCESS_USER,	    /* any token */
	ACCESS_ADMIN,	    /* an admin's token, or root on the admin socket */
	ACCESS_SPACE_READ,  /* public, or its owner, or an admin */
	ACCESS_SPACE_WRITE, /* its owner or an admin */
};

struct call;
struct route_row {
	const char *method;  /* GET answers HEAD too */
	const char *pattern; /* ":x" stands for one segment */
	enum access access;
	void (*handle)(struct call *c);
	bool body; /* a JSON object is read first: c->body, NULL when none was sent */
};
extern const struct route_row route_rows[]; /* ended by .method == NULL */
/* Matches a raw path; variables are decoded into `vars` (malloc'd). */
bool route_match(const char *pattern, struct str path, char *vars[API_VARS]);

struct call {
	struct api *a;
	struct http_req *r;
	const struct route_row *row;
	struct user me; /* when `known`; without id: root on the admin socket */
	bool known;
	bool basic;	    /* by HTTP Basic, which browsers send by themselves */
	struct space space; /* of the SPACE_ routes */
	char *vars[API_VARS];
	json_t *body;
	struct stream *stream;	  /* of a log follower */
	struct usage_wait *usage; /* figures that are waited for */
	struct scrape *scrape;	  /* of /metrics */
	struct access_reader *reader;
	struct superior *asked; /* which will answer */
	struct exec_session *exec;
};

/* Answers. Each call is answered exactly once. */
void call_json(struct call *c, int status, json_t *j); /* takes j */
void call_text(struct call *c, int status, const char *type, struct str body);
void call_error(struct call *c, int status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));	       /* a page where people look, JSON elsewhere */
void call_fail(struct call *c, const struct err *err); /* the status from err->code */
void call_no_space(struct call *c);		       /* missing and private alike: 401 to strangers, 404 to users */
bool user_owns(const struct user *u, const struct space *sp); /* or is an admin */
bool call_may_read(const struct call *c, const struct space *sp);
bool call_may_write(const struct call *c, const struct space *sp);
/* The Space of the path into c->space, which must be empty, for a caller who may read, or `write`, it. False: answered. */
bool call_find_space(struct call *c, bool write);
/* Of `places` that a log has for readers `taken` are, `own` of them by this caller: one user has a quarter of them at most, so
 * that nobody shuts out the others, and admins have as many again. False: answered. */
bool call_may_follow(struct call *c, unsigned taken, unsigned own, unsigned places);
bool call_wants_html(const struct call *c);
/* scheme://host that the client used, or the configured one (admin socket). malloc'd. */
char *call_endpoint(const struct call *c);
bool call_flag(struct call *c, const char *key);		   /* "1", "true", "True", "" in the query */
bool call_query(struct call *c, const char *key, struct buf *out); /* replaces what `out` holds */

/* The Space as the Hub would show it; `full`: with the tip's sha and, for its owner, what runs. */
json_t *call_space_json(struct call *c, const struct space *sp, bool full);
json_t *call_runtime_json(struct call *c, const struct space *sp);

/* A new Space of `owner` with its repository: name rule, limit per user, store, git, route. */
int api_space_create(struct api *a, const struct user *owner, const char *name, enum space_visibility visibility,
		     const char *sdk, struct space *out, struct err *err);
/* The checks of the same, without making it. */
int api_space_can_create(struct api *a, const struct user *owner, const char *name, struct err *err);

/* auth.c: who is behind c->r; answers by itself and returns false when that is refused. */
bool call_authenticate(struct call *c);

/* access.c */
/* The user of the session cookie, for pages: c->me, c->known. */
void call_session(struct call *c);
/* Nothing that was handed out before opens a private Space any more. */
void api_access_renew(struct api *a);
/* The same, and what the user has open in private Spaces ends: he, or a token of his, was removed. */
void api_access_revoke(struct api *a, const char *user_id);
#define FORM_MAX 16384
/* A token out of a form. `wait` is not 0 when there were too many wrong ones. EACCES: no such token. */
int api_check_token(struct api *a, const char *token, struct str client, struct user *out, unsigned *wait,
		    struct err *err);
/* A form of another site, or of an app below our own domain, which would act as somebody else: refused, true. */
bool call_from_elsewhere(struct call *c);
void space_jwt_get(struct call *c);
void space_settings_put(struct call *c);
void sign_in_get(struct call *c);
void sign_in_post(struct call *c);
void sign_out_post(struct call *c);

/* Handlers, by file. */
void spaces_list_get(struct call *c);
void space_get(struct call *c);
void space_revision_get(struct call *c);
void space_runtime_get(struct call *c);
void space_host_get(struct call *c);
void space_restart(struct call *c);
void space_pause(struct call *c);
/* sleep.c */
void space_sleep(struct call *c);
void space_wake(struct call *c);
void space_sleep_time(struct call *c);
#define SLEEP_TEXT 64
void sleep_text(const struct config *config, const struct space *sp, char out[SLEEP_TEXT]); /* for people */
bool sleep_time_parse(const char *text, int32_t *seconds); /* "30m", "never", "default", to what the store has */
int sleep_time_set(struct call *c, int32_t seconds, struct err *err); /* of c->space, and notes it */
/* settings.c */
void page_settings(struct call *c);
void page_settings_post(struct call *c);
void space_egress_set(struct call *c);
void space_rate_set(struct call *c);
json_t *call_rate_json(const struct call *c, const struct space *sp);
void space_storage_set(struct call *c);
void space_storage_off(struct call *c);
void space_usage_get(struct call *c);
void usage_call_gone(struct usage_wait *u); /* its call is over */

/* daemon.c */
void admin_reload(struct call *c);
void admin_upgrade(struct call *c);
void call_runtime_now(struct call *c); /* answers with the runtime as it is in the store now */
void space_base(struct call *c);
void space_replicas(struct call *c);
void space_domains_get(struct call *c);
void space_domain_add(struct call *c);
void space_domain_remove(struct call *c);
void admin_domains_get(struct call *c);
bool call_has_domain(struct call *c, const struct space *sp, const char *host); /* also by a wildcard */
json_t *call_domain_names(struct call *c, const struct space *sp);		/* of its own, an array */
void whoami_get(struct call *c);
void hardware_get(struct call *c);
void harnesses_get(struct call *c);
void health_get(struct call *c);

void space_exec(struct call *c);
void exec_call_gone(struct exec_session *x); /* NULL is fine */
void exec_close_all(struct api *a);

void repo_create(struct call *c);
void repo_delete(struct call *c);

void builds_get(struct call *c);
void build_get(struct call *c);
void build_cancel(struct call *c);
void build_any_get(struct call *c);
void build_any_cancel(struct call *c);
void builds_all_get(struct call *c);
void releases_get(struct call *c);
void events_get(struct call *c);

void metrics_get(struct call *c);
void metrics_scrape_free(struct scrape *s); /* with its request; NULL is fine */

void access_log_get(struct call *c);
void space_access_log_get(struct call *c);
void access_reader_free(struct access_reader *s); /* the same */
void access_readers_cut(struct api *a);

void logs_get(struct call *c);
void logs_close_all(struct api *a);
void logs_stream_free(struct stream *s); /* with its request */

void admin_users_get(struct call *c);
void admin_user_add(struct call *c);
void admin_user_remove(struct call *c);
void admin_tokens_get(struct call *c);
void admin_tokens_all_get(struct call *c);
void admin_token_add(struct call *c);
void admin_token_remove(struct call *c);
void admin_base_remove(struct call *c);
void admin_status_get(struct call *c);
void admin_events_get(struct call *c);

void page_first(struct call *c);
void page_space(struct call *c);
void page_spaces_redirect(struct call *c);
void page_asset(struct call *c);
/* A whole small page of our style; `body` is HTML. */
void page_send(struct call *c, int status, const char *title, const char *body);
/* One with a form whose answer may lead to `origin` too. */
void page_send_form(struct call *c, int status, const char *title, const char *body, const char *origin);
void html_escape(struct buf *out, const char *s);

#endif
