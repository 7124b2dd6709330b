/* The state folder and the listening sockets: what the parent prepares. All in words for people on failure. */
#ifndef SPACED_ROLE_STATE_H
#define SPACED_ROLE_STATE_H

#include "spaced/role/role.h"

/* Makes what is missing, checks owners, and takes the lock of the folder (held until *lock is closed) unless *lock is not -1,
 * then it was handed over. */
int state_prepare(const struct config *c, const struct accounts *a, int *lock, struct err *err);
/* A state folder below one that only its owner may enter (./var of a checkout in a home) is closed to the roles, which
 * are other users: they get it at /run/spaced (without root: /mnt), by a bind mount in a mount namespace of the daemon's own, and c->state
 * says so from then on. Outside, nothing changes. */
int state_reachable(struct config *c, struct err *err);
/* A listening, non-blocking unix stream socket at dir/name; a stale one is replaced. fd or -1. */
int state_listen_unix(const char *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct err *err);
/* The same for "ADDR:PORT". */
int state_listen_tcp(const char *where, struct err *err);
/* Is it a socket that listens there? Made non-blocking. */
int state_check_listener(int fd, const char *where, struct err *err);
/* Is the folder that `lock` was taken of the one of `c`, and of its accounts? Changes nothing. */
int state_check(const struct config *c, const struct accounts *a, int lock, struct err *err);

#endif
