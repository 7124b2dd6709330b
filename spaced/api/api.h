/* The HTTP face of control on the apex host and on the admin socket: a JSON API and the first page. One table of routes
 * (api/routes.c). Where Hugging Face has a route for a thing, ours has the same path and shape; the rest is below
 * /api/admin/ (admin socket or an admin's token). spacectl is a client of this API over the admin socket. */
#ifndef SPACED_API_H
#define SPACED_API_H

#include "spaced/access.h"
#include "spaced/space/space.h"

struct api;
/* What it speaks for; all outlive it. */
struct api_parts {
	struct store *store;
	struct spaces *spaces;
	struct spawner *spawner;
	struct router *router;
	struct access_keys *keys;
	struct metrics *metrics;
	struct superior *superior;
};
struct api *api_new(uv_loop_t *loop, const struct config *config, const struct api_parts *parts);
/* Ends what goes on by itself. Requests that are open still may have something of it: it is freed when all have closed. */
void api_close(struct api *a);
void api_free(struct api *a);
/* Followers of logs are cut off: they ask the next control. */
void api_cut_streams(struct api *a);
/* Answers any request that git_server_handle did not take. */
void api_handle(struct api *a, struct http_req *r);
/* Who is behind a request: Bearer token, Basic with the token as password, or root on the admin socket (then `admin` and
 * an empty id). 0; -1 with err->code EACCES (bad token) or ENOENT (none given). */
int api_identify(struct store *store, struct http_req *r, struct user *out, struct err *err);
/* router_callbacks.may_enter; ctx is the struct api. */
enum gate_verdict api_may_enter(void *ctx, const char *space_id, const char *token, const char *client, uint32_t *wait,
				char user[TICKET_ID]);
/* git_callbacks.authorise; ctx is the struct api. */
enum git_access api_git_authorise(void *ctx, struct http_req *r, const char *owner, const char *name, bool write,
				  bool commit, struct git_target *out, char reason[256]);

#endif
