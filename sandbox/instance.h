/* Inside the spawner: its state, and the life of one sandbox as the spawner sees it (starting, adopting, freezing, ending).
 * Shared by spawner.c (loop), link.c and verbs.c, upkeep.c, instance*.c and adopt.c; of no interest to others. */
#ifndef SANDBOX_INSTANCE_H
#define SANDBOX_INSTANCE_H

#include <uthash.h>

#include "base/frame.h"
#include "sandbox/egress.h"
#include "sandbox/limits.h"
#include "sandbox/monitor.h"
#include "sandbox/netns.h"
#include "sandbox/skeleton.h"
#include "sandbox/spawner.h"
#include "sandbox/volume.h"
#include "sandbox/worker.h"

#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define NO_EGRESS UINT32_MAX
#define NO_SHELL UINT32_MAX
#define SHELLS 2
#define MAX_USES (SANDBOX_MAX_LAYERS + SANDBOX_MAX_BINDS + 2)

/* Something the loop waits for. */
struct source {
	int fd; /* -1: not watched */
	void (*ready)(struct source *src, uint32_t events);
};

struct spawn;
/* Work in a child process (worker.h). `err` is NULL on success. */
typedef void (*job_done)(struct spawn *s, void *ctx, struct buf *result, const struct err *err);
struct job {
	struct source src;
	struct spawn *s;
	struct job *next;
	struct buf raw;
	job_done done;
	void *ctx;
	const char *volumes[2]; /* names under work; live as long as `ctx` */
	bool upkeep;		/* and nobody has asked for it */
};

/* What STATE/sandboxes/NAME/info says: all that a later spawner must know. No environment: it holds secrets. */
struct instance_info {
	char name[SANDBOX_NAME_MAX + 1];
	bool build;
	uint64_t started_wall, started; /* ms; the latter CLOCK_MONOTONIC */
	uint64_t memory;
	uint32_t timeout_s;
	uint64_t log_budget;
	uint32_t egress; /* number of its link, or NO_EGRESS */
	uint32_t shell;	 /* the one that it was made of, or NO_SHELL: shells.h */
	struct {
		char name[SANDBOX_NAME_MAX + 1];
		bool write;
	} uses[MAX_USES];
	uint32_t nuses;
};

enum instance_state { STARTING, RUNNING, ENDING, EXITED };

struct instance {
	UT_hash_handle hh;
	struct spawn *s;
	struct instance_info info;
	enum instance_state state;
	int fds[MONITOR_NFDS];
	int dir; /* STATE/sandboxes/NAME */
	pid_t init;
	struct source monitor;
	unsigned respawns;
	uint32_t start_id; /* request that waits for the start, or 0 */
	struct err start_error;
	uint32_t *stops; /* requests that wait for the end */
	size_t nstops;
	uint64_t kill_at, timeout_at; /* CLOCK_MONOTONIC ms; 0: never */
	uint64_t clean_at;	      /* the same: the clean-up could not be started */
	bool stopped, timed_out, lost;
	bool stop_early; /* asked to stop while starting */
	uint32_t stop_grace;
	struct source exec; /* socket to init, of fds[MONITOR_EXEC] */
	struct command *commands;
	struct cgroup group; /* instance_group() opens it */
	bool has_group;
	struct {
		struct source events; /* of the group, while it is being frozen */
		uint32_t id;	      /* request that waits for it, or 0: none is under way */
		uint64_t until, look; /* CLOCK_MONOTONIC ms; look 0: the kernel tells */
		unsigned tries;
	} freezing;
	struct {
		struct source events[CGROUP_EVENTS];
		int n;
		uint64_t look_at; /* 0: nothing was heard */
		bool fresh;	  /* started by us: its counters began at 0 */
		struct limit_watch watch;
	} limits;
	struct sandbox_exit exit;
};

/* A command inside; exec.h. */
struct command {
	struct command *next;
	uint32_t id;
	uint32_t request; /* that waits for its start, or 0 */
	bool tty;
	uint64_t start_by, kill_at; /* CLOCK_MONOTONIC ms; 0: never */
};

