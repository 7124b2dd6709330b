/* Which TCP ports are listened on inside a sandbox: for "listening on 8000, expected 7860". Pure, but for the reading. */
#ifndef SANDBOX_LISTENERS_H
#define SANDBOX_LISTENERS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

#define LISTENERS_MAX 256

/* Appends a put_str "ADDR:PORT" for each socket in state LISTEN in the text of /proc/net/tcp (or tcp6); returns how many,
 * at most `max`. */
uint32_t listeners_parse(const char *text, uint32_t max, struct buf *out);
/* The same for the network namespace of process `pid`. */
uint32_t listeners_of(pid_t pid, struct buf *out);

#endif
