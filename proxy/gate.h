/* What control answers when a proxy asks whether the user of a token may enter a private Space (route.h: PROXY_ASK). */
#ifndef PROXY_GATE_H
#define PROXY_GATE_H

enum gate_verdict {
	VERDICT_NONE, /* nothing was brought; never in a frame */
	VERDICT_ENTER,
	VERDICT_WRONG,	 /* no such token: 401 */
	VERDICT_FOREIGN, /* a user who may not: 404, as for a Space that does not exist */
	VERDICT_SLOW,	 /* too many wrong tokens from this address: 429 */
	VERDICT_LATER,	 /* cannot be told now: 503 */
};

#endif
