/* The shells (sandbox.h) that the spawner keeps ready for the next starts of apps. Internal to the spawner.
 *
 * The makers (shell_maker.h) are forked from the spawner before that has a channel, a sandbox or a request, so that what they
 * fork holds no descriptor of control's or of another sandbox, and has never seen a byte of a Space. For each shell one
 * forks a process that makes it, waits with it, and becomes the monitor of the instance to which it is given;
 * when the spawner has gone, or the shell has died, that process removes what it has made.
 *
 * A shell has a number, and with it a range of ids, behind those that control gives to Spaces, and a cgroup. An instance
 * made of it keeps all three, and its note says so (instance_info.shell): the number is free again when the instance has
 * ended, also after a restart of the spawner. Files are shown to each range as 0-based ids, so a Space's data does not
 * depend on it. Whoever makes anything of a number holds a lock on its byte of STATE/sandboxes/.shells until all of that is
 * gone again, or is an instance's. */
#ifndef SANDBOX_SHELLS_H
#define SANDBOX_SHELLS_H

#include "sandbox/start.h"

#define SHELL_NUMBERS 4096
#define SHELL_IDS_FROM 65536U /* ranges of SANDBOX_IDS from spawner_config.id_base on: so many for Spaces, then ours */

/* Forks the makers, where there can be shells: as root, with cgroups, and mounts that are handed over by descriptor. `control`
 * is what they may not keep. */
int shells_init(struct spawn *s, int control, struct err *err);
/* Asks for those that are missing. After all instances have been adopted, for their numbers are not free; and when a start is
 * through, not before, so that it does not wait for this. */
void shells_refill(struct spawn *s);
/* One that is ready, for a spec of an app; NULL: the start makes all by itself. To be given or ended. */
struct shell *shells_take(struct spawn *s, const struct sandbox_spec *spec);
/* It becomes st->i, which follows its monitor then. On failure it is still the caller's. */
int shell_give(struct shell *shell, const struct start *st, struct err *err);
void shell_end(struct shell *shell);
/* All of them are gone when it returns. */
void shells_end(struct spawn *s);
uint32_t shell_ids(const struct spawn *s, uint32_t number);
void shell_group(uint32_t number, char out[SANDBOX_NAME_MAX + 1]);

#endif
