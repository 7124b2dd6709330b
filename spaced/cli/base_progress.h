/* What a person sees of a base being made: phases, on a terminal with the last line of output below them; and what was said
 * last when it fails. */
#ifndef SPACED_CLI_BASE_PROGRESS_H
#define SPACED_CLI_BASE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_TAIL 20

struct progress {		   /* all zero to begin with */
	char *tail[PROGRESS_TAIL]; /* a ring */
	size_t lines;
	uint64_t began; /* ms */
	uint64_t drawn;
};
void progress_phase(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_line(void *p, const char *line); /* as bootstrap.line wants it */
/* Clears the moving line; `tell`: prints the last lines. */
void progress_end(struct progress *p, bool tell);

#endif
