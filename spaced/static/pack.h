/* Compressed forms of text files, made on the fly and kept in a bounded cache. Called on worker threads. */
#ifndef SPACED_STATIC_PACK_H
#define SPACED_STATIC_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "spaced/static/path.h"

#define PACK_MIN 1024U		    /* below, the head of an answer is longer than the gain */
#define PACK_MAX (8U * 1024 * 1024) /* above, a file is sent as it is */
#define PACK_CACHE_BYTES (16U * 1024 * 1024)

/* Bytes shared by several answers. */
struct blob {
	int refs; /* atomic */
	size_t n;
	char data[];
};
struct blob *blob_new(size_t n); /* one reference */
void blob_put(struct blob *b);	 /* NULL is fine */

/* The file behind `fd`, packed; `etag` names its content. NULL: send it as it is (it does not shrink, or another thread
 * is just packing it). */
struct blob *pack_get(const char *etag, enum coding coding, int fd, uint64_t size);
void pack_cache_clear(void);
size_t pack_cache_bytes(void);

#endif
