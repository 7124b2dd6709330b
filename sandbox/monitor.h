/* The monitor: one process per sandbox. It copies what the sandbox prints to the log, within a byte budget, learns how it
 * ended, and keeps the descriptors that stand for it, so that a new spawner can take the sandbox over; it enforces
 * nothing. It gives up every privilege and outlives the spawner. The spawner holds copies of all descriptors: a monitor
 * that dies is replaced, and the sandbox goes on.
 *
 * Whoever connects to its socket (in a folder only root can enter) gets MONITOR_STATE first. */
#ifndef SANDBOX_MONITOR_H
#define SANDBOX_MONITOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum monitor_fd {
	MONITOR_PIDFD, /* of init */
	MONITOR_NETNS,
	MONITOR_STATUS,	  /* init writes the main process' wait status here */
	MONITOR_LOG_PIPE, /* read end of what the sandbox prints */
	MONITOR_LOG,	  /* the log, O_APPEND */
	MONITOR_LISTENER, /* SEQPACKET socket STATE/sandboxes/NAME/monitor */
	MONITOR_RECORD,	  /* STATE/sandboxes/NAME/exit: struct monitor_record */
	MONITOR_EXEC,	  /* to init, for commands inside; never read here: exec.h */
	MONITOR_NFDS
};

enum monitor_event {
	MONITOR_STATE = 1,   /* {u32 pid of init} fds: MONITOR_NFDS */
	MONITOR_FAILED,	     /* {u32 errno, str}: the start failed; the monitor ends */
	MONITOR_MAIN_EXITED, /* {}: the main process has ended, init should follow at once */
	MONITOR_EXITED,	     /* {}: all has ended, the record is written; the monitor ends */
};

/* Written whole with one pwrite: on each megabyte of log, and at the end. */
struct monitor_record {
	uint32_t magic;
	uint32_t exited; /* 0 or 1 */
	uint32_t status; /* exit code, or 128+n */
	uint32_t pad;
	uint64_t logged; /* bytes */
	uint64_t dropped;
};
#define MONITOR_MAGIC 0x4d4f4e31U

/* Reads a record; false when there is none yet. */
bool monitor_read_record(int fd, struct monitor_record *r);

struct monitor {
	int fds[MONITOR_NFDS];
	pid_t init;
	uint64_t log_budget; /* bytes */
	int channel;	     /* to the spawner that started us */
	int host_mnt;	     /* mount namespace to leave ours for: ours would pin every volume that is mounted in it */
};
/* Never returns. To be called in a fresh fork; all descriptors but those in `m` are closed. */
_Noreturn void monitor_main(struct monitor *m);

#endif
