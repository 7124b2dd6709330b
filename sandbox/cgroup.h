/* Resource control behind one table: cgroup v2, v1, hybrid (v1 controllers with a v2 tree for freeze and kill), none.
 * SPACED_FORCE=cgroup_v1|cgroup_v2|cgroup_none in the environment forces one, so that tests run each. */
#ifndef SANDBOX_CGROUP_H
#define SANDBOX_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/spec.h"

enum cgroup_kind { CGROUP_NONE, CGROUP_V1, CGROUP_HYBRID, CGROUP_V2 };

/* One sandbox's group; its directories are named after the sandbox, so a restarted spawner finds them again. */
struct cgroup {
	char name[SANDBOX_NAME_MAX + 1]; /* "" when there is none */
	int v2_dir;			 /* O_PATH/O_RDONLY of the v2 directory (for CLONE_INTO_CGROUP), or -1 */
};

#define CGROUP_DOORS 8

#define CGROUP_EVENTS 2

/* What the kernel counts, and the limits as they are set (0: none). */
struct cgroup_stats {
	uint64_t memory; /* bytes */
	uint64_t cpu_usec;
	uint32_t pids;
	uint64_t oom_kills; /* processes */
	uint64_t throttled_usec;
	uint64_t memory_peak; /* RAM and swap where they are counted together; 0: the kernel does not say */
	uint64_t memory_limit;
	uint64_t held_back; /* CPU periods of CGROUP_PERIOD_USEC in which the quota was used up */
	uint32_t cpu_milli;
	uint64_t refused; /* forks, by the limit on processes */
	uint32_t pids_limit;
};
#define CGROUP_PERIOD_USEC 100000U

struct cgroup_ops {
	enum cgroup_kind kind;
	const char *label;
	/* Makes the group (or adopts it, when it exists) in every hierarchy that `limits` need. */
	int (*create)(const char *name, const struct sandbox_limits *limits, struct cgroup *out, struct err *err);
	/* Sets the limits, and verifies them by reading back. Also later, with tasks in it. */
	int (*limit)(const struct cgroup *cg, const struct sandbox_limits *limits, struct err *err);
	int (*open)(const char *name, struct cgroup *out, struct err *err);
	int (*attach)(const struct cgroup *cg, pid_t pid, struct err *err); /* no-op when cloned into it */
	/* Opens the files to which a process writes "0" to enter by itself; their number, at most CGROUP_DOORS. Much
	 * quicker on v1 than attach, which waits for a grace period of the whole machine. */
	int (*doors)(const struct cgroup *cg, int out[], struct err *err);
	/* Bytes per second read from and written to a whole disk or loop device. ENOTSUP: no controller for it. */
	int (*io)(const struct cgroup *cg, dev_t disk, uint64_t read, uint64_t write, struct err *err);
	/* Takes all of these away, as far as they can be: a task does not die before its last block is read or written, so
	 * what is to die may go on at full speed. Part of kill(); for who kills by a signal. */
	void (*lift_io)(const struct cgroup *cg);
	/* Freezes until all tasks are frozen or `timeout_ms` is over; then rolls back and fails. */
	int (*freeze)(const struct cgroup *cg, int timeout_ms, struct err *err);
	/* The same for a loop that must not wait. Begin asks for it; *events gets a descriptor (the caller's) that raises
	 * POLLPRI when there is news, or -1: look again every millisecond. frozen() counts looks in `tries`, from 0.
	 * thaw() takes it back at any time. */
	int (*freeze_begin)(const struct cgroup *cg, int *events, struct err *err);
	bool (*frozen)(const struct cgroup *cg, int events, unsigned tries);
	int (*thaw)(const struct cgroup *cg, struct err *err);
	/* Writes the memory of a frozen group out to swap, until no more can be had or it is thawed. Takes as long as the
	 * disk: call it in a child. ENOTSUP: no memory.reclaim (cgroup v2, kernel 5.19); ENOSPC: swap has no room. */
	int (*page_out)(const struct cgroup *cg, struct err *err);
	/* SIGKILL to every task, frozen ones too, until the group is empty. */
	int (*kill)(const struct cgroup *cg, int timeout_ms, struct err *err);
	int (*stats)(const struct cgroup *cg, struct cgroup_stats *out, struct err *err);
	/* Descriptors that raise POLLPRI when oom_kills or refused may have grown; their number, at most CGROUP_EVENTS.
	 * What the kernel does not tell has to be looked for. */
	int (*events)(const struct cgroup *cg, int out[]);
	int (*remove)(struct cgroup *cg, struct err *err); /* the group must be empty */
};

/* Whether we are in the group, in every hierarchy that limits us. To be asked before a cgroup namespace hides it. */
int cgroup_verify(const struct cgroup *cg, struct err *err);
/* Where the group of that name, in which the process is, lies below the root of its hierarchy, as ps(1) and systemd-cgls(1) have it;
 * on v1, of one that limits it. malloc'd; "" when there is none, or the process has ended. */
char *cgroup_path(const char *name, pid_t pid);
/* The table for this host, found once. Never NULL (CGROUP_NONE has do-nothing entries). */
const struct cgroup_ops *cgroup_host(void);
/* Whether ops->io works here. */
bool cgroup_has_io(void);
/* Whether groups have the controller here, "memory", "cpu" or "pids": a delegated tree may lack it. */
bool cgroup_limits(const char *controller);
/* The folder that holds the groups of one daemon, "spaced" unless set: two daemons with two state folders on one
 * machine must not meet. Call it before the first create or open; same rule as a sandbox name. */
void cgroup_set_tree(const char *name);

#endif
