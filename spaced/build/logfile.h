/* Log files of builds and runs: STATE/logs/build-{id}.log, run-{space id}-{generation}.log. The file is the truth;
 * pushes, the API and pages follow it. Sandboxes append to the same file through their monitor. */
#ifndef SPACED_BUILD_LOGFILE_H
#define SPACED_BUILD_LOGFILE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "spaced/config.h"

char *logfile_build(const struct config *c, const char *build_id);		      /* malloc'd path */
char *logfile_run(const struct config *c, const char *space_id, uint32_t generation); /* malloc'd path */
int logfile_open(const char *path);						      /* O_APPEND; fd or -errno */
void logfile_printf(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Opens, appends, closes: for the rare line of somebody who does not hold the file. */
void logfile_append(const char *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
off_t logfile_size(const char *path); /* 0 when there is none */
/* The last `lines` lines (at most `max` bytes) after byte `from`. */
void logfile_tail(const char *path, off_t from, size_t max, unsigned lines, struct buf *out);
/* "2026-04-04 11:56:33" (UTC) */
void logfile_time(char out[32]);

#endif
