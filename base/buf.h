/* A growable run of bytes. Running out of memory ends the process (`xmalloc` family): every role is restarted by
 * its parent, and half-handled allocation failures are worse than a clean death. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
void *xreallocarray(void *p, size_t n, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Bytes with a length, owned by somebody else. */
struct str {
	const char *p;
	size_t n;
};
#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})
#define STRZ(s) ((struct str){(s), __builtin_strlen(s)})
bool str_eq(struct str a, const char *b);
bool str_ieq(struct str a, const char *b); /* ASCII case folded */
/* Decimal digits and nothing else, one to `most` (at most 18: no overflow). */
bool str_digits(struct str s, size_t most, uint64_t *v);

/* `data` is always NUL-terminated behind `len` once anything was added; NULL while empty and never grown. */
struct buf {
	char *data;
	size_t len;
	size_t cap;
};
#define BUF_INIT ((struct buf){0})
void buf_release(struct buf *b);
#define cleanup_buf __attribute__((cleanup(buf_release)))
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addv(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Drops `n` bytes from the front. */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b);
/* Hands the (NUL-terminated, malloc'd) bytes to the caller and leaves the buffer empty. Never NULL. */
char *buf_steal(struct buf *b, size_t *len);

#endif
