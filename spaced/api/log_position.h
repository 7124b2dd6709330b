/* Where a follower of a log is: "NAME:OFFSET", the file (build/logfile.h) without folder and ending, and how many bytes of it he
 * has. The id of server-sent events and X-Log-Position of plain text; who comes again brings it as Last-Event-ID or `from=`. */
#ifndef SPACED_API_LOG_POSITION_H
#define SPACED_API_LOG_POSITION_H

#include "base/buf.h"
#include "spaced/store/store.h"

#define LOG_NAME_MAX 63

struct log_position {
	char name[LOG_NAME_MAX + 1]; /* "": whichever is followed */
	uint64_t offset;
};
/* What a follower brings; false when it is none. */
bool log_position_parse(struct str text, struct log_position *p);
void log_position_add(struct buf *b, const char *path, uint64_t offset);
/* The run of that Space which it names; false: none. */
bool log_position_run(const struct log_position *p, const char *space_id, uint32_t *generation);
/* The build that it names, of whichever Space; false: none. */
bool log_position_build(const struct log_position *p, char id[STORE_ID]);

#endif
