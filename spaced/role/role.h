/* Roles: the processes of the daemon. The parent execs this program again for each (fresh address space), with its
 * descriptors at fixed numbers. See roles.c for who gets what. */
#ifndef SPACED_ROLE_H
#define SPACED_ROLE_H

#include "spaced/config.h"

/* The parent itself: sockets, forks, restarts. Returns the exit status. */
int role_parent(const struct config *config);
int role_spawner(const struct config *config);
int role_control(const struct config *config);
int role_proxy(const struct config *config);
int role_static(const struct config *config);

#endif
