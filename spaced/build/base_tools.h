/* Base images as builds and Spaces see them: from a wish to an image (sandbox/base.h), and what that image gives. Reads the
 * records in the state folder, which root writes. */
#ifndef SPACED_BUILD_BASE_TOOLS_H
#define SPACED_BUILD_BASE_TOOLS_H

#include "sandbox/base.h"
#include "spaced/build/recipe.h"

/* `wish`: a name, "host", or "" for the default. `id`: the newest image of that name, "" for the host. -1 with a sentence
 * when there is none. */
int base_resolve(const char *state, const char *wish, char id[BASE_ID], struct err *err);
/* `t` is to be released in any case. */
int base_tools(const char *state, const char *id, struct tools *t, struct err *err);

#endif
