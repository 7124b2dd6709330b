/* The channels of the spawner, to control and the proxies, and what is asked on them. Internal to the spawner. */
#ifndef SANDBOX_LINK_H
#define SANDBOX_LINK_H

#include "sandbox/instance.h"

/* One peer. A request is read only when nothing waits to be sent: a peer that does not read its answers gets no more. */
struct link {
	struct source src;
	struct spawn *s;
	struct link *next; /* of s->links */
	bool control;
	bool dead;
	struct reply *first;
};

/* link.c */
/* Takes `fd` over; NULL: logged. */
struct link *link_add(struct spawn *s, int fd, bool control);
/* Takes the descriptors over. */
void link_send(struct link *l, uint32_t type, uint32_t id, const struct buf *payload, int *fds, int nfds);
void link_error(struct link *l, uint32_t id, const struct err *err);

/* verbs.c: one request, which is answered now or later */
void verb_handle(struct link *l, struct frame *f);

#endif
