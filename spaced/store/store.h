/* The control store: SQLite in WAL mode, one writer (the control role), numbered migrations from schema/. All calls are
 * synchronous and short. A returned record owns its strings: release it. 0 found/done; -1 with err; "not found" is
 * err->code == ENOENT, "exists" EEXIST. Times are wall-clock milliseconds. Ids are 24 lower-case hex digits, as clients
 * of the Hub expect. */
#ifndef SPACED_STORE_H
#define SPACED_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STORE_ID 25 /* with NUL */

struct store;
/* The number of the newest schema that this program knows. */
unsigned store_schema(void);
struct store *store_open(const char *path, struct err *err); /* migrates; refuses a newer schema */
void store_close(struct store *s);

/* A group of changes that happens whole or not at all. Nesting is a bug. */
int store_begin(struct store *s, struct err *err);
int store_commit(struct store *s, struct err *err);
void store_rollback(struct store *s);

struct user {
	char id[STORE_ID];
	char *name;
	bool admin;
	uint64_t created;
};
void user_release(struct user *u);
int store_user_add(struct store *s, const char *name, bool admin, struct user *out, struct err *err);
int store_user_by_name(struct store *s, const char *name, struct user *out, struct err *err); /* ASCII case folded */
int store_user_by_id(struct store *s, const char *id, struct user *out, struct err *err);
int store_user_list(struct store *s, struct user **out, size_t *n,
		    struct err *err); /* caller frees each and the array */
int store_user_remove(struct store *s, const char *id,
		      struct err *err); /* with its tokens; EBUSY while it owns Spaces */

/* Tokens: "hf_" + 34 letters and digits from libsodium's random bytes. Only a keyed hash is kept. */
struct token {
	char id[STORE_ID];
	char user_id[STORE_ID];
	char *label;
	char prefix[8]; /* "hf_AbCd", to tell them apart */
	uint64_t created;
	uint64_t last_used; /* 0: never; coarse (a minute) */
};
void token_release(struct token *t);
int store_token_add(struct store *s, const char *user_id, const char *label, char secret[48], struct token *out,
		    struct err *err);
int store_token_check(struct store *s, const char *secret, struct user *out, struct err *err); /* constant time */
/* Sessions hold the id of the token that began them: whose it is, while it is there. ENOENT otherwise. */
int store_token_id(struct store *s, const char *secret, char id[STORE_ID], struct err *err);
int store_token_user(struct store *s, const char *token_id, struct user *out, struct err *err);
int store_token_list(struct store *s, const char *user_id, struct token **out, size_t *n, struct err *err);
int store_token_remove(struct store *s, const char *token_id, struct err *err);

/* Protected: the app is for all, the repository for its owner. The numbers are stored. */
enum space_visibility { SPACE_PUBLIC, SPACE_PRIVATE, SPACE_PROTECTED };
const char *space_visibility_name(enum space_visibility v);
bool space_visibility_of(const char *name, enum space_visibility *out);

/* Stages by Hugging Face's names (reference: runtime.stage). */
enum space_stage {
	STAGE_NO_APP_FILE, /* also: nothing was ever pushed to the default branch */
	STAGE_CONFIG_ERROR,
	STAGE_BUILDING,
	STAGE_BUILD_ERROR,
	STAGE_APP_STARTING,
	STAGE_RUNNING,
	STAGE_RUNNING_BUILDING,
	STAGE_RUNNING_APP_STARTING,
	STAGE_RUNTIME_ERROR,
	STAGE_STOPPED,
	STAGE_PAUSED,
	STAGE_SLEEPING,
	STAGE_DELETING,
	SPACE_STAGES /* how many */
};
const char *space_stage_name(enum space_stage stage);

