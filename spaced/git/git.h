/* Git over smart HTTP (gitprotocol-http(5)): /spaces/{owner}/{name}[.git]/info/refs, /git-receive-pack,
 * /git-upload-pack. Bytes of a push are parsed only in the unpack role, one confined process per push; fetches are
 * served by the stock `git upload-pack --stateless-rpc` as a confined child. Control sees neither pack nor pkt-line. */
#ifndef SPACED_GIT_H
#define SPACED_GIT_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/err.h"
#include "spaced/config.h"
#include "spaced/http/server.h"

/* One ref that a push asked to change, after the fact. */
struct ref_update {
	char *name;	  /* "refs/heads/main" */
	char old_oid[41]; /* 40 zeros: created */
	char new_oid[41]; /* 40 zeros: deleted */
	bool forced;	  /* not a fast-forward */
	char *error;	  /* NULL: the ref is moved and durable */
};

/* A push whose refs are on disk; lives until push_finish. Survives the client: printing to one that hung up is a no-op. */
struct push;
void push_print(struct push *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));		     /* "remote: " lines; \n ends one */
void push_write(struct push *p, const char *text, size_t n); /* raw log bytes; control characters are made harmless */
bool push_option(const struct push *p, const char *name);    /* `git push -o nowait` */
bool push_gone(const struct push *p);			     /* the client hung up */
/* Ends the answer to the client. The report-status was sent right after the refs moved. */
void push_finish(struct push *p);

/* What git needs to know from the rest of control. */
struct git_target {
	char repo[64];	/* "{space id}.git" below repos/ */
	char *space_id; /* malloc'd; git frees it after GIT_ALLOWED */
	char *user_id;	/* who pushes; the same */
};
enum git_access { GIT_ALLOWED, GIT_ASK /* 401 */, GIT_FORBIDDEN /* 403 + reason */, GIT_NOT_FOUND /* 404 */ };
struct git_callbacks {
	/* Who is it (Basic: any user, token as password), and may they? May create the Space when `write`: called for
	 * info/refs?service=git-receive-pack too, where nothing may be created yet (`commit` false). */
	enum git_access (*authorise)(void *ctx, struct http_req *r, const char *owner, const char *name, bool write,
				     bool commit, struct git_target *out, char reason[256]);
	/* Refs are durable (those without error). The receiver owns `p` and must call push_finish; `t` and `updates` live
	 * until then. */
	void (*pushed)(void *ctx, const struct git_target *t, struct ref_update *updates, size_t n, struct push *p);
	void *ctx;
};

struct git_server;
struct git_server *git_server_new(uv_loop_t *loop, const struct config *config, const struct git_callbacks *cb);
/* From here on no push begins: git asks for the refs first, and is told to try again. One that has them may still send its pack:
 * of an answer to that, git would not show the words. */
void git_server_drain(struct git_server *g);
/* Fetches, or pushes whose client has not yet been told what became of them, are under way. */
bool git_server_busy(const struct git_server *g);
void git_server_free(struct git_server *g);
/* True when the path is git's; the request is then taken over. */
bool git_server_handle(struct git_server *g, struct http_req *r);

/* Makes an empty bare repository (HEAD -> refs/heads/main) below `repos_fd`; 0 when it is there already. */
int git_repo_create(const char *repos, const char *repo, struct err *err);
int git_repo_remove(const char *repos, const char *repo, struct err *err);
/* Tip of a branch; ENOENT when it does not exist. */
int git_repo_branch(const char *repos, const char *repo, const char *branch, char oid[41], struct err *err);
/* One file at a commit, at most `max` bytes (EFBIG). ENOENT; EISDIR; ELOOP for a symlink. */
int git_repo_read(const char *repos, const char *repo, const char *commit, const char *path, size_t max,
		  struct buf *out, struct err *err);
/* Object id of a blob or tree at a commit (content key); ENOENT. */
int git_repo_entry(const char *repos, const char *repo, const char *commit, const char *path, char oid[41],
		   bool *is_dir, struct err *err);

/* Starts the confined `archive` role: the tree of `commit` as a tar stream (files under `prefix`, no .git, submodules as
 * empty folders, LFS pointers as they are, symlinks kept) into `out_fd` (taken over). Limits: config checkout_*. `done`
 * is called once with NULL or what went wrong. Returns 0 or -1 when it cannot even start. */
int git_archive(uv_loop_t *loop, const struct config *config, const char *repo, const char *commit, const char *prefix,
		int out_fd, void (*done)(void *ctx, const char *error), void *ctx, struct err *err);

/* Entry points of the child roles: `spaced --role unpack|archive|upload-pack|repack ...`; see git/roles.c for their arguments. */
int git_unpack_main(int argc, char **argv);
int git_archive_main(int argc, char **argv);
int git_upload_pack_main(int argc, char **argv);
int git_repack_main(int argc, char **argv);

#endif
