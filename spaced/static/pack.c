/* See pack.h. */
#include "spaced/static/pack.h"

#include <brotli/encode.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>
#include <zlib.h>

#define ENTRIES_MAX 4096
#define STEP (64U * 1024)

struct entry {
	char key[96];
	bool busy;	   /* a thread is packing it */
	struct blob *blob; /* NULL when not busy: it does not shrink */
	UT_hash_handle hh;
};
static struct entry *cache; /* oldest use first */
static size_t cached_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct blob *blob_new(size_t n)
{
	struct blob *b = xmalloc(sizeof *b + n);

	b->refs = 1;
	b->n = n;
	return b;
}

static struct blob *blob_get(struct blob *b)
{
	__atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
	return b;
}

void blob_put(struct blob *b)
{
	if (b && __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(b);
}

/* Reads the file in steps and hands each to `sink`; false when it does not have `size` bytes or the sink gives up. */
static bool feed(int fd, uint64_t size, bool (*sink)(void *ctx, const char *p, size_t n, bool last), void *ctx)
{
	char *step = xmalloc(STEP);
	uint64_t at = 0;
	bool ok = true;

	while (ok && at < size) {
		ssize_t n = pread(fd, step, STEP, (off_t)at);
		ok = n > 0 && (uint64_t)n <= size - at;
		if (ok) {
			at += (uint64_t)n;
			ok = sink(ctx, step, (size_t)n, at == size);
		}
	}
	free(step);
	return ok;
}

struct gzip {
	z_stream z;
	struct buf out;
	size_t max;
};

static bool gzip_step(void *ctx, const char *p, size_t n, bool last)
{
	struct gzip *g = ctx;
	int r;

	g->z.next_in = (Bytef *)(uintptr_t)p;
	g->z.avail_in = (uInt)n;
	do {
		buf_reserve(&g->out, STEP);
		g->z.next_out = (Bytef *)g->out.data + g->out.len;
		g->z.avail_out = STEP;
		r = deflate(&g->z, last ? Z_FINISH : Z_NO_FLUSH);
		g->out.len += STEP - g->z.avail_out;
	} while (g->z.avail_out == 0 && r != Z_STREAM_ERROR && g->out.len <= g->max);
	return r != Z_STREAM_ERROR && g->out.len <= g->max;
}

static bool gzip_file(int fd, uint64_t size, size_t max, struct buf *out)
{
	struct gzip g = {.max = max};

	if (deflateInit2(&g.z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return false;
	bool ok = feed(fd, size, gzip_step, &g);
	deflateEnd(&g.z);
	*out = g.out;
	return ok;
}

struct brotli {
	BrotliEncoderState *state;
	struct buf out;
	size_t max;
};

static bool brotli_step(void *ctx, const char *p, size_t n, bool last)
{
	struct brotli *b = ctx;
	const uint8_t *in = (const uint8_t *)p;
	BrotliEncoderOperation op = last ? BROTLI_OPERATION_FINISH : BROTLI_OPERATION_PROCESS;

	do {
		size_t room = 0;
		if (!BrotliEncoderCompressStream(b->state, op, &n, &in, &room, NULL, NULL))
			return false;
		size_t got = 0;
		const uint8_t *p_out = BrotliEncoderTakeOutput(b->state, &got);
		buf_add(&b->out, p_out, got);
		if (b->out.len > b->max)
			return false;
	} while (n || BrotliEncoderHasMoreOutput(b->state) || (last && !BrotliEncoderIsFinished(b->state)));
	return true;
}

static bool brotli_file(int fd, uint64_t size, size_t max, struct buf *out)
{
	struct brotli b = {.state = BrotliEncoderCreateInstance(NULL, NULL, NULL), .max = max};

	if (!b.state)
		return false;
	BrotliEncoderSetParameter(b.state, BROTLI_PARAM_QUALITY, 5);
	BrotliEncoderSetParameter(b.state, BROTLI_PARAM_LGWIN, 20);
	BrotliEncoderSetParameter(b.state, BROTLI_PARAM_SIZE_HINT, (uint32_t)size);
	bool ok = feed(fd, size, brotli_step, &b);
	BrotliEncoderDestroyInstance(b.state);
	*out = b.out;
	return ok;
}

/* NULL when it does not shrink by a tenth. */
static struct blob *pack(enum coding coding, int fd, uint64_t size)
{
	struct buf out = BUF_INIT;
	size_t max = (size_t)(size - size / 10);
	struct blob *b = NULL;

	if (coding == CODING_BR ? brotli_file(fd, size, max, &out) : gzip_file(fd, size, max, &out)) {
		b = blob_new(out.len);
		memcpy(b->data, out.data, out.len);
	}
	buf_release(&out);
	return b;
}

static void drop_locked(struct entry *e)
{
	HASH_DEL(cache, e);
	if (e->blob)
		cached_bytes -= e->blob->n;
	blob_put(e->blob);
	free(e);
}

static void shrink_locked(void)
{
	struct entry *e, *next;

	for (e = cache; e && (cached_bytes > PACK_CACHE_BYTES || HASH_COUNT(cache) > ENTRIES_MAX); e = next) {
		next = e->hh.next;
		if (!e->busy)
			drop_locked(e);
	}
}

struct blob *pack_get(const char *etag, enum coding coding, int fd, uint64_t size)
{
	struct entry *e;
	struct blob *b = NULL;
	char key[sizeof e->key];

	if (coding == CODING_NONE || size < PACK_MIN || size > PACK_MAX ||
	    (size_t)snprintf(key, sizeof key, "%d%s", (int)coding, etag) >= sizeof key)
		return NULL;
	pthread_mutex_lock(&lock);
	HASH_FIND_STR(cache, key, e);
	if (e) {
		HASH_DEL(cache, e);
		HASH_ADD_STR(cache, key, e);
		b = e->blob ? blob_get(e->blob) : NULL;
		pthread_mutex_unlock(&lock);
		return b;
	}
	e = xcalloc(1, sizeof *e);
	memcpy(e->key, key, sizeof key);
	e->busy = true;
	HASH_ADD_STR(cache, key, e);
	pthread_mutex_unlock(&lock);

	b = pack(coding, fd, size);

	pthread_mutex_lock(&lock);
	e->busy = false;
	e->blob = b ? blob_get(b) : NULL;
	cached_bytes += b ? b->n : 0;
	shrink_locked();
	pthread_mutex_unlock(&lock);
	return b;
}

void pack_cache_clear(void)
{
	struct entry *e, *next;

	pthread_mutex_lock(&lock);
	for (e = cache; e; e = next) {
		next = e->hh.next;
		if (!e->busy)
			drop_locked(e);
	}
	pthread_mutex_unlock(&lock);
}

size_t pack_cache_bytes(void)
{
	pthread_mutex_lock(&lock);
	size_t n = cached_bytes;
	pthread_mutex_unlock(&lock);
	return n;
}