#define SPACE_RATE_DEFAULT (-1) /* the configuration's */
struct space {
	char id[STORE_ID];
	char owner_id[STORE_ID];
	char *owner;
	char *name;
	char *label; /* host label, unique: label.domain */
	enum space_visibility visibility;
	enum space_stage stage;
	char *stage_message; /* one sentence for people, "" when all is well */
	char *default_branch;
	uint32_t slot;	     /* its uid range: id_base + slot * SANDBOX_IDS; slot 0 is the dependency builder's */
	char *sdk;	     /* gradio, streamlit, static, docker, procfile, node, python, "" */
	char *card;	     /* README header as JSON, "{}" when none; unknown keys kept */
	char *release_id;    /* "" or the release that serves */
	uint32_t generation; /* counts instances */
	uint32_t serving;    /* the generation that serves; 0: none */
	char *base;	     /* what it is to stand on: name of a base image, "host", or "" for the default */
	uint64_t created;
	uint64_t modified;
	char *egress;	   /* the operator's word for this Space: "none", "internet", "list"; "": the configuration's */
	int32_t sleep_s;   /* stopped after so long without a visit; 0: as the configuration says; -1: never */
	uint32_t replicas; /* instances that it is to have */
	char *sticky;	   /* key of the cookie that keeps a visitor to one of them, 32 hex digits; "": there is none */
	uint64_t storage;  /* bytes of its persistent volume; 0: none */
	uint32_t volume;   /* which one that is */
	int64_t rate;	   /* requests per second that it may get; 0: no limit; or SPACE_RATE_DEFAULT */
	char *egress_list; /* of "list": entries (sandbox/egress_list.h), a line each */
};
void space_release(struct space *sp);
int store_space_add(struct store *s, const char *owner_id, const char *name, struct space *out, struct err *err);
int store_space_by_name(struct store *s, const char *owner, const char *name, struct space *out, struct err *err);
int store_space_by_id(struct store *s, const char *id, struct space *out, struct err *err);
struct space_filter {
	const char *owner_id;  /* NULL: all */
	const char *viewer_id; /* private ones only of this owner; NULL: public only; "*": all */
	const char *after_id;  /* paging, newest first; NULL: from the start */
	size_t limit;	       /* 0: all */
	const char *search;    /* NULL: all; part of "owner/name", ASCII case folded */
};
int store_space_list(struct store *s, const struct space_filter *f, struct space **out, size_t *n, struct err *err);
/* All "owner/name", sorted by their bytes; given back with store_names_free. */
int store_space_names(struct store *s, char ***out, size_t *n, struct err *err);
void store_names_free(char **names, size_t n);
int store_space_set_stage(struct store *s, const char *id, enum space_stage stage, const char *message,
			  struct err *err);
int store_space_set_card(struct store *s, const char *id, const char *sdk, const char *card_json, struct err *err);
/* `serving`: the generation of the instance that serves it; 0 for a static one. */
int store_space_set_release(struct store *s, const char *id, const char *release_id, uint32_t serving, struct err *err);
int store_space_set_visibility(struct store *s, const char *id, enum space_visibility v, struct err *err);
/* Of texts that were checked; takes effect with the next start. */
int store_space_set_storage(struct store *s, const char *id, uint64_t bytes, struct err *err);
int store_space_set_sleep(struct store *s, const char *id, int32_t seconds, struct err *err);
int store_space_set_egress(struct store *s, const char *id, const char *egress, const char *list, struct err *err);
int store_space_set_rate(struct store *s, const char *id, int64_t rate, struct err *err);
int store_space_set_base(struct store *s, const char *id, const char *base, struct err *err);
int store_space_set_replicas(struct store *s, const char *id, uint32_t replicas, struct err *err);
int store_space_set_sticky(struct store *s, const char *id, const char *key, struct err *err);
/* Generations that serve beside `serving`. */
int store_replica_add(struct store *s, const char *space_id, uint32_t generation, struct err *err);
int store_replica_remove(struct store *s, const char *space_id, uint32_t generation, struct err *err);
int store_replica_list(struct store *s, const char *space_id, uint32_t *out, size_t max, size_t *n, struct err *err);
int store_space_next_generation(struct store *s, const char *id, uint32_t *out, struct err *err);
int store_space_remove(struct store *s, const char *id, struct err *err);
/* What an instance has had from the Internet and sent there so far, in bytes: the larger figures count, so saying it twice does
 * no harm. No error when the Space is gone. */
int store_traffic_note(struct store *s, const char *space_id, uint32_t generation, uint64_t received, uint64_t sent,
		       struct err *err);
