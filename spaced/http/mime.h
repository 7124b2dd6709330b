/* Content types by file name. An own table: the host's mime.types may be missing, and must not decide what a site says. */
#ifndef SPACED_HTTP_MIME_H
#define SPACED_HTTP_MIME_H

#include <stdbool.h>

struct mime {
	const char *ext;  /* lower case, without the dot */
	const char *type; /* as sent: with charset for text */
	bool compress;	  /* worth gzip or brotli */
};

/* By the last extension of the last path element, case folded. Never NULL: unknown is application/octet-stream, and a
 * name without extension (LICENSE) text/plain. */
const struct mime *mime_of(const char *path);

#endif
