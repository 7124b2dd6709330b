/* A word to the service manager, as sd_notify(3) describes it: one datagram to the socket that NOTIFY_SOCKET names. */
#ifndef SPACED_ROLE_NOTIFY_H
#define SPACED_ROLE_NOTIFY_H

/* `state`: "READY=1", "STOPPING=1". No-op without a service manager, and when it does not listen. */
void notify(const char *state);

#endif