/* A sandbox made ahead; shells.h. */
struct shell {
	struct source src; /* channel to the process that waits with it; -1: there is none */
	struct spawn *s;
	uint32_t number;
	enum { SHELL_MAKING, SHELL_READY, SHELL_TAKEN, SHELL_ENDING } state;
};

/* A request put aside until its time comes. */
struct waiting {
	struct waiting *next;
	struct frame frame;
};
void waiting_add(struct waiting **list, struct frame *f); /* takes the frame over */

struct spawn {
	char *state;
	uint32_t id_base; /* of spawner_config */
	int epfd;
	struct link *links; /* all channels */
	struct link *control;
	bool done;
	struct volumes volumes;
	int sandboxes; /* STATE/sandboxes */
	int host_mnt;
	struct egress egress;
	char *egress_lock;
	struct netns_pool pool;
	struct source pool_src;
	struct shell shells[SHELLS];
	int shell_maker;    /* -1: there are none here */
	bool shells_worked; /* one was made */
	bool shells_lost;   /* and nobody makes them any more: time for another spawner, once this one is idle */
	struct instance *instances;
	struct job *jobs;
	char skeleton[SKELETON_NAME]; /* "" while there is none */
	bool skeleton_job;
	uint64_t skeleton_checked;
	struct waiting *starts;	       /* wait for the skeleton */
	struct waiting *behind_upkeep; /* wait for a volume: spawn_volume_upkept() */
	struct {
		char name[SANDBOX_NAME_MAX + 1];
		uint64_t idle_since; /* 0: in use */
	} * mounted;
	size_t nmounted;
	uint64_t tick; /* next housekeeping */
	uint32_t next_exec;
};

/* spawner.c */
int spawn_watch(struct spawn *s, struct source *src, uint32_t events);
void spawn_unwatch(struct spawn *s, struct source *src);
int spawn_job(struct spawn *s, worker_fn fn, void *arg, job_done done, void *ctx, struct job **out, struct err *err);

/* link.c */
#define REPLY_ROOM (FRAME_MAX_PAYLOAD - 1024)
void spawn_ok(struct spawn *s, uint32_t id, const struct buf *payload); /* payload may be NULL */
void spawn_ok_fds(struct spawn *s, uint32_t id, const struct buf *payload, int *fds, int nfds); /* takes them over */
void spawn_error(struct spawn *s, uint32_t id, const struct err *err);
void spawn_event(struct spawn *s, uint32_t type, const struct buf *payload);

/* verbs.c */
void spawn_again(struct spawn *s, struct waiting **list); /* handles them now */

/* upkeep.c */
void spawn_pool(struct spawn *s);
/* True while any sandbox that is not gone uses the volume (for writing). */
bool spawn_volume_used(struct spawn *s, const char *name, bool write);
bool spawn_volume_under_work(struct spawn *s, const char *name);
/* The same, by nobody's wish but our own: a request for it is no mistake, and waits in behind_upkeep for the moment that it takes. */
bool spawn_volume_upkept(struct spawn *s, const char *name);
void spawn_note_mounted(struct spawn *s, const char *name);
/* A verb on volumes: from request to worker to answer. */
struct volume_call {
	struct spawn *s;
	uint32_t id; /* 0: nobody waits */
	uint32_t verb;
	char name[SANDBOX_NAME_MAX + 1];
	char to[SANDBOX_NAME_MAX + 1];
	uint64_t bytes;
	bool used; /* by a sandbox */
};
int upkeep_volume(struct spawn *s, const struct volume_call *call, job_done done, struct err *err);
void upkeep_volume_done(struct spawn *s, void *ctx, struct buf *result, const struct err *err);
void upkeep_volume_listed(struct spawn *s, void *ctx, struct buf *result, const struct err *err);
bool upkeep_reserved(const char *volume); /* ours: skeletons, base images */
void upkeep_skeleton(struct spawn *s);	  /* looks whether there is a newer one to make */
void upkeep_tick(struct spawn *s, uint64_t now);

