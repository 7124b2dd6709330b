/* What kind of app a commit holds: by the header of its README.md or, without one, by its files. Pure. */
#ifndef SPACED_BUILD_KIND_H
#define SPACED_BUILD_KIND_H

#include "spaced/build/tree.h"
#include "spaced/space/header.h"

enum kind {
	KIND_NONE, /* NO_APP_FILE; `why` says what is missing */
	KIND_BAD,  /* CONFIG_ERROR; `why` says what is wrong */
	KIND_STATIC,
	KIND_STATIC_BUILD, /* static with app_build_command */
	KIND_GRADIO,
	KIND_STREAMLIT,
	KIND_PROCFILE,
	KIND_NODE,
	KIND_PYTHON, /* no header: app.py */
	KIND_DOCKER, /* recognised; images are not built yet */
};
const char *kind_name(enum kind k); /* as in space.sdk: "static" for both static ones */

struct verdict {
	enum kind kind;
	char *app_file; /* main file; NULL for procfile, node, docker */
	char *command;	/* procfile: the web line; static+build: app_build_command */
	char why[400];
};
void verdict_release(struct verdict *v);
void kind_decide(const struct card *card, const struct tree *tree, struct verdict *out);

/* The command of the `web:` line of a Procfile; false when there is none. */
bool procfile_web(struct str text, struct buf *command);

#endif
