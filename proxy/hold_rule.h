/* How long a request waits for an app that sleeps or starts, and what it gets when that was too short. Pure.
 *
 *   a person's browser that opens a page      a moment, then a page that reloads itself (and holds in its stead)
 *   all else: API calls, POST, WebSockets     until the deadline, then 503 with Retry-After
 *
 * X-Scale-Up-Timeout: SECONDS moves the deadline, up to a maximum; who sends it is a program, also when it takes HTML. */
#ifndef PROXY_HOLD_RULE_H
#define PROXY_HOLD_RULE_H

#include "proxy/http1.h"
#include "proxy/proxy.h"

struct hold_rule {
	bool page; /* the waiting page at the end */
	uint32_t wait_ms;
};
struct hold_rule hold_rule_of(const struct http1_request *r, const struct proxy_limits *limits);

#endif
