/* What pip's requirements files and packages.txt say, as far as a build must know before it runs them: which other files
 * of the repository they take in, so that these join the layer's key. Pure.
 * Source: pip, "Requirements File Format"; Hugging Face reads packages.txt through `xargs -a`. */
#ifndef SPACED_BUILD_REQUIREMENTS_H
#define SPACED_BUILD_REQUIREMENTS_H

#include "spaced/build/tree.h"
#include "spaced/space/header.h"

struct req_file {
	char *path; /* inside the repository */
	char *text;
	size_t len;
};
struct requirements {
	struct req_file *files; /* the file itself first, then what it includes by -r and -c, each once */
	size_t n;
	bool
	    local; /* refers to the repository's own code (`-e .`, `./pkg`, a wheel): the install needs the whole tree */
};
void requirements_release(struct requirements *r);
/* Reads `path` and what it includes into `r` (which may hold files already). 0, also when `path` does not exist; -1 with a
 * reason for people: an included file is missing, nested too deeply, too large. */
int requirements_read(const struct tree *t, const char *path, struct requirements *r, struct err *err);
/* True when a requirement of that (normalised) name is in one of the files. */
bool requirements_name(const struct requirements *r, const char *name);

/* Names of Debian packages; comments and blank lines are skipped. -1: a line is no package name. */
int packages_read(struct str text, struct strings *out, struct err *err);
void packages_release(struct strings *names);

#endif
