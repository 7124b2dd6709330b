/* A recipe: what one kind of app needs to be built and run, as data. recipe_make() decides (pure, unit-tested); build.c
 * drives it. Layers are made in the order of the list and lie above each other in it: the last one is topmost. */
#ifndef SPACED_BUILD_RECIPE_H
#define SPACED_BUILD_RECIPE_H

#include "sandbox/spec.h"
#include "spaced/build/kind.h"
#include "spaced/build/layer.h"
#include "spaced/build/requirements.h"

#define RECIPE_LAYERS 4
#define RECIPE_STEPS 8

/* What a base's /usr gives builds: the host's, found once, or a base image's, found when it was made and kept in its record
 * (sandbox/base.h) as "tools". */
struct tools {
	char base[96];		/* identity of the base: "host debian 12 x86_64", "NAME-VERSION x86_64" */
	char python[16];	/* of /usr/bin/python3: "3.11"; "" when there is none */
	struct strings pythons; /* every "3.N" found */
	char python_stamp[32], node_stamp[32]; /* changes when the program changes */
	bool uv, node, npm, apt;
};
/* Below `root`, the descriptor of a system's root; no link leads out of it. `id` of a base image; NULL: the host. */
void tools_find(struct tools *t, int root, const char *id);
void tools_find_host(struct tools *t);
void tools_release(struct tools *t);
struct json_t *tools_json(const struct tools *t);
/* False when it is damaged; `t` is to be released in any case. */
bool tools_from_json(const struct json_t *j, struct tools *t);

enum step_input {
	INPUT_NONE,
	INPUT_TREE,  /* the commit's tree as a tar stream */
	INPUT_BYTES, /* step.input: a few files as a tar stream */
};
struct step {
	const char *phase; /* what people read: "packages", "dependencies", "source", "build" */
	enum sandbox_profile profile;
	bool internet;
	enum step_input input_kind;
	bool output_site;		/* stdout is a tar stream: the files of a static site */
	char **argv, **env;		/* NULL-ended */
	char **fallback;		/* tried when argv fails and the log says one of `fallback_on`; or NULL */
	const char *const *fallback_on; /* NULL-ended */
	const char *fallback_note;
	char *cwd;
	struct buf input;
	bool show; /* print argv to the log */
};

struct layer_plan {
	const char *phase;
	char prefix[8];	     /* "deps", "pkgs", "node", "src" */
	char key[LAYER_KEY]; /* "": belongs to this build alone */
	bool scratch;	     /* thrown away at the end: a static site's work tree */
	struct step steps[RECIPE_STEPS];
	size_t nsteps;
};

struct recipe {
	enum kind kind;
	struct layer_plan layers[RECIPE_LAYERS];
	size_t nlayers;
	/* run */
	char **argv; /* NULL for static */
	uint16_t port;
	/* static */
	char *site_json;
	struct strings notes; /* printed before the first step */
};

/* 0; -1 with the sentence of a BUILD_ERROR. `out` is always to be released. */
int recipe_make(const struct card *card, const struct verdict *v, const struct tree *tree, const struct tools *tools,
		struct recipe *out, struct err *err);
void recipe_release(struct recipe *r);

/* ---- for the recipe_*.c files ---- */
struct making {
	const struct card *card;
	const struct verdict *verdict;
	const struct tree *tree;
	const struct tools *tools;
	struct recipe *out;
};
int recipe_static(struct making *m, struct err *err);
int recipe_static_build(struct making *m, struct err *err);
int recipe_gradio(struct making *m, struct err *err);
int recipe_streamlit(struct making *m, struct err *err);
int recipe_python(struct making *m, struct err *err);
int recipe_node(struct making *m, struct err *err);
int recipe_procfile(struct making *m, struct err *err);

/* Parts that several kinds share. */
int recipe_add_packages(struct making *m, struct err *err); /* packages.txt */
int recipe_add_python(struct making *m, const char *const *extra, const char *const *plain, struct err *err);
int recipe_add_node(struct making *m, bool with_dev, struct err *err); /* package.json */
struct layer_plan *recipe_add_source(struct making *m);
struct layer_plan *recipe_layer(struct making *m, const char *prefix, const char *phase);
struct step *recipe_step(struct layer_plan *l, const char *phase); /* profile BUILD, no network, cwd /app */
void recipe_note(struct making *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char **argv_of(const char *first, ...) __attribute__((sentinel));
char **argv_add(char **argv, const char *arg); /* reallocates */
void argv_free(char **argv);
/* A tar of `files` with `prefix` before each path. */
void recipe_tar(const struct req_file *files, size_t n, const char *prefix, struct buf *out);
/* `./x` when it would look like an option. malloc'd. */
char *recipe_file_arg(const char *path);
int recipe_tree_key(struct making *m, struct layer_hash *h, struct err *err); /* adds the whole tree */

#endif
