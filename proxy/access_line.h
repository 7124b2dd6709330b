/* A line of the access log: one JSON object, ASCII alone, with a newline behind it. Whatever bytes came from outside, they stay
 * within their string: quotes, control bytes and what is no ASCII are escaped. Secrets in the address are not written: values
 * of parameters whose name says so, and what looks like a token of Hugging Face or ours. Pure; fuzzed. */
#ifndef PROXY_ACCESS_LINE_H
#define PROXY_ACCESS_LINE_H

#include "proxy/counters.h"

/* Longer ones are cut. */
#define ACCESS_PATH_MAX 1024
#define ACCESS_AGENT_MAX 256
#define ACCESS_LINE_MAX 16384 /* of a line; each byte of the strings can take six */

/* Empty strings, zero times and false are left out, but for what is said to be there always. */
struct access_entry {
	uint64_t at;			/* ms since 1970: when it was over; always */
	struct str space, host;		/* the Space first, always, "" for none: readers look for it at its place */
	struct str method, path, agent; /* the path with its query */
	struct str client, request_id;
	const char *detail; /* of a refused head: the rule */
	uint16_t status;    /* always; 499: the client left before an answer */
	uint8_t minor;	    /* HTTP/1.minor */
	enum refusal refused;
	uint64_t bytes_in, bytes_out, duration_ms; /* always */
	bool answered, held, woke, websocket, aborted;
	uint64_t upstream_ms; /* when `answered`: from the last byte of the head to the app until its own head */
	uint64_t held_ms;     /* when `held` */
	uint32_t sample;      /* it stands for so many; 0 and 1: itself */
};
void access_line(struct buf *out, const struct access_entry *e);
/* "{"time":…,"dropped":n}": so many lines are missing before this one. */
void access_line_dropped(struct buf *out, uint64_t at, uint64_t n);

/* Where the value of "space" begins in a line. */
#define ACCESS_SPACE_AT (sizeof "{\"time\":\"2026-01-01T00:00:00.000Z\",\"space\":\"" - 1)

/* For who takes lines from a process that is trusted less: are these so many of them, whole, in ASCII, each as long as one can
 * be, and with "space" at its place? What they say is that process's word. */
bool access_lines_ok(struct str bytes, uint32_t lines);

#endif
