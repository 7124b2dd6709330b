/* Inside of git's control side: what git_http.c, push.c and fetch.c share. */
#ifndef SPACED_GIT_INT_H
#define SPACED_GIT_INT_H

#include "spaced/git/git.h"
#include "spaced/git/roles.h"

#define GIT_MAX_JOBS 32 /* children of one kind at the same time; beyond: 503 */

/* Lives until its owner let go and the last job ended. */
struct git_server {
	uv_loop_t *loop;
	const struct config *config;
	struct git_callbacks cb;
	bool closing, draining;
	unsigned pushes;
	unsigned receiving;    /* of them: not reported yet */
	struct fetch *fetches; /* at work or waiting for a place, oldest first */
	bool repacking;
	unsigned refs;
	struct git_job *jobs;
};

/* A child at work for a request; heads struct push and struct fetch. */
struct git_job {
	struct git_server *g;
	struct git_job *prev, *next;
	struct role_child child;
};
void git_job_add(struct git_server *g, struct git_job *j);
void git_job_remove(struct git_job *j); /* may free the server */

/* Cache headers of every answer that git must not find again in a cache. */
void git_no_cache(struct http_req *r);
void git_reply_text(struct http_req *r, int status, const char *text);
void git_refuse_push(struct http_req *r, const char *text); /* 503, for a moment */

/* The body of a request on its way into a child's descriptor 0, with back-pressure. */
struct body_pipe {
	uv_pipe_t pipe;
	struct http_req *req; /* NULL: nobody to pause */
	bool paused, broken /* the child reads no more */, closing;
	void (*on_closed)(struct body_pipe *b);
	void *owner;
};
int body_pipe_init(struct body_pipe *b, uv_loop_t *loop, struct http_req *req, void (*on_closed)(struct body_pipe *b),
		   void *owner);
void body_pipe_write(struct body_pipe *b, const char *p, size_t n);
void body_pipe_end(struct body_pipe *b);   /* what is queued still goes out */
void body_pipe_close(struct body_pipe *b); /* it does not */

/* Each push leaves a pack; when a repository has many, a child in the background makes one of them. One at a time. */
void git_maintain(struct git_server *g, const char *repo);

/* POST git-receive-pack and git-upload-pack; GET info/refs of the latter (`advertise`). They take the request over. */
void git_push_start(struct git_server *g, struct http_req *r, const struct git_target *t, bool gzip);
void git_fetch_start(struct git_server *g, struct http_req *r, const struct git_target *t, bool gzip, bool advertise,
		     const char *protocol);

#endif
