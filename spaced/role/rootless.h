/* The daemon of an ordinary user: the parent enters a user namespace in which it is root over what the host lends it
 * (sandbox/ids.h), and a mount namespace of its own; then the same program goes on. The network stays the host's, so the
 * public port is an ordinary one.
 *
 * Sandboxes outlive the daemon and live in namespaces below this one; only who is root here may enter, freeze or replace
 * what belongs to them. So while one runs, the next daemon enters the same namespace again, which the sandbox keeps alive:
 * the kernel lets its owner do so (user_namespaces(7), "Capabilities": the creator has all of them in it). */
#ifndef SPACED_ROLE_ROOTLESS_H
#define SPACED_ROLE_ROOTLESS_H

#include "base/err.h"

/* Nothing as root. Else 0 as root of the namespace, or -1 with what this host does not allow. `state`: the state folder,
 * which need not exist yet. The process must have no other threads. */
int rootless_enter(const char *state, struct err *err);
/* Notes in the state folder whose ids its files have, for the next start. */
int rootless_note(const char *state, struct err *err);

#endif
