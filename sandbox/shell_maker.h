/* The makers: the processes that make shells (shells.h) and wait with them. Internal to the spawner.
 *
 * There are two, equal ones: both wait for requests, and when one has died the other forks it anew, from a memory and descriptors
 * as clean as its own. Only when both are killed at once is nobody there any more. Nobody else is so clean, so the spawner then
 * ends when it has nothing to do (spawner.c), and the daemon starts another one. */
#ifndef SANDBOX_SHELL_MAKER_H
#define SANDBOX_SHELL_MAKER_H

#include "sandbox/instance.h"

enum {
	SHELL_MAKE = 1, /* to the maker: {}, id: the number; fd: the channel */
	SHELL_MADE,	/* on the channel, to the spawner: {} */
	SHELL_DEAD,	/* the same: {}, not to be given to anybody; what is left of it is removed now */
	SHELL_SPEC,	/* from it: {spec} */
	SHELL_START,	/* then: {str skeleton, u64 log budget, u32 egress, u8 has_stdin, u8 has_stdout}
			   fds: log, log pipe (both ends), listener, record, [stdin], [stdout] */
};
enum { FD_LOG, FD_PIPE_OUT, FD_PIPE_IN, FD_LISTENER, FD_RECORD, FD_STDIO };

/* The life of the first one, which forks the second. `requests` is a SEQPACKET socket; they end when it does. */
_Noreturn void shell_makers(struct spawn *s, int requests);

#endif
