/* What the walls share: each file gives one or two steps, contain.c gives their order. All of it runs in pid 1 of the
 * new namespaces, except the functions that say "parent". Internal to the launcher. */
#ifndef SANDBOX_CONTAIN_H
#define SANDBOX_CONTAIN_H

#include <linux/filter.h>

#include "sandbox/exec.h"
#include "sandbox/plan.h"

struct contain {
	const struct sandbox_spec *spec; /* NULL in a shell, until it has been told; the same for ... */
	const struct plan *plan;
	int stdio[3]; /* ... of which these are -1 until then */
	int sock;     /* to the parent: descriptors come in, an error goes out; closed by exec: all went well */
	int status;   /* write end of sandbox.status_pipe */
	int exec;     /* other end of sandbox.exec */
	int mounts[PLAN_MAX_MOUNTS]; /* detached, from the parent; rootless: the caller's, until they are copied here */
	int root;		     /* the new root, while it is being built */
	bool usr;		     /* only a shell: the first of them comes with the ids, the base's /usr */
	int masks[2];		     /* of a file and of a folder, once there is one: those to come are copies */
	uint32_t id_base;	     /* as of sandbox_spec, the same for ... */
	enum sandbox_profile profile;
	bool rootless;
	bool outlives;	/* as of sandbox_sources */
	bool own_netns; /* made by clone, so its loopback is ours to switch on */
	bool cgroups;	/* they limit the number of processes, so that no rlimit has to */
	const struct cgroup *group;
	int doors[CGROUP_DOORS]; /* of our cgroups, opened by the parent */
	int ndoors;
	char *title; /* the arguments and environment of the caller, still in our memory */
	size_t title_len;
};

/* The order of containment, then pid 1's life. Never returns. */
_Noreturn void contain(struct contain *c);

/* contain.c's steps. 0, or -1 with err. */
int cgroup_enter(struct contain *c, struct err *err);
int descriptors_keep(struct contain *c, struct err *err);
int sync_wait_ids(struct contain *c, struct err *err);	/* until they are mapped */
int sync_wait_plan(struct contain *c, struct err *err); /* until it is known what to build, and mounts are here */
int sync_let_go(struct contain *c, struct err *err);	/* until limits and network are there */
int user_enter(struct contain *c, struct err *err);
int user_drop(struct contain *c, struct err *err);
int namespaces_finish(struct contain *c, struct err *err);
int hostname_set(struct contain *c, struct err *err);
int mnt_ahead(struct contain *c, struct err *err);
int mnt_build(struct contain *c, struct err *err);
int mnt_enter(struct contain *c, struct err *err);
int keyring_fresh(struct contain *c, struct err *err);
int rlimit_apply(struct contain *c, struct err *err);
int session_own(struct contain *c, struct err *err);
int caps_bound(struct contain *c, struct err *err);
int caps_drop(struct contain *c, struct err *err);
int no_new_privs(struct contain *c, struct err *err);
int landlock_apply(struct contain *c, struct err *err);
int seccomp_apply(struct contain *c, struct err *err);
/* The main process is exec'd in a child; this process reaps until it ends. */
_Noreturn void init_run(struct contain *c);

/* Pid 1's children, before they are the app's programs: working folder (inside), descriptors, signals. Whether there is
 * a session of its own is the caller's. */
int program_prepare(const char *folder, const int stdio[3], struct err *err);
int program_exec(char **argv, char **env); /* returns with an errno */

/* The commands beside the main process that pid 1 has forked; exec.h. */
struct exec_table {
	struct {
		uint32_t id;
		pid_t pid;  /* 0: it does not run */
		bool ended; /* and the asker has to be told; the place is free afterwards */
		uint32_t status;
	} run[EXEC_MAX];
};
bool exec_serve(const struct contain *c, struct exec_table *t, int sock); /* one request; false: the asker is gone */
void exec_reaped(struct exec_table *t, int sock, pid_t pid, int status);
bool exec_report(struct exec_table *t, int sock); /* true: not all could be said, to be called again soon */

