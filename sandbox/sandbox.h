/* Starting one sandbox: the launcher behind the spawner and behind the `sandbox` program. Needs root, or user
 * namespaces (rootless). Blocking, single-threaded, a few milliseconds.
 *
 * Order of containment: contain.c. What each wall is for: the README of this folder. */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include "sandbox/cgroup.h"
#include "sandbox/ids.h"
#include "sandbox/spec.h"

/* What the host gives; found once by sandbox_probe(), put into words by protection.h. */
struct sandbox_host {
	bool root;	   /* of the host: ids_host_root() */
	enum ids_kind ids; /* what the daemon has, or would have if this user started it */
	bool user_namespaces;
	bool idmapped_mounts; /* needed for packages.txt */
	bool overlay_in_userns;
	bool loop_devices; /* else volumes are plain folders without a hard size limit */
	int landlock_abi;  /* 0: none */
	enum cgroup_kind cgroup;
	bool no_memory_limit, no_cpu_limit, no_pids_limit; /* controllers that the groups do not have */
	bool io;					   /* bytes per second of disks can be limited */
	bool egress;	       /* veth and nftables work (root), or slirp4netns is there (rootless) */
	const char *mount_api; /* "new", or "legacy": mount(2), and then nothing of the host's can be written */
	bool openat2;
	bool bandwidth;	      /* sch_tbf is there; without it a limit on bandwidth is refused */
	bool no_core_handler; /* of the host's is run for an app that crashes */
	char kernel[64];
};
void sandbox_probe(struct sandbox_host *host);
/* Whether there are idmapped mounts at all. */
bool sandbox_has_idmaps(void);
/* Whether what is below this folder's descriptor can be shown with other ids. Tried, which takes a fork. */
bool sandbox_can_idmap(int source);

/* A sandbox as far as it can be made without knowing what for: its pid 1 waits in its namespaces and its cgroup, ids are
 * mapped, /usr, /dev, /proc, /tmp and /run are built, the rest of the order of containment is to come. sandbox_start() is then a third
 * shorter. Belongs to the process that has made it, and dies with it. */
struct sandbox_shell;

/* Where things come from; the spawner resolves volumes into mounts, the `sandbox` program uses host paths. */
struct sandbox_sources {
	int base_usr; /* O_PATH of the base's usr/; var/lib/dpkg/ beside it is what apt knows (SANDBOX_BUILD_ROOT) */
	int skeleton; /* O_PATH of the tree under the root overlay: /etc, /bin links, /app, /home/user ... */
	int layers[SANDBOX_MAX_LAYERS]; /* O_PATH of each layer's mount */
	int top;			/* O_PATH of the top volume's mount, -1: tmpfs */
	int binds[SANDBOX_MAX_BINDS];
	int netns;		     /* prepared network namespace with lo up; -1: make one */
	struct sandbox_shell *shell; /* taken over, whatever comes of it; NULL: nothing was made ahead */
	bool idmap;		     /* layers, top and binds are to be idmapped onto the range */
	bool outlives; /* goes on when the caller dies (spawner: a monitor is replaced); else dies with it */
	/* Called with pid 1 before it may go on, for one that outlives its caller: it must be found by others. NULL: it is found
	 * by its cgroup. */
	int (*born)(void *ctx, pid_t init, struct err *err);
	void *born_ctx;
	/* Called once its namespaces are there and before anything runs in them, with pid 1's pidfd; descriptors stay
	 * the launcher's. NULL: nothing to connect. */
	int (*network)(void *ctx, int netns, int init, struct err *err);
	void *network_ctx;
};

/* A running sandbox. Descriptors owned; closed by sandbox_release(). */
struct sandbox {
	pid_t init; /* host pid of pid 1 inside */
	int pidfd;
	int netns;
	int status_pipe; /* init writes one int when the main process ends: wait status */
	int exec;	 /* to init: asks for commands beside the main process; exec.h */
	struct cgroup cgroup;
};

#define SANDBOX_NO_PROGRAM (-2)

/* Starts it: returns 0 after the main process has been exec'd, or -1 with an error that names the step that failed;
 * SANDBOX_NO_PROGRAM when that is the exec itself, with the errno of execve(2). `stdio` = stdin, stdout, stderr of the main
 * process; stay the caller's. Nothing is left behind on failure. */
int sandbox_start(const struct sandbox_spec *spec, const struct sandbox_sources *src, const int stdio[3],
		  struct sandbox *out, struct err *err);
void sandbox_release(struct sandbox *s);
/* Signals sent to pid 1 go on to the main process; one that is queued with this value, to its process group. */
#define SANDBOX_TO_GROUP 1
/* `group` is the name of its cgroup, `profile` and `id_base` are those of the spec to come. Of `src` it takes `netns`, which stays
 * the caller's, and, with `idmap`, the `base_usr` that most specs will have (-1: unknown). NULL with err; ENOTSUP: only root has
 * these, where mounts can be made in one mount namespace for another. */
struct sandbox_shell *sandbox_shell_make(const char *group, enum sandbox_profile profile, uint32_t id_base,
					 const struct sandbox_sources *src, struct err *err);
int sandbox_shell_pidfd(const struct sandbox_shell *shell); /* of its pid 1; stays the shell's */
void sandbox_shell_free(struct sandbox_shell *shell);	    /* ends it: nothing is left. NULL: nothing to do */
/* For root that starts many: from now on the sandboxes of this process, and of its forks, are born in a mount namespace
 * with nothing in it but /proc and devices. A start then costs the same however many mounts the caller has, and sees none
 * of them. Nothing is done where mounts cannot be handed over from one namespace to another. */
int sandbox_birthplace(struct err *err);

#endif
