/* What the daemon needs of this host, found out by the parent before it makes anything. */
#ifndef SPACED_ROLE_HOST_H
#define SPACED_ROLE_HOST_H

#include "base/err.h"

/* 0, or -1 with a sentence that says what to do: without this no app could be started at all. */
int host_check(struct err *err);
/* Logs each protection that this host cannot give, from a process of its own that ends by itself (it takes a while, and
 * much memory). Call it before there are descriptors to inherit. */
void host_report(void);
/* What Spaces stand on that name no base. */
void host_report_base(const char *state);

#endif