/* Frames from the parent to the child, each in its turn: the child takes nothing else. */
enum sync_frame {
	SYNC_IDS = 1, /* they are mapped; with contain.usr: that */
	SYNC_SPEC,    /* only to a shell: {spec} */
	SYNC_FACTS,   /* the same: what else the parent's memory would hold, and stdio */
	SYNC_MOUNTS,  /* id: how many there are in all; at most FRAME_MAX_FDS in each */
	SYNC_GO,
};
int sync_receive(int sock, enum sync_frame type, struct frame *f, struct err *err);
/* shell.c: the parent says what a shell is for, and the child hears it. */
int shell_tell(int sock, const struct sandbox_spec *spec, const struct plan_facts *facts, const int stdio[3],
	       bool outlives, struct err *err);
int shell_hear(struct contain *c, struct err *err);

/* Parent's halves. */
/* `spec` is looked at only where `id_base` is 0. */
int user_write_maps(pid_t pid, uint32_t id_base, const struct sandbox_spec *spec, struct err *err);
int user_write_oom(pid_t pid, struct err *err);
/* Where the caller may have no cores at all (a limit of 0), what rlimit_apply() sets takes CAP_SYS_RESOURCE of the host; without,
 * protection.c tells. */
int rlimit_lend_core(pid_t pid, struct err *err);
int mnt_clone_for(const struct plan_mount *m, int source, int userns, struct err *err); /* a detached mount */
int mnt_prepare_top(int top, bool build_root, uint32_t owner, struct err *err);		/* owner 0: the caller */
/* Another mount namespace for a moment. mntns_home() ends the process when there is no way back. */
struct mntns_way {
	int home, folder;
};
int mntns_out(struct mntns_way *way, struct err *err); /* into a copy of ours */
void mntns_home(struct mntns_way *way);
bool mntns_has_birthplace(void); /* sandbox_birthplace() */
int mntns_enter_birthplace(struct mntns_way *way, struct err *err);
/* Without detached mounts (mnt_ops.h), root's child is born in a mount namespace in which the sources lie ready: the
 * caller is in it between the two calls. */
int mnt_shelf_open(const int sources[], const unsigned attr[], size_t n, struct mntns_way *way, struct err *err);
void mnt_shelf_leave(struct mntns_way *way);
int mnt_from_shelf(size_t i, unsigned attr, struct err *err); /* child */
const struct sock_fprog *seccomp_filter(void);
int landlock_abi(void);

/* The working folder, which has to be the root of a mount, becomes the root; what was the root is gone, with all in it. */
int mnt_make_root(struct err *err);

/* What comes through `sock` from a sandbox that does not come up. */
struct contain_failure {
	struct err err;
	bool program; /* all walls stand: it is the program that cannot be exec'd, and err.code says why */
};
/* Sends an error through `sock` and ends. */
_Noreturn void contain_fail(int sock, const struct err *err);
/* Opens a folder (made when missing, mode 0755) or, for a file, an empty file inside `root`, never outside it. */
int mnt_target(int root, const char *path, bool folder, struct err *err);
int dev_bind(int root, const struct plan_step *s, struct err *err);
int dev_pts(int root, const struct plan_step *s, struct err *err);
int proc_mount(int root, const struct plan_step *s, struct err *err);
int proc_mask(struct contain *c, const struct plan_step *s, struct err *err);
int proc_freeze(int root, const struct plan_step *s, struct err *err);
/* Mounts, by mnt_host() of mnt_ops.h: MOUNT_ATTR_* for `m`; a copy of what `source` stands for in our own namespace. */
unsigned mnt_attr(const struct plan_mount *m);
int mnt_copy_by_path(int source, unsigned attr, bool submounts, struct err *err);
int mnt_tmpfs(uint64_t size, mode_t mode, struct err *err);

#endif
