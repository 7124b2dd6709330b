/* Control's end of the access log: batches of lines from the proxies go into STATE/access/access.log (0600, control's). Half of the
 * room filled, it becomes access.log.1, in the place of the one before. Written by libuv's threads: the loop does not wait for
 * the disk, and a proxy sends its next batch when the last one is written, so what waits here is one batch for each.
 * It is read by api/access_log.c. */
#ifndef SPACED_ACCESS_FILE_H
#define SPACED_ACCESS_FILE_H

#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

#define ACCESS_LOG_NAME "access.log"
#define ACCESS_LOG_OLD "access.log.1"

struct access_file;
/* `room`: bytes of both files together. `written` comes for each batch, with the number of lines that were lost. */
struct access_file *access_file_new(uv_loop_t *loop, const char *folder, uint64_t room,
				    void (*written)(void *ctx, uint64_t peer, uint32_t lost), void *ctx,
				    struct err *err);
/* Needs the loop to run once more; no callback comes after this. */
void access_file_free(struct access_file *l);
/* Copied. `lines`: how many they are. */
void access_file_write(struct access_file *l, uint64_t peer, struct str bytes, uint32_t lines);

#endif
