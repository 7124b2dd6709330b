/* The error object of control code (sandbox/, spaced/): functions return 0 or -1 and fill the last argument.
 * The hot path of proxy/ uses negative errno instead. Nothing logs deep down *and* returns an error. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

struct err {
	int code;      /* an errno value, or 0 where none fits */
	char msg[500]; /* one line, for a person: what failed, on what, what to do */
};

#define ERR_INIT ((struct err){0})

/* Sets the error and returns -1. The text of `code` (when not 0) is appended: "open `x`: No such file". */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same without the text of `code`: for messages that are whole sentences. */
int err_text(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts context before an error that is already set, and returns -1: "start `x`: mount `y`: ...". */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#if defined(__clang_analyzer__) && !defined(BASE_ERR_C) /* tells it what it cannot see: they return -1 */
#define err_set(...) (err_set(__VA_ARGS__), -1)
#define err_text(...) (err_text(__VA_ARGS__), -1)
#define err_prefix(...) (err_prefix(__VA_ARGS__), -1)
#endif

#endif
