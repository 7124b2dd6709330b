/* The host's apt sources, as far as a base image needs them: which mirrors carry the distribution itself, with the keyrings
 * and options they are used with. Reads both formats of sources.list(5). Pure; called by base.c. */
#ifndef SPACED_CLI_APT_SOURCES_H
#define SPACED_CLI_APT_SOURCES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Appends to `out`, as deb822 stanzas, those sources of `text` (`deb822`, else the one-line format) that carry the release
 * `from` ("bookworm", also named "stable") with its updates and security; for the release `to` instead. Third-party
 * archives, other releases and source packages are left out. Returns the number of stanzas. */
size_t apt_sources_take(const char *text, bool deb822, const char *from, const char *to, struct buf *out);
/* The first URI of stanzas made by apt_sources_take(); false when there is none. */
bool apt_sources_mirror(const char *stanzas, char *uri, size_t size);
/* Calls `found` for each absolute path behind a Signed-By. */
void apt_sources_keyrings(const char *stanzas, void (*found)(void *ctx, const char *path), void *ctx);

#endif
