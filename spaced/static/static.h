/* The static role: serves the files of static Spaces. Its own user, nothing but read access to STATE/sites. The proxy
 * names the release in X-Spaced-Site. And the extract role, which fills such a folder from a tar stream. */
#ifndef SPACED_STATIC_H
#define SPACED_STATIC_H

#include "base/err.h"
#include "spaced/config.h"

#include <uv.h>

/* Runs until `control` (the parent's socket) closes. `listener`: listening unix socket. `sites_fd`: O_PATH of STATE/sites.
 * sites/{id}/site.json: {"root": "dist", "index": "index.html", "redirect": "pages/a.html"|absent, "headers": {..}} */
int static_main(int listener, int parent, int sites_fd);

/* Starts the confined extract role: a tar stream from `in_fd` (taken over) into STATE/sites/{id}/files, with site.json
 * written beside it; sha256 of each file goes to the xattr user.spaced.sha256 (its ETag). Symlinks are kept only when they
 * stay inside; no devices, hard links outside, `..`, absolute names. `done` once, with NULL or what went wrong; on failure
 * the folder is removed. */
int site_extract(uv_loop_t *loop, const struct config *config, const char *id, int in_fd, const char *site_json,
		 void (*done)(void *ctx, const char *error), void *ctx, struct err *err);
int site_remove(const struct config *config, const char *id, struct err *err);
int site_extract_main(int argc, char **argv);

#endif
