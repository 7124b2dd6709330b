/* What the child roles of git (unpack, archive, upload-pack) share: their arguments, their limits, a libgit2 that trusts
 * no configuration; and how control starts one. */
#ifndef SPACED_GIT_ROLES_H
#define SPACED_GIT_ROLES_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "spaced/config.h"

/* Frames that the unpack role sends on its descriptor 3. */
enum unpack_frame {
	UNPACK_HEAD = 1, /* u8 report, u8 side_band, u32 n, n strings: push options */
	UNPACK_REF,	 /* str name, str old, str new, u8 forced, str error ("": moved) */
	UNPACK_END,	 /* str "ok" or why nothing was taken */
};
#define ROLE_RESULT_FD 3

struct role_args {
	char repos[4096]; /* absolute */
	char repo[64];
	char commit[41];
	char prefix[256];
	bool gzip, advertise;
	char protocol[64]; /* GIT_PROTOCOL, checked */
	uint64_t pack_bytes, inflated_bytes, object_bytes, objects, refs, ref_bytes, path_bytes, tree_depth, timeout_s;
	uint64_t checkout_bytes, checkout_files;
};

/* "--role NAME --repos DIR --repo NAME.git [--gzip] [--limit-x N]..." Anything unknown is an error. */
int role_args_parse(struct role_args *a, int argc, char **argv, struct err *err);
bool role_repo_name_ok(const char *repo); /* [A-Za-z0-9._-]+ ending in ".git", no leading dot */
/* Address space, CPU seconds, file size (0: none written), descriptors, no core. */
int role_limit(uint64_t memory, uint64_t cpu_s, uint64_t file_bytes, struct err *err);
/* Starts libgit2 without any system or user configuration; strict about what it creates. Idempotent. */
void git_lib_init(void);
/* Stock git for a role that runs it: where it is (NULL: nowhere), and an environment made from nothing. */
const char *git_find(void);
char **git_child_env(const char *path, const char *protocol);
/* "doing: " plus libgit2's message. Returns -1. */
int git_err(struct err *err, const char *doing);

/* A child `spaced --role ...`: arguments are the common ones plus `extra` (ended by NULL). Descriptors by `stdio`. */
struct role_child {
	uv_process_t process;
	bool running;
};
int role_spawn(uv_loop_t *loop, struct role_child *c, const struct config *config, const char *role, const char *repo,
	       const char *const *extra, uv_stdio_container_t *stdio, int nstdio, uv_exit_cb on_exit, struct err *err);
void role_kill(struct role_child *c); /* it and its children */

#endif
