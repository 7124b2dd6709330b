/* What is to be run, and inside which walls: the one description that the launcher, the spawner and the `sandbox`
 * program share. Plain data; says nothing about how. */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/frame.h"

#define SANDBOX_NAME_MAX 80 /* bytes, [a-z0-9][a-z0-9-]* */
#define SANDBOX_IDS 2048    /* width of a uid range: ids 0..2046 inside, and 65534 (nobody) as the last */
#define SANDBOX_MAX_LAYERS 8
#define SANDBOX_MAX_BINDS 16
#define SANDBOX_MEMORY_MIN (1U << 20) /* of limits.memory: the walls themselves take a third of it */
#define SANDBOX_PIDS_MIN 2U	      /* of limits.pids: one is the sandbox's own pid 1 */
#define SANDBOX_IO_MIN 65536U	      /* of limits.io_bytes: one large read must not take minutes */

enum sandbox_profile {
	SANDBOX_APP,	    /* uid 1000, no capabilities, tight seccomp list */
	SANDBOX_BUILD,	    /* the same walls; for pip, npm, tar */
	SANDBOX_BUILD_ROOT, /* uid 0 *inside* with CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETUID, SETGID, SETFCAP over its own
			       uid range only: apt and dpkg. /usr is writable into the top volume. */
};

enum sandbox_egress {
	EGRESS_NONE,	 /* loopback only */
	EGRESS_INTERNET, /* no private, link-local, multicast, CGNAT or metadata range; DNS through the host's resolvers */
	EGRESS_LIST,	 /* what `egress_list` names, and of that nothing in the ranges above */
};

struct sandbox_bind {
	char *volume; /* a volume's name ... */
	char *source; /* ... or an absolute host path (the `sandbox` program only; the spawner refuses it) */
	char *target; /* absolute, inside; made when missing */
	bool write;
};

struct sandbox_limits {	    /* 0 everywhere: unlimited */
	uint64_t memory;    /* bytes, RAM and swap together */
	uint32_t cpu_milli; /* thousandths of one CPU */
	uint32_t pids;	    /* processes and threads */
	uint32_t nofile;    /* descriptors per process; 0: 16384 */
	uint32_t timeout_s; /* wall clock; then SIGTERM, 5 s, SIGKILL, and reason "timeout" */
	uint64_t log_bytes; /* stdout+stderr budget: what goes beyond is dropped and counted in the log; 0: 64 MiB */
	uint64_t
	    io_bytes; /* bytes per second that it reads, and that it writes, from and to block devices (io_limit.h) */
	uint64_t bandwidth; /* bytes per second to the Internet, and from it */
};

struct sandbox_spec {
	char name[SANDBOX_NAME_MAX + 1];
	enum sandbox_profile profile;
	uint32_t id_base; /* first host uid and gid of the range; 0 (rootless): map to the caller */
	uid_t uid;	  /* inside */
	gid_t gid;
	char *base; /* NULL or "host": the host's /usr; else a base image's id (base.h) */
	char
	    *layers[SANDBOX_MAX_LAYERS]; /* volumes, topmost first, read-only. Each may hold `root/` and `usr/` trees */
	size_t nlayers;
	char *top;	    /* volume for the writable layer, or NULL: a tmpfs of `top_bytes` */
	uint64_t top_bytes; /* 0: 256 MiB */
	struct sandbox_bind binds[SANDBOX_MAX_BINDS];
	size_t nbinds;
	char **argv;	/* NULL-ended; argv[0] is looked up in PATH of `env` inside */
	char **env;	/* NULL-ended, complete: nothing is inherited */
	char *cwd;	/* absolute inside; NULL: "/" */
	char *hostname; /* NULL: the name */
	enum sandbox_egress egress;
	char **egress_list; /* NULL-ended, EGRESS_LIST only; what an entry may say: egress_list.h */
	struct sandbox_limits limits;
};

/* Overwrites the environment: an app's secrets, for a process that has no more use for them. */
void sandbox_spec_wipe(const struct sandbox_spec *s);
/* Frees what the spec owns, after wiping it, and zeroes it. */
void sandbox_spec_release(struct sandbox_spec *s);
/* Checks what can be checked without looking at the system: names, absolute paths without "..", counts, ranges. */
int sandbox_spec_check(const struct sandbox_spec *s, struct err *err);
bool sandbox_name_ok(const char *name);
/* Wire form, for the spawner protocol. decode: 0 or -1 with err; the result is checked. */
void sandbox_spec_encode(const struct sandbox_spec *s, struct buf *b);
int sandbox_spec_decode(struct reader *r, struct sandbox_spec *s, struct err *err);

/* How a sandbox ended. */
struct sandbox_exit {
	int status; /* exit code, or 128+n for signal n */
	bool oom;   /* the memory limit was the cause */
	bool timeout;
	bool stopped;	      /* because we were asked to */
	uint64_t log_dropped; /* bytes over the log budget */
	uint64_t received;    /* bytes from the Internet, and to it, as its link counted them; 0 when it had none */
	uint64_t sent;
	char reason[160]; /* one sentence: "exit code 1", "killed: used 512 MiB of 512 MiB" */
};
void sandbox_exit_encode(const struct sandbox_exit *e, struct buf *b);
bool sandbox_exit_decode(struct reader *r, struct sandbox_exit *e);

#endif