/* instance.c */
struct instance *instance_find(struct spawn *s, const char *name);
/* Takes over `spec` and the stdin/stdout descriptors (-1: none) and the log; answers request `id` later. */
int instance_start(struct spawn *s, struct sandbox_spec *spec, uint32_t id, int log, const int stdio[2],
		   struct err *err);
/* Whether a start has to wait for one of its volumes: spawn_volume_upkept(). */
bool instance_start_waits(struct spawn *s, const struct sandbox_spec *spec);
void instance_stop(struct instance *i, uint32_t grace_ms);
/* Its group's name, and the group, open; NULL with err. */
void instance_group_name(const struct instance_info *info, char out[SANDBOX_NAME_MAX + 1]);
const struct cgroup *instance_group(struct instance *i, struct err *err);
char *instance_group_path(const struct instance *i); /* cgroup_path() */
/* Deals with what is due; returns the time of what is due next, 0: nothing. */
uint64_t instance_timers(struct instance *i, uint64_t now);
void instance_remove(struct instance *i); /* from memory and disk */
void instance_free(struct instance *i);	  /* from memory: the sandbox goes on */

/* instance_end.c */
/* It runs no more, or must not: killed, cleaned up in a worker, and told. */
void instance_end(struct instance *i);
void instance_clean(struct instance *i); /* the last of it, also when no worker was to be had before: i->clean_at */

/* instance_exec.c: commands inside */
#define EXEC_APP_ENDED "the app has ended"
int instance_exec(struct instance *i, uint32_t request, const struct exec_request *q, struct err *err);
int instance_exec_signal(struct instance *i, uint32_t exec, uint32_t signo, struct err *err);
/* The socket to init has come from the monitor. `adopted`: commands of an earlier spawner are killed. */
void instance_exec_attach(struct instance *i, bool adopted);
void instance_exec_detach(struct instance *i);			 /* before the socket is closed */
void instance_exec_end(struct instance *i, const char *why);	 /* all of them have ended with the sandbox */
uint64_t instance_exec_timers(struct instance *i, uint64_t now); /* as instance_timers */
/* freeze.c */
/* Answers `id` when it is frozen, could not be (and is thawed again), or somebody has thawed it meanwhile (ECANCELED). */
int instance_freeze(struct instance *i, uint32_t id, struct err *err);
/* At once, also in the middle of a freeze. */
int instance_thaw(struct instance *i, struct err *err);
/* What is frozen, in a child; answers request `id` when done. */
int instance_page_out(struct instance *i, uint32_t id, struct err *err);
/* Of an earlier spawner, which may have died in the middle of a freeze: not left half frozen (battery I2). */
void instance_settle(struct instance *i);
uint64_t instance_freeze_due(struct instance *i, uint64_t now); /* looks; the time of the next look, 0: none */
void instance_freeze_end(struct instance *i,
			 const struct err *err); /* NULL: it is frozen; no-op when none is under way */

/* limit_watch.c: SPAWN_LIMIT */
void instance_limits_watch(struct instance *i, bool fresh);
void instance_limits_unwatch(struct instance *i);
void instance_limits_look(struct instance *i, uint64_t now);
/* At its end: what was not heard of yet, but for memory, which is in the reason of the end. */
void instance_limits_last(struct instance *i, const struct cgroup_stats *stats);
uint64_t instance_limits_due(struct instance *i, uint64_t now); /* the same for what was heard; as instance_timers */

/* adopt.c: what is on disk */
struct instance *instance_new(struct spawn *s, const struct instance_info *info);
int info_write(int dir, const struct instance_info *info, struct err *err);
void ended_write(struct instance *i);
void instance_adopt_all(struct spawn *s);
/* Follows the monitor at the other end of `channel`. */
void instance_follow(struct instance *i, int channel);
int instance_listen(struct instance *i, struct err *err);
/* One that an earlier spawner has started is gone: its end is reported, as far as it is known. */
void instance_missed(struct instance *i);

#endif
