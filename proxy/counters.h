/* What a proxy process counts for each Space, and for what belongs to none. Numbers that only grow, and what is there now. A
 * worker tells control the growth since it last did (PROXY_ACTIVITY); control adds it up, so that the end of a worker loses a
 * second and no sum ever shrinks. Counting is an addition in memory: nothing is allocated for a request.
 * Times are milliseconds. */
#ifndef PROXY_COUNTERS_H
#define PROXY_COUNTERS_H

#include "base/frame.h"

/* Why the proxy answered in the app's place, as the access log and /metrics name it. */
enum refusal {
	REFUSED_NOT,
	REFUSED_CONNECTIONS,	    /* of this process: too many */
	REFUSED_CLIENT_CONNECTIONS, /* of one address: too many */
	REFUSED_CLIENT_RATE,	    /* requests per second of one address */
	REFUSED_SPACE_RATE,	    /* requests per second for one Space */
	REFUSED_MALFORMED,	    /* http1.h's policy */
	REFUSED_SLOW,		    /* the request did not arrive in time */
	REFUSED_HOST,		    /* nobody is served at this address */
	REFUSED_ACCESS,		    /* the gate of private Spaces */
	REFUSED_SPACE_REQUESTS,	    /* of one Space, in flight: too many */
	REFUSED_HELD,		    /* of one Space, waiting for its start: too many */
	REFUSED_HELD_LONG,	    /* waited until its deadline */
	REFUSED_APP,		    /* the app could not be reached, did not answer, or not in HTTP */
	REFUSALS
};
const char *refusal_name(enum refusal r); /* "host"; "" for REFUSED_NOT */

/* Upper ends, inclusive, of the classes of durations; one more is without end. */
#define DURATIONS 9
extern const uint32_t duration_ms[DURATIONS - 1];

enum counter {
	COUNT_REQUESTS,					/* begun */
	COUNT_ANSWERED,					/* by status, 1xx (a WebSocket) to 5xx */
	COUNT_DURATION = COUNT_ANSWERED + 5,		/* of answers with an end, by class */
	COUNT_DURATION_MS = COUNT_DURATION + DURATIONS, /* their sum */
	COUNT_BYTES_IN,
	COUNT_BYTES_OUT,
	COUNT_HELD,
	COUNT_WAKES,				      /* by control itself: it knows how many requests were one */
	COUNT_REFUSED,				      /* by reason */
	COUNT_CONNECTIONS = COUNT_REFUSED + REFUSALS, /* accepted; of no Space, as what follows */
	COUNT_LOG_DROPPED,			      /* lines of the access log */
	COUNTERS
};
_Static_assert(COUNTERS < 64, "a frame has a bit for each");

enum gauge { GAUGE_OPEN, GAUGE_WEBSOCKETS, GAUGE_HELD, GAUGE_CONNECTIONS, GAUGES };

struct counters {
	uint64_t n[COUNTERS];
	uint32_t now[GAUGES];
};

/* A request that was answered with `status`, `ms` after its head had come. `endless`: a WebSocket or a stream of events, of
 * which a duration says nothing. */
void counters_answered(struct counters *c, unsigned status, uint64_t ms, bool endless);
bool counters_any(const struct counters *c); /* something grew */
/* Of that growth: did anybody visit, or is there still? Not who was only told by the gate that he may not. */
bool counters_visited(const struct counters *c);

/* On the wire: a word with a bit for each number that is not 0, those numbers, the gauges. */
void counters_put(struct buf *b, const struct counters *c);
void counters_get(struct reader *rd, struct counters *c); /* rd->bad when it is none */

#endif