int store_traffic_sum(struct store *s, const char *space_id, uint64_t *received, uint64_t *sent, struct err *err);

/* A host name of a Space's own (spaced/domain.h). */
struct domain {
	char *host;
	char space_id[STORE_ID];
	char *space; /* "owner/name" */
	uint64_t created;
};
void domain_release(struct domain *d);
int store_domain_add(struct store *s, const char *space_id, const char *host, struct err *err); /* EEXIST */
int store_domain_remove(struct store *s, const char *space_id, const char *host, struct err *err);
/* Of one Space, or with NULL of all; in the order in which they came. */
int store_domain_list(struct store *s, const char *space_id, struct domain **out, size_t *n, struct err *err);
void store_domains_free(struct domain *list, size_t n);

enum build_state { BUILD_QUEUED, BUILD_RUNNING, BUILD_SUCCEEDED, BUILD_FAILED, BUILD_CANCELLED, BUILD_SUPERSEDED };
const char *build_state_name(enum build_state st);
struct build {
	char id[STORE_ID];
	char space_id[STORE_ID];
	char commit[41];
	char *cause; /* "push", "factory rebuild" */
	enum build_state state;
	char *phase;			    /* the last phase reached: "queued", "source", "dependencies", ... */
	char *error;			    /* one sentence, "" */
	uint64_t queued, started, finished; /* 0: not yet */
};
void build_release(struct build *b);
int store_build_add(struct store *s, const char *space_id, const char *commit, const char *cause, struct build *out,
		    struct err *err);
int store_build_by_id(struct store *s, const char *id, struct build *out, struct err *err);
int store_build_list(struct store *s, const char *space_id, size_t limit, struct build **out, size_t *n,
		     struct err *err);
/* All builds in one of the unfinished states, oldest first (after a restart of control). */
int store_build_unfinished(struct store *s, struct build **out, size_t *n, struct err *err);
int store_build_set(struct store *s, const char *id, enum build_state st, const char *phase, const char *error,
		    struct err *err); /* sets started/finished by the state */

/* What a build made: everything that a start needs. Immutable. */
struct release {
	char id[STORE_ID];
	char space_id[STORE_ID];
	char build_id[STORE_ID];
	char commit[41];
	char *
	    recipe; /* JSON: kind, layers (volume names, topmost first), argv, env, cwd, port, headers; "site" for static */
	uint64_t created;
};
void release_release(struct release *r);
int store_release_add(struct store *s, const char *space_id, const char *build_id, const char *commit,
		      const char *recipe, struct release *out, struct err *err);
int store_release_by_id(struct store *s, const char *id, struct release *out, struct err *err);
int store_release_list(struct store *s, const char *space_id, struct release **out, size_t *n, struct err *err);
int store_release_remove(struct store *s, const char *id, struct err *err);

/* Layers: which volumes exist for which content key, and when they were last used. */
struct layer {
	char *key;    /* hex of a hash over everything that went in */
	char *volume; /* volume name */
	uint64_t created, used;
};
void layer_release(struct layer *l);
int store_layer_get(struct store *s, const char *key, struct layer *out, struct err *err); /* touches `used` */
int store_layer_add(struct store *s, const char *key, const char *volume, struct err *err);
int store_layer_remove(struct store *s, const char *key, struct err *err);
int store_layer_list(struct store *s, struct layer **out, size_t *n, struct err *err);

/* What happened, for people: pushes, builds, stage changes, logins of spacectl. */
int store_event_add(struct store *s, const char *space_id, const char *actor_id, const char *kind, const char *text,
		    struct err *err);
struct event {
	uint64_t id, at;
	char space_id[STORE_ID];
	char actor_id[STORE_ID];
	char *kind, *text;
};
void event_release(struct event *e);
int store_event_list(struct store *s, const char *space_id, size_t limit, struct event **out, size_t *n,
		     struct err *err);

struct store_counts {
	uint64_t users, spaces, running, builds_queued, builds_running;
};
int store_counts(struct store *s, struct store_counts *out, struct err *err);
int store_stage_counts(struct store *s, uint64_t spaces[SPACE_STAGES], struct err *err);

#endif
